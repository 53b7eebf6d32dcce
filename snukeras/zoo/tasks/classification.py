"""Samples of ten classes or so: say which class it is."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from snukeras.zoo.recipes import Recipe
from snukeras.zoo.tasks.task import Part, Task

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

_PART = 50

Samples = dict[str, tuple[np.ndarray, np.ndarray]]


class Classification(Task):
    """A task whose samples are of one class each; its figure is the accuracy in percent."""

    metric = "accuracy"
    unit = "% correct"
    lower_is_better = False

    @property
    @abstractmethod
    def samples(self) -> Samples:
        """Inputs float32 (n, ...) and one-hot classes float32 (n, classes) of each split."""

    def label(self, index: int) -> str:
        """Return the name of a class."""
        return f"digit {index}"

    def metrics(self) -> list["keras.metrics.Metric"]:
        """Return the metrics to compile with, as `weighted_metrics`."""
        import keras

        return [keras.metrics.CategoricalAccuracy(name=self.metric)]

    def steps_per_epoch(self, recipe: Recipe) -> int:
        """Return the number of batches of an epoch; samples that do not fill one wait."""
        return len(self.samples["train"][0]) // int(recipe.batch_size)

    def training_data(self, recipe: Recipe, seed: int, first_epoch: int = 0) -> "tf.data.Dataset":
        """Return the batches of all epochs from `first_epoch` on, one after the other.

        An epoch is a permutation of the samples that depends on the seed and its number alone, so
        a training that resumes sees the same batches. All batches are whole.
        """
        import tensorflow as tf

        x, y = self.samples["train"]
        size, steps = recipe.batch_size, self.steps_per_epoch(recipe)

        def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for epoch in range(first_epoch, recipe.epochs):
                random = np.random.default_rng((seed, epoch))
                order = random.permutation(len(x))
                for rows in order[: steps * size].reshape(steps, size):
                    yield self.drawn(rows, recipe, random), y[rows]

        signature = (
            tf.TensorSpec((size, *x.shape[1:]), tf.float32),
            tf.TensorSpec((size, *y.shape[1:]), tf.float32),
        )
        return tf.data.Dataset.from_generator(batches, output_signature=signature).prefetch(2)

    def drawn(self, rows: np.ndarray, recipe: Recipe, random: np.random.Generator) -> np.ndarray:
        """Return training samples as a batch sees them. Default: as they are.

        Args:
            rows: Which samples, integers.
            recipe: Under `data` what is to be done to them.
            random: What to draw from.
        """
        x: np.ndarray = self.samples["train"][0][rows]
        return x

    def evaluate(self, model: "keras.Model", split: str, batch_size: int = 500) -> float:
        """Return the accuracy in percent of a model that is compiled with `metrics()`.

        Args:
            model: The model.
            split: "train", "valid" or "test".
            batch_size: Samples a batch; the figure does not depend on it.
        """
        x, y = self.samples[split]
        values = model.evaluate(x, y, batch_size=batch_size, verbose=0, return_dict=True)
        return 100.0 * float(values[self.metric])

    def scores(self, model: "keras.Model", split: str) -> tuple[np.ndarray, np.ndarray]:
        """Return 100 for each sample that is told right and 0 for each other, and ones."""
        x, y = self.samples[split]
        right = model.predict(x, batch_size=500, verbose=0).argmax(-1) == y.argmax(-1)
        return 100.0 * right, np.ones(len(x))

    def typical_inputs(self) -> np.ndarray:
        """Return the samples of the training split."""
        return self.samples["train"][0]

    def _part(self) -> Part:
        x, y = self.samples["test"]
        # Evenly spaced: a split may be in the order of its classes.
        rows = np.linspace(0, len(x) - 1, _PART).astype(int)
        x, y = x[rows], y[rows]
        what = f"{len(x)} {self.measured_on.split()[0]} of the test split of {self.title}"
        return Part(what, [x], [y.argmax(axis=-1)], self.metric)
