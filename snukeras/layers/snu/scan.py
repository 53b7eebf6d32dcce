"""The compiled scan over time of SNU and SSNU, with a backward scan of its own."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from snukeras._xla import fenced
from snukeras.activations import Step


class Dynamics(NamedTuple):
    """What is compiled into a scan; equal dynamics share their kernels.

    Attributes:
        state_activation: g, a function of one tensor.
        output: h, an object with `value(z)` and `derivative(z, y)`.
        recurrent: whether y_{t-1} H enters the sum.
        carries_output: whether y is carried beside s; otherwise it is computed again from s,
            which serves when the first state is zero and there is no term y H.
        lateral_inhibition: gate by the maximum of y over the units instead of y itself.
        trainable_decay, trainable_threshold: whether the gradients of these are wanted.
    """

    state_activation: Callable
    output: Any
    recurrent: bool
    carries_output: bool
    lateral_inhibition: bool
    trainable_decay: bool
    trainable_threshold: bool


def scan(
    dynamics: Dynamics,
    drive: tf.Tensor,
    decay: tf.Tensor,
    threshold: tf.Tensor,
    recurrent_kernel: tf.Tensor,
    y: tf.Tensor,
    s: tf.Tensor,
    recurrent_dropout: tf.Tensor | None = None,
    mask: tf.Tensor | None = None,
    keep: bool = True,
    membranes: bool = False,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
    """Run `s = g(z_t + y H + decay * s * (1 - gate(y))); y = h(s - threshold)` over all steps.

    Args:
        dynamics: the unit.
        drive: z, shape (batch, time, units); its dtype is also that of the outputs.
        decay, threshold: shape (units,), in the dtype of the states.
        recurrent_kernel: H, shape (units, units), in the dtype of the drive; any if not recurrent.
        y, s: the states at the start, shape (batch, units).
        recurrent_dropout: factor on y before H, shape (batch, units), or None.
        mask: shape (batch, time), False where a sample keeps its state, or None.
        keep: keep what a backward pass needs. Without it the forward pass is cheaper; gradients
            are the same, at the price of a second forward pass when they are asked for.
        membranes: return the state s of every step too. The backward pass keeps it anyway.

    Returns:
        The outputs y, shape (batch, time, units), meaningless before a sample's first unmasked
        step; the last state s, shape (batch, units); and the states s of all steps, like the
        outputs, or None. All are differentiable in drive, decay, threshold, recurrent_kernel, y
        and s.
    """
    keep = keep or membranes
    infer, forward, backward = _kernels(dynamics)
    static = drive.shape[1]
    units = drive.shape[2]
    length = None
    if static is None:
        length = tf.shape(drive)[1]
        # Lengths that vary are padded to few sizes, each compiled once; the loops stop at length.
        padding = bucket(length) - length
        drive = tf.pad(drive, [[0, 0], [0, padding], [0, 0]])
        mask = None if mask is None else tf.pad(mask, [[0, 0], [0, padding]])

    @tf.custom_gradient
    def apply(*inputs):
        # Without this an eager GradientTape would differentiate the compiled function as well.
        inputs = [tf.stop_gradient(value) for value in inputs]
        rest = inputs[1:], recurrent_dropout, mask, length
        if keep:
            outputs, last, saved = forward(inputs[0], *rest)
            # Without the drive, so that its memory is free once the forward pass is through.
            held = saved
        else:
            outputs, last = infer(inputs[0], *rest)
            held = inputs[0]
        # Outputs of full precision serve the backward pass where they cost more than to read.
        values = outputs if _is_dear(dynamics.output) and outputs.dtype == s.dtype else None

        def gradient(to_outputs, to_last, to_states=None):
            saved = held if keep else forward(held, *rest)[2]
            return backward(saved, values, to_outputs, to_last, to_states, *rest)

        shown = (held[0],) if membranes else ()
        return (outputs, last, *shown), gradient

    inputs = (drive, decay, threshold, recurrent_kernel, y, s)
    outputs, last, *shown = apply(*(tf.convert_to_tensor(value) for value in inputs))
    # What was padded is cut off again.
    sequences = [x if static is not None else x[:, :length] for x in (outputs, *shown)]
    sequences = [tf.ensure_shape(x, (s.shape[0], static, units)) for x in sequences]
    states = sequences[1] if membranes else None
    return sequences[0], tf.ensure_shape(last, (s.shape[0], units)), states


def bucket(length: tf.Tensor) -> tf.Tensor:
    """Round a length up to one of four sizes per octave: 16, 20, 24, 28, 32, 40, 48, ..."""
    length = tf.maximum(length, 16)
    octave = tf.math.log(tf.cast(length, "float64")) / tf.math.log(tf.constant(2.0, "float64"))
    unit = tf.cast(2.0 ** (tf.floor(octave + 1e-9) - 2.0), length.dtype)
    return (length + unit - 1) // unit * unit


def _started(mask: tf.Tensor) -> tf.Tensor:
    """True from each sample's first unmasked step on."""
    return tf.cumsum(tf.cast(mask, tf.int32), axis=1) > 0


