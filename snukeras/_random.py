"""Random numbers for devices and for training, quick also under XLA."""

import functools
import math
from collections.abc import Callable
from typing import TypeAlias, Union

import keras
import numpy as np
from keras import ops

from snukeras._types import Dtype, Tensor

#: An int, a SeedGenerator, Quick(SeedGenerator), or two integers in a tensor (see `draw`).
Seed: TypeAlias = Union[int, keras.random.SeedGenerator, "Quick", Tensor]

# Tags that keep draws of different kinds apart when they are given the same int as seed.
PROGRAM, READ, PULSE, RESET, CONVERT = 0, 0x2C1B3C6D, 0x3C6EF372, 0x1B873593, 0x51ED270B


class Quick:
    """Mark a SeedGenerator: `normal` may serve it with approximate Gaussian numbers.

    For noise during training, where a step must not wait for its random numbers.
    """

    def __init__(self, generator: keras.random.SeedGenerator | Tensor) -> None:
        self.generator = generator


def draw(seed: Seed | None, stream: int = 0) -> Tensor:
    """Take the next two integers from `seed`, with which stateless generators start.

    Args:
        seed: an int, a SeedGenerator, Quick(SeedGenerator), or what this function returned.
        stream: a tag of the kind of draw. It makes one int (or one pair of integers) give each
            kind other numbers. A generator needs no tag: it never gives the same numbers twice.
    """
    if isinstance(seed, Quick):
        return Quick(draw(seed.generator))
    if isinstance(seed, keras.random.SeedGenerator):
        return seed.next()
    if seed is None:
        raise ValueError(
            "Argument `seed` must be an int or a keras.random.SeedGenerator: there is no global "
            "generator here. Received: seed=None"
        )
    if not ops.is_tensor(seed):
        return ops.convert_to_tensor([int(seed), stream], dtype="int64")
    pair: Tensor = seed
    return pair + ops.convert_to_tensor([0, stream], dtype=pair.dtype) if stream else pair


class Counted:
    """A generator whose every draw, also in a compiled function of JAX, takes the next seed.

    JAX compiles the state of a generator in as a constant where no model hands it on: every step
    would draw the same numbers. There the function asks the host, which counts.

    Args:
        seed: int, or None for a random one.
    """

    def __init__(self, seed: int | None) -> None:
        self.generator = keras.random.SeedGenerator(seed)
        self._pair: np.ndarray | None = None

    def next(self) -> Seed:
        """Return what `draw` takes next."""
        if keras.backend.backend() != "jax":
            return self.generator
        import jax
        from jax.experimental import io_callback

        if self._pair is None:
            self._pair = ops.convert_to_numpy(self.generator.state.value).astype("uint32")
        return io_callback(self._count, jax.ShapeDtypeStruct((2,), "uint32"))

    def _count(self) -> np.ndarray:
        assert self._pair is not None
        pair = self._pair
        self._pair = pair + np.array([0, 1], "uint32")
        return pair


def normal(shape: tuple[int, ...], dtype: Dtype, seed: Seed, stream: int = 0) -> Tensor:
    """Draw standard normal numbers; `seed` and `stream` as in `draw`."""
    dtype = keras.backend.standardize_dtype(dtype)
    if stream:
        seed = draw(seed, stream)
    if isinstance(seed, Quick):
        return ops.cast(quick_normal(shape, seed.generator), dtype)
    if keras.backend.backend() != "tensorflow":
        # keras.random takes no pair of integers there.
        return ops.cast(_compiled(_box_muller, tuple(shape))(draw(seed)), dtype)
    import tensorflow as tf

    from snukeras import _philox

    if dtype == "float32":
        return _philox.normal(tuple(shape), draw(seed))
    # keras.random leaves the algorithm to TensorFlow, whose choice under XLA on a CPU takes some
    # 500 ns per number.
    return tf.random.stateless_normal(shape, draw(seed), dtype=dtype, alg="philox")


def normal_like(x: Tensor, seed: Seed) -> Tensor:
    """Draw standard normal float32 numbers in the shape of a tensor.

    The shape may be known only when a compiled function runs.
    """
    pair = draw(seed)
    if keras.backend.backend() != "tensorflow":
        return _box_muller(pair, tuple(x.shape))
    from snukeras import _philox

    return _philox.normal_like(x, pair)


def quick_normal(shape: tuple[int, ...], seed: Seed) -> Tensor:
    """Draw nearly normal float32 numbers: the standardised sum of eight uniform bytes.

    Mean 0, variance 1, kurtosis 2.85 (3 for a Gaussian), never beyond 4.9. A dimension may be a
    tensor, where it is known only when a compiled function runs.
    """
    if not all(isinstance(size, int) for size in shape):
        return _byte_sums(draw(seed), tuple(shape))
    return _compiled(_byte_sums, tuple(shape))(draw(seed))


def quick_uniform(shape: tuple[int, ...], seed: Seed) -> Tensor:
    """Draw uniform float32 numbers in [0, 1), multiples of 2**-24."""
    return _compiled(_uniform, tuple(shape))(draw(seed))


