"""Attention, EinsumDense, and what looks things up."""

from typing import Any

import keras
import numpy as np

from snukeras.export.onnx.activations import emitter
from snukeras.export.onnx.graph import GraphBuilder, element_type
from snukeras.export.onnx.handlers import (
    CannotLowerError,
    Context,
    Value,
    activate,
    as_float,
    handles,
    timeless,
)
from snukeras.network.topology import Call, Ref

LAYERS = keras.layers
_FAR = -1e9


@handles(LAYERS.EinsumDense)
@timeless
def _einsum(context: Context, call: Call, layer: Any, values: list[Value]) -> list[Value] | None:
    if emitter(layer.activation) is None or getattr(layer, "quantization_mode", None):
        return None
    x = project(context.graph, call.name, layer, as_float(context, call, 0, values[0]))
    return [Value(activate(context, call, layer.activation, x))]


def project(graph: GraphBuilder, name: str, dense: Any, x: str) -> str:
    """Add the product of an EinsumDense, with its bias."""
    kernel = graph.constant(np.asarray(dense.kernel), f"{name}/kernel")
    x = graph.node("Einsum", [x, kernel], f"{name}/product", equation=dense.equation)
    if dense.bias is not None:
        bias = graph.constant(np.asarray(dense.bias), f"{name}/bias")
        x = graph.node("Add", [x, bias], f"{name}/biased")
    return x


def _unsqueeze(graph: GraphBuilder, x: str, axis: int, hint: str) -> str:
    return graph.node("Unsqueeze", [x, graph.constant([axis], f"axis_{axis}", "int64")], hint)


def _causal(graph: GraphBuilder, name: str, query: str, value: str) -> str:
    """Add a mask (queries, values) that is True where a value is not later than a query."""
    ranges = []
    zero, one = graph.constant(0, f"{name}/first", "int64"), graph.constant(1, "one_more", "int64")
    for label, tensor in (("query", query), ("value", value)):
        size = graph.node("Shape", [tensor], f"{name}/{label}_shape", start=1, end=2)
        none = graph.constant([0], "axis_0", "int64")
        size = graph.node("Squeeze", [size, none], f"{name}/{label}_steps")
        ranges.append(graph.node("Range", [zero, size, one], f"{name}/{label}_range"))
    rows = _unsqueeze(graph, ranges[0], 1, f"{name}/rows")
    return graph.node("GreaterOrEqual", [rows, ranges[1]], f"{name}/causal")


def _all(graph: GraphBuilder, name: str, masks: list[str]) -> str | None:
    result = masks[0] if masks else None
    for mask in masks[1:]:
        result = graph.node("And", [str(result), mask], f"{name}/mask")
    return result


def _as_mask(context: Context, name: str, value: Value) -> str:
    return context.graph.node("Cast", [value.name], f"{name}/as_mask", to=element_type("bool"))


def _by_argument(call: Call, names: tuple[str, ...], values: list[Value]) -> dict[str, Any]:
    """Return the arguments of a call by name, with values in place of tensors."""
    order = iter(values)
    args, kwargs = keras.tree.map_structure(
        lambda x: next(order) if isinstance(x, Ref) else x, (call.args, call.kwargs)
    )
    given = dict(zip(names, args, strict=False)) | kwargs
    return {name: value for name, value in given.items() if value is not None}


