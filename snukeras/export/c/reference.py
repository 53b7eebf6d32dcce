"""The integer reference: a step as `quantise` has it, in NumPy, written apart from the C."""

from collections.abc import Sequence

import numpy as np

from snukeras.export.c.plan import Activation, Convolution, Tensor
from snukeras.export.c.quantise import (
    LARGEST,
    PART_BITS,
    SOFT_BITS,
    TABLE_BITS,
    IntegerActivate,
    IntegerCoding,
    IntegerDense,
    IntegerMean,
    IntegerNeurons,
    IntegerOperation,
    IntegerPool,
    Integers,
    IntegerUnits,
    Rescale,
    Scaled,
    exp_table,
    sigmoid_table,
)

_SIGMOID, _EXP = sigmoid_table(), exp_table()


def run(
    integers: Integers, feeds: Sequence[np.ndarray], traced: Sequence[Tensor]
) -> list[np.ndarray]:
    """Run sequences from a reset.

    Args:
        integers: The network.
        feeds: For each input integers (batch, steps, ...).
        traced: Tensors between operations that are wanted as well.

    Returns:
        Outputs and traced tensors, int16 (batch, steps, size).
    """
    plan = integers.plan
    batch, steps = feeds[0].shape[:2]
    given = [np.asarray(feed, "int64").reshape(batch, steps, -1) for feed in feeds]
    held: dict[str, np.ndarray] = {}
    found: list[list[np.ndarray]] = [[] for _ in (*plan.outputs, *traced)]
    for t in range(steps):
        values = {tensor.label: feed[:, t] for tensor, feed in zip(plan.inputs, given, strict=True)}
        for operation in integers.operations:
            values[operation.of.target.label] = _run(operation, values, held)
        for series, tensor in zip(found, (*plan.outputs, *traced), strict=True):
            series.append(values[tensor.label])
    return [np.stack(series, axis=1).astype("int16") for series in found]


