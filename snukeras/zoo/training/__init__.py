"""Train the models of the zoo from their recipes; a training can be interrupted and resumed."""

from snukeras.zoo.training.results import FORMAT, results_of, versions
from snukeras.zoo.training.seeds import RESULT, STATE, Progress, train_seed, trained_model
from snukeras.zoo.training.spread import Training, trained, trained_all
from snukeras.zoo.training.train import RESULTS, train

__all__ = [
    "FORMAT",
    "RESULT",
    "RESULTS",
    "STATE",
    "Progress",
    "Training",
    "results_of",
    "train",
    "train_seed",
    "trained",
    "trained_all",
    "trained_model",
    "versions",
]