@handles(LAYERS.MultiHeadAttention)
@timeless
def _many_heads(
    context: Context, call: Call, layer: Any, values: list[Value]
) -> list[Value] | None:
    names = ("query", "value", "key", "query_mask", "value_mask", "key_mask", "attention_mask")
    given = _by_argument(call, names, values)
    config = layer.get_config()
    plain = all(len(ref.shape) <= 3 for ref in call.inputs) and not any(
        config.get(name) for name in ("use_gate", "sliding_window")
    )
    if not plain:
        return None
    graph, name = context.graph, call.name
    query, value = given["query"], given["value"]
    key = given.get("key", value)
    q, k, v = (
        project(graph, f"{name}/{label}", getattr(layer, f"{label}_dense"), source.name)
        for label, source in (("query", query), ("key", key), ("value", value))
    )
    size = graph.constant(1.0 / np.sqrt(layer.key_dim), f"{name}/scale")
    q = graph.node("Mul", [q, size], f"{name}/scaled")
    scores = graph.node("Einsum", [q, k], f"{name}/scores", equation="bqhd,bkhd->bhqk")
    mask = _head_mask(context, name, given)
    if mask is not None:
        far = graph.constant(_FAR, f"{name}/far")
        scores = graph.node("Where", [mask, scores, far], f"{name}/masked")
    weights = graph.node("Softmax", [scores], f"{name}/weights", axis=-1)
    mixed = graph.node("Einsum", [weights, v], f"{name}/mixed", equation="bhqk,bkhd->bqhd")
    out = project(graph, f"{name}/output", layer.output_dense, mixed)
    # Keras hands the query's mask on when the layer is called, which no config says.
    held = given["query_mask"].name if "query_mask" in given else query.mask
    returned = [Value(out, held, carried=held is not None)]
    return [*returned, Value(weights)] if given.get("return_attention_scores") else returned


def _head_mask(context: Context, name: str, given: dict[str, Any]) -> str | None:
    """Add the mask (batch, 1, queries, values), or None."""
    graph, masks = context.graph, []
    sides = {"query": (-1, 3), "value": (-2, 2), "key": (-2, 2)}
    for side, (axis, _) in sides.items():
        mask = given.get(f"{side}_mask")
        if mask is None and side in given and given[side].mask is not None:
            if side == "key" and given["key"].name == given["value"].name:
                continue
            mask = Value(given[side].mask)
        if mask is not None:
            held = _as_mask(context, f"{name}/{side}", mask)
            masks.append(_unsqueeze(graph, held, axis, f"{name}/{side}_mask"))
    if "attention_mask" in given:
        masks.append(_as_mask(context, name, given["attention_mask"]))
    if given.get("use_causal_mask"):
        masks.append(_causal(graph, name, given["query"].name, given["value"].name))
    mask = _all(graph, name, masks)
    # A causal mask alone has no batch, and broadcasts as it is.
    alone = len(masks) == 1 and bool(given.get("use_causal_mask"))
    return mask if mask is None or alone else _unsqueeze(graph, mask, 1, f"{name}/for_heads")


@handles(LAYERS.Attention, LAYERS.AdditiveAttention)
@timeless
def _one_head(context: Context, call: Call, layer: Any, values: list[Value]) -> list[Value] | None:
    count = len(keras.tree.flatten(call.args[0]))
    given = _by_argument(call, ("inputs",), values)
    if given.get("return_attention_scores") or any(len(ref.shape) > 3 for ref in call.inputs):
        return None
    graph, name = context.graph, call.name
    query, value = values[0], values[1]
    key = values[2] if count > 2 else value
    scores = _scores(graph, name, layer, query.name, key.name)
    held = given.get("mask")
    held = list(held) if isinstance(held, list | tuple) else [None, None]
    held += [None] * (2 - len(held))
    masks = [
        own if own is not None else (Value(source.mask) if source.mask is not None else None)
        for own, source in zip(held[:2], (query, value), strict=True)
    ]
    marks = []
    if masks[1] is not None:
        seen = _as_mask(context, f"{name}/value", masks[1])
        marks.append(_unsqueeze(graph, seen, -2, f"{name}/value_mask"))
    if given.get("use_causal_mask"):
        marks.append(_causal(graph, name, query.name, value.name))
    mark = _all(graph, name, marks)
    if mark is not None:
        less = graph.node("Sub", [scores, graph.constant(-_FAR, f"{name}/far")], f"{name}/less")
        scores = graph.node("Where", [mark, scores, less], f"{name}/masked")
    weights = graph.node("Softmax", [scores], f"{name}/weights", axis=-1)
    out = graph.node("MatMul", [weights, value.name], f"{name}/mixed")
    if masks[0] is not None:
        on = _as_mask(context, f"{name}/query", masks[0])
        on = _unsqueeze(graph, on, -1, f"{name}/query_mask")
        out = graph.node("Where", [on, out, graph.constant(0.0, "zero")], f"{name}/output")
    return [Value(out, query.mask)]


