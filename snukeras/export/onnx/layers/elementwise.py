"""Activation layers with arguments, and operations of `keras.ops` between layers."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from snukeras.export.onnx.graph import element_type
from snukeras.export.onnx.handlers import (
    CannotLowerError,
    Context,
    Value,
    as_float,
    handles,
    handles_operations,
)
from snukeras.network.topology import Call, Ref

LAYERS = keras.layers


@handles(LAYERS.Softmax)
def _softmax(context: Context, call: Call, layer: Any, values: list[Value]) -> list[Value] | None:
    rank = len(call.inputs[0].shape)
    if len(values) > 1 or not isinstance(layer.axis, int):
        return None
    axis = layer.axis % rank
    if values[0].mask is not None or (context.streaming and rank > 2 and axis != rank - 1):
        return None
    x = as_float(context, call, 0, values[0])
    return [Value(context.graph.node("Softmax", [x], f"{call.name}/softmax", axis=axis - rank))]


@handles(LAYERS.PReLU)
def _prelu(context: Context, call: Call, layer: Any, values: list[Value]) -> list[Value] | None:
    alpha = np.asarray(layer.alpha)
    if context.streaming and alpha.ndim > 1:
        if alpha.shape[0] != 1:
            return None
        alpha = alpha[0]
    graph = context.graph
    slope = graph.constant(alpha, f"{call.name}/alpha")
    x = as_float(context, call, 0, values[0])
    return [Value(graph.node("PRelu", [x, slope], f"{call.name}/prelu"), values[0].mask)]


def relu(context: Context, call: Call, layer: Any, values: list[Value]) -> list[Value]:
    """Add a ReLU with a threshold, a largest value or a slope; see `keras.layers.ReLU`."""
    graph, name = context.graph, call.name
    x = as_float(context, call, 0, values[0])
    threshold, slope = float(layer.threshold), float(layer.negative_slope)
    zero = graph.constant(0.0, "zero")
    bound = graph.constant(threshold, f"{name}/threshold")
    low = graph.node("Mul", [
        graph.node("Sub", [x, bound], f"{name}/below"), graph.constant(slope, f"{name}/slope")
    ], f"{name}/low") if slope else zero  # fmt: skip
    high = x
    if layer.max_value is not None:
        most = graph.constant(float(layer.max_value), f"{name}/most")
        high = graph.node("Min", [x, most], f"{name}/high")
    over = graph.node("Greater", [x, bound], f"{name}/over")
    return [Value(graph.node("Where", [over, high, low], f"{name}/relu"), values[0].mask)]


def _tensors(context: Context, call: Call, values: list[Value]) -> list[str]:
    """Return the arguments of an operation as tensors, numbers in the type of its tensors."""
    order, dtype = iter(values), call.inputs[0].dtype
    found = []
    for argument in call.args:
        if isinstance(argument, Ref):
            found.append(next(order).name)
        else:
            array = np.asarray(argument)
            kind = dtype if "float" in dtype or array.dtype.kind != "f" else "float32"
            found.append(context.graph.constant(array, f"{call.name}/number", kind))
    return found


def _check_types(context: Context, call: Call) -> None:
    kinds = {ref.dtype for ref in call.inputs}
    if len(kinds) > 1:
        raise CannotLowerError(f"it mixes tensors of types {', '.join(sorted(kinds))}; cast them")
    if context.streaming and len({len(ref.shape) for ref in call.inputs}) > 1:
        raise CannotLowerError("it mixes tensors with and without time, so it cannot stream")


def _in_float(context: Context, call: Call, names: list[str]) -> list[str]:
    """Return tensors of an operation whose result is float32, cast where they are integers."""
    if "float" in call.inputs[0].dtype:
        return names
    to = element_type("float32")
    return [context.graph.node("Cast", [n], f"{call.name}/cast", to=to) for n in names]


_TWO = {
    "Add": "Add",
    "Subtract": "Sub",
    "Multiply": "Mul",
    "Maximum": "Max",
    "Minimum": "Min",
    "Equal": "Equal",
    "Greater": "Greater",
    "GreaterEqual": "GreaterOrEqual",
    "Less": "Less",
    "LessEqual": "LessOrEqual",
    "LogicalAnd": "And",
    "LogicalOr": "Or",
}


@handles_operations(*_TWO, "Divide", "TrueDivide", "Power", "NotEqual")
def _two(context: Context, call: Call, layer: Any, values: list[Value]) -> list[Value] | None:
    if call.kwargs or len(call.args) != 2:
        return None
    _check_types(context, call)
    graph, name, kind = context.graph, call.name, type(layer).__name__
    names = _tensors(context, call, values)
    if kind == "NotEqual":
        same = graph.node("Equal", names, f"{name}/same")
        return [Value(graph.node("Not", [same], f"{name}/output"))]
    if kind in ("Divide", "TrueDivide"):
        names = _in_float(context, call, names)
    operator = {"Divide": "Div", "TrueDivide": "Div", "Power": "Pow"}.get(kind) or _TWO[kind]
    return [Value(graph.node(operator, names, f"{name}/output"), values[0].mask)]


_ONE = {
    "Absolute": "Abs",
    "Abs": "Abs",
    "Negative": "Neg",
    "Exp": "Exp",
    "Log": "Log",
    "Sqrt": "Sqrt",
    "Floor": "Floor",
    "Ceil": "Ceil",
    "Sign": "Sign",
    "Sin": "Sin",
    "Cos": "Cos",
    "Tanh": "Tanh",
    "Sigmoid": "Sigmoid",
    "Relu": "Relu",
    "Softplus": "Softplus",
    "Softsign": "Softsign",
    "LogicalNot": "Not",
    "Erf": "Erf",
}


@handles_operations(*_ONE, "Square", "Rsqrt")
def _one(context: Context, call: Call, layer: Any, values: list[Value]) -> list[Value] | None:
    graph, name, kind = context.graph, call.name, type(layer).__name__
    x = values[0].name
    if kind != "LogicalNot":
        (x,) = _in_float(context, call, [x]) if kind not in ("Absolute", "Abs", "Square") else [x]
    if kind == "Square":
        return [Value(graph.node("Mul", [x, x], f"{name}/output"), values[0].mask)]
    if kind == "Rsqrt":
        x = graph.node("Sqrt", [x], f"{name}/root")
        return [Value(graph.node("Reciprocal", [x], f"{name}/output"), values[0].mask)]
    return [Value(graph.node(_ONE[kind], [x], f"{name}/output"), values[0].mask)]


_REDUCE = {"Mean": "ReduceMean", "Max": "ReduceMax", "Min": "ReduceMin", "Sum": "ReduceSum"}


def _axes(context: Context, call: Call, axis: Any) -> list[int]:
    """Return the axes of an operation, counted from 0."""
    rank = len(call.inputs[0].shape)
    given = range(rank) if axis is None else axis if isinstance(axis, list | tuple) else [axis]
    axes = sorted(int(each) % rank for each in given)
    if context.streaming and rank > 2:
        if min(axes) < 2:
            raise CannotLowerError("it mixes steps, so it cannot stream")
        axes = [each - 1 for each in axes]
    return axes


@handles_operations(*_REDUCE, "Any", "All")
def _reduce(context: Context, call: Call, layer: Any, values: list[Value]) -> list[Value] | None:
    if getattr(layer, "initial", None) is not None:
        return None
    graph, name, kind = context.graph, call.name, type(layer).__name__
    axes, keep = _axes(context, call, layer.axis), int(layer.keepdims)
    x = values[0].name
    if kind in ("Any", "All"):
        whole = graph.node("Cast", [x], f"{name}/numbers", to=element_type("float32"))
        end = "ReduceMax" if kind == "Any" else "ReduceMin"
        found = graph.node(end, [whole], f"{name}/found", axes=axes, keepdims=keep)
        return [Value(graph.node("Cast", [found], f"{name}/output", to=element_type("bool")))]
    (x,) = _in_float(context, call, [x]) if kind == "Mean" else [x]
    if kind == "Sum":
        over = graph.constant(axes, f"{name}/axes", "int64")
        return [Value(graph.node("ReduceSum", [x, over], f"{name}/output", keepdims=keep))]
    return [Value(graph.node(_REDUCE[kind], [x], f"{name}/output", axes=axes, keepdims=keep))]


def _whole(
    build: Callable[[Context, Call, Any, list[Value]], str | None],
) -> Callable[[Context, Call, Any, list[Value]], list[Value] | None]:
    """Wrap a handler of an operation that moves values, which needs the whole sequence."""

    def handler(
        context: Context, call: Call, layer: Any, values: list[Value]
    ) -> list[Value] | None:
        if context.streaming:
            raise CannotLowerError("it may mix steps, so it cannot stream")
        found = build(context, call, layer, values)
        return None if found is None else [Value(found)]

    return handler


@handles_operations("ExpandDims")
@_whole
def _expand(context: Context, call: Call, layer: Any, values: list[Value]) -> str | None:
    axes = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    at = context.graph.constant([int(a) for a in axes], f"{call.name}/axes", "int64")
    return context.graph.node("Unsqueeze", [values[0].name, at], f"{call.name}/output")


@handles_operations("Squeeze")
@_whole
def _squeeze(context: Context, call: Call, layer: Any, values: list[Value]) -> str | None:
    if layer.axis is None:
        return None
    axes = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    at = context.graph.constant([int(a) for a in axes], f"{call.name}/axes", "int64")
    return context.graph.node("Squeeze", [values[0].name, at], f"{call.name}/output")


@handles_operations("Transpose")
@_whole
def _transpose(context: Context, call: Call, layer: Any, values: list[Value]) -> str | None:
    perm = layer.axes or reversed(range(len(call.inputs[0].shape)))
    return context.graph.node(
        "Transpose", [values[0].name], f"{call.name}/output", perm=[int(p) for p in perm]
    )


@handles_operations("Concatenate")
@_whole
def _join(context: Context, call: Call, layer: Any, values: list[Value]) -> str | None:
    _check_types(context, call)
    axis = int(layer.axis)
    return context.graph.node(
        "Concat", [value.name for value in values], f"{call.name}/output", axis=axis
    )


@handles_operations("Stack")
@_whole
def _stack(context: Context, call: Call, layer: Any, values: list[Value]) -> str | None:
    _check_types(context, call)
    graph, name, axis = context.graph, call.name, int(layer.axis)
    at = graph.constant([axis], f"axis_{axis}", "int64")
    parts = [graph.node("Unsqueeze", [v.name, at], f"{name}/apart") for v in values]
    return graph.node("Concat", parts, f"{name}/output", axis=axis)


@handles_operations("Reshape")
@_whole
def _reshape(context: Context, call: Call, layer: Any, values: list[Value]) -> str | None:
    sizes = [-1 if size is None else size for size in layer.newshape]
    if not all(isinstance(size, int) for size in sizes) or sizes.count(-1) > 1:
        return None
    wanted = context.graph.constant(sizes, f"{call.name}/shape", "int64")
    return context.graph.node("Reshape", [values[0].name, wanted], f"{call.name}/output")


@handles_operations("Matmul")
@_whole
def _matmul(context: Context, call: Call, layer: Any, values: list[Value]) -> str | None:
    if len(values) != 2:
        return None
    _check_types(context, call)
    return context.graph.node("MatMul", [v.name for v in values], f"{call.name}/output")


@handles_operations("Where")
@_whole
def _where(context: Context, call: Call, layer: Any, values: list[Value]) -> str | None:
    if len(values) != 3:
        return None
    return context.graph.node("Where", [v.name for v in values], f"{call.name}/output")


@handles_operations("Cast")
def _cast(context: Context, call: Call, layer: Any, values: list[Value]) -> list[Value] | None:
    to = element_type(keras.backend.standardize_dtype(layer.dtype))
    return [Value(context.graph.node("Cast", [values[0].name], f"{call.name}/output", to=to))]


@handles_operations("GetItem")
@_whole
def _slice(context: Context, call: Call, layer: Any, values: list[Value]) -> str | None:
    key = call.args[1] if len(call.args) > 1 else call.kwargs.get("key")
    keys = list(key) if isinstance(key, list | tuple) else [key]
    if Ellipsis in keys:
        place = keys.index(Ellipsis)
        spare = len(call.inputs[0].shape) - len(keys) + 1
        keys[place : place + 1] = [slice(None)] * spare
    graph, name = context.graph, call.name
    cuts: list[tuple[int, int, int, int]] = []
    gone = []
    end = np.iinfo("int64").max
    for axis, each in enumerate(keys):
        if isinstance(each, int):
            gone.append(axis)
            cuts.append((each, end if each == -1 else each + 1, axis, 1))
        elif not isinstance(each, slice):
            return None
        elif each != slice(None):
            step = each.step or 1
            if step < 0:
                return None
            cuts.append((each.start or 0, end if each.stop is None else each.stop, axis, step))
    x = values[0].name
    if cuts:
        labels = ("starts", "ends", "axes", "steps")
        given = [
            graph.constant(list(part), f"{name}/{label}", "int64")
            for label, part in zip(labels, zip(*cuts, strict=True), strict=True)
        ]
        x = graph.node("Slice", [x, *given], f"{name}/part")
    if gone:
        at = graph.constant(gone, f"{name}/gone", "int64")
        x = graph.node("Squeeze", [x, at], f"{name}/output")
    return x
