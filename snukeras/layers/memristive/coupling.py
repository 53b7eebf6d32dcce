"""How neurons of an all-memristive layer compete: level-tuned, winner-takes-all, or not at all."""

from collections.abc import Sequence
from typing import Self

import keras
from keras import ops

from snukeras import _arguments
from snukeras._types import Config, Tensor


@keras.saving.register_keras_serializable(package="snukeras")
class LevelTuned:
    """Coupling of a layer's neurons by levels: each works on the inputs of its own level alone.

    The neurons of a layer see each other's postsynaptic potentials s_1 ... s_K (uS, the sums of
    their synapse outputs). Neuron k is enabled where s_k > levels[k]; with `chain` only if all
    neurons before it are enabled too. The highest enabled neuron integrates, alone: it tunes out
    those below it, so that each neuron prefers a band of levels.

    A reconstruction: that the potential of one neuron enables the next comes from the patent
    US 10,755,167; that the highest enabled one works alone is our reading of "level-tuned".

    Args:
        levels: K numbers in uS, not decreasing.
        chain: whether neurons before it must be enabled for a neuron to be enabled.

    Raises:
        ValueError: levels that decrease, are negative or not finite.
    """

    one_winner = False

    def __init__(self, levels: Sequence[float], chain: bool = False) -> None:
        self.levels = [_arguments.number("levels", level, minimum=0.0) for level in levels]
        if not self.levels or sorted(self.levels) != self.levels:
            raise ValueError(
                "Argument `levels` must be numbers that do not decrease, one a neuron: the last "
                f"neuron takes the highest level. Received: levels={levels!r}"
            )
        self.chain = bool(chain)

    def check(self, units: int) -> None:
        """Raise ValueError unless there is one level for each of `units` neurons."""
        if len(self.levels) != units:
            raise ValueError(
                f"Argument `levels` must hold one level for each of the {units} neurons. "
                f"Received: levels={self.levels}"
            )

    def __call__(self, potentials: Tensor) -> Tensor:
        """Return which neurons integrate, booleans of the shape (..., K) of `potentials`."""
        enabled = ops.cast(potentials > ops.convert_to_tensor(self.levels, "float32"), "int32")
        if self.chain:
            enabled = ops.cumprod(enabled, axis=-1)
        above = ops.flip(ops.cumsum(ops.flip(enabled, axis=-1), axis=-1), axis=-1) - enabled
        return ops.logical_and(enabled > 0, ops.equal(above, 0))

    def get_config(self) -> Config:
        return {"levels": self.levels, "chain": self.chain}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(**config)


@keras.saving.register_keras_serializable(package="snukeras")
class WinnerTakesAll:
    """The classic coupling by lateral inhibition: all integrate, the first to fire resets the rest.

    Args:
        level: integration threshold in uS: potentials up to it are not integrated.
    """

    one_winner = True

    def __init__(self, level: float = 0.0) -> None:
        self.level = _arguments.number("level", level, minimum=0.0)

    def check(self, units: int) -> None:
        """Accept any number of neurons."""

    def __call__(self, potentials: Tensor) -> Tensor:
        """Return which neurons integrate, booleans of the shape of `potentials`."""
        return potentials > self.level

    def get_config(self) -> Config:
        return {"level": self.level}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(**config)


@keras.saving.register_keras_serializable(package="snukeras")
class Uncoupled(WinnerTakesAll):
    """No coupling: each neuron integrates what exceeds `level` (uS). The control."""

    one_winner = False
