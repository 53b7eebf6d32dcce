"""Was a spike decided rightly? Potentials in float64, with a bound on what rounding can do.

Spikes are decisions, and two runtimes that add in another order may decide differently where a
membrane potential lies within rounding of the threshold. So every decision of both runtimes is
checked on its own: from the layer's own input and its own spikes so far, the potential is computed
again in float64, together with a bound on what float32 rounding can have done to it. A decision
that contradicts the float64 potential must lie within that bound of the threshold. If this holds
for both, then wherever they differ first, the potential was within rounding of the threshold.
"""

from collections.abc import Sequence

import keras
import numpy as np

from snukeras.export.verify import lif_spikes
from snukeras.layers import ConvSNUCell, LIFCell, SNUCell

Sized = tuple[np.ndarray, np.ndarray]

ROUNDOFF = 2.0**-24  # of float32
# Every activation that can be exported has a slope below this.
_SLOPE = 2.0
# Runtimes approximate exp, tanh and the like to about this, absolute and relative.
_APPROXIMATION = 2.0**-21
_EXACT = (keras.activations.linear, keras.activations.relu, keras.activations.leaky_relu)


def potentials_of(
    cell: SNUCell | LIFCell,
    x: np.ndarray,
    y: np.ndarray,
    mask: np.ndarray | None = None,
    start: Sequence[np.ndarray] = (),
    backwards: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Compute membrane potentials in float64 from a layer's own input and outputs.

    Args:
        cell: SNUCell, SSNUCell, a convolutional one, or LIFCell, which has no start.
        x: (batch, time, ...) in the order of time.
        y: (batch, time, units) outputs in the order of processing; places of maps are units, too.
        mask: Bool (batch, time) or None.
        start: Y and s before the first step, or ().
        backwards: Whether steps are processed from the last to the first.

    Returns:
        s and a bound on the float32 rounding error of s, each (batch, time, units), in the order
        of processing. At masked steps s is that of the step before.
    """
    if isinstance(cell, LIFCell):
        return lif_spikes.potentials(cell, x, y, mask, backwards)
    x = np.asarray(x, "float64")
    products = (_Convolutions if isinstance(cell, ConvSNUCell) else _Products)(cell)
    if backwards:
        x = x[:, ::-1]
        mask = None if mask is None else mask[:, ::-1]
    drive, size = products.drive(x)
    units = drive.shape[-1]
    decay = np.resize(np.asarray(cell.decay_values(), "float64"), units)  # repeated by place
    gamma = products.terms * ROUNDOFF
    shape = (len(x), units)
    before, s = (np.asarray(v, "float64").reshape(shape) for v in (start or (np.zeros(shape),) * 2))
    error = np.zeros(shape)
    potentials, bounds = np.empty(drive.shape), np.empty(drive.shape)
    for t in range(x.shape[1]):
        gate = products.winner(before) if cell.lateral_inhibition else before
        carry = decay * (1.0 - gate)
        a, magnitude = drive[:, t] + carry * s, size[:, t] + np.abs(carry * s)
        if cell.recurrent_kernel is not None:
            more, much = products.recur(before)
            a, magnitude = a + more, magnitude + much
        new = keras.ops.convert_to_numpy(
            cell.state_activation(keras.ops.convert_to_tensor(a, dtype="float64"))
        )
        uncertain = _SLOPE * (gamma * magnitude + np.abs(carry) * error)
        uncertain = uncertain + 8 * ROUNDOFF * np.abs(new)
        if cell.state_activation not in _EXACT:
            uncertain = uncertain + _APPROXIMATION * np.maximum(1.0, np.abs(new))
        if mask is None:
            s, error, before = new, uncertain, np.asarray(y[:, t], "float64")
        else:
            on = mask[:, t, None]
            s, error = np.where(on, new, s), np.where(on, uncertain, error)
            before = np.where(on, y[:, t], before)
        potentials[:, t], bounds[:, t] = s, error
    return potentials, bounds


def contradictions(
    cell: SNUCell | LIFCell,
    s: np.ndarray,
    bound: np.ndarray,
    y: np.ndarray,
    mask: np.ndarray | None = None,
    backwards: bool = False,
) -> int:
    """Count the spike decisions that contradict the potential by more than rounding."""
    if isinstance(cell, LIFCell):
        return lif_spikes.contradictions(cell, s, bound, y, mask, backwards)
    threshold = np.resize(np.asarray(cell.threshold_values(), "float64"), s.shape[-1])
    wrong = (np.asarray(y) > 0.5) != (s > threshold)
    wrong &= np.abs(s - threshold) > bound + ROUNDOFF * np.abs(threshold)
    if mask is not None:
        wrong &= (mask[:, ::-1] if backwards else mask)[:, :, None]
    return int(wrong.sum())


class _Products:
    """The matrix products of a cell in float64, each with the sum of its terms' magnitudes."""

    def __init__(self, cell: SNUCell) -> None:
        self.weight, self.loop, self.bias = (
            None if v is None else np.asarray(v, "float64")
            for v in (cell.kernel, cell.recurrent_kernel, cell.bias)
        )
        self.cell = cell
        # Additions that rounding can touch: of both products, and some more of the equation.
        self.terms = sum(v.size // v.shape[-1] for v in (self.weight, self.loop) if v is not None)
        self.terms += 8

    def drive(self, x: np.ndarray) -> Sized:
        """Return x W + c of all steps, and the sum of its terms' magnitudes."""
        assert self.weight is not None
        z, size = self.product(x, self.weight), self.product(np.abs(x), np.abs(self.weight))
        if self.bias is not None:
            bias = np.resize(self.bias, z.shape[-1])
            z, size = z + bias, size + np.abs(bias)
        return z, size

    def recur(self, y: np.ndarray) -> Sized:
        """Return y H of a step, and the sum of its terms' magnitudes."""
        assert self.loop is not None
        return self.product(y, self.loop), self.product(np.abs(y), np.abs(self.loop))

    def product(self, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return the product with a kernel."""
        return x @ weight

    def winner(self, y: np.ndarray) -> np.ndarray:
        """Return the largest output among those that compete."""
        return y.max(axis=-1, keepdims=True)


class _Convolutions(_Products):
    """The products of a convolutional cell; maps are flattened, filters last."""

    def product(self, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        cell, own = self.cell, x.ndim == 2  # the cell's own outputs come flattened
        lead = x.shape[:1] if own else x.shape[:2]
        maps = (*cell.map_shape, cell.filters) if own else x.shape[2:]
        z = keras.ops.conv(
            keras.ops.convert_to_tensor(x.reshape(-1, *maps), dtype="float64"),
            keras.ops.convert_to_tensor(weight, dtype="float64"),
            strides=1 if own else cell.strides,
            padding="same" if own else cell.padding,
            data_format="channels_last",
            dilation_rate=1 if own else cell.dilation_rate,
        )
        return keras.ops.convert_to_numpy(z).reshape(*lead, -1)

    def winner(self, y: np.ndarray) -> np.ndarray:
        places = y.reshape(len(y), -1, self.cell.filters)
        return np.broadcast_to(places.max(-1, keepdims=True), places.shape).reshape(y.shape)