@lru_cache(maxsize=64)
def _kernels(dynamics: Dynamics) -> tuple[Callable, Callable, Callable]:
    """Build the compiled functions of one kind of unit.

    They are the forward pass that keeps nothing, the one that keeps what the backward pass needs,
    and the backward pass.
    """
    compiled = tf.function(jit_compile=True, autograph=False, reduce_retracing=True)
    g, h = dynamics.state_activation, dynamics.output
    g_derivative = _derivative_from_value(g)
    # A step costs less than to carry or read it; a sigmoid is computed once.
    dear = _is_dear(h)
    carries_output = dynamics.carries_output or dear

    def gate(y):
        """1 - y, or with lateral inhibition 1 - max y of the sample."""
        if dynamics.lateral_inhibition:
            y = tf.reduce_max(y, axis=-1, keepdims=True)
        return 1.0 - y

    def gate_gradient(upstream, y):
        """The gradient of y through the gate; ties of the maximum share it equally."""
        if not dynamics.lateral_inhibition:
            return -upstream
        total = tf.reduce_sum(upstream, axis=-1, keepdims=True)
        winners = tf.cast(y == tf.reduce_max(y, axis=-1, keepdims=True), y.dtype)
        return -total * winners / tf.reduce_sum(winners, axis=-1, keepdims=True)

    def walk(drive, parameters, dropout, mask, length, sequences, record):
        """Run all steps; `record(t, argument, s, y, sequences)` writes what is wanted of each.

        The first of the sequences is None where it is to take the place of the drive.
        """
        decay, threshold, kernel, y, s = parameters
        length = tf.shape(drive)[1] if length is None else length
        inputs, in_place = _stored(drive), sequences[0] is None
        sequences = (inputs, *sequences[1:]) if in_place else sequences
        opaque = tf.cast(tf.reduce_any(drive[:, 0, 0] > 0), tf.int32)  # 0 or 1, by the data

        def body(t, s, y, sequences):
            # From zero state the term below is zero, whatever h(0 - threshold) is.
            before = y if carries_output else h.value(s - threshold)
            source = sequences[0] if in_place else inputs
            a = tf.cast(_values(source[:, t], drive.dtype), decay.dtype)
            if dynamics.recurrent:
                fed = before if dropout is None else before * dropout
                a += tf.cast(tf.matmul(tf.cast(fed, kernel.dtype), kernel), a.dtype)
            a += decay * s * gate(before)
            new = g(a)
            if mask is not None:
                new = tf.where(mask[:, t, None], new, s)
            # Else a sequence that is overwritten while another result reads it is copied each step.
            new = fenced(new, opaque)
            # Unused, and so left out by the compiler, where neither carried nor recorded.
            shown = h.value(new - threshold)
            if mask is not None:
                shown = tf.where(mask[:, t, None], shown, before)
            y = shown if carries_output else y
            return t + 1, new, y, record(t, a, new, shown, sequences)

        if not carries_output:
            y = tf.zeros((), decay.dtype)
        _, last, _, sequences = _loop(
            lambda t, *_: t < length, body, (tf.constant(0), s, y, sequences)
        )
        return last, sequences

    @compiled
    def infer(drive, parameters, dropout, mask, length):
        def record(t, argument, s, y, sequences):
            return (_put(sequences[0], t, tf.cast(y, drive.dtype)),)

        last, (outputs,) = walk(drive, parameters, dropout, mask, length, (None,), record)
        return _values(outputs, drive.dtype), last

    @compiled
    def forward(drive, parameters, dropout, mask, length):
        _, threshold, *_ = parameters

        def record(t, argument, s, y, sequences):
            states, arguments, outputs = sequences
            arguments = arguments if g_derivative else _put(arguments, t, argument)
            outputs = _put(outputs, t, tf.cast(y, drive.dtype)) if dear else outputs
            return _put(states, t, s), arguments, outputs

        empty, nothing = _empty(drive, threshold.dtype), tf.zeros(())
        # The argument is made of the drive, which then must not be overwritten.
        in_place = g_derivative and drive.dtype == threshold.dtype
        start = (
            None if in_place else empty,
            nothing if g_derivative else empty,
            _empty(drive, drive.dtype) if dear else nothing,
        )
        last, sequences = walk(drive, parameters, dropout, mask, length, start, record)
        states, arguments, outputs = sequences
        # Masked steps hold s, and with it y.
        outputs = (
            _values(outputs, drive.dtype)
            if dear
            else tf.cast(h.value(states - threshold), drive.dtype)
        )
        return outputs, last, (states, None if g_derivative else arguments)

    @compiled
    def backward(saved, values, to_outputs, to_last, to_states, parameters, dropout, mask, length):
        decay, threshold, kernel, y_first, s_first = parameters
        states, arguments = saved
        _, steps, units = tf.unstack(tf.shape(states))
        length = steps if length is None else length
        zeros, nothing = tf.zeros_like(s_first), tf.zeros((), decay.dtype)
        started = None if mask is None else _started(mask)
        upstream = _stored(to_outputs)

        def send_back(s, y, after):
            """What the argument of the next step, whose gradient is `after`, sends to s and y."""
            to_y = gate_gradient(decay * s * after, y)
            if dynamics.recurrent:
                back = tf.matmul(tf.cast(after, kernel.dtype), kernel, transpose_b=True)
                back = tf.cast(back, s.dtype)
                to_y += back if dropout is None else back * dropout
            return decay * gate(y) * after, to_y

        def step(t, after, passed, to_decay, to_threshold):
            """Gradients at step t; `passed` is what a masked step t + 1 hands on to the state."""
            s = states[:, t]
            z = s - threshold
            y = h.value(z) if values is None else values[:, t]
            to_s, to_y = send_back(s, y, after)
            to_shown = tf.cast(_values(upstream[:, t], to_outputs.dtype), s.dtype)
            to_z = (to_shown + to_y) * h.derivative(z, y)
            to_s += to_z + passed
            if to_states is not None:
                to_s += to_states[:, t]
            to_a = g_derivative(s) * to_s if g_derivative else _pull_back(g, arguments[:, t], to_s)
            by_decay = after * s * gate(y) if dynamics.trainable_decay else nothing
            passed, carried = nothing, to_a
            if mask is not None:
                # Before its first unmasked step a sample is still in its first state.
                run, begun = mask[:, t, None], started[:, t, None]
                to_a = tf.where(run, to_a, zeros)
                carried = tf.where(begun, to_a, after)
                passed = tf.where(tf.logical_and(begun, tf.logical_not(run)), to_s, zeros)
                to_z = tf.where(begun, to_z, zeros)
                by_decay = tf.where(begun, by_decay, zeros)
            if dynamics.trainable_decay:
                to_decay += by_decay
            if dynamics.trainable_threshold:
                to_threshold -= to_z
            return to_a, (carried, passed, to_decay, to_threshold)

        def body(t, carry, sequence):
            to_a, carry = step(t, *carry)
            return t - 1, carry, _put(sequence, t, tf.cast(to_a, to_outputs.dtype))

        # The last step stands before the loop: it alone receives the last state's gradient.
        to_a, carry = step(
            length - 1,
            zeros,
            to_last,
            zeros if dynamics.trainable_decay else nothing,
            zeros if dynamics.trainable_threshold else nothing,
        )
        to_drive = _empty(states, to_outputs.dtype)
        to_drive = _put(to_drive, length - 1, tf.cast(to_a, to_outputs.dtype))
        _, (after, passed, to_decay, to_threshold), to_drive = _loop(
            lambda t, *_: t >= 0, body, (length - 2, carry, to_drive)
        )
        to_drive = _values(to_drive, to_outputs.dtype)
        to_s_first, to_y_first = send_back(s_first, y_first, after)
        to_kernel = None
        if dynamics.recurrent:
            y = h.value(states - threshold) if values is None else values
            if started is not None:
                y = tf.where(started[:, :, None], y, y_first[:, None])
            fed = tf.concat([y_first[:, None], y[:, :-1]], axis=1)
            fed = fed if dropout is None else fed * dropout[:, None]
            to_kernel = tf.matmul(
                tf.reshape(tf.cast(fed, kernel.dtype), (-1, units)),
                tf.reshape(tf.cast(to_drive, kernel.dtype), (-1, units)),
                transpose_a=True,
            )
        if dynamics.trainable_decay:
            to_decay = tf.reduce_sum(to_decay + after * s_first * gate(y_first), axis=0)
        return (
            to_drive,
            to_decay if dynamics.trainable_decay else None,
            tf.reduce_sum(to_threshold, axis=0) if dynamics.trainable_threshold else None,
            to_kernel,
            to_y_first,
            to_s_first + passed,
        )

    return infer, forward, backward


