"""Derivatives of the scan's gradients: the same equations in plain TensorFlow, step by step.

The backward pass of the scan is compiled, and TensorFlow cannot differentiate it. A second
derivative, or a tangent of `tf.autodiff.ForwardAccumulator`, which differentiates a gradient too,
is computed here instead: slowly, but only where one is asked for.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

from snukeras.layers.snu.dynamics import Call, Dynamics, Source

Tensors = tuple[tf.Tensor | None, ...]


def differentiable(
    backward: Callable[..., Tensors], dynamics: Dynamics, source: Source, call: Call
) -> Callable[..., Tensors]:
    """Return a backward pass of the scan as a function that can be differentiated in turn.

    Args:
        backward: the compiled one, a function of the gradients of the results.
        dynamics: the unit.
        source: where the drive comes from.
        call: what the scan was given beside the drive.
    """
    of_source, of_call = len(source.tensors), len(call.differentiable)

    def gradient(*upstream: tf.Tensor) -> Tensors:
        wanted: list[bool] = []

        @tf.custom_gradient
        def first(*given: tf.Tensor) -> tuple[list[tf.Tensor], Callable]:
            results = backward(*(tf.stop_gradient(x) for x in given[of_source + of_call :]))
            wanted[:] = [result is not None for result in results]

            def second(*to_results: tf.Tensor) -> list[tf.Tensor]:
                # In eager mode a function, and no tape: a ForwardAccumulator lets none record.
                run = tf.function(derivatives, autograph=False)
                run = run if tf.executing_eagerly() else derivatives
                return run(list(given), list(to_results))

            def derivatives(given: list[tf.Tensor], to_results: list[tf.Tensor]) -> list[tf.Tensor]:
                # Sums with zero: derivatives must not run on into what the tensors are made of, and
                # XLA, which must not know the zero, fails on those of loops over constants.
                zero = tf.reduce_all(tf.math.is_nan(given[0]))
                given = [x + tf.cast(zero, x.dtype) for x in given]
                found = _gradients(
                    dynamics,
                    source.project(*given[:of_source]),
                    call.where(given[of_source : of_source + of_call]),
                    given[of_source + of_call :],
                )
                found = [x for x, want in zip(found, wanted, strict=True) if want]
                return tf.gradients(found, given, to_results, unconnected_gradients="zero")

            return [result for result in results if result is not None], second

        found = iter(first(*source.tensors, *call.differentiable, *upstream))
        return tuple(next(found) if want else None for want in wanted)

    return gradient


def _gradients(
    dynamics: Dynamics, drive: tf.Tensor, call: Call, upstream: Sequence[tf.Tensor]
) -> list[tf.Tensor]:
    """Return the gradients of the drive and of the call, differentiably."""
    results = run(dynamics, drive, call)
    return tf.gradients(
        list(results[: len(upstream)]),
        [drive, *call.differentiable],
        list(upstream),
        unconnected_gradients="zero",
    )


def run(dynamics: Dynamics, drive: tf.Tensor, call: Call) -> tuple[tf.Tensor, ...]:
    """Run the scan in plain TensorFlow; see `snukeras.layers.snu.scan.scan`.

    Returns:
        The outputs, the last s, and s at all steps.
    """
    steps = tf.shape(drive)[1]
    mask = call.mask
    if call.length is not None:
        within = tf.range(steps) < call.length
        mask = within[None] if mask is None else tf.logical_and(mask, within)

    def step(
        t: tf.Tensor, y: tf.Tensor, s: tf.Tensor, outputs: tf.TensorArray, states: tf.TensorArray
    ) -> tuple:
        gate = tf.reduce_max(y, axis=-1, keepdims=True) if dynamics.lateral_inhibition else y
        a = tf.cast(drive[:, t], s.dtype) + call.decay * s * (1.0 - gate)
        if dynamics.recurrent:
            fed = y if call.dropout is None else y * call.dropout
            a += tf.cast(tf.matmul(tf.cast(fed, call.kernel.dtype), call.kernel), a.dtype)
        new_s = dynamics.state_activation(a)
        new_y = dynamics.output(new_s - call.threshold)
        if mask is not None:
            new_y, new_s = (
                tf.where(mask[:, t, None], new, old) for new, old in ((new_y, y), (new_s, s))
            )
        return t + 1, new_y, new_s, outputs.write(t, new_y), states.write(t, new_s)

    arrays = [tf.TensorArray(call.s.dtype, steps) for _ in range(2)]
    *_, last, outputs, states = tf.while_loop(
        lambda t, *_: t < steps,
        step,
        (0, call.y, call.s, *arrays),
        maximum_iterations=drive.shape[1],
    )
    outputs, states = (tf.transpose(x.stack(), (1, 0, 2)) for x in (outputs, states))
    return tf.cast(outputs, drive.dtype), last, states
