"""Build the network that a recipe describes."""

import inspect
import math
from typing import TYPE_CHECKING

import numpy as np

from snukeras._files import JsonObject
from snukeras.zoo.recipes.recipe import Recipe, blamed

if TYPE_CHECKING:
    import keras


# What weights on crossbars are constrained by, in the layers of Keras and of this package.
_CONSTRAINTS = tuple(
    f"{kernel}_constraint" for kernel in ("kernel", "recurrent", "depthwise", "pointwise")
)


def network(recipe: Recipe, seed: int) -> "keras.Model":
    """Build the recipe's network with fresh weights: a Sequential model, or one with ties.

    A layer is `{"class": NAME, argument: value, ...}` with a class of `snukeras.layers` or
    `keras.layers`. `decay` and `threshold` may be drawn per unit: `{"uniform": [low, high]}` at
    random by the seed, `{"linspace": [low, high]}` evenly spaced. A `constraint` of the recipe
    serves all kernels but those of layers that name a constraint of their own.
    What a recipe does not say of its units is the paper's (`snukeras.layers.PAPER`), whatever the
    defaults of the layers: that is part of the format, so a recipe means the same for good.
    `{"layer": NAME, argument: value, ...}` calls an earlier layer again, with these arguments of
    its call: `{"layer": "embedding", "reverse": true}` projects onto the words of a
    `TiedEmbedding`. The network is a functional model then.

    Args:
        recipe: A checked recipe.
        seed: Seed of the drawn values, and of stochastic rounding. Seed Keras
            (`keras.utils.set_random_seed`) for the weights.

    Raises:
        ValueError: An unknown layer class or name, arguments that it refuses, or an entry of the
            recipe that no weight of the network takes.
    """
    with blamed(recipe, "make its network"):
        model = _built(recipe, seed)
        _check_landed(recipe, model)
    return model


def _built(recipe: Recipe, seed: int) -> "keras.Model":
    import keras

    description = recipe.network
    random = np.random.default_rng(seed)
    source = keras.Input(
        tuple(description["input_shape"]),
        dtype=description.get("input_dtype", "float32"),
        name=description.get("input", "input"),
    )
    layers: dict[str, keras.Layer] = {}
    calls: list[tuple[keras.Layer, JsonObject]] = []
    for entry in _named(recipe):
        if "layer" in entry:
            arguments = dict(entry)
            name = arguments.pop("layer")
            if name not in layers:
                raise ValueError(
                    f"The recipe {recipe.name} calls a layer that does not come before. "
                    f"Received: {name!r}. There are: {', '.join(layers)}"
                )
        else:
            # The input counts as the first layer.
            arguments, name = {}, entry["name"]
            layers[name] = _layer(recipe, entry, random, [seed, 1 + len(layers)])
        calls.append((layers[name], arguments))
    if len(calls) == len(layers):
        model = keras.Sequential([source, *layers.values()], name=recipe.name)
    else:
        x = source
        for layer, arguments in calls:
            x = layer(x, **arguments)
        model = keras.Model(source, x, name=recipe.name)
    return model


def _named(recipe: Recipe) -> list[JsonObject]:
    """Return the entries of a recipe's layers, each class with its name."""
    names: dict[str, int] = {}
    entries = []
    for entry in recipe.network["layers"]:
        if "class" in entry:
            # Fixed names: Keras's own count up with every layer the process has made.
            name = entry["class"].lower()
            names[name] = names.get(name, 0) + 1
            entry = {"name": name if names[name] == 1 else f"{name}_{names[name]}", **entry}
        entries.append(entry)
    return entries


