"""Constraints: what a differential pair of PCM devices can hold, and the unit interval."""

import keras
import numpy as np
from keras import ops

from snukeras import _arguments
from snukeras._arrays import like, to_tensor
from snukeras._random import Counted
from snukeras._strategy import outside_of_graphs, replicas
from snukeras._types import Array, Config, Tensor
from snukeras.pcm.pairs import ROUNDINGS, DifferentialPair, check_levels


@keras.saving.register_keras_serializable(package="snukeras")
class PCMConstraint(keras.constraints.Constraint):
    """Keep weights at values that differential pairs of PCM devices can hold.

    After every optimizer step Keras replaces the weights by what this constraint returns: weights
    clipped to [-r, r] and rounded to the 2 * levels - 1 values k * r / (levels - 1). The range r,
    the weight that a device at its largest conductance stands for, is

    - `w_max`, if given: a fixed grid, and weights beyond it are clipped; or
    - the largest |w| of the tensor (or of each column), as it is now. Nothing is clipped, and the
      exporter, which maps the largest weight to the largest conductance, meets the same levels.

    Rounding to the nearest level freezes training once updates are smaller than half a level:
    each one is rounded away. Two ways out of it:

    - "stochastic", the default: a weight between two levels goes to either, with probabilities
      that keep its expected value, so that small updates arrive on average. Its price is noise of
      up to half a level per weight; more levels or `rounding="none"` lower it.
    - "feedback": to the nearest level, but what rounding takes away is kept, in a variable of the
      constraint, and added to the weight before it is rounded again. So updates add up until they
      make a level, as in the accumulators of mixed-precision training (Nandakumar et al. 2020,
      doi 10.3389/fnins.2020.00406), and nothing is random. For few levels, see docs/pcm.md.

    Keras calls constraints after optimizer steps only. Weights just built, loaded, averaged
    (`use_ema`) or set by hand are off the grid until the next step, unless
    `kernel.assign(constraint.nearest(kernel))`.

    Model files do not hold the variables behind the rounding, which are the kept remainders and the
    state of the random generator: a loaded model has its weights on the grid and begins with
    remainders of zero. `state(kernel)` returns these variables, for code that saves a training.

    Example:

        keras.layers.Dense(10, kernel_constraint=snukeras.constraints.PCMConstraint())

    Args:
        levels: conductance levels per device, or None (clip only). 16, four bits per device, by
            default; published chips store about 3 to 4 bits per pair.
        w_max: fixed range, or None: from the weights, see above.
        scale: "tensor" or "column" (last axis): what shares a range taken from the weights.
        rounding: "stochastic", "feedback", "nearest" or "none" (clip only).
        seed: int or None (a random one), for stochastic rounding.

    Raises:
        ValueError: levels < 2, w_max not positive, or an unknown word; when called, "feedback" on
            several replicas or on the JAX backend, which drops what a constraint keeps.
    """

    def __init__(
        self,
        levels: int | None = 16,
        w_max: float | None = None,
        scale: str = "tensor",
        rounding: str = "stochastic",
        seed: int | None = None,
    ) -> None:
        self.levels = check_levels(levels)
        self.w_max = None if w_max is None else _arguments.number("w_max", w_max, above=0.0)
        self.scale = _arguments.choice("scale", scale, ("tensor", "column"))
        self.rounding = _arguments.choice("rounding", rounding, (*ROUNDINGS, "feedback"))
        self.seed = seed
        self._pair = DifferentialPair(g_max=1.0, levels=self.levels, scale=self.scale)
        # Made here and not at the first call, which may be inside a compiled function.
        self._seeds = Counted(seed)
        self._replicas = replicas()
        # By id of the kernel, with the kernel itself, so that no other can get its id.
        self._remainders: dict[int, tuple[keras.Variable, keras.Variable]] = {}

    def max_weight(self, weights: Array) -> Array:
        """Return the range r, shape () or (columns,): the weight that the top level stands for.

        A map of the weights to conductances meets their levels with the scales span / r.
        """
        if self.w_max is not None:
            return like(ops.convert_to_tensor(self.w_max, "float32"), weights)
        return self._pair.max_weight(weights)

    def __call__(self, w: Array) -> Array:
        if self.rounding == "stochastic" and replicas() > self._replicas:
            raise ValueError(
                "A PCMConstraint with stochastic rounding must be created inside "
                "strategy.scope(), as the model is; otherwise replicas round differently. "
                f"Received: one made for {self._replicas} replica(s), called on {replicas()}."
            )
        if self.rounding == "feedback":
            return self._with_feedback(w) if isinstance(w, keras.Variable) else self.nearest(w)
        return self._quantized(w, self.rounding)

    def nearest(self, w: Array) -> Array:
        """Return the weights nearest to `w` that the pairs can hold, whatever the rounding."""
        return self._quantized(w, "none" if self.rounding == "none" else "nearest")

    def state(self, variable: keras.Variable) -> list[keras.Variable]:
        """List the variables behind the rounding of a kernel, on which its training depends."""
        if self.rounding == "feedback":
            return [self._remainder(variable)]
        return [self._seeds.generator.state] if self.rounding == "stochastic" else []

    def _quantized(self, w: Array, rounding: str) -> Array:
        scales = 1.0 / to_tensor(self.max_weight(w), "weights")
        seed = self._seeds.next() if rounding == "stochastic" else None
        quantized = self._pair.quantize(w, scales, rounding, seed=seed)
        return like(ops.cast(quantized, w.dtype), w) if hasattr(w, "dtype") else quantized

    def _with_feedback(self, variable: keras.Variable) -> Tensor:
        remainder = self._remainder(variable)
        wanted = ops.cast(variable, "float32") + remainder
        held = self._quantized(wanted, "nearest")
        # What is beyond the range is clipped for good.
        top = to_tensor(self.max_weight(wanted), "weights")
        remainder.assign(ops.clip(wanted, -top, top) - held)
        return ops.cast(held, variable.dtype)

    def _remainder(self, variable: keras.Variable) -> keras.Variable:
        if keras.backend.backend() == "jax" or replicas() > 1:
            raise ValueError(
                'A PCMConstraint with rounding="feedback" needs one replica and the backend '
                f"tensorflow or torch. Received: {replicas()} replica(s) on "
                f'{keras.backend.backend()}; use rounding="stochastic" there.'
            )
        if id(variable) not in self._remainders:
            with outside_of_graphs():
                remainder = keras.Variable(
                    np.zeros(variable.shape), dtype="float32", trainable=False, name="remainder"
                )
            self._remainders[id(variable)] = (variable, remainder)
        return self._remainders[id(variable)][1]

    def get_config(self) -> Config:
        return {
            "levels": self.levels,
            "w_max": self.w_max,
            "scale": self.scale,
            "rounding": self.rounding,
            "seed": self.seed,
        }


@keras.saving.register_keras_serializable(package="snukeras")
class UnitInterval(keras.constraints.Constraint):
    """Clip weights to [0, 1], where a decay belongs."""

    def __call__(self, w: Array) -> Tensor:
        return ops.clip(w, 0.0, 1.0)

    def get_config(self) -> Config:
        return {}
