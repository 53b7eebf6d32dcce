"""Layers that merge several tensors."""

from typing import Any

import keras

from snukeras.export.onnx.handlers import Context, Value, as_float, handles
from snukeras.network.topology import Call

_OPERATORS = {
    keras.layers.Add: "Add",
    keras.layers.Subtract: "Sub",
    keras.layers.Multiply: "Mul",
    keras.layers.Average: "Add",
    keras.layers.Maximum: "Max",
    keras.layers.Minimum: "Min",
}


@handles(*_OPERATORS)
def _merge(context: Context, call: Call, layer: Any, values: list[Value]) -> list[Value] | None:
    ranks = {len(ref.shape) for ref in call.inputs}
    if len(ranks) > 1:  # Keras aligns the first axes, ONNX the last ones
        return None
    graph, name = context.graph, call.name
    operator = next(op for cls, op in _OPERATORS.items() if isinstance(layer, cls))
    tensors = [as_float(context, call, i, value) for i, value in enumerate(values)]
    result = tensors[0]
    for tensor in tensors[1:]:
        result = graph.node(operator, [result, tensor], f"{name}/merged")
    if isinstance(layer, keras.layers.Average):
        count = graph.constant(float(len(tensors)), f"{name}/count")
        result = graph.node("Div", [result, count], f"{name}/mean")
    return [Value(result, _both(context, name, values))]


@handles(keras.layers.Concatenate)
def _concatenate(
    context: Context, call: Call, layer: Any, values: list[Value]
) -> list[Value] | None:
    rank = len(call.inputs[0].shape)
    axis = layer.axis % rank
    if context.streaming and rank > 2:
        if axis < 2:
            return None
        axis -= 1
    masked = any(value.mask is not None for value in values)
    if masked and axis < 2:
        return None
    tensors = [as_float(context, call, i, value) for i, value in enumerate(values)]
    result = context.graph.node("Concat", tensors, f"{call.name}/joined", axis=axis)
    return [Value(result, _both(context, call.name, values))]


def _both(context: Context, name: str, values: list[Value]) -> str | None:
    """Return the mask of steps that all inputs have."""
    masks = [value.mask for value in values if value.mask is not None]
    if not masks:
        return None
    result = masks[0]
    for mask in masks[1:]:
        result = context.graph.node("And", [result, mask], f"{name}/mask")
    return result
