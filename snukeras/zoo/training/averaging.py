"""Average weights over the epochs of a training."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from snukeras.zoo.recipes import Recipe
from snukeras.zoo.training.state import State, constrained


def keep_first(state: State, recipe: Recipe) -> None:
    """Keep the weights after the first step, where a moving average starts from them."""
    averaging = recipe.averaging
    if averaging and averaging["class"] == "ema" and state.epoch == 0 and not state.first:
        state.first = [variable.numpy() for variable in state.trainer.trainable_variables]


def add_to_sum(state: State, recipe: Recipe) -> None:
    """Add the weights after an epoch to their sum, where the recipe averages over epochs."""
    averaging = recipe.averaging
    if averaging and averaging["class"] == "swa" and state.epoch >= averaging["first_epoch"]:
        weights = [variable.numpy() for variable in state.trainer.trainable_variables]
        sums = state.sum_of_weights or [np.zeros_like(weight, np.float64) for weight in weights]
        state.sum_of_weights = [a + b for a, b in zip(sums, weights, strict=True)]
        state.summed += 1


@contextmanager
def averaged(state: State, recipe: Recipe) -> Iterator[None]:
    """Give the model its averaged weights within the block, where the recipe averages.

    An average of weights on a grid is off it, and is rounded to it again.
    """
    averaging = recipe.averaging
    if not averaging or (averaging["class"] == "swa" and not state.summed):
        yield
        return
    variables = state.trainer.trainable_variables
    raw = [variable.numpy() for variable in variables]
    try:
        if averaging["class"] == "ema":
            state.trainer.optimizer.finalize_variable_values(variables)
            _take_out_the_start(state, averaging["momentum"])
        else:
            for variable, total in zip(variables, state.sum_of_weights, strict=True):
                variable.assign((total / state.summed).astype(np.float32))
        for variable, constraint in constrained(state.model):
            variable.assign(constraint.nearest(variable))
        yield
    finally:
        for variable, value in zip(variables, raw, strict=True):
            variable.assign(value)


def _take_out_the_start(state: State, momentum: float) -> None:
    """Correct a moving average of weights for its start, as Adam does its moments.

    Keras's average begins with the weights after the first step, and gives them the weight
    momentum^(n - 1) after n steps: more than half of all after some steps at a momentum of 0.99.
    Here they get (1 - momentum) momentum^(n - 1), as every step has, and the sum of all is one.
    """
    left = momentum ** int(state.trainer.optimizer.iterations)
    if not state.first or left == 0.0:
        return
    for variable, first in zip(state.trainer.trainable_variables, state.first, strict=True):
        average = variable.numpy().astype(np.float64)
        variable.assign(((average - left * first) / (1.0 - left)).astype(np.float32))
