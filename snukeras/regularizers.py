"""Costs of neurons in space: of crowding, and of long connections."""

from keras import ops

# Keeps the gradient of a distance finite where two neurons are at one place.
_TINY = 1e-8


def distances(positions, others):
    """Euclidean distances between neurons, shape (others, positions).

    Args:
        positions: (units, dimensions).
        others: (other units, dimensions).
    """
    difference = ops.expand_dims(others, 1) - ops.expand_dims(positions, 0)
    return ops.sqrt(ops.sum(ops.square(difference), axis=-1) + _TINY)


def proximity(positions):
    """The cost of crowding within a layer: the mean of exp(-distance) over all pairs.

    Pairs of a neuron with itself are among them, as in the authors' code: they add a constant.
    Wolczyk et al. 2019, arXiv 1910.02776.

    Args:
        positions: (units, dimensions).
    """
    return ops.mean(ops.exp(-distances(positions, positions)))


def transport(kernel, positions, previous, power=2):
    """The cost of long connections between two layers: the mean of |w|^power * distance.

    Wolczyk et al. 2019, arXiv 1910.02776.

    Args:
        kernel: (..., previous units, units); what stands before, such as the places of a
            convolution, is averaged over.
        positions: (units, dimensions).
        previous: (previous units, dimensions).
        power: 1 or 2.
    """
    strength = ops.abs(kernel) if power == 1 else ops.square(kernel)
    return ops.mean(strength * distances(positions, previous))
