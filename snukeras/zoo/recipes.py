"""Recipes: what a model is and how it is trained, as JSON data.

`read` checks a recipe; `network`, `optimizer` and `noise` make the Keras objects that it describes.
zoo/README.md explains every key.
"""

import inspect
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from snukeras.zoo import _files, presets

if TYPE_CHECKING:
    import keras

    from snukeras.callbacks import PCMNoise

FORMAT = 1

_REQUIRED = (
    "format",
    "name",
    "title",
    "description",
    "licence",
    "task",
    "network",
    "optimizer",
    "epochs",
    "batch_size",
    "seeds",
)
_DEFAULTS: dict[str, Any] = {
    "published": None,
    "data": {},
    "loss": {},
    "start": None,
    "teacher": None,
    "schedule": None,
    "averaging": None,
    "constraint": None,
    "noise": None,
    "devices": None,
    "padding": None,
    "patience": None,
    "jit_compile": False,
    "half_precision": False,
    "notes": None,
}
_SCHEDULE = {"class": "cosine", "warmup_epochs": 0, "final": 0.0}
# What weights on crossbars are constrained by, in the layers of Keras and of this package.
_CONSTRAINTS = tuple(f"{kernel}_constraint" for kernel in ("kernel", "recurrent", "depthwise"))


def read(name: str, content: Path | str | None = None) -> dict[str, Any]:
    """Read and check the recipe of a model.

    Args:
        name: A model with a recipe in the content folder.
        content: Folder of recipes. Default: the one that ships with the package.

    Raises:
        ValueError: No such recipe, or one with an unknown, missing or impossible entry.
    """
    folder = presets.content_folder(content)
    known = presets.recipes(folder)
    if name not in known:
        raise presets.unknown(name, known, "recipe")
    path = folder / name / presets.RECIPE
    recipe = check(_files.read_json(path), str(path))
    if recipe["name"] != name:
        raise ValueError(f"{path}: `name` has to be {name!r}. Received: {recipe['name']!r}")
    return recipe


def check(recipe: dict[str, Any], where: str = "The recipe") -> dict[str, Any]:
    """Return the recipe with all defaults filled in.

    Raises:
        ValueError: An entry is missing, unknown or impossible; the message names it.
    """
    missing = [key for key in _REQUIRED if key not in recipe]
    odd = [key for key in recipe if key not in (*_REQUIRED, *_DEFAULTS)]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}.")
    if odd:
        raise ValueError(
            f"{where} has the unknown entries {', '.join(odd)}. Allowed: "
            f"{', '.join((*_REQUIRED, *_DEFAULTS))}."
        )
    if recipe["format"] != FORMAT:
        raise ValueError(
            f"{where} has format {recipe['format']!r}; this version of snukeras reads {FORMAT}."
        )
    recipe = {**_DEFAULTS, **recipe}
    for key in ("epochs", "batch_size"):
        if not isinstance(recipe[key], int) or recipe[key] < 1:
            raise ValueError(f"{where}: `{key}` has to be at least 1. Received: {recipe[key]!r}")
    seeds = recipe["seeds"]
    if not seeds or len(set(seeds)) != len(seeds) or not all(isinstance(s, int) for s in seeds):
        raise ValueError(f"{where}: `seeds` has to hold different integers. Received: {seeds}")
    if recipe["start"] is not None:
        _check_pretrained(recipe["start"], "scale", math.inf, f"{where}: `start`")
    if recipe["teacher"] is not None:
        _check_pretrained(recipe["teacher"], "weight", 1.0, f"{where}: `teacher`")
    if recipe["schedule"] is not None:
        _entries(recipe["schedule"], _SCHEDULE, f"{where}: `schedule`")
        if recipe["schedule"].get("class") != "cosine":
            raise ValueError(
                f'{where}: `schedule` has to be null or of class "cosine". '
                f"Received: {recipe['schedule']}"
            )
    averaging = recipe["averaging"]
    if averaging is not None:
        allowed = {"ema": {"class": 0, "momentum": 0}, "swa": {"class": 0, "first_epoch": 0}}
        if averaging.get("class") not in allowed:
            raise ValueError(
                f'{where}: `averaging` has to be null or of class "ema" or "swa". '
                f"Received: {averaging}"
            )
        _entries(averaging, allowed[averaging["class"]], f"{where}: `averaging`", all_of_them=True)
    if recipe["devices"] is not None and averaging is not None:
        raise ValueError(
            f"{where}: `averaging` has to be null with `devices`: no device holds an average. "
            f"Received: {averaging}"
        )
    for key in ("constraint", "noise", "devices"):
        if recipe[key] is not None and not isinstance(recipe[key], dict):
            raise ValueError(
                f"{where}: `{key}` has to be null or an object of arguments. "
                f"Received: {recipe[key]!r}"
            )
    return recipe


