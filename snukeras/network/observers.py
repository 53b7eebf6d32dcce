"""Watch the units of a model as it runs, without building the model anew.

An SNU layer hands what it computes to its observers, if it has any. The registry stands here, below
the layers, so that callbacks, initializers and `snukeras.trace` can watch layers that they do not
import. The layer computes by the same path with observers and without.
"""

import contextlib
import weakref
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import keras
import numpy as np

from snukeras._types import Nested, Tensor


class Run(NamedTuple):
    """What one call of an SNU layer computed.

    Attributes:
        layer: The layer.
        sequences: Its inputs, (batch, time, ...).
        initial_state: The states [y, s] that it started from, or None for zeros.
        spikes: Its outputs at all steps, (batch, time, ..., units), in the order of the layer.
        membranes: Its membrane potentials, likewise; None where no observer asked for them.
        mask: (batch, time), False at the steps that were skipped; or None.
        training: Whether the call belonged to a training step.
    """

    layer: keras.Layer
    sequences: Tensor
    initial_state: list[Tensor] | None
    spikes: Tensor
    membranes: Tensor | None
    mask: Tensor | None
    training: bool


class Observer:
    """Base of the observers of layers.

    Attributes:
        wants_membranes: Whether membrane potentials are wanted beside the spikes.
    """

    wants_membranes = False

    def observe(self, run: Run) -> None:
        """Take note of a call; its tensors are symbolic where a graph is being traced."""
        raise NotImplementedError


_observers: "weakref.WeakKeyDictionary[keras.Layer, list[Observer]]" = weakref.WeakKeyDictionary()


def of(layer: keras.Layer) -> list[Observer]:
    """Return the observers of a layer; mostly there are none."""
    return _observers.get(layer, [])


def attach(observer: Observer, layers: Iterable[keras.Layer]) -> None:
    """Let an observer watch some layers from their next call on."""
    for layer in layers:
        watching = _observers.setdefault(layer, [])
        if observer not in watching:
            watching.append(observer)


def detach(observer: Observer, layers: Iterable[keras.Layer]) -> None:
    """Let an observer watch some layers no longer."""
    for layer in layers:
        left = [other for other in _observers.get(layer, []) if other is not observer]
        if left:
            _observers[layer] = left
        else:
            _observers.pop(layer, None)


@contextlib.contextmanager
def watching(observer: Observer, layers: Iterable[keras.Layer]) -> Iterator[None]:
    """Let an observer watch some layers within a block."""
    layers = list(layers)
    attach(observer, layers)
    try:
        yield
    finally:
        detach(observer, layers)


def units_of(model: keras.Layer, spiking_only: bool = False) -> dict[str, keras.Layer]:
    """Find the SNU layers in a model: nested, wrapped, and kept by layers of the user's own.

    A bare `keras.layers.RNN(SNUCell(...))` is none: the loop of Keras has no observers.

    Args:
        model: A model, or one layer.
        spiking_only: Leave out soft units.

    Returns:
        The layers by name, in the order in which the model holds them. Of two layers with one
        name, the second gets the name of the layer that holds it in front: "encoder/snu".

    Raises:
        ValueError: `model` is neither a model nor a layer.
    """
    if not isinstance(model, keras.Layer):
        raise ValueError(
            f"Argument `model` must be a Keras model, or one layer. Received: {model!r}"
        )
    found: dict[str, keras.Layer] = {}
    seen: set[int] = set()
    _search(model, "", found, seen, spiking_only)
    return found


def samples(x: Nested) -> int:
    """Return how many samples inputs hold, an array or a nest of arrays.

    Raises:
        ValueError: There are none, or no arrays, or arrays of several lengths, or numbers that are
            not finite.
    """
    allowed = (
        "Argument `x` must be an array (samples, ...), or a list, tuple or dict of arrays, one for "
        "each input of the model."
    )
    arrays = [] if x is None else keras.tree.flatten(x)
    if not arrays or not all(len(getattr(array, "shape", ())) for array in arrays):
        batches = hasattr(x, "__iter__") and not isinstance(x, list | tuple | dict | str)
        advice = (
            "Give the inputs of one batch, x, y = next(iter(dataset))"
            if batches
            else "Use np.asarray for lists"
        )
        raise ValueError(f"{allowed} Received: {type(x).__name__}. {advice}.")
    lengths = [int(array.shape[0]) for array in arrays]
    if len(set(lengths)) > 1:
        raise ValueError(f"{allowed} Received: arrays of {lengths} samples")
    if lengths[0] == 0:
        raise ValueError("Argument `x` must hold at least one sample. Received: no samples")
    for array in arrays:
        values = np.asarray(keras.ops.convert_to_numpy(array))
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ValueError(
                "Argument `x` must hold finite numbers. Received: NaN or infinity in "
                f"{int((~np.isfinite(values)).sum())} of {values.size} places"
            )
    return lengths[0]


def build(model: keras.Layer, x: Nested) -> None:
    """Run a model that was not built yet once, before it is observed.

    Keras may build a model by tracing its call, in which observers would see no values. Stateful
    units are at their start again afterwards.
    """
    if model.built:
        return
    model(x, training=False)
    for layer in units_of(model).values():
        if layer.stateful:
            layer.reset_state()


def values(tensor: Tensor) -> np.ndarray:
    """Return the values of a tensor; those of half precision as float32.

    NumPy adds bfloat16 up in bfloat16, in which counts end at 256.
    """
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    if dtype in ("bfloat16", "float16"):
        tensor = keras.ops.cast(tensor, "float32")
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def hidden(name: str) -> TypeError:
    """Return the error of a layer whose values observers cannot read."""
    return TypeError(
        f"The layer {name!r} runs inside a compiled function, where its values cannot be read. "
        "Call the model without that function (tf.config.run_functions_eagerly(True)), or give the "
        "layer itself and its inputs."
    )


def _search(
    layer: keras.Layer,
    parent: str,
    found: dict[str, keras.Layer],
    seen: set[int],
    spiking_only: bool,
) -> None:
    if id(layer) in seen:
        return
    seen.add(id(layer))
    if getattr(layer, "has_observers", False):
        spiking = layer.cell.spiking
        if spiking or not spiking_only:
            name = layer.name if layer.name not in found else f"{parent}/{layer.name}"
            while name in found:
                name += "_"
            found[name] = layer
        return
    for part in _parts(layer):
        _search(part, layer.name, found, seen, spiking_only)


def _parts(layer: keras.Layer) -> Iterator[keras.Layer]:
    """Yield the layers that a layer holds: those of a model in its order, then any attribute's."""
    for part in getattr(layer, "layers", None) or []:
        if isinstance(part, keras.Layer):
            yield part
    for value in list(vars(layer).values()):
        held = value.values() if isinstance(value, dict) else value
        for part in held if isinstance(held, list | tuple | type({}.values())) else [held]:
            if isinstance(part, keras.Layer):
                yield part
