"""Neurons of NIR behind a convolution, with a convolution as recurrence or without: ConvSNU."""

import math
from collections.abc import Sequence

import numpy as np

from snukeras._types import PerUnit, Tensor
from snukeras.export.nir.file import Node
from snukeras.export.nir.layers import (
    CONVOLUTIONS,
    Convolution,
    Sizes,
    convolution,
    keras_order,
    padded,
)
from snukeras.export.nir.writers import Dynamics
from snukeras.layers import ConvSNU1D, ConvSNU2D


def is_conv_snu(product: Node, found: Dynamics, loop: Sequence[Node]) -> bool:
    """Return whether a ConvSNU computes a neuron together with the convolution before it.

    Args:
        product: The node before the neuron.
        found: Of a neuron that `neurons.is_snu` takes.
        loop: The nodes from the neuron back to itself.
    """
    if product.kind not in CONVOLUTIONS or product.number("weight").ndim < 3:
        return False
    rank = product.number("weight").ndim - 2
    numbers = (found.decay, found.gain, found.threshold, found.bias)
    if any(_of_channels(values, rank) is None for values in numbers if values is not None):
        return False
    strides, dilation = product.number("stride"), product.number("dilation")
    if strides.max(initial=1) > 1 and dilation.max(initial=1) > 1:
        return False
    return not loop or (len(loop) == 1 and _keeps_maps(loop[0], rank))


def _of_channels(values: np.ndarray, rank: int) -> np.ndarray | None:
    """Return numbers that are the same at all places, one for each channel or one; else None."""
    if values.size == 1:
        return values.reshape(1)
    first = values.reshape(len(values), -1)[:, :1] if values.ndim == rank + 1 else None
    if first is None or np.any(values.reshape(len(values), -1) != first):
        return None
    return first[:, 0]


def _keeps_maps(node: Node, rank: int) -> bool:
    """Return whether a convolution makes a map of the same size, without strides or dilation."""
    weight = node.number("weight")
    if node.kind not in CONVOLUTIONS or weight.ndim != rank + 2:
        return False
    if np.any(node.number("stride") != 1) or np.any(node.number("dilation") != 1):
        return False
    if isinstance(node.values["padding"], str):
        return node.values["padding"] == "same"
    return bool(np.all(2 * node.number("padding") + 1 == weight.shape[2:]))


def conv_snu(
    found: Dynamics,
    x: Tensor,
    sizes: Sizes,
    product: Node,
    loop: Sequence[Node],
    label: str,
) -> tuple[Tensor, str, Sizes]:
    """Add a ConvSNU.

    Args:
        found: Of a neuron that `is_conv_snu` takes.
        x: What the convolution gets.
        sizes: Of x, as NIR orders them.
        product, loop: The convolutions before the neuron and back to it.
        label: Of the layer.

    Returns:
        What it puts out, the name of its class, and the sizes of its maps as NIR orders them.

    Raises:
        BadInputError: Shapes do not fit together.
    """
    given = convolution(product, sizes)
    rank, filters = len(given.places), given.kernel.shape[-1]
    kernel, pads, padding = _padding(given, sizes[1:])
    gain = _each(found.gain, rank, filters)
    bias = gain * given.bias
    if found.bias is not None:
        bias = bias + _each(found.bias, rank, filters)
    back = None
    if loop:
        made = convolution(loop[0], (filters, *given.places))
        size = [max(a, b) for a, b in zip(kernel.shape[:rank], made.kernel.shape, strict=False)]
        if size != list(kernel.shape[:rank]):
            kernel, pads = _longer(kernel, pads, given, size)
            padding = "valid"
        back = gain * _centred(made.kernel, size)
        bias = bias + gain * made.bias
    assert found.threshold is not None
    kind = ConvSNU1D if rank == 1 else ConvSNU2D
    layer = kind(
        filters,
        kernel.shape[:rank],
        strides=given.strides,
        padding=padding,
        dilation_rate=given.dilation,
        decay=_short(np.clip(_each(found.decay, rank, filters), 0.0, 1.0)),
        threshold=_short(_each(found.threshold, rank, filters)),
        recurrent=back is not None,
        use_bias=bool(np.any(bias)),
        return_sequences=True,
        name=label,
    )
    out = layer(padded(x, pads, label) if padding == "valid" else x)
    cell = layer.cell
    cell.kernel.assign(gain * kernel)
    if back is not None:
        cell.recurrent_kernel.assign(back)
    if cell.bias is not None:
        cell.bias.assign(bias)
    assert math.prod(keras_order((filters, *given.places))) == math.prod(out.shape[2:])
    return out, kind.__name__, (filters, *given.places)