def _check_pretrained(given: Any, number: str, largest: float, where: str) -> None:
    """Check an entry that names a pretrained model and may have one number above 0."""
    value = given.get(number, 1.0) if isinstance(given, dict) else None
    if (
        not isinstance(given, dict)
        or not set(given) <= {"model", number}
        or not isinstance(given.get("model"), str)
        or not isinstance(value, int | float)
        or not (0 < value <= largest and math.isfinite(value))
    ):
        limit = "" if largest == math.inf else f" and at most {largest:g}"
        raise ValueError(
            f"{where} has to be null, or to name a `model` and perhaps a {number} above 0{limit}. "
            f"Received: {given!r}"
        )


def _entries(
    given: dict[str, Any], allowed: dict[str, Any], where: str, all_of_them: bool = False
) -> None:
    odd = set(given) - set(allowed)
    if odd or (all_of_them and set(given) != set(allowed)):
        raise ValueError(f"{where} has to hold {', '.join(allowed)}. Received: {given}")


def network(recipe: dict[str, Any], seed: int) -> "keras.Model":
    """Build the recipe's network with fresh weights: a Sequential model, or one with ties.

    A layer is `{"class": NAME, argument: value, ...}` with a class of `snukeras.layers` or
    `keras.layers`. `decay` and `threshold` may be drawn per unit: `{"uniform": [low, high]}` at
    random by the seed, `{"linspace": [low, high]}` evenly spaced. A `constraint` of the recipe
    serves all kernels but those of layers that name a constraint of their own.
    `{"layer": NAME, argument: value, ...}` calls an earlier layer again, with these arguments of
    its call: `{"layer": "embedding", "reverse": true}` projects onto the words of a
    `TiedEmbedding`. The network is a functional model then.

    Args:
        recipe: A checked recipe.
        seed: Seed of the drawn values, and of stochastic rounding. Seed Keras
            (`keras.utils.set_random_seed`) for the weights.

    Raises:
        ValueError: An unknown layer class or name, or arguments that it refuses.
    """
    import keras

    import snukeras.layers

    description = recipe["network"]
    random = np.random.default_rng(seed)
    names: dict[str, int] = {}
    dtype = description.get("input_dtype", "float32")
    name = description.get("input", "input")
    source = keras.Input(tuple(description["input_shape"]), dtype=dtype, name=name)
    layers: dict[str, keras.Layer] = {}
    calls: list[tuple[keras.Layer, dict[str, Any]]] = []
    for entry in description["layers"]:
        arguments = dict(entry)
        if "layer" in arguments:
            name = arguments.pop("layer")
            if name not in layers:
                raise ValueError(
                    f"The recipe {recipe['name']} calls a layer that does not come before. "
                    f"Received: {name!r}. There are: {', '.join(layers)}"
                )
            calls.append((layers[name], arguments))
            continue
        kind = arguments.pop("class")
        for home in (snukeras.layers, keras.layers):
            layer_class = getattr(home, kind, None)
            if isinstance(layer_class, type) and issubclass(layer_class, keras.Layer):
                break
        else:
            raise ValueError(
                f"The recipe {recipe['name']} names a layer class that neither snukeras.layers "
                f"nor keras.layers has. Received: {kind!r}"
            )
        # Fixed names: Keras's own count up with every layer the process has made.
        name = kind.lower()
        names[name] = names.get(name, 0) + 1
        arguments.setdefault("name", name if names[name] == 1 else f"{name}_{names[name]}")
        for key in ("decay", "threshold"):
            if isinstance(arguments.get(key), dict):
                arguments[key] = _drawn(arguments[key], arguments["units"], random)
        try:
            if recipe["constraint"] is not None:
                # The input counts as the first layer.
                number = 1 + len(layers)
                _constrain(arguments, layer_class, recipe["constraint"], [seed, number])
            layer = layer_class(**arguments)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"The recipe {recipe['name']} cannot make its layer {arguments['name']}: {error}"
            ) from error
        layers[arguments["name"]] = layer
        calls.append((layer, {}))
    if len(calls) == len(layers):
        return keras.Sequential([source, *layers.values()], name=recipe["name"])
    x = source
    for layer, arguments in calls:
        x = layer(x, **arguments)
    return keras.Model(source, x, name=recipe["name"])


