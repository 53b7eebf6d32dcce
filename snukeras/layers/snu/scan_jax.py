"""The scan over time of SNU and SSNU on JAX: loops that XLA compiles, with a backward loop.

Sequences stay as Keras has them, (batch, time, units): to turn them round costs more than the
loops do. On a CPU a step overwrites what it was given: forward its input product by its state,
backward the gradient of its output by that of its argument, and a recurrent unit's state by what
the step was fed. XLA takes fresh memory for each run of a compiled step, and to touch it first
costs as much as the loops, so the sequences that live at a time are kept few.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from snukeras.layers.snu.dynamics import (
    Call,
    Dynamics,
    Source,
    derivative_from_value,
    is_dear,
    started,
)

_Inputs = tuple[jax.Array, ...]


class _Fixed(NamedTuple):
    """What has no gradient: dropout (batch, units) and mask (batch, time), or None."""

    dropout: jax.Array | None
    mask: jax.Array | None


class _Saved(NamedTuple):
    """What the forward pass keeps, (batch, time, units).

    Attributes:
        states: the membrane potentials s.
        arguments: the arguments of g, or None where s tells the derivative.
        values: the outputs where they cost more than to read and are as precise, or None.
    """

    states: jax.Array
    arguments: jax.Array | None
    values: jax.Array | None


def scan(
    dynamics: Dynamics,
    drive: jax.Array,
    call: Call,
    keep: bool = True,
    membranes: bool = False,
    source: Source | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Run all steps; see `snukeras.layers.snu.scan.scan`.

    Args:
        dynamics, drive, call, membranes: as there.
        keep, source: of no use here. JAX knows whether gradients are wanted, and what the drive
            is made of.
    """
    fixed = _Fixed(call.dropout, call.mask)
    return _scan(dynamics, membranes, drive, call.differentiable, fixed)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _scan(
    dynamics: Dynamics, membranes: bool, drive: jax.Array, inputs: _Inputs, fixed: _Fixed
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    if not membranes:
        return (*_infer(dynamics, drive, inputs, fixed), None)
    outputs, last, saved = _forward(dynamics, drive, inputs, fixed)
    return outputs, last, saved.states


def _scan_forward(
    dynamics: Dynamics, membranes: bool, drive: jax.Array, inputs: _Inputs, fixed: _Fixed
) -> tuple[Any, Any]:
    outputs, last, saved = _recorded(dynamics, drive, inputs, fixed)
    result = (outputs, last, saved.states if membranes else None)
    # Compiled, the drive is kept only where second derivatives are taken.
    return result, (drive, inputs, fixed, saved)


def _scan_backward(dynamics: Dynamics, membranes: bool, kept: Any, upstream: Any) -> tuple:
    return (*_gradient(dynamics, *kept, upstream), None)


_scan.defvjp(_scan_forward, _scan_backward)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _recorded(
    dynamics: Dynamics, drive: jax.Array, inputs: _Inputs, fixed: _Fixed
) -> tuple[jax.Array, jax.Array, _Saved]:
    """Run all steps; second derivatives differentiate the forward pass of the first."""
    return _forward(dynamics, drive, inputs, fixed)


def _recorded_forward(dynamics: Dynamics, *arguments: Any) -> tuple[Any, Any]:
    result = _recorded(dynamics, *arguments)
    return result, (*arguments, result[2])


def _recorded_backward(dynamics: Dynamics, kept: Any, upstream: Any) -> tuple:
    to_outputs, to_last, to_saved = upstream
    return (*_gradient(dynamics, *kept, (to_outputs, to_last, to_saved.states)), None)


_recorded.defvjp(_recorded_forward, _recorded_backward)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _gradient(
    dynamics: Dynamics,
    drive: jax.Array,
    inputs: _Inputs,
    fixed: _Fixed,
    saved: _Saved,
    upstream: tuple,
) -> tuple[jax.Array, _Inputs]:
    """Return the gradients of the drive and of the inputs."""
    return _backward(dynamics, inputs, fixed, saved, upstream)


def _gradient_forward(dynamics: Dynamics, *arguments: Any) -> tuple[Any, Any]:
    drive, inputs, fixed, _, upstream = arguments
    return _gradient(dynamics, *arguments), (drive, inputs, fixed, upstream)


def _gradient_backward(dynamics: Dynamics, kept: Any, to_results: Any) -> tuple:
    """Differentiate the gradients: the same equations step by step, slowly, where asked for."""
    drive, inputs, fixed, upstream = kept

    def gradients(drive: jax.Array, inputs: _Inputs, upstream: tuple) -> Any:
        def results(drive: jax.Array, inputs: _Inputs) -> tuple:
            outputs, last, states = run(dynamics, drive, inputs, fixed)
            return outputs, last, None if upstream[2] is None else states

        return jax.vjp(results, drive, inputs)[1](upstream)

    to_drive, to_inputs, to_upstream = jax.vjp(gradients, drive, inputs, upstream)[1](to_results)
    return to_drive, to_inputs, None, None, to_upstream


_gradient.defvjp(_gradient_forward, _gradient_backward)


def run(
    dynamics: Dynamics, drive: jax.Array, inputs: _Inputs, fixed: _Fixed
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Run the equations by `jax.lax.scan`; JAX can differentiate this any number of times."""
    decay, threshold, kernel, y, s = inputs

    def step(carry: tuple, given: tuple) -> tuple:
        y, s = carry
        z, on = given
        a = z.astype(s.dtype) + decay * s * _gate(dynamics, y)
        if dynamics.recurrent:
            a += _fed_back(kernel, y, fixed.dropout)
        new_s = dynamics.state_activation(a)
        new_y = dynamics.output(new_s - threshold)
        if on is not None:
            new_y, new_s = (jnp.where(on[:, None], n, old) for n, old in ((new_y, y), (new_s, s)))
        return (new_y, new_s), (new_y.astype(drive.dtype), new_s)

    mask = None if fixed.mask is None else fixed.mask.T
    (_, last), (outputs, states) = lax.scan(step, (y, s), (jnp.swapaxes(drive, 0, 1), mask))
    return jnp.swapaxes(outputs, 0, 1), last, jnp.swapaxes(states, 0, 1)


def _gate(dynamics: Dynamics, y: jax.Array) -> jax.Array:
    """Return 1 - y, or with lateral inhibition 1 - max y of the sample."""
    return 1.0 - (y.max(axis=-1, keepdims=True) if dynamics.lateral_inhibition else y)


def _fed_back(kernel: jax.Array, y: jax.Array, dropout: jax.Array | None) -> jax.Array:
    fed = y if dropout is None else y * dropout
    return (fed.astype(kernel.dtype) @ kernel).astype(y.dtype)


def _fence(like: jax.Array) -> Callable[[Any], Any]:
    """Return a function that lets an array, or a tuple, be computed once, before all that uses it.

    On a CPU XLA compiles one kernel per result, computes the value again in each, and copies a
    sequence at every step where another result still reads what is overwritten. A loop that never
    runs, which XLA cannot know, keeps it from that. On a GPU such a loop would wait for the host.
    """
    if not _has_fence():
        return lambda x: x
    opaque = (like[0, 0, 0] > 0).astype(jnp.int32)  # 0 or 1, by the data

    def fenced(x: Any) -> Any:
        def other(carry: tuple) -> tuple:
            return jax.tree.map(lambda each: each + 1, carry)

        return lax.while_loop(lambda carry: carry[0] < 0, other, (opaque, x))[1]

    return fenced


def _has_fence() -> bool:
    return jax.default_backend() == "cpu"


def _stored(sequence: jax.Array) -> jax.Array:
    """Return a sequence as the loops hold it: half precision as integers.

    Where XLA has no operation for half precision, it converts the whole sequence to float32 and
    back, in the loop at every step.
    """
    half = sequence.dtype.itemsize == 2
    return lax.bitcast_convert_type(sequence, jnp.uint16) if half else sequence


def _values(sequence: jax.Array, dtype: Any) -> jax.Array:
    same = sequence.dtype == dtype
    return sequence if same else lax.bitcast_convert_type(sequence, dtype)


def _put(sequence: jax.Array, t: Any, value: jax.Array) -> jax.Array:
    return lax.dynamic_update_index_in_dim(sequence, _stored(value), t, 1)


def _walk(
    dynamics: Dynamics,
    drive: jax.Array,
    inputs: _Inputs,
    fixed: _Fixed,
    sequences: tuple,
    record: Callable[..., tuple],
) -> tuple[jax.Array, tuple]:
    """Run all steps.

    Args:
        dynamics, drive, inputs, fixed: the unit and its run.
        sequences: what steps are recorded in; the first is None where it takes the drive's place.
        record: `record(t, argument, s, y, sequences)` returns the sequences with a step in them.

    Returns:
        The last s, and the sequences.
    """
    decay, threshold, kernel, y, s = inputs
    h, carries = dynamics.output, dynamics.carries_output or is_dear(dynamics.output)
    stored, in_place = _stored(drive), sequences[0] is None
    sequences = (stored, *sequences[1:]) if in_place else sequences
    fenced = _fence(drive)

    def body(t: Any, carry: tuple) -> tuple:
        s, y, sequences = carry
        # From zero state the term below is zero, whatever h(0 - threshold) is.
        before = y if carries else h.value(s - threshold)
        a = _values((sequences[0] if in_place else stored)[:, t], drive.dtype).astype(s.dtype)
        if dynamics.recurrent:
            a += _fed_back(kernel, before, fixed.dropout)
        a += decay * s * _gate(dynamics, before)
        new = dynamics.state_activation(a)
        on = None if fixed.mask is None else fixed.mask[:, t, None]
        new = fenced(new if on is None else jnp.where(on, new, s))
        shown = h.value(new - threshold)
        if on is not None:
            shown = jnp.where(on, shown, before)
        return new, shown if carries else y, record(t, a, new, shown, sequences)

    start = (s, y if carries else jnp.zeros((), s.dtype), sequences)
    last, _, sequences = lax.fori_loop(0, drive.shape[1], body, start)
    return last, sequences


@partial(jax.jit, static_argnums=0)
def _infer(
    dynamics: Dynamics, drive: jax.Array, inputs: _Inputs, fixed: _Fixed
) -> tuple[jax.Array, jax.Array]:
    def record(t: Any, _: jax.Array, s: jax.Array, y: jax.Array, to: tuple) -> tuple:
        return (_put(to[0], t, y.astype(drive.dtype)),)

    last, (outputs,) = _walk(dynamics, drive, inputs, fixed, (None,), record)
    return _values(outputs, drive.dtype), last


@partial(jax.jit, static_argnums=0)
def _forward(
    dynamics: Dynamics, drive: jax.Array, inputs: _Inputs, fixed: _Fixed
) -> tuple[jax.Array, jax.Array, _Saved]:
    known = derivative_from_value(dynamics.state_activation) is not None
    dear = is_dear(dynamics.output)
    _, threshold, _, _, s = inputs

    def record(t: Any, a: jax.Array, s: jax.Array, y: jax.Array, to: tuple) -> tuple:
        states, arguments, outputs = to
        arguments = arguments if known else _put(arguments, t, a)
        outputs = _put(outputs, t, y.astype(drive.dtype)) if dear else outputs
        return _put(states, t, s), arguments, outputs

    empty, nothing = jnp.zeros(drive.shape, s.dtype), jnp.zeros(())
    start = (
        # The argument is made of the drive, which then must not be overwritten.
        None if known and drive.dtype == s.dtype else empty,
        nothing if known else empty,
        jnp.zeros_like(_stored(drive)) if dear else nothing,
    )
    last, (states, arguments, outputs) = _walk(dynamics, drive, inputs, fixed, start, record)
    # Masked steps carry s over, so y, computed from s, is carried too.
    outputs = (
        _values(outputs, drive.dtype)
        if dear
        else dynamics.output.value(states - threshold).astype(drive.dtype)
    )
    values = outputs if dear and drive.dtype == s.dtype else None
    return outputs, last, _Saved(states, None if known else arguments, values)


@partial(jax.jit, static_argnums=0)
def _backward(
    dynamics: Dynamics, inputs: _Inputs, fixed: _Fixed, saved: _Saved, upstream: tuple
) -> tuple[jax.Array, _Inputs]:
    """Run all steps backward.

    Args:
        dynamics, inputs, fixed, saved: the unit, its run, and what the forward pass kept.
        upstream: gradients of the outputs, of the last s, and of s at all steps or None.

    Returns:
        The gradient of the drive, and those of decay, threshold, kernel, first y and first s.
    """
    return _Backward(dynamics, inputs, fixed, saved, upstream[2]).run(*upstream[:2])


class _Backward:
    """One backward pass, while it is traced; arguments as in `_backward`."""

    def __init__(
        self,
        dynamics: Dynamics,
        inputs: _Inputs,
        fixed: _Fixed,
        saved: _Saved,
        to_states: jax.Array | None,
    ) -> None:
        self.dynamics, self.fixed, self.to_states = dynamics, fixed, to_states
        self.decay, self.threshold, self.kernel, self.y, self.s = inputs
        self.states, self.arguments, self.values = saved
        self.known = derivative_from_value(dynamics.state_activation)
        mask = fixed.mask
        self.started: jax.Array = None if mask is None else started(mask)
        self.zeros, self.nothing = jnp.zeros_like(self.s), jnp.zeros(())
        # Results of a step take the place of what it was given, where a fence allows that.
        self.in_place, self.fenced = _has_fence(), _fence(self.states)

    def run(self, to_outputs: jax.Array, to_last: jax.Array) -> tuple[jax.Array, _Inputs]:
        """Return the gradients; see `_backward`."""
        dynamics, dtype = self.dynamics, to_outputs.dtype
        steps = self.states.shape[1]
        upstream, states = _stored(to_outputs), self.states
        feeds = dynamics.recurrent and self.in_place

        def body(number: Any, carry: tuple) -> tuple:
            after, passed, *sums, sequence, states = carry
            t = steps - 1 - number
            # The last step alone gets the last state's gradient.
            passed = jnp.where(number == 0, to_last, 0.0) if self.fixed.mask is None else passed
            shown = _values((sequence if self.in_place else upstream)[:, t], dtype)
            s = (states if feeds else self.states)[:, t]
            fed = self.fed_to(t, states) if feeds else self.nothing
            to_a, carried = self.step(t, s, shown, after, passed, *sums)
            to_a, fed, carried = self.fenced((to_a, fed, carried))
            if feeds:
                states = lax.dynamic_update_index_in_dim(states, fed, t, 1)
            return *carried, _put(sequence, t, to_a.astype(dtype)), states

        sequence = upstream if self.in_place else jnp.zeros_like(upstream)
        start = (self.zeros, to_last, self.zeros, self.zeros, sequence)
        after, passed, to_decay, to_threshold, sequence, states = lax.fori_loop(
            0, steps, body, (*start, states if feeds else self.nothing)
        )
        passed = self.zeros if self.fixed.mask is None else passed
        to_drive = _values(sequence, dtype)
        to_s, to_y = self.send_back(self.s, self.y, after)
        if dynamics.trainable_decay:
            to_decay += after * self.s * _gate(dynamics, self.y)
        to_kernel = jnp.zeros_like(self.kernel)
        if dynamics.recurrent:
            fed = states if feeds else self.fed()
            to_kernel = self.to_kernel(fed, to_drive)
            # Once H's gradient is known the states are not needed: no more is computed before.
            to_drive = _values(_fence(to_kernel[None])(sequence), dtype)
        sums = (to_decay.sum(axis=0), to_threshold.sum(axis=0))
        return to_drive, (*sums, to_kernel, to_y, to_s + passed)

    def step(
        self,
        t: Any,
        s: jax.Array,
        to_shown: jax.Array,
        after: jax.Array,
        passed: jax.Array,
        to_decay: jax.Array,
        to_threshold: jax.Array,
    ) -> tuple[jax.Array, tuple]:
        """Take step t backward.

        Args:
            t: the step.
            s: its state.
            to_shown: gradient of its output.
            after: gradient of the argument of step t + 1.
            passed: gradient of the state that a masked step t + 1 hands on.
            to_decay, to_threshold: their gradients so far, of each sample.

        Returns:
            The gradient of the argument of the step, and what the step before it is given.
        """
        dynamics = self.dynamics
        z = s - self.threshold
        y = dynamics.output.value(z) if self.values is None else self.values[:, t]
        to_s, to_y = self.send_back(s, y, after)
        to_z = (to_shown.astype(s.dtype) + to_y) * dynamics.output.derivative(z, y)
        to_s += to_z + passed
        if self.to_states is not None:
            to_s += self.to_states[:, t]
        to_a = self.through_activation(t, s, to_s)
        by_decay = after * s * _gate(dynamics, y)
        passed, carried = self.zeros, to_a
        if self.fixed.mask is not None:
            # Before its first unmasked step a sample is still in its first state.
            on, begun = self.fixed.mask[:, t, None], self.started[:, t, None]
            to_a = jnp.where(on, to_a, 0.0)
            carried = jnp.where(begun, to_a, after)
            passed = jnp.where(begun & ~on, to_s, 0.0)
            to_z = jnp.where(begun, to_z, 0.0)
            by_decay = jnp.where(begun, by_decay, 0.0)
        if dynamics.trainable_decay:
            to_decay += by_decay
        if dynamics.trainable_threshold:
            to_threshold -= to_z
        return to_a, (carried, passed, to_decay, to_threshold)

    def through_activation(self, t: Any, s: jax.Array, to_s: jax.Array) -> jax.Array:
        """Return the gradient of the argument of g at step t, given the gradient of its value s."""
        if self.known is not None:
            return self.known(s) * to_s
        assert self.arguments is not None
        return jax.vjp(self.dynamics.state_activation, self.arguments[:, t])[1](to_s)[0]

    def send_back(
        self, s: jax.Array, y: jax.Array, after: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Return the gradients of s and y by the next step, whose argument's is `after`."""
        to_y = -self.decay * s * after
        if self.dynamics.lateral_inhibition:
            # Ties of the maximum share it equally.
            winners = (y == y.max(axis=-1, keepdims=True)).astype(y.dtype)
            share = winners / winners.sum(axis=-1, keepdims=True)
            to_y = to_y.sum(axis=-1, keepdims=True) * share
        if self.dynamics.recurrent:
            back = (after.astype(self.kernel.dtype) @ self.kernel.T).astype(s.dtype)
            to_y += back if self.fixed.dropout is None else back * self.fixed.dropout
        return self.decay * _gate(self.dynamics, y) * after, to_y

    def fed_to(self, t: Any, states: jax.Array) -> jax.Array:
        """Return what step t was fed: the output of the step before it, or the first y."""
        before = jnp.maximum(t - 1, 0)
        if self.values is None:
            y = self.dynamics.output.value(states[:, before] - self.threshold)
        else:
            y = self.values[:, before]
        known = t > 0
        if self.started is not None:
            known &= self.started[:, before, None]
        return jnp.where(known, y, self.y)

    def fed(self) -> jax.Array:
        """Return what all steps were fed, as a sequence of its own."""
        y = self.values
        if y is None:
            y = self.dynamics.output.value(self.states - self.threshold)
        if self.started is not None:
            y = jnp.where(self.started[:, :, None], y, self.y[:, None])
        return jnp.concatenate([self.y[:, None], y[:, :-1]], axis=1)

    def to_kernel(self, fed: jax.Array, to_drive: jax.Array) -> jax.Array:
        """Return the gradient of H by what all steps were fed and the gradients of their drive."""
        fed = fed if self.fixed.dropout is None else fed * self.fixed.dropout[:, None]
        dtype, units = self.kernel.dtype, self.kernel.shape[0]
        product = fed.astype(dtype).reshape(-1, units).T @ to_drive.astype(dtype).reshape(-1, units)
        return product.astype(dtype)
