"""The scan over time of SNU and SSNU as a differentiable function of TensorFlow.

XLA compiles the loops, each with a fused kernel as its body. Where the types agree, each step
overwrites its own input product with what it writes. Sequences are laid out as Keras has them,
(batch, time, units): a step reads and writes rows of each sample, which costs less than to
transpose whole sequences.
"""

from collections.abc import Callable

import tensorflow as tf

from snukeras.layers.snu.dynamics import Call, Dynamics, Source, is_dear
from snukeras.layers.snu.higher_derivatives import differentiable
from snukeras.layers.snu.kernels import kernels


def scan(
    dynamics: Dynamics,
    drive: tf.Tensor,
    call: Call,
    keep: bool = True,
    membranes: bool = False,
    source: Source | None = None,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
    """Run `s = g(z_t + y H + decay * s * (1 - gate(y))); y = h(s - threshold)` over all steps.

    Args:
        dynamics: the unit.
        drive: z, shape (batch, time, units); its dtype is also that of the outputs.
        call: what the run is given beside the drive; its `length` is None.
        keep: keep what a backward pass needs. Without it the forward pass is cheaper; gradients
            are the same, at the price of a second forward pass when they are asked for.
        membranes: return the state s of every step too. The backward pass keeps it anyway.
        source: where the drive comes from; by default it comes from itself.

    Returns:
        The outputs y, shape (batch, time, units), meaningless before a sample's first unmasked
        step; the last state s, shape (batch, units); and the states s of all steps, like the
        outputs, or None. All are differentiable, any number of times, in drive, decay, threshold,
        kernel, y and s.
    """
    keep = keep or membranes
    compiled = kernels(dynamics)
    static, units = drive.shape[1:]
    source = Source([drive], lambda drive: drive) if source is None else source
    if static is None:
        drive, call, source = _padded(drive, call, source)

    @tf.custom_gradient
    def apply(drive: tf.Tensor, *inputs: tf.Tensor) -> tuple[tuple[tf.Tensor, ...], Callable]:
        # Without this an eager GradientTape would differentiate the compiled function as well.
        drive, *stopped = (tf.stop_gradient(value) for value in (drive, *inputs))
        given = call.where(stopped)
        if keep:
            outputs, last, held = compiled.forward(drive, given)
            # Without the drive, so that its memory is free once the forward pass is through.
        else:
            outputs, last = compiled.infer(drive, given)
            held = drive
        # Outputs of full precision serve the backward pass where they cost more than to read.
        values = outputs if is_dear(dynamics.output) and outputs.dtype == call.s.dtype else None

        def backward(*upstream: tf.Tensor) -> tuple[tf.Tensor | None, ...]:
            saved = held if keep else compiled.forward(held, given)[2]
            to_outputs, to_last, *to_states = upstream
            return compiled.backward(
                saved, values, to_outputs, to_last, to_states[0] if to_states else None, given
            )

        shown = (held.states,) if membranes else ()
        return (outputs, last, *shown), differentiable(
            backward, dynamics, source, call.where(inputs)
        )

    outputs, last, *shown = apply(
        *(tf.convert_to_tensor(value) for value in (drive, *call.differentiable))
    )
    # Cut the padding off.
    sequences = [x if static is not None else x[:, : call.length] for x in (outputs, *shown)]
    sequences = [tf.ensure_shape(x, (call.s.shape[0], static, units)) for x in sequences]
    states = sequences[1] if membranes else None
    return sequences[0], tf.ensure_shape(last, (call.s.shape[0], units)), states


def _padded(drive: tf.Tensor, call: Call, source: Source) -> tuple[tf.Tensor, Call, Source]:
    """Pad lengths that vary to few sizes, each compiled once; the loops stop at the length."""
    length = tf.shape(drive)[1]
    padding = bucket(length) - length

    def pad(sequence: tf.Tensor) -> tf.Tensor:
        return tf.pad(sequence, [[0, 0], [0, padding], [0, 0]])

    mask = None if call.mask is None else tf.pad(call.mask, [[0, 0], [0, padding]])
    padded = Source(source.tensors, lambda *tensors: pad(source.project(*tensors)))
    return pad(drive), call._replace(mask=mask, length=length), padded


def bucket(length: tf.Tensor) -> tf.Tensor:
    """Round a length up to one of four sizes per octave: 16, 20, 24, 28, 32, 40, 48, ..."""
    length = tf.maximum(length, 16)
    octave = tf.math.log(tf.cast(length, "float64")) / tf.math.log(tf.constant(2.0, "float64"))
    unit = tf.cast(2.0 ** (tf.floor(octave + 1e-9) - 2.0), length.dtype)
    return (length + unit - 1) // unit * unit


def checked_at_run_time(sequences: tf.Tensor, layer: str) -> tf.Tensor:
    """Return sequences whose number of steps is not known yet; at run time none is an error.

    XLA leaves the check out.

    Args:
        sequences: shape (batch, time, ...).
        layer: name of the layer that takes them.
    """
    message = f"Layer {layer!r} needs sequences of at least one step. Received: an empty sequence"
    check = tf.debugging.assert_positive(tf.shape(sequences)[1], message)
    with tf.control_dependencies([check]):
        return tf.identity(sequences)
