"""The state of a training on disk, and back."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from snukeras import _files

if TYPE_CHECKING:
    import keras

    from snukeras.constraints import PCMConstraint


class State:
    """Where a training stands after an epoch; kept in one file.

    Attributes:
        epoch: Epochs done.
        stopped: Whether the patience was at its end.
        best_valid, best_epoch, best_weights: The best on validation so far.
        seconds: Time spent in training.
        history: For each epoch its loss and validation figure.
        sum_of_weights, summed: For the averaging of class "swa".
        first: The weights after the first step, for the averaging of class "ema".
    """

    _FIELDS = ("epoch", "stopped", "best_valid", "best_epoch", "seconds", "history", "summed")

    def __init__(
        self, path: Path, recipe_sha256: str, model: "keras.Model", trainer: "keras.Model"
    ) -> None:
        self.path = path
        self.recipe_sha256 = recipe_sha256
        self.model = model
        self.trainer = trainer
        self.epoch = 0
        self.stopped = False
        self.best_valid: float | None = None
        self.best_epoch = 0
        self.best_weights: list[np.ndarray] = []
        self.seconds = 0.0
        self.history: dict[str, list[float]] = {"loss": [], "valid": []}
        self.sum_of_weights: list[np.ndarray] = []
        self.summed = 0
        self.first: list[np.ndarray] = []
        if path.exists():
            self._load()

    def _variables(self) -> "list[keras.Variable]":
        # A model's variables have the seeds of dropout too, which weight files leave out.
        return [
            *self.trainer.variables,
            *self.trainer.optimizer.variables,
            *(
                v
                for kernel, constraint in constrained(self.model)
                for v in constraint.state(kernel)
            ),
        ]

    def save(self) -> None:
        """Write all of it, replacing the state of the epoch before."""
        fields = {key: getattr(self, key) for key in self._FIELDS}
        state = json.dumps({**fields, "recipe_sha256": self.recipe_sha256})
        arrays = {"state": np.array(state)}
        for kind, values in (
            ("variable", [variable.numpy() for variable in self._variables()]),
            ("best", self.best_weights),
            ("sum", self.sum_of_weights),
            ("first", self.first),
        ):
            arrays.update({f"{kind}_{index}": value for index, value in enumerate(values)})
        with _files.replacing(self.path) as temporary:
            _files.write_arrays(temporary, arrays)

    def _load(self) -> None:
        with np.load(self.path, allow_pickle=False) as arrays:
            for key, value in json.loads(str(arrays["state"])).items():
                setattr(self, key, value)
            for index, variable in enumerate(self._variables()):
                variable.assign(arrays[f"variable_{index}"])
            self.best_weights = numbered(arrays, "best")
            self.sum_of_weights = numbered(arrays, "sum")
            self.first = numbered(arrays, "first")


def numbered(arrays: Mapping[str, np.ndarray], kind: str) -> list[np.ndarray]:
    """Return the arrays KIND_0, KIND_1, ... in their order."""
    return [arrays[f"{kind}_{i}"] for i in range(sum(k.startswith(f"{kind}_") for k in arrays))]


def constrained(model: "keras.Model") -> "list[tuple[keras.Variable, PCMConstraint]]":
    """Return the weights with a PCMConstraint, each with it."""
    from snukeras.constraints import PCMConstraint

    pairs = ((variable, variable.constraint) for variable in model.trainable_variables)
    return [(variable, found) for variable, found in pairs if isinstance(found, PCMConstraint)]