def _scores(graph: GraphBuilder, name: str, layer: Any, query: str, key: str) -> str:
    scale = getattr(layer, "scale", None)
    factor = None if scale is None else graph.constant(np.asarray(scale), f"{name}/scale")
    additive = isinstance(layer, LAYERS.AdditiveAttention)
    if not additive and layer.score_mode == "dot":
        turned = graph.node("Transpose", [key], f"{name}/turned", perm=[0, 2, 1])
        scores = graph.node("MatMul", [query, turned], f"{name}/scores")
        return scores if factor is None else graph.node("Mul", [scores, factor], f"{name}/scaled")
    rows = _unsqueeze(graph, query, -2, f"{name}/rows")
    columns = _unsqueeze(graph, key, -3, f"{name}/columns")
    sums = graph.node("Add", [rows, columns], f"{name}/sums")
    if factor is not None and not additive:
        sums = graph.node("Mul", [sums, factor], f"{name}/scaled")
    bent = graph.node("Tanh", [sums], f"{name}/bent")
    if factor is not None and additive:
        bent = graph.node("Mul", [bent, factor], f"{name}/scaled")
    last = graph.constant([-1], "last_axis", "int64")
    scores = graph.node("ReduceSum", [bent, last], f"{name}/scores", keepdims=0)
    if additive:
        return scores
    weight = graph.constant(np.asarray(layer.concat_score_weight), f"{name}/weight")
    return graph.node("Mul", [scores, weight], f"{name}/weighted")


@handles(LAYERS.Embedding)
def _embedding(context: Context, call: Call, layer: Any, values: list[Value]) -> list[Value] | None:
    if getattr(layer, "quantization_mode", None):
        return None
    graph, name = context.graph, call.name
    table = graph.constant(np.asarray(layer.embeddings), f"{name}/embeddings")
    words = graph.node("Cast", [values[0].name], f"{name}/words", to=element_type("int32"))
    mask = None
    if layer.mask_zero:
        zero = graph.constant(0, "no_word", "int32")
        same = graph.node("Equal", [words, zero], f"{name}/padding")
        mask = graph.node("Not", [same], f"{name}/mask")
    return [Value(graph.node("Gather", [table, words], f"{name}/vectors"), mask)]


@handles(LAYERS.Rescaling)
def _rescaling(context: Context, call: Call, layer: Any, values: list[Value]) -> list[Value] | None:
    numbers = [np.asarray(value, "float32") for value in (layer.scale, layer.offset)]
    if getattr(layer, "data_format", None) == "channels_first" and any(
        number.ndim for number in numbers
    ):
        return None
    graph, name = context.graph, call.name
    scale, offset = (
        graph.constant(number, f"{name}/{label}")
        for number, label in zip(numbers, ("scale", "offset"), strict=True)
    )
    x = graph.node("Mul", [as_float(context, call, 0, values[0]), scale], f"{name}/scaled")
    return [Value(graph.node("Add", [x, offset], f"{name}/output"), values[0].mask)]


@handles(LAYERS.Discretization)
def _bins(context: Context, call: Call, layer: Any, values: list[Value]) -> list[Value] | None:
    if layer.output_mode != "int" or layer.sparse:
        return None
    if layer.bin_boundaries is None:
        raise CannotLowerError("it has no boundaries yet; call its `adapt`")
    graph, name = context.graph, call.name
    x = _unsqueeze(graph, as_float(context, call, 0, values[0]), -1, f"{name}/apart")
    bounds = graph.constant(np.asarray(layer.bin_boundaries, "float32"), f"{name}/boundaries")
    over = graph.node("GreaterOrEqual", [x, bounds], f"{name}/over")
    counts = graph.node("Cast", [over], f"{name}/counts", to=element_type("int64"))
    last = graph.constant([-1], "last_axis", "int64")
    return [Value(graph.node("ReduceSum", [counts, last], f"{name}/bins", keepdims=0))]
