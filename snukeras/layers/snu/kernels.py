"""The loops over time that XLA compiles: forward passes, and the backward pass."""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, TypeVar

import keras
import tensorflow as tf

from snukeras._xla import fenced
from snukeras.layers.snu.dynamics import Call, Dynamics, derivative_from_value, is_dear, started

_State = TypeVar("_State")


class Saved(NamedTuple):
    """The sequences that the forward pass keeps for the backward pass, (batch, time, units).

    Attributes:
        states: the membrane potentials s.
        arguments: the arguments of g, or None where s tells the derivative.
    """

    states: tf.Tensor
    arguments: tf.Tensor | None


class Kernels:
    """The compiled functions of one kind of unit.

    Args:
        dynamics: the unit.

    Attributes:
        infer: forward pass that keeps nothing: (drive, call) to (outputs, last s).
        forward: forward pass that keeps what the backward pass needs, as a third result.
        backward: see `_backward`.
    """

    def __init__(self, dynamics: Dynamics) -> None:
        self.dynamics = dynamics
        self.g, self.h = dynamics.state_activation, dynamics.output
        self.g_derivative = derivative_from_value(self.g)
        # A step costs less than to carry or read it; a sigmoid is computed once.
        self.dear = is_dear(self.h)
        self.carries_output = dynamics.carries_output or self.dear
        compiled = tf.function(jit_compile=True, autograph=False, reduce_retracing=True)
        self.infer = compiled(self._infer)
        self.forward = compiled(self._forward)
        self.backward = compiled(self._backward)

    def gate(self, y: tf.Tensor) -> tf.Tensor:
        """Return 1 - y, or with lateral inhibition 1 - max y of the sample."""
        if self.dynamics.lateral_inhibition:
            y = tf.reduce_max(y, axis=-1, keepdims=True)
        return 1.0 - y

    def gate_gradient(self, upstream: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Return the gradient of y through the gate; ties of the maximum share it equally."""
        if not self.dynamics.lateral_inhibition:
            return -upstream
        total = tf.reduce_sum(upstream, axis=-1, keepdims=True)
        winners = tf.cast(y == tf.reduce_max(y, axis=-1, keepdims=True), y.dtype)
        return -total * winners / tf.reduce_sum(winners, axis=-1, keepdims=True)

    def walk(
        self,
        drive: tf.Tensor,
        call: Call,
        sequences: tuple[tf.Tensor | None, ...],
        record: Callable[..., tuple[tf.Tensor, ...]],
    ) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        """Run all steps.

        Args:
            drive: shape (batch, time, units).
            call: what the run is given beside it.
            sequences: what steps are recorded in. The first is None where it is to take the place
                of the drive.
            record: `record(t, argument, s, y, sequences)` writes the wanted results of a step and
                returns the sequences.

        Returns:
            The last s, and the sequences.
        """
        decay, threshold, kernel, y, s, dropout, mask, length = call
        length = tf.shape(drive)[1] if length is None else length
        inputs, in_place = _stored(drive), sequences[0] is None
        sequences = (inputs, *sequences[1:]) if in_place else sequences
        opaque = tf.cast(tf.reduce_any(drive[:, 0, 0] > 0), tf.int32)  # 0 or 1, by the data

        def body(t: tf.Tensor, s: tf.Tensor, y: tf.Tensor, sequences: tuple) -> tuple:
            # From zero state the term below is zero, whatever h(0 - threshold) is.
            before = y if self.carries_output else self.h.value(s - threshold)
            source = sequences[0] if in_place else inputs
            a = tf.cast(_values(source[:, t], drive.dtype), decay.dtype)
            if self.dynamics.recurrent:
                fed = before if dropout is None else before * dropout
                a += tf.cast(tf.matmul(tf.cast(fed, kernel.dtype), kernel), a.dtype)
            a += decay * s * self.gate(before)
            new = self.g(a)
            if mask is not None:
                new = tf.where(mask[:, t, None], new, s)
            # Without the fence XLA copies the whole sequence at every step, because another result
            # still reads the buffer that is overwritten.
            new = fenced(new, opaque)
            # The compiler leaves y out where it is neither carried nor recorded.
            shown = self.h.value(new - threshold)
            if mask is not None:
                shown = tf.where(mask[:, t, None], shown, before)
            y = shown if self.carries_output else y
            return t + 1, new, y, record(t, a, new, shown, sequences)

        if not self.carries_output:
            y = tf.zeros((), decay.dtype)
        _, last, _, sequences = _loop(
            lambda t, *_: t < length, body, (tf.constant(0), s, y, sequences)
        )
        return last, sequences

    def _infer(self, drive: tf.Tensor, call: Call) -> tuple[tf.Tensor, tf.Tensor]:
        def record(t: tf.Tensor, _: tf.Tensor, s: tf.Tensor, y: tf.Tensor, to: tuple) -> tuple:
            return (_put(to[0], t, tf.cast(y, drive.dtype)),)

        last, (outputs,) = self.walk(drive, call, (None,), record)
        return _values(outputs, drive.dtype), last

    def _forward(self, drive: tf.Tensor, call: Call) -> tuple[tf.Tensor, tf.Tensor, Saved]:
        threshold, known = call.threshold, self.g_derivative is not None

        def record(t: tf.Tensor, a: tf.Tensor, s: tf.Tensor, y: tf.Tensor, to: tuple) -> tuple:
            states, arguments, outputs = to
            arguments = arguments if known else _put(arguments, t, a)
            outputs = _put(outputs, t, tf.cast(y, drive.dtype)) if self.dear else outputs
            return _put(states, t, s), arguments, outputs

        empty, nothing = _empty(drive, threshold.dtype), tf.zeros(())
        # The argument is made of the drive, which then must not be overwritten.
        in_place = known and drive.dtype == threshold.dtype
        start = (
            None if in_place else empty,
            nothing if known else empty,
            _empty(drive, drive.dtype) if self.dear else nothing,
        )
        last, (states, arguments, outputs) = self.walk(drive, call, start, record)
        # Masked steps carry s over, so y, computed from s, is carried too.
        outputs = (
            _values(outputs, drive.dtype)
            if self.dear
            else tf.cast(self.h.value(states - threshold), drive.dtype)
        )
        return outputs, last, Saved(states, None if known else arguments)

    def _backward(
        self,
        saved: Saved,
        values: tf.Tensor | None,
        to_outputs: tf.Tensor,
        to_last: tf.Tensor,
        to_states: tf.Tensor | None,
        call: Call,
    ) -> tuple[tf.Tensor | None, ...]:
        """Run all steps backward.

        Args:
            saved: what the forward pass kept.
            values: the outputs in the dtype of the states, or None to compute them again.
            to_outputs, to_last, to_states: gradients of the outputs, of the last s, and of s at all
                steps or None.
            call: what the forward pass was given beside the drive.

        Returns:
            Gradients of drive, decay, threshold, kernel, first y and first s; None where the
            dynamics say that they are not wanted.
        """
        return _Backward(self, saved, values, to_outputs, to_states, call).run(to_last)


class _Backward:
    """One backward pass, while it is traced; arguments as in `Kernels._backward`."""

    def __init__(
        self,
        kernels: Kernels,
        saved: Saved,
        values: tf.Tensor | None,
        to_outputs: tf.Tensor,
        to_states: tf.Tensor | None,
        call: Call,
    ) -> None:
        self.kernels, self.dynamics, self.call = kernels, kernels.dynamics, call
        self.states: tf.Tensor = saved.states
        self.arguments: tf.Tensor = saved.arguments
        self.values, self.to_states = values, to_states
        _, self.steps, self.units = tf.unstack(tf.shape(self.states))
        self.length = self.steps if call.length is None else call.length
        self.zeros, self.nothing = tf.zeros_like(call.s), tf.zeros((), call.decay.dtype)
        self.started: tf.Tensor = None if call.mask is None else started(call.mask)
        self.dtype = to_outputs.dtype
        self.upstream = _stored(to_outputs)

    def run(self, to_last: tf.Tensor) -> tuple[tf.Tensor | None, ...]:
        """Return the gradients; see `Kernels._backward`."""
        dynamics, call = self.dynamics, self.call

        def body(t: tf.Tensor, carry: tuple, sequence: tf.Tensor) -> tuple:
            to_a, carry = self.step(t, *carry)
            return t - 1, carry, _put(sequence, t, tf.cast(to_a, self.dtype))

        # Peel off the last step; only it gets the last state's gradient.
        to_a, carry = self.step(
            self.length - 1,
            self.zeros,
            to_last,
            self.zeros if dynamics.trainable_decay else self.nothing,
            self.zeros if dynamics.trainable_threshold else self.nothing,
        )
        to_drive = _empty(self.states, self.dtype)
        to_drive = _put(to_drive, self.length - 1, tf.cast(to_a, self.dtype))
        _, (after, passed, to_decay, to_threshold), to_drive = _loop(
            lambda t, *_: t >= 0, body, (self.length - 2, carry, to_drive)
        )
        to_drive = _values(to_drive, self.dtype)
        to_s, to_y = self.send_back(call.s, call.y, after)
        to_kernel = self.to_kernel(to_drive) if dynamics.recurrent else None
        if dynamics.trainable_decay:
            by_first = after * call.s * self.kernels.gate(call.y)
            to_decay = tf.reduce_sum(to_decay + by_first, axis=0)
        return (
            to_drive,
            to_decay if dynamics.trainable_decay else None,
            tf.reduce_sum(to_threshold, axis=0) if dynamics.trainable_threshold else None,
            to_kernel,
            to_y,
            to_s + passed,
        )

    def step(
        self,
        t: tf.Tensor,
        after: tf.Tensor,
        passed: tf.Tensor,
        to_decay: tf.Tensor,
        to_threshold: tf.Tensor,
    ) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        """Take step t backward.

        Args:
            t: the step.
            after: gradient of the argument of step t + 1.
            passed: gradient of the state that a masked step t + 1 hands on.
            to_decay, to_threshold: their gradients so far, of each sample.

        Returns:
            The gradient of the argument of the step, and what the step before it is given.
        """
        kernels, dynamics = self.kernels, self.dynamics
        s = self.states[:, t]
        z = s - self.call.threshold
        y = kernels.h.value(z) if self.values is None else self.values[:, t]
        to_s, to_y = self.send_back(s, y, after)
        to_shown = tf.cast(_values(self.upstream[:, t], self.dtype), s.dtype)
        to_z = (to_shown + to_y) * kernels.h.derivative(z, y)
        to_s += to_z + passed
        if self.to_states is not None:
            to_s += self.to_states[:, t]
        to_a = self.through_activation(t, s, to_s)
        by_decay = after * s * kernels.gate(y) if dynamics.trainable_decay else self.nothing
        passed, carried = self.nothing, to_a
        if self.call.mask is not None:
            # Before its first unmasked step a sample is still in its first state.
            run, begun = self.call.mask[:, t, None], self.started[:, t, None]
            to_a = tf.where(run, to_a, self.zeros)
            carried = tf.where(begun, to_a, after)
            passed = tf.where(tf.logical_and(begun, tf.logical_not(run)), to_s, self.zeros)
            to_z = tf.where(begun, to_z, self.zeros)
            by_decay = tf.where(begun, by_decay, self.zeros)
        if dynamics.trainable_decay:
            to_decay += by_decay
        if dynamics.trainable_threshold:
            to_threshold -= to_z
        return to_a, (carried, passed, to_decay, to_threshold)

    def through_activation(self, t: tf.Tensor, s: tf.Tensor, to_s: tf.Tensor) -> tf.Tensor:
        """Return the gradient of the argument of g at step t, given the gradient of its value s."""
        if self.kernels.g_derivative is not None:
            return self.kernels.g_derivative(s) * to_s
        return pull_back(self.kernels.g, self.arguments[:, t], to_s)

    def send_back(
        self, s: tf.Tensor, y: tf.Tensor, after: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the gradients of s and y by the next step, whose argument has the gradient "
        "`after`."""
        decay, kernel, dropout = self.call.decay, self.call.kernel, self.call.dropout
        to_y = self.kernels.gate_gradient(decay * s * after, y)
        if self.dynamics.recurrent:
            back = tf.matmul(tf.cast(after, kernel.dtype), kernel, transpose_b=True)
            back = tf.cast(back, s.dtype)
            to_y += back if dropout is None else back * dropout
        return decay * self.kernels.gate(y) * after, to_y

    def to_kernel(self, to_drive: tf.Tensor) -> tf.Tensor:
        """Return the gradient of H, given the gradients of the arguments of all steps."""
        call = self.call
        y = self.values
        if y is None:
            y = self.kernels.h.value(self.states - call.threshold)
        if self.started is not None:
            y = tf.where(self.started[:, :, None], y, call.y[:, None])
        fed = tf.concat([call.y[:, None], y[:, :-1]], axis=1)
        fed = fed if call.dropout is None else fed * call.dropout[:, None]
        return tf.matmul(
            tf.reshape(tf.cast(fed, call.kernel.dtype), (-1, self.units)),
            tf.reshape(tf.cast(to_drive, call.kernel.dtype), (-1, self.units)),
            transpose_a=True,
        )


@lru_cache(maxsize=64)
def kernels(dynamics: Dynamics) -> Kernels:
    """Return the compiled functions of a kind of unit, which equal dynamics share."""
    return Kernels(dynamics)


def _empty(like: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Return a sequence (batch, time, units) to `_put` values of a dtype into."""
    return _stored(tf.zeros(tf.shape(like), dtype))


def _stored(sequence: tf.Tensor) -> tf.Tensor:
    """Return a sequence as the loops hold it: half precision as integers.

    Where XLA has no operation for half precision, as for a step of a sequence on a CPU, it converts
    the whole sequence to float32 and back, in the loop at every step.
    """
    return tf.bitcast(sequence, tf.uint16) if sequence.dtype.size == 2 else sequence


def _put(sequence: tf.Tensor, t: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    """Return the sequence with the step t replaced; compiled, this happens in its place."""
    value = tf.bitcast(value, sequence.dtype)
    return keras.ops.slice_update(sequence, tf.stack([0, t, 0]), value[:, None])


def _values(sequence: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Return the values of a stored sequence, or of a step of it."""
    return tf.bitcast(sequence, dtype)


def _loop(
    condition: Callable[..., tf.Tensor], body: Callable[..., _State], start: _State
) -> _State:
    """Run a while loop whose carried tensors keep the static shapes that they enter with.

    When a call is traced for some sizes and not for others, a step may know less than its start.
    """

    def step(*carry: tf.Tensor) -> _State:
        result = body(*carry)
        for new, old in zip(tf.nest.flatten(result), tf.nest.flatten(start), strict=True):
            if isinstance(new, tf.Tensor):
                new.set_shape(old.shape)
        return result

    return tf.while_loop(condition, step, start)


def pull_back(g: Callable[[tf.Tensor], tf.Tensor], a: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    """Return the gradient at a, given that at g(a); within a compiled function."""
    # No tape: a ForwardAccumulator lets none record.
    (gradient,) = tf.gradients(g(a), a, upstream, unconnected_gradients="zero")
    return gradient
