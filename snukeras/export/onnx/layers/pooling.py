"""Pooling, over windows and over all places."""

from typing import Any

import keras

from snukeras.export.onnx.graph import element_type
from snukeras.export.onnx.handlers import Context, Value, as_float, handles, timeless
from snukeras.export.onnx.layers.convolution import channels_first, channels_last
from snukeras.network.topology import Call

LAYERS = keras.layers
_MAXIMUM = (LAYERS.MaxPooling1D, LAYERS.MaxPooling2D, LAYERS.MaxPooling3D)
_AVERAGE = (LAYERS.AveragePooling1D, LAYERS.AveragePooling2D, LAYERS.AveragePooling3D)
_ALL_MAXIMUM = (LAYERS.GlobalMaxPooling1D, LAYERS.GlobalMaxPooling2D, LAYERS.GlobalMaxPooling3D)
_ALL_AVERAGE = (LAYERS.GlobalAveragePooling2D, LAYERS.GlobalAveragePooling3D)


@handles(*_MAXIMUM, *_AVERAGE)
@timeless
def _windows(context: Context, call: Call, layer: Any, values: list[Value]) -> list[Value]:
    rank = len(call.inputs[0].shape) - 2
    x = as_float(context, call, 0, values[0])
    last = layer.data_format == "channels_last"
    x = channels_first(context, call.name, x, rank) if last else x
    size = layer.pool_size if isinstance(layer.pool_size, tuple | list) else [layer.pool_size]
    strides = layer.strides if isinstance(layer.strides, tuple | list) else [layer.strides]
    x = context.graph.node(
        "MaxPool" if isinstance(layer, _MAXIMUM) else "AveragePool",
        [x],
        f"{call.name}/pool",
        kernel_shape=list(size) * (rank // len(size)),
        strides=list(strides) * (rank // len(strides)),
        auto_pad="SAME_UPPER" if layer.padding == "same" else "VALID",
    )
    return [Value(channels_last(context, call.name, x, rank) if last else x)]


@handles(*_ALL_MAXIMUM, *_ALL_AVERAGE)
@timeless
def _everywhere(context: Context, call: Call, layer: Any, values: list[Value]) -> list[Value]:
    x = as_float(context, call, 0, values[0])
    rank = len(call.inputs[0].shape)
    first = 1 if layer.data_format == "channels_last" else 2
    operator = "ReduceMax" if isinstance(layer, _ALL_MAXIMUM) else "ReduceMean"
    return [
        Value(
            context.graph.node(
                operator,
                [x],
                f"{call.name}/pool",
                axes=list(range(first, first + rank - 2)),
                keepdims=int(layer.keepdims),
            )
        )
    ]


def mean_over_time(context: Context, call: Call, layer: Any, values: list[Value]) -> list[Value]:
    """Add GlobalAveragePooling1D of whole sequences; steps that are masked do not count."""
    graph, name = context.graph, call.name
    x, mask = as_float(context, call, 0, values[0]), values[0].mask
    time = 1 if layer.data_format == "channels_last" else 2
    keep = int(layer.keepdims)
    if mask is None:
        return [Value(graph.node("ReduceMean", [x], f"{name}/mean", axes=[time], keepdims=keep))]
    axis = graph.constant([-1 if time == 1 else 1], f"{name}/axis", "int64")
    weights = graph.node("Cast", [mask], f"{name}/weights", to=element_type("float32"))
    weights = graph.node("Unsqueeze", [weights, axis], f"{name}/columns")
    over = graph.constant([time], f"{name}/time", "int64")
    kept = graph.node("Mul", [x, weights], f"{name}/kept")
    total = graph.node("ReduceSum", [kept, over], f"{name}/total", keepdims=keep)
    count = graph.node("ReduceSum", [weights, over], f"{name}/count", keepdims=keep)
    return [Value(graph.node("Div", [total, count], f"{name}/mean"))]
