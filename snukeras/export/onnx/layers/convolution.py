"""Convolutions of all kinds: ONNX has channels first, Keras usually last."""

from typing import Any

import keras
import numpy as np

from snukeras.export.onnx.activations import emitter
from snukeras.export.onnx.handlers import (
    Context,
    Value,
    activate,
    as_float,
    handles,
    timeless,
)
from snukeras.network.topology import Call

LAYERS = keras.layers


def channels_first(context: Context, name: str, x: str, rank: int) -> str:
    """Add (batch, ..., channels) as (batch, channels, ...); `rank` counts the axes between."""
    return context.graph.node(
        "Transpose", [x], f"{name}/channels_first", perm=[0, rank + 1, *range(1, rank + 1)]
    )


def channels_last(context: Context, name: str, x: str, rank: int) -> str:
    """Add (batch, channels, ...) as (batch, ..., channels)."""
    return context.graph.node(
        "Transpose", [x], f"{name}/channels_last", perm=[0, *range(2, rank + 2), 1]
    )


def padding(layer: Any, kernel: tuple[int, ...]) -> dict[str, Any]:
    """Return the attributes of a layer's padding."""
    if layer.padding == "causal":
        return {"pads": [(kernel[0] - 1) * layer.dilation_rate[0], 0]}
    if layer.padding == "same" and max(layer.dilation_rate) > 1:  # and the strides are 1
        spare = [(k - 1) * d for k, d in zip(kernel, layer.dilation_rate, strict=True)]
        return {"pads": [*(each // 2 for each in spare), *(each - each // 2 for each in spare)]}
    return {"auto_pad": "SAME_UPPER" if layer.padding == "same" else "VALID"}


def _known(layer: Any, call: Call) -> bool:
    """Return whether the arguments have a form here."""
    return (
        len(call.inputs[0].shape) == layer.rank + 2
        and emitter(layer.activation) is not None
        and not getattr(layer, "quantization_mode", None)
        and getattr(layer, "output_padding", None) is None
    )


def _finish(context: Context, call: Call, layer: Any, x: str, mask: str | None) -> list[Value]:
    """Add layout and activation behind a convolution."""
    if layer.data_format == "channels_last":
        x = channels_last(context, call.name, x, layer.rank)
    return [Value(activate(context, call, layer.activation, x), mask)]


def _bias(context: Context, name: str, layer: Any) -> list[str]:
    if layer.bias is None:
        return []
    return [context.graph.constant(np.asarray(layer.bias), f"{name}/bias")]


def _entered(context: Context, call: Call, layer: Any, values: list[Value]) -> str:
    x = as_float(context, call, 0, values[0])
    if layer.data_format == "channels_last":
        x = channels_first(context, call.name, x, layer.rank)
    return x


def _mask(layer: Any, values: list[Value]) -> str | None:
    return values[0].mask if layer.supports_masking else None


@handles(LAYERS.Conv1D, LAYERS.Conv2D, LAYERS.Conv3D)
@timeless
def _convolution(
    context: Context, call: Call, layer: Any, values: list[Value]
) -> list[Value] | None:
    if not _known(layer, call):
        return None
    graph, name, rank = context.graph, call.name, layer.rank
    kernel = np.asarray(layer.kernel)  # (..., channels in a group, filters)
    weights = kernel.transpose(rank + 1, rank, *range(rank))
    x = graph.node(
        "Conv",
        [
            _entered(context, call, layer, values),
            graph.constant(weights, f"{name}/kernel"),
            *_bias(context, name, layer),
        ],
        f"{name}/convolution",
        strides=list(layer.strides),
        dilations=list(layer.dilation_rate),
        group=layer.groups,
        **padding(layer, kernel.shape[:rank]),
    )
    return _finish(context, call, layer, x, _mask(layer, values))


@handles(LAYERS.DepthwiseConv1D, LAYERS.DepthwiseConv2D)
@timeless
def _depthwise(context: Context, call: Call, layer: Any, values: list[Value]) -> list[Value] | None:
    if not _known(layer, call):
        return None
    x = _each_channel(
        context, call, layer, layer.kernel, _entered(context, call, layer, values), True
    )
    return _finish(context, call, layer, x, _mask(layer, values))


def _each_channel(
    context: Context, call: Call, layer: Any, kernel: Any, x: str, biased: bool
) -> str:
    """Add a depthwise convolution; the kernel is (..., channels, filters of a channel)."""
    graph, name, rank = context.graph, call.name, layer.rank
    kernel = np.asarray(kernel)
    sizes, channels = kernel.shape[:rank], kernel.shape[rank]
    weights = kernel.transpose(rank, rank + 1, *range(rank)).reshape(-1, 1, *sizes)
    return graph.node(
        "Conv",
        [
            x,
            graph.constant(weights, f"{name}/depthwise_kernel"),
            *(_bias(context, name, layer) if biased else []),
        ],
        f"{name}/depthwise",
        strides=list(layer.strides),
        dilations=list(layer.dilation_rate),
        group=channels,
        **padding(layer, sizes),
    )


@handles(LAYERS.SeparableConv1D, LAYERS.SeparableConv2D)
@timeless
def _separable(context: Context, call: Call, layer: Any, values: list[Value]) -> list[Value] | None:
    if not _known(layer, call):
        return None
    graph, name, rank = context.graph, call.name, layer.rank
    x = _entered(context, call, layer, values)
    x = _each_channel(context, call, layer, layer.depthwise_kernel, x, False)
    weights = np.asarray(layer.pointwise_kernel).transpose(rank + 1, rank, *range(rank))
    pointwise = graph.constant(weights, f"{name}/pointwise_kernel")
    x = graph.node("Conv", [x, pointwise, *_bias(context, name, layer)], f"{name}/pointwise")
    return _finish(context, call, layer, x, _mask(layer, values))


@handles(LAYERS.Conv1DTranspose, LAYERS.Conv2DTranspose, LAYERS.Conv3DTranspose)
@timeless
def _transposed(
    context: Context, call: Call, layer: Any, values: list[Value]
) -> list[Value] | None:
    if not _known(layer, call) or max(layer.dilation_rate) > 1:
        return None
    graph, name, rank = context.graph, call.name, layer.rank
    kernel = np.asarray(layer.kernel)  # (..., filters, channels)
    weights = kernel.transpose(rank + 1, rank, *range(rank))
    strides = [int(stride) for stride in layer.strides]
    spare = [size - stride for size, stride in zip(kernel.shape[:rank], strides, strict=True)]
    cut = [max(each, 0) if layer.padding == "same" else 0 for each in spare]
    x = graph.node(
        "ConvTranspose",
        [
            _entered(context, call, layer, values),
            graph.constant(weights, f"{name}/kernel"),
            *_bias(context, name, layer),
        ],
        f"{name}/convolution",
        strides=strides,
        pads=[*(each // 2 for each in cut), *(each - each // 2 for each in cut)],
        output_padding=[max(-each, 0) for each in spare],
    )
    return _finish(context, call, layer, x, _mask(layer, values))
