"""Images of digits: say which digit it is."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from snukeras._files import JsonObject
from snukeras.datasets import mnist
from snukeras.zoo.tasks.classification import Classification, Samples

if TYPE_CHECKING:
    import keras

CLASSES = 10
VALIDATION = 5_000

# Which of the seven segments each digit lights: top, upper left and right, middle, lower left and
# right, bottom.
_SEGMENTS = ("1110111", "0010010", "1011101", "1011011", "0111010",
             "1101011", "1101111", "1010010", "1111111", "1111011")  # fmt: skip


@dataclass
class Digits(Classification):
    """Classify the images of MNIST.

    A network takes images `(28, 28, 1)` with values in [0, 1] and puts out a number for each of the
    ten digits; its layers code the images as spikes (`snukeras.layers.RateCoding`), and distort
    them in training where they do (`snukeras.layers.ElasticDistortion`). Validation is the last
    5,000 of the training images; the test split that of the data set.

    Figure: accuracy in percent. Networks whose coding is fixed at inference, as it is by default,
    have one figure; what other spikes change is measured by `experiments.rate_coding`.
    """

    name = "mnist"
    title = "MNIST"
    data_sha256 = mnist.ARRAYS_SHA256
    data_licence = "CC BY-SA 3.0 (Yann LeCun and Corinna Cortes)"
    tolerance = 0.1  # ten of the 10,000 images
    measured_on = "images of the test split"
    intended = (
        "Research on networks of spiking and soft units and on their deployment in analog memory: "
        "it classifies grey images of 28 x 28 points as one of ten digits."
    )
    limits = (
        "Digits that are centred, light on dark and written by hand. It gives a digit for any "
        "image, and its outputs are no probabilities."
    )
    tags = ("image-classification",)
    reads = ("loss",)

    @cached_property
    def samples(self) -> Samples:
        """Images float32 (n, 28, 28, 1) and one-hot digits float32 (n, 10) of each split."""
        (x, y), (x_test, y_test) = self._load()
        splits = {
            "train": (x[:-VALIDATION], y[:-VALIDATION]),
            "valid": (x[-VALIDATION:], y[-VALIDATION:]),
            "test": (x_test, y_test),
        }
        return {
            split: (x[..., None].astype("float32") / 255, np.eye(CLASSES, dtype="float32")[y])
            for split, (x, y) in splits.items()
        }

    def _load(self) -> tuple[mnist.Split, mnist.Split]:
        return mnist.load_data()

    def loss(self, arguments: JsonObject) -> "keras.losses.Loss":
        """Return the mean squared error against the digit as one of ten ones; no arguments."""
        import keras

        return keras.losses.MeanSquaredError(**arguments)

    def example(self) -> tuple[str, ...]:
        """Return lines of Python for the cards, that measure and fine-tune `model`."""
        return (
            "from snukeras.zoo.tasks.images import draw",
            "",
            "# Drawn digits stand for your own images, (n, 28, 28, 1) with values in [0, 1].",
            "x, y = np.stack([draw(digit) for digit in range(10)]), np.eye(10)",
            'model.compile(keras.optimizers.Adam(1e-4), "mse", metrics=["accuracy"])',
            "model.evaluate(x, y)",
            "model.fit(x, y)                                       # fine-tune it",
        )

    def measured_inputs(self) -> Iterator[tuple[np.ndarray, None]]:
        """Yield the first 500 images of the test split."""
        for first in range(0, 500, 50):
            yield self.samples["test"][0][first : first + 50], None

    def golden_inputs(self) -> list[np.ndarray]:
        """Return candidates for the golden input, `(1, 28, 28, 1)`: digits drawn by `draw`."""
        return [draw(digit)[None] for digit in range(CLASSES)]


def draw(digit: int) -> np.ndarray:
    """Draw a digit of seven soft segments, `(28, 28, 1)` in [0, 1]: an image that is no data."""
    image = np.zeros((28, 28), "float32")
    top, middle, bottom = slice(4, 7), slice(12, 15), slice(21, 24)
    left, right, across = slice(8, 11), slice(17, 20), slice(8, 20)
    upper, lower = slice(4, 15), slice(12, 24)
    places = ((top, across), (upper, left), (upper, right), (middle, across),
              (lower, left), (lower, right), (bottom, across))  # fmt: skip
    for lit, place in zip(_SEGMENTS[digit], places, strict=True):
        if lit == "1":
            image[place] = 1
    for axis in (0, 1):
        image = (np.roll(image, 1, axis) + 2 * image + np.roll(image, -1, axis)) / 4
    return image[..., None]


MNIST = Digits()
