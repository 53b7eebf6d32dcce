"""Feature maps as the compiled scan takes them."""

import math
from collections.abc import Sequence

from keras import ops

from snukeras._types import Tensor


class Maps:
    """Feature maps as the scan takes them: units on one axis.

    Every place of a map is a unit. With lateral inhibition, which is among the filters of a place,
    every place is a sample of its own. Sequences (batch, time, units) stay as they are.

    Args:
        shape: (..., filters), or (units,).
        apart: whether places are samples.
    """

    def __init__(self, shape: Sequence[int], apart: bool) -> None:
        *self.sizes, self.filters = shape
        self.places = math.prod(self.sizes)
        self.apart = apart and self.places > 1

    def flatten(self, x: Tensor) -> Tensor:
        """Reshape (batch, time, ..., filters) to (samples, time, units)."""
        if not self.sizes:
            return x
        steps = ops.shape(x)[1]
        if not self.apart:
            return ops.reshape(x, (-1, steps, self.places * self.filters))
        x = ops.transpose(ops.reshape(x, (-1, steps, self.places, self.filters)), (0, 2, 1, 3))
        return ops.reshape(x, (-1, steps, self.filters))

    def unflatten(self, x: Tensor) -> Tensor:
        """Reshape (samples, time, units) to (batch, time, ..., filters)."""
        if not self.sizes:
            return x
        steps = ops.shape(x)[1]
        if self.apart:
            x = ops.reshape(x, (-1, self.places, steps, self.filters))
            x = ops.transpose(x, (0, 2, 1, 3))
        return ops.reshape(x, (-1, steps, *self.sizes, self.filters))

    def of_filters(self, x: Tensor) -> Tensor:
        """Repeat the value of each filter for its units; the gradient sums over the places."""
        return ops.tile(x, self.places) if self.sizes and not self.apart else x

    def of_samples(self, x: Tensor) -> Tensor:
        """Repeat the value of each sample of the batch for its samples of the scan."""
        return ops.repeat(x, self.places, axis=0) if self.apart else x