def _layer(
    recipe: Recipe, entry: JsonObject, random: np.random.Generator, seed: list[int]
) -> "keras.Layer":
    """Make one layer.

    Args:
        recipe: The recipe, for its constraint.
        entry: Class, name and arguments of the layer.
        random: Draws the spread of decays and thresholds.
        seed: Seed of its constraints.
    """
    import keras

    import snukeras.layers

    arguments = dict(entry)
    kind = arguments.pop("class")
    for home in (snukeras.layers, keras.layers):
        layer_class = getattr(home, kind, None)
        if isinstance(layer_class, type) and issubclass(layer_class, keras.Layer):
            break
    else:
        raise ValueError(
            f"The recipe {recipe.name} names a layer class that neither snukeras.layers "
            f"nor keras.layers has. Received: {kind!r}"
        )
    if issubclass(layer_class, snukeras.layers.SNU):
        known = inspect.signature(layer_class).parameters
        paper = {
            key: value
            for key, value in snukeras.layers.PAPER.items()
            if key in known and f"{key}_initializer" not in arguments
        }
        arguments = {**paper, **arguments}
    for key in ("decay", "threshold"):
        if isinstance(arguments.get(key), dict):
            arguments[key] = _drawn(arguments[key], arguments["units"], random)
    try:
        if recipe.constraint is not None:
            _constrain(arguments, layer_class, recipe.constraint, seed)
        return layer_class(**arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"The recipe {recipe.name} cannot make its layer {arguments['name']}: {error}"
        ) from error


def _constrain(
    arguments: JsonObject, layer_class: type, entry: JsonObject, seed: list[int]
) -> None:
    """Add a PCMConstraint of its own for each kernel that the layer has."""
    from snukeras.constraints import PCMConstraint

    known = inspect.signature(layer_class).parameters
    keys = [key for key in _CONSTRAINTS if key in known]
    if "recurrent" in known and not arguments.get("recurrent", known["recurrent"].default):
        keys.remove("recurrent_constraint")
    for number, key in enumerate(keys):
        own = np.random.SeedSequence([*seed, number]).generate_state(1)[0] >> 1
        arguments.setdefault(key, PCMConstraint(**{"seed": int(own), **entry}))


def _check_landed(recipe: Recipe, model: "keras.Model") -> None:
    """Refuse a recipe with an entry that no weight of its network takes.

    Raises:
        ValueError: `constraint` does not reach a kernel, `noise` finds none, `quick_lstm` no
            LSTM, or the names under `exclude_from_weight_decay` are those of no weight.
    """
    from snukeras.network.lstm_loop import served
    from snukeras.network.matrices import chip_variables, is_kernel

    where = f"The recipe {recipe.name}"
    if recipe.constraint is not None:
        own = {
            entry.get("name")
            for entry in _named(recipe)
            if not entry.keys().isdisjoint(_CONSTRAINTS)
        }
        free = [
            variable.path
            for layer in model.layers
            if layer.name not in own
            for variable in layer.weights
            if is_kernel(variable) and variable.constraint is None
        ]
        if free:
            raise ValueError(
                f"{where} has a `constraint` that does not reach {', '.join(free)}. Use layers "
                'with an argument `kernel_constraint`, or say `"kernel_constraint": null` there.'
            )
    if recipe.noise is not None and not chip_variables(model):
        raise ValueError(f"{where} has `noise`, and its network has no kernels to add it to.")
    if recipe.quick_lstm and not served(model):
        raise ValueError(
            f"{where} has `quick_lstm`, and its network has no LSTM with recurrent dropout."
        )
    names = recipe.optimizer.get("exclude_from_weight_decay", [])
    if names and not any(name in v.path for name in names for v in model.trainable_variables):
        raise ValueError(
            f"{where} excludes from weight decay what its network does not have. Received: "
            f"{names}. There are: {', '.join(sorted({v.name for v in model.trainable_variables}))}"
        )


def _drawn(spread: JsonObject, units: int, random: np.random.Generator) -> list[float]:
    ends = next(iter(spread.values())) if len(spread) == 1 else None
    if (
        not set(spread) <= {"uniform", "linspace"}
        or not isinstance(ends, list)
        or len(ends) != 2
        or not all(isinstance(end, int | float) and math.isfinite(end) for end in ends)
    ):
        raise ValueError(
            'A spread must be {"uniform": [low, high]} or {"linspace": [low, high]}. '
            f"Received: {spread}"
        )
    low, high = ends
    if "uniform" in spread:
        values = random.uniform(low, high, units)
    else:
        values = np.linspace(low, high, units)
    return [round(float(value), 6) for value in values]
