"""GRAPES on MNIST, against plain training and against a matched learning rate."""

from experiments.grapes.tables import table

__all__ = ["table"]
