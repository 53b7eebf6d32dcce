"""Normalisations as they are at inference."""

from typing import Any

import keras
import numpy as np

from snukeras.export.onnx.graph import GraphBuilder
from snukeras.export.onnx.handlers import Context, Value, as_float, handles, timeless
from snukeras.network.topology import Call

LAYERS = keras.layers


def _axes(layer: Any, rank: int) -> list[int]:
    """Return the axes of a layer, counted from 0."""
    axis = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    return sorted(int(each) % rank for each in axis)


def _spread(values: Any, axes: list[int], rank: int) -> np.ndarray:
    """Return weights of some axes with axes of size 1 between, to the last axis."""
    values = np.asarray(values, "float32")
    sizes = dict(zip(axes, values.shape, strict=True))
    return values.reshape([sizes.get(axis, 1) for axis in range(axes[0], rank)])


def _stepwise(context: Context, call: Call, axes: list[int]) -> list[int] | None:
    """Return the axes as they are in the graph; None where they need more than a step."""
    rank = len(call.inputs[0].shape)
    if not context.streaming or rank == 2:
        return axes
    return None if min(axes) < 2 else [axis - 1 for axis in axes]


@handles(LAYERS.BatchNormalization)
def _batch(context: Context, call: Call, layer: Any, values: list[Value]) -> list[Value] | None:
    rank = len(call.inputs[0].shape)
    axes = _axes(layer, rank)
    if _stepwise(context, call, axes) is None:
        return None
    graph, name = context.graph, call.name
    deviation = np.sqrt(np.asarray(layer.moving_variance, "float64") + layer.epsilon)
    factor = 1.0 / deviation
    if layer.scale:
        factor = factor * np.asarray(layer.gamma, "float64")
    offset = -np.asarray(layer.moving_mean, "float64") * factor
    if layer.center:
        offset = offset + np.asarray(layer.beta, "float64")
    x = as_float(context, call, 0, values[0])
    by = graph.constant(_spread(factor, axes, rank), f"{name}/factor")
    plus = graph.constant(_spread(offset, axes, rank), f"{name}/offset")
    x = graph.node("Mul", [x, by], f"{name}/scaled")
    return [Value(graph.node("Add", [x, plus], f"{name}/output"), values[0].mask)]


@handles(LAYERS.LayerNormalization)
def _layer(context: Context, call: Call, layer: Any, values: list[Value]) -> list[Value] | None:
    rank = len(call.inputs[0].shape)
    own = _axes(layer, rank)
    axes = _stepwise(context, call, own)
    if axes is None or getattr(layer, "rms_scaling", False):
        return None
    graph, name = context.graph, call.name
    x = as_float(context, call, 0, values[0])
    x = _standardised(graph, name, x, axes, layer.epsilon)
    if layer.scale:
        gamma = graph.constant(_spread(layer.gamma, own, rank), f"{name}/gamma")
        x = graph.node("Mul", [x, gamma], f"{name}/scaled")
    if layer.center:
        beta = graph.constant(_spread(layer.beta, own, rank), f"{name}/beta")
        x = graph.node("Add", [x, beta], f"{name}/output")
    return [Value(x, values[0].mask)]


def _standardised(graph: GraphBuilder, name: str, x: str, axes: list[int], epsilon: float) -> str:
    """Add x with mean 0 and variance 1 over some axes."""
    mean = graph.node("ReduceMean", [x], f"{name}/mean", axes=axes, keepdims=1)
    x = graph.node("Sub", [x, mean], f"{name}/centred")
    return _by_size(graph, name, x, axes, epsilon)


def _by_size(graph: GraphBuilder, name: str, x: str, axes: list[int], epsilon: float) -> str:
    """Add x over the root of its mean square over some axes."""
    square = graph.node("Mul", [x, x], f"{name}/square")
    power = graph.node("ReduceMean", [square], f"{name}/variance", axes=axes, keepdims=1)
    power = graph.node("Add", [power, graph.constant(epsilon, f"{name}/epsilon")], f"{name}/power")
    return graph.node(
        "Div", [x, graph.node("Sqrt", [power], f"{name}/deviation")], f"{name}/normed"
    )


@handles(LAYERS.GroupNormalization)
@timeless
def _group(context: Context, call: Call, layer: Any, values: list[Value]) -> list[Value] | None:
    rank = len(call.inputs[0].shape)
    if layer.axis % rank != rank - 1:
        return None
    graph, name = context.graph, call.name
    channels = int(call.inputs[0].shape[-1] or 0)
    x = as_float(context, call, 0, values[0])
    shape = graph.node("Shape", [x], f"{name}/shape")
    groups = layer.groups if layer.groups > 0 else channels
    into = graph.constant([0, -1, groups, channels // groups], f"{name}/groups", "int64")
    parts = graph.node("Reshape", [x, into], f"{name}/parts")
    parts = _standardised(graph, name, parts, [1, 3], layer.epsilon)
    x = graph.node("Reshape", [parts, shape], f"{name}/whole")
    if layer.scale:
        gamma = graph.constant(np.asarray(layer.gamma), f"{name}/gamma")
        x = graph.node("Mul", [x, gamma], f"{name}/scaled")
    if layer.center:
        beta = graph.constant(np.asarray(layer.beta), f"{name}/beta")
        x = graph.node("Add", [x, beta], f"{name}/output")
    return [Value(x, values[0].mask if layer.supports_masking else None)]


@handles(LAYERS.UnitNormalization)
def _unit(context: Context, call: Call, layer: Any, values: list[Value]) -> list[Value] | None:
    axes = _stepwise(context, call, _axes(layer, len(call.inputs[0].shape)))
    if axes is None:
        return None
    graph, name = context.graph, call.name
    x = as_float(context, call, 0, values[0])
    norm = graph.node("ReduceL2", [x], f"{name}/norm", axes=axes, keepdims=1)
    least = graph.constant(1e-12, f"{name}/least")
    norm = graph.node("Max", [norm, least], f"{name}/at_least")
    return [Value(graph.node("Div", [x, norm], f"{name}/output"), values[0].mask)]


if hasattr(LAYERS, "RMSNormalization"):

    @handles(LAYERS.RMSNormalization)
    def _root(context: Context, call: Call, layer: Any, values: list[Value]) -> list[Value] | None:
        rank = len(call.inputs[0].shape)
        own = _axes(layer, rank)
        axes = _stepwise(context, call, own)
        if axes is None:
            return None
        graph, name = context.graph, call.name
        x = as_float(context, call, 0, values[0])
        x = _by_size(graph, name, x, axes, layer.epsilon)
        scale = graph.constant(_spread(layer.scale, own, rank), f"{name}/scale")
        return [Value(graph.node("Mul", [x, scale], f"{name}/output"), None)]
