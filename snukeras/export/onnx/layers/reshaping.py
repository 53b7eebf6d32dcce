"""Layers that move values without changing them."""

from typing import Any

import keras
import numpy as np

from snukeras.export.onnx.handlers import Context, Value, handles, timeless
from snukeras.network.topology import Call

LAYERS = keras.layers
_END = np.iinfo("int64").max


@handles(LAYERS.Flatten)
@timeless
def _flatten(context: Context, call: Call, layer: Any, values: list[Value]) -> list[Value] | None:
    shape = call.inputs[0].shape
    if layer.data_format == "channels_first" and len(shape) > 2:
        return None
    graph, name = context.graph, call.name
    wanted = graph.constant([0, 1] if len(shape) == 1 else [0, -1], f"{name}/shape", "int64")
    if len(shape) == 1:
        axis = graph.constant([1], "axis_1", "int64")
        return [Value(graph.node("Unsqueeze", [values[0].name, axis], f"{name}/flat"))]
    return [Value(graph.node("Reshape", [values[0].name, wanted], f"{name}/flat"))]


@handles(LAYERS.Reshape)
@timeless
def _reshape(context: Context, call: Call, layer: Any, values: list[Value]) -> list[Value] | None:
    sizes = list(layer.target_shape)
    if any(size is None for size in sizes):
        return None
    graph, name = context.graph, call.name
    wanted = graph.constant([0, *sizes], f"{name}/shape", "int64")
    return [Value(graph.node("Reshape", [values[0].name, wanted], f"{name}/reshaped"))]


@handles(LAYERS.Permute)
@timeless
def _permute(context: Context, call: Call, layer: Any, values: list[Value]) -> list[Value]:
    perm = [0, *(int(axis) for axis in layer.dims)]
    return [
        Value(context.graph.node("Transpose", [values[0].name], f"{call.name}/permuted", perm=perm))
    ]


@handles(LAYERS.RepeatVector)
@timeless
def _repeat(context: Context, call: Call, layer: Any, values: list[Value]) -> list[Value]:
    graph, name = context.graph, call.name
    axis = graph.constant([1], "axis_1", "int64")
    x = graph.node("Unsqueeze", [values[0].name, axis], f"{name}/step")
    times = graph.constant([1, layer.n, 1], f"{name}/times", "int64")
    return [Value(graph.node("Tile", [x, times], f"{name}/repeated"))]


def _sides(given: Any, rank: int) -> list[tuple[int, int]]:
    """Return the sizes before and behind each axis that `padding` or `cropping` names."""
    pairs = [given] if rank == 1 else given
    return [(int(pair[0]), int(pair[1])) for pair in pairs]


def _places(layer: Any, rank: int) -> list[int]:
    """Return the axes of places among all axes."""
    first = 2 if getattr(layer, "data_format", None) == "channels_first" else 1
    return list(range(first, first + rank))


@handles(LAYERS.ZeroPadding1D, LAYERS.ZeroPadding2D, LAYERS.ZeroPadding3D)
@timeless
def _pad(context: Context, call: Call, layer: Any, values: list[Value]) -> list[Value]:
    graph, name = context.graph, call.name
    rank = len(call.inputs[0].shape) - 2
    pads = np.zeros((2, rank + 2), int)
    for axis, pair in zip(_places(layer, rank), _sides(layer.padding, rank), strict=True):
        pads[:, axis] = pair
    amounts = graph.constant(pads.reshape(-1), f"{name}/pads", "int64")
    zero = graph.constant(0, f"{name}/zero", call.inputs[0].dtype)
    return [Value(graph.node("Pad", [values[0].name, amounts, zero], f"{name}/padded"))]


@handles(LAYERS.Cropping1D, LAYERS.Cropping2D, LAYERS.Cropping3D)
@timeless
def _crop(context: Context, call: Call, layer: Any, values: list[Value]) -> list[Value]:
    graph, name = context.graph, call.name
    rank = len(call.inputs[0].shape) - 2
    pairs = _sides(layer.cropping, rank)
    parts = {
        "starts": [before for before, _ in pairs],
        "ends": [-behind if behind else _END for _, behind in pairs],
        "axes": _places(layer, rank),
    }
    given = [graph.constant(part, f"{name}/{label}", "int64") for label, part in parts.items()]
    return [Value(graph.node("Slice", [values[0].name, *given], f"{name}/cropped"))]


@handles(LAYERS.UpSampling1D, LAYERS.UpSampling2D, LAYERS.UpSampling3D)
@timeless
def _enlarge(context: Context, call: Call, layer: Any, values: list[Value]) -> list[Value] | None:
    if getattr(layer, "interpolation", "nearest") != "nearest":
        return None
    graph, name = context.graph, call.name
    rank = len(call.inputs[0].shape) - 2
    sizes = layer.size if isinstance(layer.size, tuple | list) else [layer.size]
    x = values[0].name
    # A new axis behind each is repeated and joined with it.
    for axis, times in zip(_places(layer, rank), sizes, strict=True):
        shape = graph.node("Shape", [x], f"{name}/shape")
        one = graph.constant([axis + 1], f"axis_{axis + 1}", "int64")
        x = graph.node("Unsqueeze", [x, one], f"{name}/apart")
        repeats = [1] * (rank + 3)
        repeats[axis + 1] = int(times)
        x = graph.node(
            "Tile", [x, graph.constant(repeats, f"{name}/repeats", "int64")], f"{name}/repeated"
        )
        factors = [1] * (rank + 2)
        factors[axis] = int(times)
        by = graph.constant(factors, f"{name}/factors", "int64")
        wanted = graph.node("Mul", [shape, by], f"{name}/larger")
        x = graph.node("Reshape", [x, wanted], f"{name}/joined")
    return [Value(x)]
