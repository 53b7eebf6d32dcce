"""Walk a sequence step by step, with random numbers of its own for every step and purpose."""

import keras
from keras import ops

from snukeras.pcm import NandakumarPCM, PulsedPCM

# Which random numbers of a step are whose; the neurons take three for each of their pulses.
_READ, _SET, _RESET, _SELECT, _NEURON = 0, 1, 2, 3, 4


def _device(device):
    device = NandakumarPCM() if device is None else device
    if not isinstance(device, PulsedPCM):
        raise TypeError(
            "`device` must be a PulsedPCM, such as snukeras.pcm.NandakumarPCM(). Received: "
            f"{device!r}"
        )
    return device


def _check_steps(name, shape, features="features"):
    if len(shape) != 3 or shape[-1] is None:
        raise ValueError(
            f"{name} takes inputs of shape (batch, steps, {features}) with a known last axis. "
            f"Received: input_shape={tuple(shape)}"
        )


def _over_time(step, length, outputs, state):
    """Calls `step(i, state) -> (outputs, state)` for i = 0 ... length - 1.

    Args:
        step: function of the index and a tuple of tensors.
        length: number of steps.
        outputs: tensors (length, ...), to be written at each step.
        state: tuple of tensors.
    """

    def body(i, outputs, state):
        new, state = step(i, state)
        outputs = tuple(
            ops.slice_update(old, [i] + [0] * (len(old.shape) - 1), ops.expand_dims(value, 0))
            for old, value in zip(outputs, new, strict=True)
        )
        return i + 1, outputs, state

    _, outputs, state = ops.while_loop(
        lambda i, *_: i < length, body, (ops.zeros((), "int32"), tuple(outputs), tuple(state))
    )
    return outputs, state


def _at(seed, step):
    """The two integers of a step: `seed` counts calls, here spread so that steps fit between."""
    # The multiplier is odd: the calls of one seed do not meet before 2**32 of them.
    calls = seed[1] * ops.convert_to_tensor(0x85EBCA6B, dtype="uint32")
    return ops.stack([seed[0], calls + ops.cast(step, "uint32")])


def _count(where):
    return ops.sum(ops.cast(where, "int32"))


def _with_device(config):
    return {**config, "device": keras.saving.deserialize_keras_object(config["device"])}
