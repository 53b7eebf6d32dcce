"""A product on tiles, one number after the other, written from the description alone."""

import numpy as np


def convert(value, bits, bound):
    """The nearest number that a converter of a range can tell apart."""
    clipped = min(max(value, -bound), bound)
    if bits is None:
        return clipped
    step = bound / (2 ** (bits - 1) - 1)
    return np.round(clipped / step) * step


def product(x, weights, tile, input_ranges=None, output_ranges=None, gain=None, offset=None,
            factor=None):  # fmt: skip
    """What a matrix (rows, columns) on tiles gives for a vector (rows,), without noise.

    Args:
        x, weights: the vector and the matrix.
        tile: snukeras.pcm.Tile, without wires.
        input_ranges: of each block of rows.
        output_ranges: of each block of rows, for each tile beside it.
        gain, offset, factor: (row blocks, columns), or None.
    """
    rows, columns = weights.shape
    result = np.zeros(columns)
    for column in range(columns):
        largest = np.abs(weights[:, column]).max() or 1.0
        for block, start in enumerate(range(0, rows, tile.rows)):
            inside = range(start, min(start + tile.rows, rows))
            r = 1.0
            if tile.input is not None and tile.input.range == "vector":
                seen = inside if tile.input.per == "tile" else range(rows)
                r = max(abs(x[i]) for i in seen)
            elif tile.input is not None:
                r = input_ranges[block]
            current = 0.0
            for i in inside:
                voltage = x[i] / r
                if tile.input is not None:
                    voltage = convert(voltage, tile.input.bits, 1.0)
                current += voltage * weights[i, column] / largest
            if tile.output is not None:
                bound = output_ranges[block][column // tile.columns]
                current /= 1.0 + tile.output.nonlinearity * abs(current) / bound
                current *= 1.0 + (0.0 if gain is None else gain[block, column])
                current += (0.0 if offset is None else offset[block, column]) * bound
                current = convert(current, tile.output.bits, bound)
            correction = 1.0 if factor is None else factor[block, column]
            result[column] += current * largest * r * correction
    return result