def _run(
    operation: IntegerOperation, values: dict[str, np.ndarray], held: dict[str, np.ndarray]
) -> np.ndarray:
    """Return what an operation puts out in a step; `held` are the states by label and role."""
    x = values[operation.of.source.label]
    label = operation.of.label
    match operation:
        case IntegerUnits():
            return _units(operation, x, held)
        case IntegerNeurons():
            return _neurons(operation, x, held)
        case IntegerDense():
            places = operation.of.product.places
            sums = _product(operation.product, x)
            if operation.bias is not None:
                sums = sums + np.tile(operation.bias, places)
            z = _rescaled(sums, operation.out, places)
            return _activated(operation.of.activation, z, operation.of.target.shape[-1])
        case IntegerActivate():
            activation = operation.of.activation
            if activation.name not in ("linear", "relu"):
                shift = TABLE_BITS - operation.source_bits
                x = x * 2**shift if shift >= 0 else _shifted(x, -shift)
            return _activated(activation, x, operation.of.target.shape[-1])
        case IntegerMean():
            held[label] = held.get(label, 0) + x * 2**operation.gain
            count = held[f"{label} steps"] = held.get(f"{label} steps", np.zeros(1, "int64")) + 1
            total = held[label]
            return np.sign(total) * ((np.abs(total) + count // 2) // count)
        case IntegerPool():
            return _pooled(operation, x)
        case IntegerCoding():
            step = held.get(label, np.zeros(1, "int64"))
            held[label] = (step + 1) % len(operation.thresholds)
            return (x > operation.thresholds[step[0]]).astype("int64")


def _units(units: IntegerUnits, x: np.ndarray, held: dict[str, np.ndarray]) -> np.ndarray:
    of, places = units.of, units.of.product.places
    shape = (len(x), of.target.size)
    s = held.get(f"{of.label} s", np.zeros(shape, "int64"))
    y = held.get(f"{of.label} y", np.zeros(shape, "int64"))
    gate = y
    if of.inhibition:
        by_place = y.reshape(len(y), places, -1)
        top = by_place.max(axis=-1, keepdims=True)
        gate = np.broadcast_to(top, by_place.shape).reshape(y.shape)
    s = _shifted(s * np.tile(units.decay, places), 15)
    s = s * (1 - gate) if of.spiking else _shifted(s * (2**SOFT_BITS - gate), SOFT_BITS)
    s = s + _product(units.product, x)
    if units.loop is not None:
        s = s + _product(units.loop, y)
    if units.bias is not None:
        s = s + np.tile(units.bias, places)
    s = np.clip(s, 0 if of.activation.name == "relu" else -LARGEST, LARGEST)
    margin = s - np.tile(units.threshold, places)
    if units.soft is None:
        y = (margin > 0).astype("int64")
    else:
        y = _sigmoid(_rescaled(margin, units.soft, places))
    held[f"{of.label} s"], held[f"{of.label} y"] = s, y
    return y


def _neurons(lif: IntegerNeurons, x: np.ndarray, held: dict[str, np.ndarray]) -> np.ndarray:
    of, shape = lif.of, (len(x), lif.of.target.size)
    label, zeros = of.label, np.zeros(shape, "int64")
    v = held.get(f"{label} v", np.broadcast_to(lif.start, shape))
    y = held.get(f"{label} y", zeros)
    i = x * 2**lif.source_gain
    if lif.loop is not None and lif.loop_out is not None:
        i = i + _rescaled(y @ lif.loop, lif.loop_out, 1)
    if lif.slow is not None:
        i = i + _shifted(held.get(f"{label} i", zeros) * lif.slow, 15)
    i = np.clip(i, -LARGEST, LARGEST)
    if of.reset == "zero":
        v = v * (1 - y)
    v = _shifted(v * lif.decay, 15) + _rescaled(i, lif.drive, 1) + lif.bias
    v = np.clip(v, -LARGEST, LARGEST)
    if of.reset == "silence":
        v = v * (1 - y)
    if lif.subtracted is not None:
        v = v - lif.subtracted * y
    if of.several:
        v = np.clip(v, -LARGEST, LARGEST)
    held[f"{label} v"], held[f"{label} i"] = v, i
    if lif.threshold is None:
        shift = lif.shift
        return np.clip(_shifted(v, shift) if shift > 0 else v * 2**-shift, -32767, 32767)
    if of.several:
        now = np.clip(v // np.asarray(lif.threshold), 0, lif.most)
    else:
        now = (v > lif.threshold).astype("int64")
    held[f"{label} y"] = now
    return y if of.delayed else now


def _product(scaled: Scaled, x: np.ndarray) -> np.ndarray:
    """Return the sums of a product for elements (batch, size)."""
    if scaled.limit is not None:
        x = np.clip(x, -scaled.limit, scaled.limit)
    x = _shifted(x, scaled.drop)
    product = scaled.product
    if not isinstance(product, Convolution):
        rows = product.rows
        sums = x.reshape(len(x), product.places, rows.shape[0]) @ rows
        return sums.reshape(len(x), -1) * 2**scaled.gain
    return _convolution(product, x).reshape(len(x), -1) * 2**scaled.gain


def _convolution(product: Convolution, x: np.ndarray) -> np.ndarray:
    """Return a convolution, (batch, height, width, filters), by slices of the padded map."""
    height, width, channels, filters = product.kernel.shape
    reach = [
        (t - 1) * s + d * (k - 1) + 1
        for t, s, d, k in zip(
            product.target, product.strides, product.dilation, (height, width), strict=True
        )
    ]
    maps = x.reshape(len(x), *product.source, channels)
    widths = [
        (before, max(size - before - have, 0))
        for before, size, have in zip(product.before, reach, product.source, strict=True)
    ]
    maps = np.pad(maps, [(0, 0), *widths, (0, 0)])
    sums = np.zeros((len(x), *product.target, filters), "int64")
    for i in range(height):
        for j in range(width):
            (h, w), (sh, sw), (dh, dw) = product.target, product.strides, product.dilation
            rows = slice(i * dh, i * dh + (h - 1) * sh + 1, sh)
            columns = slice(j * dw, j * dw + (w - 1) * sw + 1, sw)
            sums += maps[:, rows, columns] @ product.kernel[i, j]
    return sums


def _pooled(pool: IntegerPool, x: np.ndarray) -> np.ndarray:
    """Return the largest or the mean of the windows of maps, place after place."""
    of = pool.of
    (height, width), (rows, columns) = of.maps
    maps = x.reshape(len(x), height, width, of.channels)
    found = np.zeros((len(x), rows, columns, of.channels), "int64")
    for row in range(rows):
        for column in range(columns):
            start = row * of.strides[0] - of.before[0], column * of.strides[1] - of.before[1]
            high, wide = (
                slice(max(first, 0), first + size)
                for first, size in zip(start, of.window, strict=True)
            )
            part = maps[:, high, wide].reshape(len(x), -1, of.channels)
            if of.largest:
                found[:, row, column] = part.max(axis=1)
            else:
                total, count = part.sum(axis=1) * 2**pool.gain, part.shape[1]
                found[:, row, column] = np.sign(total) * ((np.abs(total) + count // 2) // count)
    return found.reshape(len(x), -1)


def _shifted(values: np.ndarray, bits: int) -> np.ndarray:
    """Divide by a power of two, halves away from zero."""
    if bits == 0:
        return values
    return np.sign(values) * ((np.abs(values) + 2 ** (bits - 1)) >> bits)


def _rescaled(sums: np.ndarray, rescale: Rescale, places: int) -> np.ndarray:
    found = _shifted(sums * np.tile(rescale.factor, places), rescale.right)
    return np.clip(found, -LARGEST, LARGEST)


def _activated(activation: Activation, z: np.ndarray, width: int) -> np.ndarray:
    """Return what an activation makes of numbers."""
    match activation.name:
        case "sigmoid":
            return _sigmoid(z)
        case "tanh":
            return 2 * _sigmoid(2 * z) - 2**SOFT_BITS
        case "softmax":
            groups = z.reshape(len(z), -1, width)
            powers = _table(_EXP, np.minimum(groups.max(-1, keepdims=True) - groups, 32767))
            total = powers.sum(axis=-1, keepdims=True)
            return ((powers * 2**SOFT_BITS + total // 2) // total).reshape(z.shape)
        case "relu":
            return np.clip(z, 0, 32767)
    return np.clip(z, -32767, 32767)


def _sigmoid(z: np.ndarray) -> np.ndarray:
    y = _table(_SIGMOID, np.minimum(np.abs(z), 32767))
    return np.where(z < 0, 2**SOFT_BITS - y, y)


def _table(table: np.ndarray, at: np.ndarray) -> np.ndarray:
    part, rest = at >> PART_BITS, at & (2**PART_BITS - 1)
    between = table[part] * (2**PART_BITS - rest) + table[part + 1] * rest
    return (between + 2 ** (PART_BITS - 1)) >> PART_BITS
