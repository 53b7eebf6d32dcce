"""A softmax over the target and sampled words, in place of the whole vocabulary."""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

    Gradient = Callable[[tf.Tensor], tf.Tensor | tuple[tf.Tensor, ...]]


def candidates(
    counts: np.ndarray, number: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw words for a sampled softmax, without replacement, frequent ones more likely.

    The chance of a word is proportional to its count to the power of 3/4, and 1 at most: the most
    frequent words are always there. A sum over the vocabulary is then estimated without bias by
    the sum over the drawn words of each term divided by its word's chance (Horvitz and Thompson,
    1952); the words are drawn systematically, at equal distances along a random order.

    Args:
        counts: Count of each word in the training text.
        number: Words to draw.
        random: Generator.

    Returns:
        Numbers of the drawn words, increasing, int32; and the logarithms of their chances.
    """
    number = min(number, len(counts))
    share = np.maximum(counts, 1).astype(np.float64) ** 0.75
    chances = np.zeros(len(counts))
    certain = np.zeros(len(counts), bool)
    while True:
        chances = share * ((number - certain.sum()) / share[~certain].sum())
        chances[certain] = 1.0
        above = (chances > 1.0) & ~certain
        if not above.any():
            break
        certain |= above
        if certain.all():
            chances[:] = 1.0
            break
    order = random.permutation(len(counts))
    ends = np.cumsum(chances[order])
    # The last end is the number but for rounding.
    places = np.searchsorted(ends, random.random() + np.arange(number), side="right")
    drawn = np.sort(order[np.minimum(places, len(order) - 1)])
    return drawn.astype(np.int32), np.log(chances[drawn]).astype(np.float32)


def sampled_nll(
    features: "tf.Tensor",
    table: "tf.Tensor | tf.Variable",
    bias: "tf.Tensor | tf.Variable | None",
    words: "tf.Tensor",
    drawn: "tf.Tensor",
    log_chances: "tf.Tensor",
    precision: str = "float32",
) -> "tf.Tensor":
    """Return the negative log-likelihood of words; drawn words estimate the partition function.

    The right word counts with its own term; each drawn word that is not the right one with its
    term divided by its chance. With the whole vocabulary drawn it is exact.

    Args:
        features: Shape (..., width).
        table: Shape (vocabulary, width).
        bias: Shape (vocabulary,), or None.
        words: The right words, shape (...).
        drawn, log_chances: As `candidates` gives them.
        precision: Dtype of the products with the drawn words.

    Returns:
        float32, shape (number of words,).
    """
    import tensorflow as tf

    table = _dense_gradient(tf.convert_to_tensor(table))
    bias = tf.zeros(tf.shape(table)[:1]) if bias is None else tf.convert_to_tensor(bias)
    bias = _dense_gradient(bias)
    features = tf.reshape(features, (-1, features.shape[-1]))
    words = tf.cast(tf.reshape(words, (-1,)), tf.int32)
    right = tf.reduce_sum(features * tf.gather(table, words), axis=-1) + tf.gather(bias, words)
    logits = tf.matmul(
        tf.cast(features, precision), tf.cast(tf.gather(table, drawn), precision), transpose_b=True
    )
    others = _log_sum(logits, tf.gather(bias, drawn) - log_chances, words, drawn)
    return tf.nn.softplus(others - right)


def _dense_gradient(x: "tf.Tensor") -> "tf.Tensor":
    """Pass a tensor through; its gradient comes out as a tensor, each row summed up once."""
    import tensorflow as tf

    @tf.custom_gradient
    def through(value: "tf.Tensor") -> "tuple[tf.Tensor, Gradient]":
        return tf.identity(value), tf.convert_to_tensor

    return through(x)


def _log_sum(
    logits: "tf.Tensor", shifts: "tf.Tensor", words: "tf.Tensor", drawn: "tf.Tensor"
) -> "tf.Tensor":
    """Return log sum exp(logits + shifts) over the drawn words other than the right one."""
    import tensorflow as tf

    @tf.custom_gradient
    def apply(logits: "tf.Tensor", shifts: "tf.Tensor") -> "tuple[tf.Tensor, Gradient]":
        logits, shifts = tf.stop_gradient(logits), tf.stop_gradient(shifts)
        total = _forward(logits, shifts, words, drawn)

        def gradient(upstream: "tf.Tensor") -> "tuple[tf.Tensor, tf.Tensor]":
            return _backward(logits, shifts, words, drawn, total, upstream)

        return total, gradient

    return apply(logits, shifts)


def _compiled(function: Callable) -> Callable:
    """Compile with XLA, at the first call: TensorFlow is not imported before."""

    @cache
    def made() -> Callable:
        import tensorflow as tf

        return tf.function(function, jit_compile=True, reduce_retracing=True, autograph=False)

    return lambda *arguments: made()(*arguments)


@_compiled
def _forward(
    logits: "tf.Tensor", shifts: "tf.Tensor", words: "tf.Tensor", drawn: "tf.Tensor"
) -> "tf.Tensor":
    import tensorflow as tf

    z = tf.cast(logits, tf.float32) + shifts
    z = tf.where(words[:, None] == drawn, tf.float32.min, z)
    return tf.reduce_logsumexp(z, axis=-1)


@_compiled
def _backward(
    logits: "tf.Tensor",
    shifts: "tf.Tensor",
    words: "tf.Tensor",
    drawn: "tf.Tensor",
    total: "tf.Tensor",
    upstream: "tf.Tensor",
) -> "tf.Tensor":
    import tensorflow as tf

    z = tf.cast(logits, tf.float32) + shifts - total[:, None]
    z = tf.where(words[:, None] == drawn, 0.0, tf.exp(z) * upstream[:, None])
    return tf.cast(z, logits.dtype), tf.reduce_sum(z, axis=0)
