"""Walk a sequence step by step, with random numbers of its own for every step and purpose."""

from collections.abc import Callable
from typing import TypeAlias

from keras import ops

from snukeras._types import Shape, Tensor

Tensors: TypeAlias = tuple[Tensor, ...]

# Which random numbers of a step are whose; the neurons take three for each of their pulses.
READ, SET, RESET, SELECT, NEURON = 0, 1, 2, 3, 4


def check_steps(layer: str, shape: Shape, features: str = "features") -> None:
    """Check the shape of the inputs of a layer.

    Args:
        layer: name of the class of the layer.
        shape: what was received.
        features: what the last axis holds.

    Raises:
        ValueError: the shape is not (batch, steps, features) with a known last axis.
    """
    if len(shape) != 3 or shape[-1] is None:
        raise ValueError(
            f"{layer} takes inputs of shape (batch, steps, {features}) with a known last axis. "
            f"Received: input_shape={tuple(shape)}"
        )


def over_time(
    step: Callable[[Tensor, Tensors], tuple[Tensors, Tensors]],
    length: Tensor,
    outputs: Tensors,
    state: Tensors,
) -> tuple[Tensors, Tensors]:
    """Call `step(i, state) -> (outputs, state)` for i = 0 ... length - 1.

    Args:
        step: function of the index and a tuple of tensors.
        length: number of steps.
        outputs: tensors (length, ...), to be written at each step.
        state: tuple of tensors.

    Returns:
        The outputs of all steps, and the last state.
    """

    def body(i: Tensor, outputs: Tensors, state: Tensors) -> tuple[Tensor, Tensors, Tensors]:
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


def at_step(seed: Tensor, step: Tensor | int) -> Tensor:
    """Return the two integers of a step of a call, whose `seed` counts calls: steps fit between."""
    # The multiplier is odd: the calls of one seed do not meet before 2**32 of them.
    calls = seed[1] * ops.convert_to_tensor(0x85EBCA6B, dtype="uint32")
    return ops.stack([seed[0], calls + ops.cast(step, "uint32")])


def count(where: Tensor) -> Tensor:
    """Return how many booleans are True, an int32 scalar."""
    return ops.sum(ops.cast(where, "int32"))
