"""Costs of spikes: too many or too few; and of neurons in space: crowding, long connections."""

import keras
from keras import ops

from snukeras import _arguments
from snukeras._types import Config, Tensor

# Keeps the gradient of a distance finite where two neurons are at one place.
_TINY = 1e-8


def distances(positions: Tensor, others: Tensor) -> Tensor:
    """Return the Euclidean distances between neurons, shape (others, positions).

    Args:
        positions: (units, dimensions).
        others: (other units, dimensions).
    """
    difference = ops.expand_dims(others, 1) - ops.expand_dims(positions, 0)
    return ops.sqrt(ops.sum(ops.square(difference), axis=-1) + _TINY)


def proximity(positions: Tensor) -> Tensor:
    """Return the cost of crowding within a layer: the mean of exp(-distance) over all pairs.

    Pairs of a neuron with itself are among them, as in the authors' code: they add a constant.
    Wolczyk et al. 2019, arXiv 1910.02776.

    Args:
        positions: (units, dimensions).
    """
    return ops.mean(ops.exp(-distances(positions, positions)))


def transport(kernel: Tensor, positions: Tensor, previous: Tensor, power: int = 2) -> Tensor:
    """Return the cost of long connections between two layers: the mean of |w|^power * distance.

    Wolczyk et al. 2019, arXiv 1910.02776.

    Args:
        kernel: (..., previous units, units); leading axes, such as the places of a
            convolution, are averaged over.
        positions: (units, dimensions).
        previous: (previous units, dimensions).
        power: 1 or 2.
    """
    strength = ops.abs(kernel) if power == 1 else ops.square(kernel)
    return ops.mean(strength * distances(positions, previous))


# The metric has the same class name; Keras knows one object by a name.
@keras.saving.register_keras_serializable(package="snukeras", name="regularizers.SpikeRate")
class SpikeRate(keras.regularizers.Regularizer):
    """Keep the rate of each unit near a target, or between bounds.

        snukeras.layers.SNU(256, activity_regularizer=snukeras.regularizers.SpikeRate(low=0.02))

    The cost is the mean over the units of

        factor * ((r - target)^2 + max(0, low - r)^2 + max(0, r - high)^2)

    without the first term where there is no target, where r is the mean of a unit's outputs over
    samples and steps: of each unit by itself, so that a busy unit does not make up for a silent
    one. The filters of a convolution are its units. The gradient is that of the spikes, by the
    pseudo-derivative. Masked steps count as they are put out. Bounds on the rates of units are
    those of Zenke and Vogels, Neural Computation 2021.

    Args:
        target: Rate in [0, 1], or None.
        low, high: Rates in [0, 1], `low` at most `high`; between them nothing is charged.
        factor: Number of at least 0.

    Raises:
        ValueError: A rate is out of range, `target` is out of its bounds, or nothing is charged.
    """

    def __init__(
        self,
        target: float | None = None,
        low: float = 0.0,
        high: float = 1.0,
        factor: float = 1.0,
    ) -> None:
        for name, value in (("target", target), ("low", low), ("high", high)):
            if name != "target" or value is not None:
                _arguments.number(name, value, minimum=0.0, maximum=1.0)
        if not low <= (low if target is None else target) <= high:
            raise ValueError(
                "Arguments must be ordered `low` <= `target` <= `high`. "
                f"Received: low={low}, target={target}, high={high}"
            )
        self.target = None if target is None else float(target)
        self.low = float(low)
        self.high = float(high)
        self.factor = _arguments.number("factor", factor, minimum=0.0)
        if target is None and low == 0 and high == 1:
            raise ValueError(
                "SpikeRate would charge nothing. Give a `target`, a `low` above 0, or a `high` "
                f"below 1. Received: target=None, low={low}, high={high}"
            )

    def __call__(self, x: Tensor) -> Tensor:
        """Return the cost of outputs of shape (batch, ..., units), in float32 or better."""
        # Keras cannot add a cost in half precision to a loss.
        half = keras.backend.standardize_dtype(x.dtype) in ("bfloat16", "float16")
        rates = ops.mean(ops.cast(x, "float32") if half else x, axis=tuple(range(len(x.shape) - 1)))
        cost = ops.square(ops.relu(self.low - rates)) + ops.square(ops.relu(rates - self.high))
        if self.target is not None:
            cost = cost + ops.square(rates - self.target)
        return self.factor * ops.mean(cost)

    def get_config(self) -> Config:
        return {
            "target": self.target,
            "low": self.low,
            "high": self.high,
            "factor": self.factor,
        }
