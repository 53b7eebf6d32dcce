"""Converters between digital numbers and the voltages and currents of a tile."""

import keras
from keras import ops

from snukeras.pcm._arrays import check_number, like, to_tensor
from snukeras.pcm._random import normal


@keras.saving.register_keras_serializable(package="snukeras")
class Converter:
    """A digital-to-analog or analog-to-digital converter: noise, range, resolution, in this order.

    Args:
        bits: resolution; 2**bits - 1 values, symmetric to 0. None: continuous.
        bound: largest |value|; beyond it values are clipped. None: the largest |value| of each
            vector, so nothing is clipped.
        noise: standard deviation of additive noise, in the unit of the values.
    """

    def __init__(self, bits=None, bound=None, noise=0.0):
        if bits is not None and (isinstance(bits, bool) or int(bits) != bits or bits < 2):
            raise ValueError(f"`bits` must be None or an integer of at least 2. Received: {bits!r}")
        self.bits = bits if bits is None else int(bits)
        self.bound = bound if bound is None else check_number("bound", bound, above=0.0)
        self.noise = check_number("noise", noise, minimum=0.0)

    def __call__(self, x, seed=None):
        """Converts vectors (..., n); `seed` (int or SeedGenerator) serves the noise."""
        v = to_tensor(x, "x")
        dtype = keras.backend.standardize_dtype(v.dtype)
        if self.noise:
            v = v + self.noise * normal(v.shape, dtype, seed)
        if self.bound is not None:
            v = ops.clip(v, -self.bound, self.bound)
        if self.bits is not None:
            if self.bound is None:
                bound = ops.maximum(ops.max(ops.abs(v), axis=-1, keepdims=True), 1e-30)
            else:
                bound = ops.cast(self.bound, dtype)
            step = bound / (2 ** (self.bits - 1) - 1)
            v = ops.round(v / step) * step
        return like(v, x)

    def get_config(self):
        return {"bits": self.bits, "bound": self.bound, "noise": self.noise}

    @classmethod
    def from_config(cls, config):
        return cls(**config)
