"""Wrap the hidden layers of a model in GRAPES, and unwrap them."""

import fnmatch
import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

import keras

from snukeras._types import Nested
from snukeras.network.matrices import digital_kernels, matrices
from snukeras.optimizers.grapes.layer import GRAPES, units_of

Node = tuple[str, int]
Layers: TypeAlias = str | keras.Layer | Iterable[str | keras.Layer] | None

# The factors of five layers at He-uniform weights; more is warned of.
_DEEP = 30.0
_PASSED_ON = ("initial_state", "mask", "training")


def with_grapes(
    model: keras.Model,
    clip: bool = True,
    propagate: bool = True,
    uniform: bool = False,
    layers: Layers = None,
) -> keras.Model:
    """Return a model that trains with GRAPES; its layers, and so its weights, are those of `model`.

        model = snukeras.optimizers.with_grapes(model)
        model.compile("adam", "mse")
        model.fit(x, y)

    Each hidden layer is wrapped in `GRAPES` under its own name. A layer is hidden when all ways
    from it to the model's outputs lead through other layers with matrices of weights; so an output
    layer may be followed by activations, normalisation or sums. Layers without matrices, and
    nested models around their hidden layers, stay as they are. A layer that is called several
    times has one factor, from its one set of weights.

    The given model learns along, since it has the same variables: it is the plain network for
    everything that comes after training. Compile the model that is returned. Saved and loaded, it
    trains on with GRAPES; `without_grapes` gives the plain network of a loaded one.

    Factors multiply from layer to layer, by some 1.8 each at the start: five hidden layers enlarge
    the errors of the first some 20 times, ten some 360 times, and with them its step under SGD. So
    deep networks need lower learning rates than plain training, or `propagate=False`.

    Args:
        model: Sequential or functional, built.
        clip, propagate, uniform: see `GRAPES`.
        layers: None (all hidden layers), or a list of their names, of patterns such as "dense_*",
            or of layers.

    Raises:
        ValueError: a model that is not built, of a class with a `call` of its own, or with GRAPES
            already; no hidden layers; hidden layers that GRAPES is not defined for, unless
            `layers` chooses among the others; a pattern that matches nothing.
    """
    found = list(_hidden(model, exposed=True))
    if any(isinstance(layer, GRAPES) for layer in found):
        raise ValueError(
            f"The layers of a model are wrapped once. Received: {model.name!r}, which has GRAPES "
            "already; take `without_grapes(model)`."
        )
    chosen = _chosen(model, found, layers)

    def wrapped(layer: keras.Layer) -> keras.Layer:
        if id(layer) not in chosen:
            return layer
        return GRAPES(layer, clip, propagate, uniform, name=layer.name)

    rebuilt = _rebuilt(model, wrapped)
    if propagate:
        _warn_of_depth(rebuilt)
    return rebuilt


def _warn_of_depth(model: keras.Model) -> None:
    """Warn if the factors of all layers multiply to more than a usual learning rate bears."""
    wrapped = [*_wrapped(model)]
    factor = math.prod(float(keras.ops.mean(layer.modulation())) for layer in wrapped)
    if factor > _DEEP:
        warnings.warn(
            f"The factors of {len(wrapped)} layers with GRAPES multiply: as the weights are now, "
            f"errors reach the first of them up to {factor:.0f} times as large. Lower the learning "
            "rate by about as much, modulate fewer layers (`layers`), or pass propagate=False.",
            stacklevel=3,
        )


def _wrapped(model: keras.Model) -> Iterator[GRAPES]:
    """Yield the layers with GRAPES, also of models inside."""
    for layer in model.layers:
        if isinstance(layer, GRAPES):
            yield layer
        elif isinstance(layer, keras.Model):
            yield from _wrapped(layer)


def without_grapes(model: keras.Model) -> keras.Model:
    """Return the plain model of one with GRAPES; its layers, and so its weights, are the same.

    Raises:
        ValueError: a model that is not built, or of a class with a `call` of its own.
    """
    _check(model)
    return _rebuilt(model, lambda layer: layer.layer if isinstance(layer, GRAPES) else layer)


def _chosen(model: keras.Model, found: list[keras.Layer], layers: Layers) -> set[int]:
    """Return the ids of the hidden layers to wrap."""
    known, unknown = [], []
    for layer in found:
        try:
            units_of(layer)
            known.append(layer)
        except ValueError:
            unknown.append(f"{layer.name} ({type(layer).__name__})")
    if layers is None:
        if unknown:
            raise ValueError(
                "GRAPES is not defined for every hidden layer of the model. Received: "
                f"{', '.join(unknown)}. Name those to modulate in `layers`: "
                f"{', '.join(layer.name for layer in known) or 'there are none'}."
            )
        if not known:
            raise ValueError(
                f"GRAPES modulates hidden layers. Received: {model.name!r}, in which no layer with "
                "weights comes before another one; add a hidden layer."
            )
        return {id(layer) for layer in known}
    if isinstance(layers, str | keras.Layer):
        layers = [layers]
    chosen = set()
    for pattern in layers:
        if isinstance(pattern, keras.Layer):
            matches = {id(layer) for layer in known if layer is pattern}
        else:
            matches = {id(layer) for layer in known if fnmatch.fnmatchcase(layer.name, pattern)}
        if not matches:
            raise ValueError(
                "Argument `layers` must name hidden layers that GRAPES is defined for: "
                f"{', '.join(layer.name for layer in known) or 'there are none'}. Received: "
                f"{pattern!r}"
            )
        chosen |= matches
    return chosen


