"""What a scan over time is given: the unit, and the inputs of one run; the same on all backends."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
from keras import ops

from snukeras._types import Tensor
from snukeras.activations import SoftStep, Step


class Dynamics(NamedTuple):
    """The unit that a scan is compiled for; equal dynamics share what is compiled.

    Attributes:
        state_activation: g, a function of one tensor.
        output: h, an object with `value(z)` and `derivative(z, y)`.
        recurrent: whether y_{t-1} H enters the sum.
        carries_output: whether y is carried beside s; otherwise it is computed again from s,
            which serves when the first state is zero and there is no term y H.
        lateral_inhibition: gate by the maximum of y over the units instead of y itself.
        trainable_decay, trainable_threshold: whether the gradients of these are wanted.
    """

    state_activation: Callable[[Tensor], Tensor]
    output: Step | SoftStep
    recurrent: bool
    carries_output: bool
    lateral_inhibition: bool
    trainable_decay: bool
    trainable_threshold: bool


class Call(NamedTuple):
    """The inputs of one run over time, without the drive.

    Attributes:
        decay, threshold: shape (units,), in the dtype of the states.
        kernel: H, shape (units, units), in the dtype of the drive; any if not recurrent.
        y, s: the first states, shape (batch, units).
        dropout: factor on y before H, shape (batch, units), or None.
        mask: shape (batch, time), False where a sample keeps its state, or None.
        length: number of steps to run, or None for all.
    """

    decay: Tensor
    threshold: Tensor
    kernel: Tensor
    y: Tensor
    s: Tensor
    dropout: Tensor | None
    mask: Tensor | None
    length: Tensor | None

    @property
    def differentiable(self) -> tuple[Tensor, ...]:
        """The inputs that have a gradient: decay, threshold, kernel, first y and first s."""
        return self[:5]

    def where(self, differentiable: Sequence[Tensor]) -> "Call":
        """Return the call with other tensors for the inputs that have a gradient."""
        return self._replace(**dict(zip(self._fields[:5], differentiable, strict=True)))


class Source(NamedTuple):
    """Where a drive comes from.

    The gradients of the scan depend on its drive. Higher derivatives follow that back to what the
    drive was made of, which the backward pass of the projection keeps anyway; so the drive itself,
    as large as all outputs, need not be kept for them.

    Attributes:
        tensors: what the drive is made of, such as the inputs and the kernel.
        project: the function of these that gives the drive.
    """

    tensors: Sequence[Tensor]
    project: Callable[..., Tensor]


def started(mask: Tensor) -> Tensor:
    """Return True from each sample's first unmasked step on, shape (batch, time)."""
    return ops.cumsum(ops.cast(mask, "int32"), axis=1) > 0


def is_dear(output: Step | SoftStep) -> bool:
    """Return whether an output function costs more than to read its value from memory."""
    return not isinstance(output, Step)


def derivative_from_value(
    g: Callable[[Tensor], Tensor],
) -> Callable[[Tensor], Tensor] | None:
    """Return g' as a function of s = g(a), for the activations whose derivative s tells."""
    if g is keras.activations.linear:
        return ops.ones_like
    if g is keras.activations.relu:
        return lambda s: ops.cast(s > 0, s.dtype)
    return None
