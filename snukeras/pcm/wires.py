"""Resistive wires: the voltage that the currents of a tile lose on their way."""

import numpy as np
from keras import ops

from snukeras.pcm._arrays import check_number, like, to_tensor


def with_ir_drop(conductances, wire_resistance):
    """The conductances that a tile with resistive wires seems to have, to first order.

    Currents lower the voltages along the wires. With r ohm between neighbouring cells, drivers
    before row 0 of each word line and amplifiers before row 0 of each bit line, a device at row i
    and column j loses, of a voltage of 1 V,

        r sum_k (min(i, k) + 1) G_kj      on its bit line (G+ and G- have one each), and
        r sum_l (min(j, l) + 1) (G+_il + G-_il)   on its word line,

    if every word line carries the same voltage. To first order in r the loss acts on the devices'
    contributions as if each conductance were smaller by that factor; this holds for any input,
    because sum_ik G_i min(i, k) G_k x_k is symmetric in i and k, and the word line's own current
    is proportional to its voltage.

    Args:
        conductances: (2, rows, columns), G+ and G- of one tile, uS.
        wire_resistance: ohm per cell; 0 for ideal wires. 0.35 ohm is the figure of aihwkit.
    """
    g = to_tensor(conductances, "conductances")
    r = check_number("wire_resistance", wire_resistance, minimum=0.0) * 1e-6  # 1 / uS
    if r == 0.0:
        return conductances
    rows, columns = g.shape[-2:]
    along_bit_line = ops.matmul(_shared_cells(rows, g.dtype), g)
    both = ops.sum(g, axis=-3, keepdims=True)
    along_word_line = ops.matmul(both, _shared_cells(columns, g.dtype))
    loss = r * (along_bit_line + along_word_line)
    return like(g * ops.maximum(1.0 - loss, 0.0), conductances)


def _shared_cells(n, dtype):
    """(n, n): the number of wire segments that the currents of cells i and k share."""
    i = np.arange(n)
    return ops.cast(np.minimum(i[:, None], i[None, :]) + 1, dtype)
