"""What a task of the zoo is: the contract between training and data."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

SPLITS = ("train", "valid", "test")


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
    """

    name: str
    title: str
    data_sha256: str
    data_licence: str
    metric: str
    unit: str
    lower_is_better: bool

    @abstractmethod
    def loss(self, arguments: dict[str, Any]) -> "keras.losses.Loss":
        """Return the loss, with the arguments that a recipe gives."""

    @abstractmethod
    def metrics(self) -> list["keras.metrics.Metric"]:
        """Return the metrics to compile with, as `weighted_metrics`."""

    @abstractmethod
    def steps_per_epoch(self, recipe: dict[str, Any]) -> int:
        """Return the number of batches of an epoch."""

    @abstractmethod
    def training_data(
        self, recipe: dict[str, Any], seed: int, first_epoch: int = 0
    ) -> "tf.data.Dataset":
        """Return the batches of all epochs from `first_epoch` on, one after the other.

        A batch depends on the seed and on its place alone, so that a training that resumes sees
        the same batches as one that was not interrupted.
        """

    def trainer(self, model: "keras.Model", recipe: dict[str, Any]) -> "keras.Model":
        """Return the model that `fit` trains: the network itself, or one around its weights."""
        return model

    @abstractmethod
    def evaluate(self, model: "keras.Model", split: str) -> float:
        """Return the figure of a model that is compiled with `metrics()`.

        Args:
            model: The model; its weights and its states are afterwards what they were.
            split: "train", "valid" or "test".
        """

    @abstractmethod
    def golden_inputs(self) -> list[np.ndarray]:
        """Return candidates for the golden input, each with a batch axis of one."""