def _constrain(
    arguments: dict[str, Any], layer_class: type, entry: dict[str, Any], seed: list[int]
) -> None:
    """Add a PCMConstraint of its own for each kernel that the layer can constrain."""
    from snukeras.constraints import PCMConstraint

    known = inspect.signature(layer_class).parameters
    for number, key in enumerate(key for key in _CONSTRAINTS if key in known):
        own = np.random.SeedSequence([*seed, number]).generate_state(1)[0] >> 1
        arguments.setdefault(key, PCMConstraint(**{"seed": int(own), **entry}))


def _drawn(spread: dict[str, Any], units: int, random: np.random.Generator) -> list[float]:
    if len(spread) != 1 or not set(spread) <= {"uniform", "linspace"}:
        raise ValueError(
            'A spread has to be {"uniform": [low, high]} or {"linspace": [low, high]}. '
            f"Received: {spread}"
        )
    kind, (low, high) = next(iter(spread.items()))
    if kind == "uniform":
        values = random.uniform(low, high, units)
    else:
        values = np.linspace(low, high, units)
    return [round(float(value), 6) for value in values]


def optimizer(
    recipe: dict[str, Any], steps_per_epoch: int, seed: int | None = None
) -> "keras.optimizers.Optimizer":
    """Make the recipe's optimizer, with its schedule, weight averaging and devices.

    An entry `devices` holds arguments of `snukeras.optimizers.PCMOptimizer`, which wraps the
    optimizer then.

    Args:
        recipe: A checked recipe.
        steps_per_epoch: Steps of an epoch; a recipe counts in epochs.
        seed: Seed of the devices.

    Raises:
        ValueError: An unknown class, or arguments that it refuses.
    """
    import keras

    arguments = dict(recipe["optimizer"])
    kind = arguments.pop("class")
    not_decayed = arguments.pop("exclude_from_weight_decay", [])
    optimizer_class = getattr(keras.optimizers, kind, None)
    if not isinstance(optimizer_class, type):
        raise ValueError(f"keras.optimizers has no such class. Received: {kind!r}")
    if recipe["schedule"] is not None:
        schedule = {**_SCHEDULE, **recipe["schedule"]}
        warmup = round(schedule["warmup_epochs"] * steps_per_epoch)
        peak = arguments["learning_rate"]
        arguments["learning_rate"] = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup else peak,
            decay_steps=max(1, recipe["epochs"] * steps_per_epoch - warmup),
            alpha=schedule["final"],
            warmup_target=peak if warmup else None,
            warmup_steps=warmup,
        )
    if recipe["averaging"] and recipe["averaging"]["class"] == "ema":
        arguments.update(use_ema=True, ema_momentum=recipe["averaging"]["momentum"])
    try:
        made = optimizer_class(**arguments)
        if not_decayed:
            made.exclude_from_weight_decay(var_names=not_decayed)
        if recipe["devices"] is not None:
            from snukeras.optimizers import PCMOptimizer

            made = PCMOptimizer(made, **{"seed": seed, "name": "pcm", **recipe["devices"]})
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"The recipe {recipe['name']} cannot make its optimizer: {error}"
        ) from error
    return made


def noise(recipe: dict[str, Any], seed: int) -> "PCMNoise | None":
    """Make the callback that adds the recipe's noise, None without an entry `noise`.

    The entry holds arguments of `snukeras.callbacks.PCMNoise`; its `noise` may be a device model of
    `snukeras.pcm`, `{"class": NAME, argument: value, ...}`. With `ramp_epochs` the noise grows from
    nothing, linearly over so many epochs.

    Args:
        recipe: A checked recipe.
        seed: Seed of the noise.

    Raises:
        ValueError: An unknown device model, or arguments that are refused.
    """
    if recipe["noise"] is None:
        return None
    import snukeras.pcm
    from snukeras.callbacks import PCMNoise

    arguments = dict(recipe["noise"])
    ramp = arguments.pop("ramp_epochs", 0)
    try:
        if isinstance(arguments.get("noise"), dict):
            device = dict(arguments["noise"])
            kind = device.pop("class", None)
            device_class = getattr(snukeras.pcm, str(kind), None)
            if not isinstance(device_class, type):
                raise ValueError(f"snukeras.pcm has no device model {kind!r}")
            arguments["noise"] = device_class(**device)
        schedule = (lambda epoch: min(1.0, epoch / ramp)) if ramp else None
        return PCMNoise(**{"seed": seed, "schedule": schedule, **arguments})
    except (TypeError, ValueError) as error:
        raise ValueError(f"The recipe {recipe['name']} cannot make its noise: {error}") from error
