"""The normal numbers of tf.random.stateless_normal with alg="philox", compiled by XLA.

The same seed gives the same numbers, to rounding, in a tenth of the time: on a processor TensorFlow
makes them one by one, with sines and logarithms of a library, where one compiled loop makes eight
at once. XLA's own stateless_normal, which a compiled function gets, is slow and gives others.
"""

import functools
import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from snukeras._xla import fenced

# Philox4x32-10 of Salmon et al., SC 2011 (doi 10.1145/2063384.2063405): multipliers, key steps.
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_KEY_STEPS = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10
# Numbers are made in a few blocks of one of these sizes, so that no other has to be compiled.
_SIZES = 2**12, 2**15, 2**18, 2**21


def normal(shape: tuple[int, ...], seed: tf.Tensor) -> tf.Tensor:
    """Draw standard normal float32 numbers, the same in eager, graph and compiled code.

    Args:
        shape: tuple of ints.
        seed: two integers, as tf.random.stateless_normal takes them.
    """
    count = math.prod(shape)
    key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=seed)
    size = next((size for size in _SIZES if count <= 8 * size), _SIZES[-1])
    blocks = []
    for start in range(0, max(count, 1), size):
        # Four numbers for each counter.
        step = tf.constant([start // 4, 0], tf.uint64)
        blocks.append(_compiled(size // 2)(key[0], counter + step))
    pairs = tf.concat(blocks, axis=0) if len(blocks) > 1 else blocks[0]
    numbers = tf.reshape(tf.bitcast(pairs, tf.float32), (-1,))
    return tf.reshape(numbers[:count], shape)


def normal_like(x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Draw such numbers in the shape of a tensor, which may be known only at run time.

    Args:
        x: tensor whose shape is wanted.
        seed: as in `normal`.
    """
    key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=seed)
    drawn = _compiled_like()(key[0], counter, tf.stop_gradient(x))
    return tf.ensure_shape(drawn, x.shape)


@functools.cache
def _compiled_like() -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
    def drawn(key: tf.Tensor, counter: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        pairs = _pairs((tf.size(x) + 1) // 2, key, counter)
        numbers = tf.reshape(tf.bitcast(pairs, tf.float32), (-1,))
        return tf.reshape(numbers[: tf.size(x)], tf.shape(x))

    return tf.function(drawn, jit_compile=True, autograph=False, reduce_retracing=True)


@functools.cache
def _compiled(count: int) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    return tf.function(functools.partial(_pairs, count), jit_compile=True, autograph=False)


def _pairs(count: int | tf.Tensor, key: tf.Tensor, counter: tf.Tensor) -> tf.Tensor:
    """Return `count` pairs of numbers, each pair packed into one 64-bit integer.

    Packed so, XLA fuses everything into one loop.
    """
    i = tf.cast(tf.range(count), tf.uint64)
    # A group of four words makes two pairs.
    words = _words(counter[0] + tf.bitwise.right_shift(i, _u64(1)), counter[1], key)
    first = (i & _u64(1)) == _u64(0)
    one = tf.where(first, words[0], words[2])
    other = tf.where(first, words[1], words[3])
    radius = tf.sqrt(-2.0 * tf.math.log(tf.maximum(_uniform(one), 1e-7)))
    low, high = (
        tf.cast(tf.bitcast(radius * wave, tf.uint32), tf.uint64)
        for wave in _sine_and_cosine(_uniform(other))
    )
    pairs = low | tf.bitwise.left_shift(high, _u64(32))
    # Without the fence XLA would recompute the numbers for each use in a larger function.
    return fenced(pairs, tf.cast(key & _u64(1), tf.int32))


def _words(
    low: tf.Tensor, high: tf.Tensor, key: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return four random 32-bit words for each counter low + 2^64 high, as 64-bit integers."""
    x0, x1 = _halves(low)
    x2, x3 = _halves(high)
    k0, k1 = _halves(key)
    for _ in range(_ROUNDS):
        (low0, high0), (low2, high2) = (
            _halves(x * _u64(m)) for x, m in zip((x0, x2), _MULTIPLIERS, strict=True)
        )
        x0, x1, x2, x3 = high2 ^ x1 ^ k0, low2, high0 ^ x3 ^ k1, low0
        k0, k1 = (_halves(k + _u64(step))[0] for k, step in zip((k0, k1), _KEY_STEPS, strict=True))
    return x0, x1, x2, x3


def _halves(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the lower and the upper 32 bits."""
    return x & _u64(0xFFFFFFFF), tf.bitwise.right_shift(x, _u64(32))


def _u64(value: int) -> tf.Tensor:
    return tf.constant(value, tf.uint64)


def _uniform(word: tf.Tensor) -> tf.Tensor:
    """Turn 23 bits of a word into a float32 in [0, 1)."""
    bits = tf.cast(word & _u64(0x7FFFFF), tf.uint32) | tf.constant(0x3F800000, tf.uint32)
    return tf.bitcast(bits, tf.float32) - 1.0


def _sine_and_cosine(turns: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Compute sin and cos of 2 pi `turns` to float32 precision, by Cephes' polynomials."""
    quarters = tf.round(4.0 * turns)
    x = (4.0 * turns - quarters) * np.float32(math.pi / 2)
    xx = x * x
    sine = x + x * xx * (-1.6666654611e-1 + xx * (8.3321608736e-3 - xx * 1.9515295891e-4))
    fourth = 4.166664568298827e-2 + xx * (-1.388731625493765e-3 + xx * 2.443315711809948e-5)
    cosine = 1.0 - 0.5 * xx + xx * xx * fourth
    quarter = tf.cast(quarters, tf.int32)
    odd = (quarter & 1) == 1
    sine, cosine = tf.where(odd, cosine, sine), tf.where(odd, sine, cosine)
    sine = tf.where((quarter & 2) == 2, -sine, sine)
    return sine, tf.where(((quarter + 1) & 2) == 2, -cosine, cosine)