def _rebuilt(model: keras.Model, change: Callable[[keras.Layer], keras.Layer]) -> keras.Model:
    """Return the model with `change` applied to its layers and to those of models inside it."""

    def changed(layer: keras.Layer) -> keras.Layer:
        return _rebuilt(layer, change) if isinstance(layer, keras.Model) else change(layer)

    def called(layer: keras.Operation, *args: Nested, **kwargs: Nested) -> Nested:
        # Calls of GRAPES record arguments of recurrent layers, which other layers do not take.
        if isinstance(layer, keras.Layer):
            taken = inspect.signature(layer.call).parameters
            kwargs = {k: v for k, v in kwargs.items() if k in taken or k not in _PASSED_ON}
        return layer(*args, **kwargs)

    # A Sequential lists its layers and calls them by itself.
    arguments = {} if isinstance(model, keras.Sequential) else {"call_function": called}
    rebuilt = keras.models.clone_model(model, clone_function=changed, **arguments)
    if type(rebuilt) is not type(model):
        raise ValueError(
            f"A {type(model).__name__} cannot be rebuilt around wrapped layers. Received: "
            f"{model.name!r}; wrap the layers in snukeras.optimizers.GRAPES where it is made."
        )
    return rebuilt


def _check(model: object) -> None:
    if not isinstance(model, keras.Model):
        raise ValueError(
            "GRAPES is put into keras models; a layer is wrapped by snukeras.optimizers.GRAPES. "
            f"Received: {model!r}"
        )
    if isinstance(model, keras.Sequential):
        if not model.built:
            raise ValueError(
                f"The model must be built. Received: {model.name!r}, a Sequential without input "
                "shape; start it with keras.Input, or call it once."
            )
        return
    try:
        model.inputs, model.outputs  # noqa: B018
    except (AttributeError, ValueError):
        raise ValueError(
            f"The layers of a {type(model).__name__} with a `call` of its own cannot be followed. "
            f"Received: {model.name!r}; wrap its layers in snukeras.optimizers.GRAPES where it is "
            "made."
        ) from None


def _hidden(model: keras.Model, exposed: bool) -> Iterator[keras.Layer]:
    """Yield the hidden layers with matrices, also of models inside.

    Args:
        model: Sequential or functional.
        exposed: Whether its outputs reach those of the whole model, past no matrix of weights.
    """
    operations, reached = _reached(model)
    at_the_end = {name for name, _ in reached} if exposed else set()
    for name, operation in operations.items():
        if isinstance(operation, keras.Model):
            yield from _hidden(operation, exposed=name in at_the_end)
        elif _has_matrix(operation) and name not in at_the_end:
            yield operation


def _reached(model: keras.Model) -> tuple[dict[str, keras.Operation], set[Node]]:
    """Return operations by name, and the calls from which outputs are reached past no matrix.

    A call is named by its layer and its number among the calls of that layer.
    """
    _check(model)
    graph = keras.Model(model.inputs, model.outputs)
    config = graph.get_config()
    operations = {operation.name: operation for operation in graph.operations}
    sources = {
        _node(layer["name"], number, operations): set(_sources(node, operations))
        for layer in config["layers"]
        for number, node in enumerate(layer["inbound_nodes"])
    }
    ends = config["output_layers"]
    if isinstance(ends[0], str):  # some versions of Keras unwrap a single one
        ends = [ends]
    waiting = {_node(name, number, operations) for name, number, _ in ends}
    reached: set[Node] = set()
    while waiting:
        node = waiting.pop()
        reached.add(node)
        if _lets_through(operations[node[0]]):
            waiting |= sources.get(node, set()) - reached
    return operations, reached


def _lets_through(operation: keras.Operation) -> bool:
    """Return whether a way leads through a layer, or a model, past no matrix."""
    if not isinstance(operation, keras.Model):
        return not _has_matrix(operation)
    operations, reached = _reached(operation)
    return any(isinstance(operations[name], keras.layers.InputLayer) for name, _ in reached)


def _has_matrix(operation: keras.Operation) -> bool:
    """Return whether a layer has weights between units."""
    if not isinstance(operation, keras.Layer):
        return False
    return bool(matrices(operation, embeddings=True) or digital_kernels(operation))


def _node(name: str, number: int, operations: dict[str, keras.Operation]) -> Node:
    # Keras counts the nodes of models inside from 1 at some places; all of them count as one.
    return name, 0 if isinstance(operations[name], keras.Model) else number


def _sources(value: object, operations: dict[str, keras.Operation]) -> Iterator[Node]:
    """Yield the calls whose outputs a call takes; `value` is part of a config."""
    if isinstance(value, dict):
        if value.get("class_name") == "__keras_tensor__":
            name, number, _ = value["config"]["keras_history"]
            yield _node(name, number, operations)
        else:
            for part in value.values():
                yield from _sources(part, operations)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _sources(part, operations)