@functools.lru_cache(maxsize=256)
def _compiled(function: Callable[..., Tensor], shape: tuple[int, ...]) -> Callable[..., Tensor]:
    if keras.backend.backend() != "tensorflow":
        return functools.partial(function, shape=shape)
    import tensorflow as tf

    # One pass over memory instead of one per operation.
    return tf.function(functools.partial(function, shape=shape), jit_compile=True, autograph=False)


def _u32(value: int) -> Tensor:
    return ops.convert_to_tensor(value % 2**32, dtype="uint32")


def _low(x: Tensor) -> Tensor:
    """Keep the lower 32 bits: the integers of torch, for which uint32 stands, have 64."""
    return ops.bitwise_and(x, _u32(0xFFFFFFFF)) if keras.backend.backend() == "torch" else x


def _mix(x: Tensor) -> Tensor:
    """Scramble 32-bit integers, one to one: each changed bit changes half of the bits.

    Two rounds of multiply and xor-shift, with the constants of C. Wellons' "lowbias32" (public
    domain).
    """
    x = _low(ops.bitwise_xor(x, ops.right_shift(x, _u32(16))) * _u32(0x7FEB352D))
    x = _low(ops.bitwise_xor(x, ops.right_shift(x, _u32(15))) * _u32(0x846CA68B))
    return ops.bitwise_xor(x, ops.right_shift(x, _u32(16)))


def _bits(seed: Tensor, count: int | Tensor, stream: int) -> Tensor:
    """Return `count` random 32-bit integers: a counter, moved by a key, mixed."""
    seed = _low(ops.cast(seed, "uint32"))
    key = _mix(_low(_mix(_low(_mix(seed[0]) + seed[1])) + _u32(stream)))
    steps = np.arange(count, dtype="uint32") if isinstance(count, int) else ops.arange(count)
    counter = ops.cast(steps, "uint32")
    return _mix(ops.bitwise_xor(_low(counter * _u32(0x9E3779B1)), key))


def _uniform(seed: Tensor, shape: tuple[int, ...]) -> Tensor:
    bits = ops.right_shift(_bits(seed, math.prod(shape), 0), _u32(8))
    return ops.reshape(ops.cast(ops.cast(bits, "int32"), "float32") * 2.0**-24, shape)


def _box_muller(seed: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return standard normal float32 numbers."""
    count = math.prod(shape)
    first, second = (
        ops.cast(ops.cast(ops.right_shift(_bits(seed, count, stream), _u32(8)), "int32"), "float32")
        for stream in (2, 3)
    )
    radius = ops.sqrt(-2.0 * ops.log((first + 1.0) * 2.0**-24))
    return ops.reshape(radius * ops.cos(second * (2.0 * math.pi * 2.0**-24)), shape)


def _byte_sums(seed: Tensor, shape: tuple[int, ...]) -> Tensor:
    first = _bits(seed, math.prod(shape), 1)
    # The other four bytes are a scrambled copy of the first four: half a mix is enough there.
    second = _low(ops.bitwise_xor(first, ops.right_shift(first, _u32(15))) * _u32(0x2C1B3C6D))
    second = ops.bitwise_xor(second, ops.right_shift(second, _u32(14)))
    low, total = _u32(0x00FF00FF), _u32(0)
    for bits in (first, second):
        # Two sums of bytes at once, in the halves of the word.
        total = total + ops.bitwise_and(bits, low)
        total = total + ops.bitwise_and(ops.right_shift(bits, _u32(8)), low)
    both = ops.bitwise_and(total, _u32(0xFFFF)) + ops.right_shift(total, _u32(16))
    spread = math.sqrt(8 * (256**2 - 1) / 12)
    sums = ops.cast(ops.cast(both, "int32"), "float32")
    return ops.reshape((sums - 8 * 127.5) * (1.0 / spread), shape)


def of_step(seed: Tensor, step: Tensor) -> Tensor:
    """Return two integers with which the generator of one step of a loop of JAX starts.

    They are scrambled, so that what a step draws one after the other is not what the same step
    draws when the loop runs again. XLA keeps JAX's own scrambling apart; it would put ours into
    each use of the numbers several times over, and compile that for minutes.

    Args:
        seed: two integers, as `draw` returns them before the loop.
        step: int32 scalar, different for all steps.
    """
    import jax

    pair: Tensor = jax.random.fold_in(ops.cast(seed, "uint32"), step)
    return pair


def numbered(seed: Tensor, use: Tensor) -> Quick:
    """Return a generator of its own for each use of random numbers within a step, for `normal`.

    The odd factor spreads the uses over all 32-bit integers, so that those of one seed do not
    meet those of the next.

    Args:
        seed: two integers, as `draw` returns them.
        use: int or scalar tensor, which use it is.
    """
    use = ops.cast(ops.cast(use, "int32"), "uint32")
    seed = ops.cast(seed, "uint32")
    return Quick(ops.stack([_low(seed[0] + use * _u32(0x9E3779B1)), seed[1]]))
