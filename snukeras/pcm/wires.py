"""Resistive wires: the voltage that the currents of a tile lose on their way."""

import warnings

import numpy as np
from keras import ops

from snukeras import _arguments
from snukeras._arrays import is_tensor, like, to_tensor
from snukeras._types import Array, Tensor

#: Loss of a device beyond which the first order is wrong by some 4 % of the tile's output. The
#: error grows with the square of the loss (measured against the circuit, 64 x 64).
LARGEST_LOSS = 0.3


def with_ir_drop(conductances: Array, wire_resistance: float) -> Array:
    """Return the conductances that a tile with resistive wires seems to have, to first order.

    Currents lower the voltages along the wires. With r ohm between neighbouring cells, drivers
    before row 0 of each word line and amplifiers before row 0 of each bit line, a device at row i
    and column j loses, of a voltage of 1 V,

        r sum_k (min(i, k) + 1) G_kj      on its bit line (G+ and G- have one each), and
        r sum_l (min(j, l) + 1) (G+_il + G-_il)   on its word line,

    if every word line carries the same voltage. To first order in r the loss acts on the devices'
    contributions as if each conductance were smaller by that factor; this holds for any input,
    because sum_ik G_i min(i, k) G_k x_k is symmetric in i and k, and the word line's own current
    is proportional to its voltage.

    Host arrays are checked: a warning tells where devices lose too much for the first order, see
    `check_ir_drop`.

    Args:
        conductances: (2, rows, columns), G+ and G- of one tile, uS.
        wire_resistance: ohm per cell; 0 for ideal wires. 0.35 ohm is the figure of aihwkit.
    """
    r = _arguments.number("wire_resistance", wire_resistance, minimum=0.0)
    if r == 0.0:
        return conductances
    g = to_tensor(conductances, "conductances")
    loss = _loss(g, r)
    if not is_tensor(conductances):
        _warn_of(ops.convert_to_numpy(loss), "The tile", stacklevel=3)
    return like(g * ops.maximum(1.0 - loss, 0.0), conductances)


def check_ir_drop(conductances: Array, wire_resistance: float, name: str) -> None:
    """Warn if devices of a tile lose more than LARGEST_LOSS of their voltage.

    Beyond it `with_ir_drop` is no longer near the circuit; at a loss of 1 it gives 0.
    """
    if wire_resistance > 0.0:
        loss = _loss(to_tensor(conductances, "conductances"), wire_resistance)
        _warn_of(ops.convert_to_numpy(loss), name, stacklevel=5)


def _loss(g: Tensor, wire_resistance: float) -> Tensor:
    """Return the share of its voltage that each device (2, rows, columns) loses, to first order."""
    rows, columns = g.shape[-2:]
    along_bit_line = ops.matmul(_shared_cells(rows, g.dtype), g)
    both = ops.sum(g, axis=-3, keepdims=True)
    along_word_line = ops.matmul(both, _shared_cells(columns, g.dtype))
    return wire_resistance * 1e-6 * (along_bit_line + along_word_line)  # uS to S


def _warn_of(loss: np.ndarray, name: str, stacklevel: int) -> None:
    if loss.max() > LARGEST_LOSS:
        share = np.mean(loss > LARGEST_LOSS)
        warnings.warn(
            f"{name} has wires too resistive for the first order of IR drop: {share:.0%} of the "
            f"devices lose more than {LARGEST_LOSS:.0%} of their voltage, the worst "
            f"{loss.max():.0%} (at 100% a device is taken as 0). The result is not to be trusted: "
            "use smaller tiles, a smaller `wire_resistance` or a smaller `g_max`.",
            stacklevel=stacklevel,
        )


def _shared_cells(n: int, dtype: str) -> Tensor:
    """Count the wire segments that the currents of cells i and k share, (n, n)."""
    i = np.arange(n)
    return ops.cast(np.minimum(i[:, None], i[None, :]) + 1, dtype)
