"""Trace the spikes and membrane potentials of all units of a model."""

import keras
import numpy as np

from snukeras import _arguments
from snukeras._types import Nested, Tensor
from snukeras.network import observers


class _Recorder(observers.Observer):
    """Keep the spikes and membranes of the calls of a batch."""

    wants_membranes = True

    def __init__(self) -> None:
        self.runs: list[observers.Run] = []

    def observe(self, run: observers.Run) -> None:
        self.runs.append(run)


def trace(model: keras.Layer, x: Nested, batch_size: int = 32) -> dict[str, dict[str, np.ndarray]]:
    """Return the spikes and membrane potentials of all SNU layers of a model on data.

        traces = snukeras.trace(model, x)
        traces["snu"]["spikes"].mean(axis=(0, 1))   # the rate of each unit

    The model runs as it is, in inference, by the same path as in `predict`; nothing is rebuilt.
    Layers are found wherever they are: in nested models, in wrappers such as
    `keras.layers.Bidirectional`, and in layers of the user's own.

    Args:
        model: A built model, or one layer; Sequential, functional or subclassed.
        x: Inputs as `model.predict` takes them in arrays: an array, or a list, tuple or dict of
            arrays, (samples, ...).
        batch_size: Samples computed at once.

    Returns:
        By the name of the layer `{"spikes": ..., "membranes": ...}`, NumPy arrays, float32 where
        the layer computes in half precision, of shape
        (samples, time, units), or (samples, time, ..., filters) of a convolution. Soft units have
        their outputs under "spikes". Steps are in the order in which the layer returns them. Masked
        steps repeat the values of the step before, as in the outputs of the layer. A layer that the
        model calls several times has its later calls as "snu@2", "snu@3", ...; of two layers with
        one name, the second gets the name of the model around it in front, "encoder/snu".

    Raises:
        ValueError: The model has no SNU layers; `x` holds no arrays, no samples, or numbers that
            are not finite; or `batch_size` is no integer of at least 1.
        TypeError: The layers run inside a compiled function of the model's own, where their values
            cannot be read.
    """
    layers = observers.units_of(model)
    if not layers:
        raise ValueError(
            f"The model {model.name!r} has no SNU layers to trace. Allowed are models that hold "
            "layers such as snukeras.layers.SNU, SSNU or ConvSNU2D; cells in keras.layers.RNN are "
            "not found."
        )
    samples = observers.samples(x)
    batch_size = _arguments.whole("batch_size", batch_size)
    observers.build(model, _part(x, 0, batch_size))
    recorder = _Recorder()
    names = {id(layer): name for name, layer in layers.items()}
    found: dict[str, dict[str, list[np.ndarray]]] = {}
    for first in range(0, samples, batch_size):
        recorder.runs = []
        with observers.watching(recorder, layers.values()):
            model(_part(x, first, first + batch_size), training=False)
        calls: dict[str, int] = {}
        for run in recorder.runs:
            name = names[id(run.layer)]
            calls[name] = calls.get(name, 0) + 1
            name = name if calls[name] == 1 else f"{name}@{calls[name]}"
            kept = found.setdefault(name, {"spikes": [], "membranes": []})
            kept["spikes"].append(_values(run.spikes, name))
            kept["membranes"].append(_values(run.membranes, name))
    if not found:
        raise observers.hidden(next(iter(layers)))
    return {
        name: {what: np.concatenate(parts) for what, parts in kept.items()}
        for name, kept in found.items()
    }


def _part(x: Nested, first: int, last: int) -> Nested:
    return keras.tree.map_structure(lambda array: array[first:last], x)


def _values(tensor: Tensor, name: str) -> np.ndarray:
    try:
        return observers.values(tensor)
    except Exception as error:
        raise observers.hidden(name) from error
