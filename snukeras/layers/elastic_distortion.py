"""Elastic distortion of images, after Simard, Steinkraus and Platt (ICDAR 2003)."""

import math
from typing import Unpack

import keras
import numpy as np
from keras import ops

from snukeras import _arguments
from snukeras._arguments import LayerArguments
from snukeras._types import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="snukeras")
class ElasticDistortion(keras.layers.Layer):
    """Distort images in training as elastic sheets; each image in its own way at each call.

    Every pixel is moved by a random field: uniform numbers in [-1, 1], smoothed by a Gaussian of
    width sigma, times alpha (Simard, Steinkraus and Platt, "Best practices for convolutional
    neural networks applied to visual document analysis", ICDAR 2003; they take alpha = 34,
    sigma = 4 for MNIST). On top of it the whole image may be rotated, scaled and shifted. The
    image at the moved places is interpolated bilinearly; it is zero outside. Where the layer does
    not train, images pass unchanged.

    The smoothing is two small matrix products, the interpolation a gather; both run in the graph.

    Args:
        alpha: strength of the elastic field; 0 switches it off. The displacement of a pixel has a
            standard deviation of some `0.16 * alpha / sigma` pixels in each direction.
        sigma: width of the Gaussian in pixels, positive.
        rotation: largest angle of a random rotation, in degrees.
        zoom: largest relative change of the size, in each direction of its own; below 1.
        shift: largest random shift in each direction, in pixels.
        seed: integer, or None for a random one.

    Call arguments:
        inputs: images, shape (batch, height, width, channels).
        training: whether images are distorted.

    Returns:
        Images, of the shape of the input.

    Raises:
        ValueError: an argument is outside what is allowed; the message names it.
    """

    def __init__(
        self,
        alpha: float = 34.0,
        sigma: float = 4.0,
        rotation: float = 0.0,
        zoom: float = 0.0,
        shift: float = 0.0,
        seed: int | None = None,
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        super().__init__(**_arguments.of_keras(type(self), kwargs))
        self.alpha = _arguments.number("alpha", alpha, minimum=0.0)
        self.sigma = _arguments.number("sigma", sigma, above=0.0)
        self.rotation = _arguments.number("rotation", rotation, minimum=0.0)
        self.zoom = _arguments.number("zoom", zoom, minimum=0.0, below=1.0)
        self.shift = _arguments.number("shift", shift, minimum=0.0)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape: Shape) -> None:
        if len(input_shape) != 4 or any(size is None for size in input_shape[1:]):
            raise ValueError(
                f"{type(self).__name__} takes images of shape (batch, height, width, channels) "
                f"and known size. Received: input_shape={tuple(input_shape)}"
            )
        self.built = True

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        if not training:
            return inputs
        return self._sample(inputs, *self._places(inputs))

    def _places(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return where each pixel takes its value from: row and column, (batch, height, width)."""
        batch = ops.shape(images)[0]
        height, width = images.shape[1:3]
        down = np.arange(height, dtype="float32")[None, :, None] - (height - 1) / 2
        right = np.arange(width, dtype="float32")[None, None, :] - (width - 1) / 2

        def draw(shape: tuple, limit: float) -> Tensor:
            return keras.random.uniform(
                (batch, *shape), -limit, limit, dtype="float32", seed=self.seed_generator
            )

        # Tensors from here on: an array does not multiply a tensor of torch.
        row, column = map(ops.convert_to_tensor, (down + 0 * right, right + 0 * down))
        if self.rotation:
            angle = draw((1, 1), math.radians(self.rotation))
            cosine, sine = ops.cos(angle), ops.sin(angle)
            row, column = cosine * row - sine * column, sine * row + cosine * column
        if self.zoom:
            row = row * (1 + draw((1, 1), self.zoom))
            column = column * (1 + draw((1, 1), self.zoom))
        if self.shift:
            row, column = row + draw((1, 1), self.shift), column + draw((1, 1), self.shift)
        if self.alpha:
            smooth_down, smooth_right = (
                ops.convert_to_tensor(_gaussian(size, self.sigma)) for size in (height, width)
            )
            field = draw((2, height, width), self.alpha)
            field = ops.matmul(ops.matmul(smooth_down, field), ops.transpose(smooth_right))
            row, column = row + field[:, 0], column + field[:, 1]
        return row + (height - 1) / 2, column + (width - 1) / 2

    def _sample(self, images: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Interpolate the images at places in pixels; zero outside."""
        height, width, channels = images.shape[1:]
        # A border of zeros stands for all that is outside.
        padded = ops.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]])
        flat = ops.reshape(padded, (-1, (height + 2) * (width + 2), channels))
        row = ops.clip(row + 1, 0, height + 1 - 1e-3)
        column = ops.clip(column + 1, 0, width + 1 - 1e-3)
        top, left = ops.floor(row), ops.floor(column)
        below, beside = row - top, column - left
        corner = ops.cast(top * (width + 2) + left, "int32")
        total: Tensor = 0.0
        for offset, weight in (
            (0, (1 - below) * (1 - beside)),
            (1, (1 - below) * beside),
            (width + 2, below * (1 - beside)),
            (width + 3, below * beside),
        ):
            index = ops.reshape(corner + offset, (-1, height * width, 1))
            if channels > 1:
                index = ops.repeat(index, channels, axis=2)
            value = ops.reshape(
                ops.take_along_axis(flat, index, axis=1), (-1, height, width, channels)
            )
            total = total + value * ops.cast(weight, images.dtype)[..., None]
        return total

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "alpha": self.alpha,
            "sigma": self.sigma,
            "rotation": self.rotation,
            "zoom": self.zoom,
            "shift": self.shift,
            "seed": self.seed,
        }


def _gaussian(size: int, sigma: float) -> np.ndarray:
    """Return the matrix that smooths an axis by a Gaussian, zero outside; float32 (size, size)."""
    reach = np.arange(-size + 1, size)
    weights = np.exp(-0.5 * (reach / sigma) ** 2)
    weights = weights / weights.sum()
    offset = np.arange(size)[None, :] - np.arange(size)[:, None]
    return weights[offset + size - 1].astype("float32")
