"""Converters between digital numbers and the voltages and currents of a tile."""

from typing import Self

import keras
from keras import ops

from snukeras import _arguments
from snukeras._arrays import host_array, like, to_tensor
from snukeras._random import CONVERT, Seed, normal
from snukeras._types import Array, Config, Tensor


@keras.saving.register_keras_serializable(package="snukeras")
class Converter:
    """A digital-to-analog or analog-to-digital converter: noise, range, resolution, in this order.

    Gradients pass straight through the rounding; where a value is clipped, they are 0.

    Args:
        bits: resolution; 2**bits - 1 values, symmetric to 0. None: continuous.
        bound: largest |value|; beyond it values are clipped. None: the largest |value| of each
            vector, so nothing is clipped. Inputs can be scaled so, since they are digital; no
            analog-to-digital converter knows its outputs beforehand, so give it a bound (see
            `calibrated` and `Crossbar.calibrate`).
        noise: standard deviation of additive noise, in the unit of the values.
    """

    def __init__(
        self, bits: int | None = None, bound: float | None = None, noise: float = 0.0
    ) -> None:
        if bits is not None and (isinstance(bits, bool) or int(bits) != bits or bits < 2):
            raise ValueError(
                f"Argument `bits` must be None or an integer of at least 2. Received: {bits!r}"
            )
        self.bits = bits if bits is None else int(bits)
        self.bound = bound if bound is None else _arguments.number("bound", bound, above=0.0)
        self.noise = _arguments.number("noise", noise, minimum=0.0)

    def __call__(self, x: Array, seed: Seed | None = None) -> Array:
        """Convert vectors (..., n); `seed` (int or SeedGenerator) serves the noise."""
        v = to_tensor(x, "x")
        dtype = keras.backend.standardize_dtype(v.dtype)
        if self.noise:
            if seed is None:
                raise ValueError(
                    "Argument `seed` must be given for a converter with noise. Received: None"
                )
            v = v + self.noise * normal(v.shape, dtype, seed, CONVERT)
        if self.bound is None and self.bits is None:
            return like(v, x)
        if self.bound is None:
            bound = ops.maximum(ops.max(ops.abs(v), axis=-1, keepdims=True), 1e-30)
        else:
            bound = ops.cast(self.bound, v.dtype)
        return like(converted(v / bound, self.bits) * bound, x)

    def calibrated(self, values: Array) -> "Converter":
        """Return this converter with the fixed range that just holds `values`.

        Raises:
            ValueError: all values are 0, or not finite.
        """
        top = abs(host_array(ops.convert_to_numpy(values), "values")).max(initial=0.0)
        if top == 0.0:
            raise ValueError(
                "Argument `values` must not all be 0: they are to show the range of the converter. "
                "Give typical inputs."
            )
        return Converter(self.bits, float(top), self.noise)

    def get_config(self) -> Config:
        return {"bits": self.bits, "bound": self.bound, "noise": self.noise}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(**config)


def converted(v: Tensor, bits: int | None) -> Tensor:
    """Clip numbers to [-1, 1] and round them to what a converter of this range can tell apart.

    Gradients pass straight through the rounding; where a number is clipped, they are 0.

    Args:
        v: numbers as shares of the converter's range.
        bits: resolution, 2**bits - 1 values symmetric to 0; None: continuous.
    """
    v = ops.clip(v, -1.0, 1.0)
    if bits is None:
        return v
    steps = 2 ** (bits - 1) - 1
    return v + ops.stop_gradient(ops.round(v * steps) / steps - v)
