"""Run networks in Keras for the comparisons: compiled once, for batches of any size and length."""

import re
from collections.abc import Callable, Sequence

import keras
import numpy as np

from snukeras._types import Tensor
from snukeras.export.samples import Samples
from snukeras.network import topology
from snukeras.network.topology import Key, Topology

# What TensorFlow accepts as the name of a layer in a graph.
_SCOPE = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*")

Run = Callable[[Sequence[np.ndarray]], dict[Key, np.ndarray]]
Compute = Callable[..., list[Tensor]]


def runner(plan: Topology, model: keras.Model, keys: Sequence[Key]) -> Run:
    """Return a function that gives tensors of a network by their keys; states start at zero.

    Args:
        plan: The topology of the model.
        model: The model, whose weights may change between calls.
        keys: The tensors.
    """

    def tensors(*feeds: Tensor) -> list[Tensor]:
        values = topology.run(plan, list(feeds))
        return [values[key] for key in keys]

    compute = _compiled(tensors, plan) if _can_be_compiled(plan) else tensors

    def run(feeds: Sequence[np.ndarray]) -> dict[Key, np.ndarray]:
        reset(model)
        found = compute(*(keras.ops.convert_to_tensor(feed) for feed in feeds))
        return {
            key: keras.ops.convert_to_numpy(value) for key, value in zip(keys, found, strict=True)
        }

    return run


def _can_be_compiled(plan: Topology) -> bool:
    """Return whether TensorFlow can make a graph that computes what the eager network does."""
    layers = [call.op for call in plan.calls]
    # In a graph TimeDistributed gets the shape wrong where the number of steps is not known.
    loops = any(isinstance(layer, keras.layers.TimeDistributed) for layer in layers)
    named = all(_SCOPE.fullmatch(getattr(layer, "name", "a")) for layer in layers)
    return keras.backend.backend() == "tensorflow" and named and not loops


def _compiled(function: Compute, plan: Topology) -> Compute:
    """Compile once for inputs of any batch size and length."""
    import tensorflow as tf

    signature = [tf.TensorSpec(ref.shape, ref.dtype) for _, ref in plan.inputs]
    return tf.function(function, input_signature=signature)


def first_outputs(run: Run, plan: Topology, samples: Samples) -> list[np.ndarray]:
    """Return the first outputs of a network, batch by batch."""
    key = plan.outputs[0][1].key
    return [run(feeds)[key] for feeds in samples.batches]


def reset(model: keras.Model) -> None:
    """Let all stateful layers start anew, those of models inside the model too."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            reset(layer)
        elif getattr(layer, "stateful", False) and hasattr(layer, "reset_state"):
            layer.reset_state()
