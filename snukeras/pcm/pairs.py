"""Differential pairs: a weight is the difference of two conductances."""

from typing import Self

import keras
import numpy as np
from keras import ops

from snukeras import _arguments
from snukeras._arrays import host_array, is_tensor, like, to_tensor
from snukeras._random import Seed, quick_uniform
from snukeras._types import Array, Config, Tensor

# Error of a weight on PCM some hours after programming, as a share of g_max, and the ranges that
# are compared for clip="best", as shares of the largest |w|.
_ERROR = 0.04
_RANGES = np.geomspace(0.1, 1.0, 24)

ROUNDINGS = ("stochastic", "nearest", "none")


def check_levels(levels: object) -> int | None:
    """Return `levels` as an int of at least 2, or None for continuous devices."""
    if levels is None:
        return None
    if isinstance(levels, bool) or not isinstance(levels, int | np.integer) or levels < 2:
        raise ValueError(
            "Argument `levels` must be None (continuous) or an integer of at least 2, the number "
            f"of conductance levels per device. Received: {levels!r}"
        )
    return int(levels)


@keras.saving.register_keras_serializable(package="snukeras")
class DifferentialPair:
    """Map weights to pairs of device conductances and back.

    With scale s (uS per unit of weight) and the device range [g_min, g_max]:

        g_plus  = g_min + clip( s w, 0, g_max - g_min)
        g_minus = g_min + clip(-s w, 0, g_max - g_min)
        w       = (g_plus - g_minus) / s

    so one device of each pair rests at g_min. The last axis of a weight array is the column (the
    output unit); this holds for Dense, recurrent and convolution kernels.

    NumPy arrays (and lists) give NumPy arrays, tensors and variables give tensors, also inside
    compiled functions. float64 stays float64. Host data are checked for NaN and infinity; tensors
    are not, since they may be symbolic.

    The mapping is that of Joshi et al. 2020 (doi 10.1038/s41467-020-16108-9), except that with
    g_min > 0 nothing can exceed g_max.

    Args:
        g_max: largest conductance of a device, uS.
        g_min: smallest conductance of a device, uS.
        levels: number of conductance levels per device, g_min and g_max included; a pair then
            holds 2 * levels - 1 weights. None means continuous.
        scale: "tensor" (one scale for the whole array) or "column" (one per output unit).
        clip: None: g_max stands for the largest |w|. A number k: for k standard deviations of the
            array (of its column), where that is less; weights beyond are clipped. The others then
            use more of the range, so that noise weighs less. "best": for the weight with which
            clipping and the noise of devices together cost a product least, if each weight is off
            by 4 % of g_max, as PCM is some hours after programming.

    Raises:
        ValueError: g_min < 0, g_max <= g_min, levels < 2, another word for `scale`, or a clip that
            is not positive.
    """

    def __init__(
        self,
        g_max: float = 25.0,
        g_min: float = 0.0,
        levels: int | None = None,
        scale: str = "tensor",
        clip: float | str | None = None,
    ) -> None:
        self.g_min = _arguments.number("g_min", g_min, minimum=0.0)
        self.g_max = _arguments.number("g_max", g_max, above=self.g_min)
        self.levels = check_levels(levels)
        self.scale = _arguments.choice("scale", scale, ("tensor", "column"))
        self.clip: float | str | None = clip
        if isinstance(clip, str):
            if clip != "best":
                raise ValueError(
                    'Argument `clip` must be None, a number above 0, or "best". '
                    f"Received: clip={clip!r}"
                )
        elif clip is not None:
            self.clip = _arguments.number("clip", clip, above=0.0)

    @property
    def span(self) -> float:
        """g_max - g_min, uS."""
        return self.g_max - self.g_min

    def max_weight(self, weights: Array) -> Array:
        """Return the weight that g_max stands for: max |w| per tensor () or per column (columns,).

        With a number as `clip`, it is no more than so many standard deviations (around 0, which a
        column of one weight has too). Where all weights are zero it is 1, so that nothing is
        divided by zero.
        """
        w = to_tensor(weights, "weights")
        if self.scale == "column" and len(w.shape) == 0:
            raise ValueError(
                "Argument `weights` must have at least one axis for scale='column'. Received: a "
                "scalar; use scale='tensor'."
            )
        # Compiled for a processor, this is seven times as fast as the maximum of |w|, and twice as
        # fast as one over all axes at once.
        axes = tuple(range(len(w.shape) - 1))
        highest = w if axes == () else ops.max(w, axis=axes, initial=0.0)
        lowest = w if axes == () else ops.min(w, axis=axes, initial=0.0)
        top = ops.maximum(highest, -lowest)
        if self.scale == "tensor" and len(w.shape):
            top = ops.max(top, initial=0.0)
        over = None if self.scale == "tensor" else axes
        if isinstance(self.clip, float):
            top = ops.minimum(top, self.clip * ops.sqrt(ops.mean(ops.square(w), axis=over)))
        elif self.clip is not None:
            top = _best_range(w, top, over)
        return like(ops.where(top > 0, top, ops.ones_like(top)), weights)

    def scales(self, weights: Array) -> Array:
        """Return the uS per unit of weight, so that the weight of `max_weight` gets g_max.

        Returns:
            Shape () for scale="tensor", (columns,) for scale="column".
        """
        return like(self.span / to_tensor(self.max_weight(weights), "weights"), weights)

    def to_conductances(self, weights: Array, scales: Array | None = None) -> tuple[Array, Array]:
        """Return the conductances (g_plus, g_minus) in uS that stand for `weights`.

        Args:
            weights: any shape.
            scales: uS per unit of weight, () or (columns,); by default `self.scales(weights)`.
                Weights beyond span / scales are clipped.

        Returns:
            Two arrays shaped like `weights`, rounded to the nearest level if there are levels.
        """
        w = to_tensor(weights, "weights")
        s = self._scales(w, weights, scales)
        return self._conductance(w * s, weights), self._conductance(-w * s, weights)

    def _conductance(self, g: Tensor, original: Array) -> Array:
        """Clip and round one device of each pair, uS above g_min; `original` says as what type."""
        g = ops.clip(g, 0.0, self.span)
        if self.levels is not None:
            g = ops.round(g / self.step) * self.step
        return like(ops.minimum(g + self.g_min, self.g_max), original)

    def to_weights(self, g_plus: Array, g_minus: Array, scales: Array) -> Array:
        """Return the weights (g_plus - g_minus) / scales that two arrays of uS stand for."""
        plus, minus = to_tensor(g_plus, "g_plus"), to_tensor(g_minus, "g_minus")
        if tuple(plus.shape) != tuple(minus.shape):
            raise ValueError(
                "`g_plus` and `g_minus` must have the same shape. Received: "
                f"{tuple(plus.shape)} and {tuple(minus.shape)}"
            )
        s = self._scales(plus, g_plus, scales)
        return like((plus - minus) / s, g_plus)

    @property
    def step(self) -> float:
        """Distance of two levels, uS; 0 for continuous devices."""
        return 0.0 if self.levels is None else self.span / (self.levels - 1)

    def quantize(
        self,
        weights: Array,
        scales: Array | None = None,
        rounding: str = "nearest",
        seed: Seed | None = None,
    ) -> Array:
        """Return the nearby weights that the pairs can hold: clipped, then rounded to the levels.

        Args:
            weights: any shape.
            scales: as in `to_conductances`.
            rounding: "nearest"; "stochastic" (up or down with the probabilities that make the
                expected value equal to the weight); "none" (clip only).
            seed: int or keras.random.SeedGenerator, needed for "stochastic".
        """
        _arguments.choice("rounding", rounding, ROUNDINGS)
        w = to_tensor(weights, "weights")
        s = self._scales(w, weights, scales)
        g = ops.clip(w * s, -self.span, self.span)
        if self.levels is not None and rounding != "none":
            position = g / self.step
            if rounding == "nearest":
                position = ops.round(position)
            else:
                # Float rounding may put a weight that is on its level just below it, where
                # floor(position + u) would now and then fall one level short. The margin is four
                # units of float precision: smaller updates are lost in any float arithmetic.
                whole = ops.round(position)
                epsilon = np.finfo(self._dtype(position)).eps
                near = ops.abs(position - whole) <= 4.0 * epsilon * ops.abs(whole)
                u = ops.cast(quick_uniform(position.shape, seed), position.dtype)
                position = ops.where(near, whole, ops.floor(position + u))
            g = ops.clip(position * self.step, -self.span, self.span)
        return like(g / s, weights)

    @staticmethod
    def _dtype(x: Tensor) -> str:
        return keras.backend.standardize_dtype(x.dtype)

    def _scales(self, w: Tensor, original: Array, scales: Array | None) -> Tensor:
        """Return `scales` as a tensor of the type of `w`, checked against its last axis."""
        if scales is None:
            scales = self.scales(original)
        if not is_tensor(scales):
            scales = host_array(scales, "scales")
            if np.any(scales <= 0):
                raise ValueError(
                    "`scales` (uS per unit of weight) must be positive. Received a smallest value "
                    f"of {scales.min():g}"
                )
        columns = w.shape[-1] if len(w.shape) else 1
        if tuple(scales.shape) not in ((), (columns,)):
            raise ValueError(
                f"Argument `scales` must have shape () or ({columns},), one per column of the "
                f"weights. Received: shape {tuple(scales.shape)}"
            )
        return ops.cast(scales, self._dtype(w))

    def get_config(self) -> Config:
        return {
            "g_max": self.g_max,
            "g_min": self.g_min,
            "levels": self.levels,
            "scale": self.scale,
            "clip": self.clip,
        }

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(**config)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items())
        return f"DifferentialPair({arguments})"


def _best_range(w: Tensor, top: Tensor, axes: tuple[int, ...] | None) -> Tensor:
    """Return the range with the least error of a product: of clipping, and of noise in the range.

    Args:
        w: weights.
        top: the largest |w|, () or (columns,).
        axes: what share a range.
    """
    size = ops.abs(w)
    best, least = top, None
    for share in _RANGES[::-1]:
        limit = top * share
        cut = ops.mean(ops.square(ops.relu(size - limit)), axis=axes)
        cost = cut + ops.square(_ERROR * limit)
        if least is None:
            best, least = limit, cost
        else:
            best = ops.where(cost < least, limit, best)
            least = ops.minimum(cost, least)
    return best
