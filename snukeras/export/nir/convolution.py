"""Convolutions, pooling and padding of Keras as nodes of NIR."""

import dataclasses
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from snukeras.export.nir.place import (
    Layout,
    NoNodeError,
    Pads,
    Place,
    Sizes,
    makes,
    map_at,
    no_pads,
)
from snukeras.network.topology import Call

if TYPE_CHECKING:
    from nir import NIRNode

_LAYERS = keras.layers


@makes(_LAYERS.Conv1D, _LAYERS.Conv2D)
def _conv(found: Layout, call: Call, layer: Any, given: list[Place]) -> Place:
    before = found.maps(given[0], "convolutions take")
    kernel = ungrouped(keras.ops.convert_to_numpy(layer.kernel), layer.groups)
    label = found.label(call.name)
    sizes = convolve(found, label, before, layer, kernel, layer.bias)
    return map_at(label, (*sizes, kernel.shape[-1]))


@makes(_LAYERS.DepthwiseConv1D, _LAYERS.DepthwiseConv2D)
def _depthwise(found: Layout, call: Call, layer: Any, given: list[Place]) -> Place:
    before = found.maps(given[0], "convolutions take")
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    channels, several = kernel.shape[-2:]
    flat = kernel.reshape(*kernel.shape[:-2], 1, channels * several)
    label = found.label(call.name)
    sizes = convolve(found, label, before, layer, ungrouped(flat, channels), layer.bias)
    return map_at(label, (*sizes, channels * several))


def ungrouped(kernel: np.ndarray, groups: int) -> np.ndarray:
    """Return a kernel over all channels, with zeros for those of other groups.

    nir 1.0 takes the channels of a weight for those of its input, and refuses groups.
    """
    if groups == 1:
        return kernel
    inputs, outputs = kernel.shape[-2], kernel.shape[-1] // groups
    whole = np.zeros((*kernel.shape[:-2], inputs * groups, kernel.shape[-1]), kernel.dtype)
    for group in range(groups):
        columns = slice(group * outputs, (group + 1) * outputs)
        whole[..., group * inputs : (group + 1) * inputs, columns] = kernel[..., columns]
    return whole


def convolve(found: Layout, label: str, before: Place, of: Any, kernel: Any, bias: Any) -> Sizes:
    """Add the convolution of a layer or cell behind a map; return the sizes of its map."""
    rank, sizes = len(before.shape) - 1, before.shape[:-1]
    strides, dilation = _each(of.strides, rank), _each(of.dilation_rate, rank)
    kernel = keras.ops.convert_to_numpy(kernel)
    pads: Pads = ((0, 0),) * rank
    if of.padding == "same":
        pads = same_pads(sizes, kernel.shape, strides, dilation)
    elif of.padding == "causal":
        pads = ((dilation[0] * (kernel.shape[0] - 1), 0),)
    if before.pads:
        if of.padding != "valid":
            raise NoNodeError("zeros are padded twice before it; NIR pads once")
        pads = before.pads
    node = convolution(found.nir, kernel, bias, sizes, strides, dilation, pads)
    found.add(label, node, before)
    return tuple(
        (size + sum(pad) - d * (k - 1) - 1) // stride + 1
        for size, pad, d, k, stride in zip(
            sizes, pads, dilation, kernel.shape, strides, strict=False
        )
    )


def _each(given: Any, rank: int) -> Sizes:
    return (int(given),) * rank if isinstance(given, int) else tuple(int(size) for size in given)


