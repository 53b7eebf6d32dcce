"""Hints to XLA, the compiler of TensorFlow, that make it compile well."""

import tensorflow as tf


def fenced(x: tf.Tensor, opaque: tf.Tensor) -> tf.Tensor:
    """Return x, computed once and before all that uses it, by a loop that never runs.

    XLA compiles one kernel per result and would recompute x in each.

    Args:
        x: What to compute once.
        opaque: int32 scalar, never negative, whose value the compiler cannot know.
    """
    one = tf.ones((), x.dtype)
    return tf.while_loop(lambda n, _: n < 0, lambda n, x: (n + 1, x + one), (opaque, x))[1]
