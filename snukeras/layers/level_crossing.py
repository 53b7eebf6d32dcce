"""Signals as spikes where they cross levels."""

from typing import Unpack

import keras
from keras import ops

from snukeras import _arguments
from snukeras._arguments import LayerArguments
from snukeras._types import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="snukeras")
class LevelCrossing(keras.layers.Layer):
    """Code a signal by a spike where it crosses a level, upwards and downwards apart.

    Levels lie at whole multiples of `spacing`. With n_t = floor(x_t / spacing) and n_0 the level
    of 0, the signal's start, a feature gives two spike trains:

        up_t = 1 if n_t > n_{t-1} else 0;   down_t = 1 if n_t < n_{t-1} else 0

    A jump over several levels is one spike. A constant signal is silent, which makes the code
    sparse; a signal that trembles about a level spikes at each step, so choose `spacing` above
    the noise. There are no weights, and spikes carry no gradient to the input. The layer exports
    to ONNX; as a step of a stream it keeps the level as a state.

    Args:
        spacing: positive number, from one level to the next.

    Call arguments:
        inputs: shape (batch, steps, features).

    Returns:
        Spikes 0 and 1, shape (batch, steps, 2 * features): all `up`, then all `down`.

    Raises:
        ValueError: `spacing` is not a positive number, or the input has another rank.

    Example:

        model = keras.Sequential([
            keras.Input((None,)),
            snukeras.layers.LogMel(40),
            snukeras.layers.LevelCrossing(0.5),
            snukeras.layers.SNU(128, return_sequences=True),
        ])
    """

    def __init__(self, spacing: float = 0.5, **kwargs: Unpack[LayerArguments]) -> None:
        super().__init__(**_arguments.of_keras(type(self), kwargs))
        self.spacing = _arguments.number("spacing", spacing, above=0.0)

    def build(self, input_shape: Shape) -> None:
        if len(input_shape) != 3 or input_shape[-1] is None:
            raise ValueError(
                f"{type(self).__name__} takes inputs of shape (batch, steps, features) with a "
                f"known number of features. Received: input_shape={tuple(input_shape)}"
            )
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        levels = ops.floor(inputs / ops.cast(self.spacing, inputs.dtype))
        before = ops.concatenate([ops.zeros_like(levels[:, :1]), levels[:, :-1]], axis=1)
        crossings = ops.concatenate([levels > before, levels < before], axis=-1)
        return ops.cast(crossings, self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        features = input_shape[-1]
        return (*input_shape[:-1], None if features is None else 2 * features)

    def get_config(self) -> Config:
        return {**super().get_config(), "spacing": self.spacing}
