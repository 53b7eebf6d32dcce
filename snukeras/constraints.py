"""Constraints: what a differential pair of PCM devices can hold, and the unit interval."""

import keras
from keras import ops

from snukeras.pcm._arrays import check_choice, check_number, like, replicas, to_tensor
from snukeras.pcm.pairs import ROUNDINGS, DifferentialPair, check_levels


@keras.saving.register_keras_serializable(package="snukeras")
class PCMConstraint(keras.constraints.Constraint):
    """Keeps weights at values that differential pairs of PCM devices can hold.

    After every optimizer step Keras replaces the weights by what this constraint returns: weights
    clipped to [-r, r] and rounded to the 2 * levels - 1 values k * r / (levels - 1). The range r,
    the weight that a device at its largest conductance stands for, is

    - `w_max`, if given: a fixed grid, and weights beyond it are clipped; or
    - the smallest power of two that holds the largest |w| of the tensor (or of each column).
      Nothing is clipped. A power of two, since the grid then stands still while the largest weight
      moves, and the levels of a range are also levels of half that range.

    Rounding to the nearest level freezes training once updates are smaller than half a level:
    each one is rounded away. The default is stochastic: a weight between two levels goes to either,
    with probabilities that keep its expected value, so that small updates arrive on average. Its
    price is noise of up to half a level per weight; more levels or `rounding="none"` lower it.

    Keras calls constraints after optimizer steps only. Weights just built, loaded or set by hand
    are off the grid until the next step, unless `model.layers[i].kernel.assign(constraint(...))`.

    Example:

        keras.layers.Dense(10, kernel_constraint=snukeras.constraints.PCMConstraint())

    Args:
        levels: conductance levels per device, or None (clip only). 16, four bits per device, by
            default; published chips store about 3 to 4 bits per pair.
        w_max: fixed range, or None: from the weights, see above.
        scale: "tensor" or "column" (last axis): what shares a range taken from the weights.
        rounding: "stochastic", "nearest" or "none" (clip only).
        seed: int or None (a random one), for stochastic rounding. The state of the generator is
            not saved with a model: a loaded one starts at its seed again.

    Raises:
        ValueError: levels < 2, w_max not positive, or an unknown word.
    """

    def __init__(self, levels=16, w_max=None, scale="tensor", rounding="stochastic", seed=None):
        self.levels = check_levels(levels)
        self.w_max = None if w_max is None else check_number("w_max", w_max, above=0.0)
        self.scale = check_choice("scale", scale, ("tensor", "column"))
        self.rounding = check_choice("rounding", rounding, ROUNDINGS)
        self.seed = seed
        self._pair = DifferentialPair(g_max=1.0, levels=self.levels, scale=self.scale)
        # Made here and not at the first call, which may be inside a compiled function.
        self._seed_generator = keras.random.SeedGenerator(seed)
        self._replicas = replicas()

    def max_weight(self, weights):
        """The range r, shape () or (columns,): the weight that the top level stands for.

        A map of the weights to conductances meets their levels with the scales span / r.
        """
        if self.w_max is not None:
            return like(ops.convert_to_tensor(self.w_max, "float32"), weights)
        top = to_tensor(self._pair.max_weight(weights), "weights")
        # The small shift keeps an exact power of two what it is, however log2 rounds.
        exponent = ops.ceil(ops.log2(top) - 1e-6)
        return like(ops.power(ops.cast(2.0, top.dtype), exponent), weights)

    def __call__(self, w):
        if self.rounding == "stochastic" and replicas() > self._replicas:
            raise ValueError(
                "A PCMConstraint with stochastic rounding must be created inside "
                "strategy.scope(), as the model is; otherwise replicas round differently. "
                f"Received: one made for {self._replicas} replica(s), called on {replicas()}."
            )
        scales = 1.0 / to_tensor(self.max_weight(w), "weights")
        quantized = self._pair.quantize(w, scales, self.rounding, seed=self._seed_generator)
        return like(ops.cast(quantized, w.dtype), w) if hasattr(w, "dtype") else quantized

    def get_config(self):
        return {
            "levels": self.levels,
            "w_max": self.w_max,
            "scale": self.scale,
            "rounding": self.rounding,
            "seed": self.seed,
        }


@keras.saving.register_keras_serializable(package="snukeras")
class UnitInterval(keras.constraints.Constraint):
    """Clips weights to [0, 1], where a decay belongs."""

    def __call__(self, w):
        return ops.clip(w, 0.0, 1.0)

    def get_config(self):
        return {}
