"""What a task of the zoo is: the contract between training and data."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from snukeras._files import JsonObject
from snukeras.datasets import at_hand
from snukeras.zoo.recipes import Recipe

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

SPLITS = ("train", "valid", "test")
_OF_SOME_TASKS = ("data", "loss", "padding", "teacher")


@dataclass(frozen=True)
class Part:
    """A part of a test split, to compare an exported network on.

    Attributes:
        what: What it is, in words.
        inputs: Batches.
        targets: For each batch what the output is compared with.
        metric: "frame_nll", "accuracy" or "perplexity"; for the last two targets are numbers of
            classes.
    """

    what: str
    inputs: list[np.ndarray]
    targets: list[np.ndarray]
    metric: str


class Task(ABC):
    """The data, loss, metric and golden input of a task that the zoo has models for.

    What a recipe says of the data, under `data`, is for the task alone to read.

    Attributes:
        name: The task's name in recipes.
        title: What people call the data set.
        data_sha256: sha256 of the data, for the results.
        data_licence: What its licence is, for the cards.
        metric: Name of the figure.
        unit: What the figure is measured in.
        lower_is_better: Whether a smaller figure is a better one.
        tolerance: What the figure may differ by on another machine: a spike whose potential is
            within rounding of the threshold may fall either way there.
        measured_on: What `measured_inputs` are, in words.
        intended: What models of the task are for, for the cards.
        limits: What they are not for, for the cards.
        tags: What hubs of models find them by.
        reads: Which of the recipe's entries `data`, `loss`, `padding` and `teacher` the
            task uses.
    """

    name: str
    title: str
    data_sha256: str
    data_licence: str
    metric: str
    unit: str
    lower_is_better: bool
    tolerance: float = 5e-3
    measured_on: str = "golden input"
    intended: str = ""
    limits: str = ""
    tags: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()

    def check(self, recipe: Recipe) -> None:
        """Refuse a recipe with an entry that this task would not use.

        Raises:
            ValueError: Such an entry; the message names it.
        """
        unused = [key for key in _OF_SOME_TASKS if getattr(recipe, key) and key not in self.reads]
        if unused:
            raise ValueError(
                f"The recipe {recipe.name} has entries that the task {self.name} does not use: "
                f"{', '.join(unused)}. Leave them out. Used are: {', '.join(self.reads) or 'none'}."
            )

    @abstractmethod
    def loss(self, arguments: JsonObject) -> "keras.losses.Loss":
        """Return the loss, with the arguments that a recipe gives."""

    @abstractmethod
    def metrics(self) -> list["keras.metrics.Metric"]:
        """Return the metrics to compile with, as `weighted_metrics`."""

    @abstractmethod
    def steps_per_epoch(self, recipe: Recipe) -> int:
        """Return the number of batches of an epoch."""

    @abstractmethod
    def training_data(self, recipe: Recipe, seed: int, first_epoch: int = 0) -> "tf.data.Dataset":
        """Return the batches of all epochs from `first_epoch` on, one after the other.

        A batch depends on the seed and on its place alone, so that a training that resumes sees
        the same batches as one that was not interrupted.
        """

    def scores(self, model: "keras.Model", split: str) -> tuple[np.ndarray, np.ndarray]:
        """Return what each sample adds to the figure, and what it counts, each (samples,).

        The figure is the sum of the first over the sum of the second.

        Args:
            model: The model.
            split: "train", "valid" or "test".

        Raises:
            ValueError: The task has no samples of their own, but one stream.
        """
        raise ValueError(f"The task {self.name} is one stream, which has no samples to compare.")

    def part(self) -> Part | None:
        """Return a part of the test split, None where the data set is not on this machine.

        Nothing is downloaded.
        """
        with at_hand():
            try:
                return self._part()
            except (ConnectionError, FileNotFoundError):
                return None

    @abstractmethod
    def _part(self) -> Part | None:
        """Return a part of the test split, small enough to be computed many times."""

    def example(self) -> tuple[str, ...]:
        """Return lines of Python for the cards, that measure and fine-tune `model` on some data.

        keras, snukeras and NumPy (np) are imported. Default: none.
        """
        return ()

    def label(self, index: int) -> str:
        """Return what an output stands for, for the cards."""
        return f"output {index}"

    def trainer(self, model: "keras.Model", recipe: Recipe) -> "keras.Model":
        """Return the model that `fit` trains: the network itself, or one around its weights."""
        return model

    @abstractmethod
    def evaluate(self, model: "keras.Model", split: str) -> float:
        """Return the figure of a model that is compiled with `metrics()`.

        Args:
            model: The model; its weights and its states are afterwards what they were.
            split: "train", "valid" or "test".
        """

    def typical_inputs(self) -> np.ndarray:
        """Return training samples, to find the ranges of converters with.

        Raises:
            ValueError: The task has none in one array.
        """
        raise ValueError(
            f"The task {self.name} has no samples of one array to calibrate converters with. Leave "
            "out `analog`."
        )

    @abstractmethod
    def golden_inputs(self) -> list[np.ndarray]:
        """Return candidates for the golden input, each with a batch axis of one."""

    def measured_inputs(self) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Yield inputs to count spikes and operations on.

        `snukeras.zoo.publishing.costs.counted` takes them, each with a bool mask of the steps that
        count, or None where all do. Default: the first golden input.
        """
        yield self.golden_inputs()[0], None
