"""What has to be said to XLA, the compiler of TensorFlow, so that it compiles well."""

import tensorflow as tf


def fenced(x: tf.Tensor, opaque: tf.Tensor) -> tf.Tensor:
    """Return x, computed once and before all that uses it, by a loop that never runs.

    XLA makes a kernel of each result and computes x in each of them anew.

    Args:
        x: What to compute once.
        opaque: int32, never negative, which must not be known when compiling.
    """
    one = tf.ones((), x.dtype)
    return tf.while_loop(lambda n, _: n < 0, lambda n, x: (n + 1, x + one), (opaque, x))[1]