def same_pads(sizes: Sizes, kernel: Sequence[int], strides: Sizes, dilation: Sizes) -> Pads:
    """Return the zeros that Keras adds before and behind each axis with padding="same"."""
    totals = [
        max((-(-size // stride) - 1) * stride + d * (k - 1) + 1 - size, 0)
        for size, k, stride, d in zip(sizes, kernel, strides, dilation, strict=False)
    ]
    return tuple((total // 2, total - total // 2) for total in totals)


def convolution(
    nir: ModuleType,
    kernel: np.ndarray,
    bias: Any,
    sizes: Sizes,
    strides: Sizes,
    dilation: Sizes,
    pads: Pads,
) -> "NIRNode":
    """Return a Conv1d or Conv2d node.

    NIR pads both ends alike, or as "same" says. Where Keras pads one end more, weights of zero
    lengthen the kernel at the other, so that both can have as many.
    """
    rank = len(sizes)
    weight = np.moveaxis(kernel, (-1, -2), (0, 1))
    padding: Any = tuple(max(pad) for pad in pads)
    ones = (1,) * rank
    uneven = any(a != b for a, b in pads)
    if uneven and strides == ones and pads == same_pads(sizes, kernel.shape, ones, dilation):
        padding = "same"
    if padding != "same":
        longer = [(0, 0), (0, 0)]
        for (before, behind), d in zip(pads, dilation, strict=True):
            if (before - behind) % d:
                raise NoNodeError(
                    f"NIR pads both ends alike; it has {before} zeros before, {behind} behind"
                )
            longer.append((max(behind - before, 0) // d, max(before - behind, 0) // d))
        weight = np.pad(weight, longer)
    zeros = np.zeros(len(weight), "float32")
    shared = {
        "weight": np.ascontiguousarray(weight),
        "groups": 1,
        "bias": zeros if bias is None else keras.ops.convert_to_numpy(bias),
    }
    if rank == 2:
        return nir.Conv2d(
            input_shape=sizes, stride=strides, padding=padding, dilation=dilation, **shared
        )
    return nir.Conv1d(
        input_shape=sizes[0],
        stride=strides[0],
        padding=padding if padding == "same" else padding[0],
        dilation=dilation[0],
        **shared,
    )


def at_each_place(found: Layout, label: str, given: Place, kernel: Any, bias: Any) -> Place:
    """Add a product of the channels at each place of a map: a convolution of one element."""
    before = found.maps(given, "products take vectors and")
    no_pads(before)
    sizes, ones = before.shape[:-1], (1,) * (len(before.shape) - 1)
    weight = keras.ops.convert_to_numpy(kernel).reshape(*ones, *kernel.shape)
    node = convolution(found.nir, weight, bias, sizes, ones, ones, ((0, 0),) * len(sizes))
    found.add(label, node, before)
    return map_at(label, (*sizes, kernel.shape[-1]))


@makes(_LAYERS.AveragePooling1D, _LAYERS.AveragePooling2D)
def _average(found: Layout, call: Call, layer: Any, given: list[Place]) -> Place:
    rank = len(layer.pool_size)
    before = found.maps(given[0], "pooling takes")
    sizes, size, strides = (
        before.shape[:-1],
        _each(layer.pool_size, rank),
        _each(layer.strides, rank),
    )
    pads = before.pads or ((0, 0),) * rank
    if layer.padding == "same" and any(map(any, same_pads(sizes, size, strides, (1,) * rank))):
        raise NoNodeError(
            "with padding='same' Keras leaves zeros out of the mean, and NIR counts them; use "
            "padding='valid'"
        )
    return _pool(found, call, before, size, strides, pads)


@makes(_LAYERS.GlobalAveragePooling1D, _LAYERS.GlobalAveragePooling2D)
def _average_all(found: Layout, call: Call, layer: Any, given: list[Place]) -> Place:
    before = found.maps(given[0], "pooling takes")
    no_pads(before)
    sizes = before.shape[:-1]
    pooled = _pool(found, call, before, sizes, sizes, ((0, 0),) * len(sizes))
    shape = pooled.shape if layer.keepdims else pooled.shape[-1:]
    return dataclasses.replace(pooled, shape=shape)


def _pool(
    found: Layout, call: Call, before: Place, size: Sizes, strides: Sizes, pads: Pads
) -> Place:
    """Add a mean over places: AvgPool2d; on lines, which NIR cannot pool, a convolution."""
    sizes, channels = before.shape[:-1], before.shape[-1]
    label = found.label(call.name)
    if len(sizes) == 1:
        kernel = np.eye(channels, dtype="float32")[None].repeat(size[0], axis=0) / size[0]
        node = convolution(found.nir, kernel, None, sizes, strides, (1,), pads)
    elif any(a != b for a, b in pads):
        raise NoNodeError("NIR pads both ends of a map alike before it takes means")
    else:
        padding = np.array([pad[0] for pad in pads])
        node = found.nir.AvgPool2d(np.array(size), np.array(strides), padding)
    found.add(label, node, before)
    left = [
        (n + sum(pad) - k) // s + 1 for n, pad, k, s in zip(sizes, pads, size, strides, strict=True)
    ]
    return map_at(label, (*left, channels))


@makes(_LAYERS.ZeroPadding1D, _LAYERS.ZeroPadding2D)
def _pad(found: Layout, call: Call, layer: Any, given: list[Place]) -> Place:
    before = found.maps(given[0], "padding takes")
    no_pads(before)
    pads = layer.padding
    rank = len(before.shape) - 1
    pads = (pads,) if rank == 1 and isinstance(pads[0], int) else pads
    # Its shape stays that of the map before: the next node pads.
    return dataclasses.replace(before, pads=tuple((int(a), int(b)) for a, b in pads))