def _is_dear(output: Any) -> bool:
    """Whether an output function costs more than to read its value from memory."""
    return not isinstance(output, Step)


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
    """Return the values of such a sequence, or of a step of it."""
    return tf.bitcast(sequence, dtype)


def _loop(condition: Callable, body: Callable, start: Any) -> Any:
    """A while loop whose carried tensors keep the static shapes that they enter with.

    When a call is traced for some sizes and not for others, a step may know less than its start.
    """

    def step(*carry):
        result = body(*carry)
        for new, old in zip(tf.nest.flatten(result), tf.nest.flatten(start), strict=True):
            if isinstance(new, tf.Tensor):
                new.set_shape(old.shape)
        return result

    return tf.while_loop(condition, step, start)


def _pull_back(g: Callable, a: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    """Return the gradient at a, given that at g(a)."""
    with tf.GradientTape() as tape:
        tape.watch(a)
        value = g(a)
    return tape.gradient(value, a, upstream)


def _derivative_from_value(g: Callable) -> Callable | None:
    """Return g' as a function of s = g(a), for the activations whose derivative s tells."""
    name = keras.activations.serialize(g)
    if name == "linear":
        return tf.ones_like
    if name == "relu":
        return lambda s: tf.cast(s > 0, s.dtype)
    return None