Pads = list[tuple[int, int]]


def _each(values: np.ndarray, rank: int, filters: int) -> np.ndarray:
    numbers = _of_channels(values, rank)
    assert numbers is not None
    return np.broadcast_to(numbers, (filters,))


def _short(values: np.ndarray) -> PerUnit:
    return float(values[0]) if np.all(values == values[0]) else values.tolist()


def _padding(given: Convolution, sizes: Sizes) -> tuple[np.ndarray, Pads, str]:
    """Return a kernel, the zeros around its map, and the word for them in Keras.

    Where the zeros are those of padding="same", the word says so; a row of zeros that only evens
    out both ends is taken off the kernel.
    """
    kernel = given.kernel
    if given.same:
        return kernel, _same(given, kernel, sizes), "same"
    if not any(map(any, given.pads)):
        return kernel, list(given.pads), "valid"
    shorter, pads = kernel, list(given.pads)
    for axis, (d, (p, _)) in enumerate(zip(given.dilation, given.pads, strict=True)):
        ends = [np.any(np.take(kernel, end, axis=axis)) for end in (0, -1)]
        if kernel.shape[axis] > 1 and not ends[0] and ends[1] and p >= d:
            shorter = np.delete(shorter, 0, axis=axis)
            pads[axis] = (p - d, p)
        elif kernel.shape[axis] > 1 and ends[0] and not ends[1] and p >= d:
            shorter = np.delete(shorter, -1, axis=axis)
            pads[axis] = (p, p - d)
    for one, zeros in ((shorter, pads), (kernel, list(given.pads))):
        wanted = _same(given, one, sizes)
        starts = [a == b for (a, _), (b, _) in zip(zeros, wanted, strict=True)]
        as_many = [
            -(-n // s) == m for n, s, m in zip(sizes, given.strides, given.places, strict=True)
        ]
        if all(starts) and all(as_many):
            return one, wanted, "same"
    return kernel, list(given.pads), "valid"


def _same(given: Convolution, kernel: np.ndarray, sizes: Sizes) -> Pads:
    """Return the zeros that Keras adds with padding="same"."""
    totals = [
        max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
        for n, s, d, k in zip(sizes, given.strides, given.dilation, kernel.shape, strict=False)
    ]
    return [(total // 2, total - total // 2) for total in totals]


def _longer(
    kernel: np.ndarray, pads: Pads, given: Convolution, size: Sequence[int]
) -> tuple[np.ndarray, Pads]:
    """Return a kernel with zeros behind it, and as many around the map."""
    more = [wanted - k for wanted, k in zip(size, kernel.shape, strict=False)]
    kernel = np.pad(kernel, [*((0, m) for m in more), (0, 0), (0, 0)])
    pads = [(a, b + d * m) for (a, b), d, m in zip(pads, given.dilation, more, strict=True)]
    return kernel, pads


def _centred(kernel: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Return a recurrent kernel of another size, with zeros around it."""
    widths = []
    for wanted, k in zip(size, kernel.shape, strict=False):
        front = (wanted - 1) // 2 - (k - 1) // 2
        widths.append((front, wanted - k - front))
    return np.pad(kernel, [*widths, (0, 0), (0, 0)])
