"""Build the network that a recipe describes."""

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras


# What weights on crossbars are constrained by, in the layers of Keras and of this package.
_CONSTRAINTS = tuple(f"{kernel}_constraint" for kernel in ("kernel", "recurrent", "depthwise"))


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
