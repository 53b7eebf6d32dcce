"""Rate coding: images as trains of spikes."""

import random
from collections.abc import Sequence
from typing import Unpack

import keras
import numpy as np
from keras import ops

from snukeras import _arguments, _strategy
from snukeras._arguments import LayerArguments
from snukeras._types import Config, Shape, Tensor

_INFERENCE = ("fixed", "random")
# What a value may exceed 1 by.
_ROUNDING = 1e-6


@keras.saving.register_keras_serializable(package="snukeras")
class RateCoding(keras.layers.Layer):
    """Code intensities by the rate of their spikes, one Bernoulli trial per value and step.

    A value p of the input spikes at each step with the probability p * max_spikes / steps (cut to
    [0, 1]), so that it spikes p * max_spikes times in `steps` steps on average: the input of the
    rate-coded MNIST of Wozniak et al. 2020, after the authors' toolkit (neuroaikit, where
    steps = 20 and max_spikes = 6).

    A value outside [0, 1] is no rate. A call outside of compiled functions refuses one, and NaN.
    Within `fit`, `evaluate` and `predict`, which compile the layer, values cannot be looked at:
    one below 0 and NaN never spike, one above 1 spikes at its rate up to every step. Pixels from 0
    to 255 need a `keras.layers.Rescaling(1 / 255)` before the layer.

    In training each call draws new spikes. At inference a value spikes at a step where it exceeds
    a threshold in [0, 1) that was drawn once, by the seed, for each place and step. Each spike
    train has the same distribution as in training, but the same image always gets the same one:
    predictions can be repeated, and exported. `inference="random"` draws anew there as well.

    Args:
        steps: positive integer, number of steps.
        max_spikes: positive number, expected spikes of the value 1 in `steps` steps; default:
            `steps`, a spike at every step.
        training_steps: number of steps in training, where it is to differ from `steps`; the
            probability at a step stays the same.
        inference: "fixed" (spikes are a function of the input) or "random".
        seed: integer, or None for a random one.

    Call arguments:
        inputs: values in [0, 1], shape (batch, ...).
        training: whether new spikes are drawn, for `training_steps` steps.

    Returns:
        Spikes 0 and 1, shape (batch, steps, ...). They carry no gradient to the input.

    Raises:
        ValueError: an argument or a value of the input is outside what is allowed; the message
            names it.

    Example:

        model = keras.Sequential([
            keras.Input((784,)),
            snukeras.layers.RateCoding(20),
            snukeras.layers.SNU(256, return_sequences=True),
            snukeras.layers.SNU(10, return_sequences=True),
            keras.layers.GlobalAveragePooling1D(),
        ])
    """

    def __init__(
        self,
        steps: int,
        max_spikes: float | None = None,
        training_steps: int | None = None,
        inference: str = "fixed",
        seed: int | None = None,
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        super().__init__(**_arguments.of_keras(type(self), kwargs))
        self.steps = _arguments.whole("steps", steps)
        self.training_steps = (
            None if training_steps is None else _arguments.whole("training_steps", training_steps)
        )
        if max_spikes is not None:
            _arguments.number("max_spikes", max_spikes, above=0.0, maximum=steps)
        self.max_spikes = max_spikes
        self.inference = _arguments.choice("inference", inference, _INFERENCE)
        # Drawn here where None is given, so that a saved layer keeps its fixed spikes; from
        # Python's generator, as Keras draws its seeds: keras.utils.set_random_seed decides it.
        self.seed = random.randint(1, 2**31 - 1) if seed is None else seed
        self.seed_generator = keras.random.SeedGenerator(self.seed)
        self._thresholds: np.ndarray | None = None

    @property
    def probability(self) -> float:
        """Probability of a spike of the value 1 at a step."""
        return 1.0 if self.max_spikes is None else self.max_spikes / self.steps

    def build(self, input_shape: Shape) -> None:
        sizes = [size for size in input_shape[1:] if size is not None]
        if len(sizes) + 1 != len(input_shape):
            raise ValueError(
                f"{type(self).__name__} needs inputs of known shape but for the batch. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        self._thresholds = self.thresholds(sizes)
        # The thresholds fit no other shape.
        self.input_spec = keras.layers.InputSpec(shape=(None, *sizes))
        self.built = True

    def thresholds(self, shape: Sequence[int]) -> np.ndarray:
        """Return what an expected spike count has to exceed at inference, by step and place.

        A value p spikes at a step of fixed spikes where p * probability > threshold.

        Args:
            shape: shape of the input without the batch.

        Returns:
            float32 in [0, 1), shape (steps, *shape).
        """
        # NumPy's, so that a model codes alike on every backend.
        return np.random.default_rng(self.seed).random((self.steps, *shape), dtype="float32")

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        self._check_values(inputs)
        rate = ops.expand_dims(inputs, 1)
        if self.probability != 1.0:
            rate = rate * ops.cast(self.probability, rate.dtype)
        if training or self.inference == "random":
            _strategy.check_draws_are_possible(self.name, ("onnx", "openvino"))
            steps = self._steps(training)
            shape = (ops.shape(inputs)[0], steps, *inputs.shape[1:])
            # float32 also under half-precision policies, whose random numbers are coarse.
            draws = keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)
        else:
            draws = ops.convert_to_tensor(self._thresholds)[None]
        return ops.cast(ops.cast(rate, "float32") > draws, self.compute_dtype)

    def _check_values(self, inputs: Tensor) -> None:
        """Refuse values outside [0, 1], but for rounding, where values can be looked at."""
        values = ops.cast(inputs, "float32")
        inside = ops.all(ops.logical_and(values >= 0.0, values <= 1.0 + _ROUNDING))
        try:
            refused = not bool(inside)
        except TypeError:
            return  # in a compiled function
        if refused:
            values = ops.convert_to_numpy(values)
            received = f"values from {values.min():g} to {values.max():g}"
            if np.isnan(values).any():
                received = f"{np.count_nonzero(np.isnan(values))} NaN"
            raise ValueError(
                f"Inputs of layer {self.name!r} must be in [0, 1], the rates of spikes; scale them "
                f"with keras.layers.Rescaling. Received: {received}"
            )

    def _steps(self, training: bool) -> int:
        return self.training_steps if training and self.training_steps else self.steps

    def compute_output_spec(self, inputs: Tensor, training: bool = False) -> keras.KerasTensor:
        steps: int | None = self._steps(training)
        if not training and self.training_steps not in (None, self.steps):
            # A model built now may be called either way.
            steps = None
        return keras.KerasTensor(
            (inputs.shape[0], steps, *inputs.shape[1:]), dtype=self.compute_dtype
        )

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "steps": self.steps,
            "max_spikes": self.max_spikes,
            "training_steps": self.training_steps,
            "inference": self.inference,
            "seed": self.seed,
        }
