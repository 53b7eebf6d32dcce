"""ONNX forms of our own for Keras's plain layers, so that graphs stay short and readable."""

import dataclasses

import keras
import numpy as np

from snukeras.export.onnx.activations import emitter
from snukeras.export.onnx.convert import convert
from snukeras.export.onnx.graph import element_type
from snukeras.export.onnx.handlers import (
    CannotLowerError,
    Context,
    Value,
    activate,
    as_float,
    handles,
    mask_of,
)
from snukeras.export.onnx.layers.elementwise import relu
from snukeras.export.onnx.layers.pooling import mean_over_time
from snukeras.network import topology
from snukeras.network.topology import Call, Ref

# None leaves the call to tf2onnx.
Lowered = list[Value] | None


@handles(keras.layers.Dense)
def _dense(context: Context, call: Call, layer: keras.layers.Dense, values: list[Value]) -> Lowered:
    graph, name = context.graph, call.name
    if emitter(layer.activation) is None or getattr(layer, "quantization_mode", None):
        return None
    x = as_float(context, call, 0, values[0])
    kernel = graph.constant(np.asarray(layer.kernel), f"{name}/kernel")
    x = graph.node("MatMul", [x, kernel], f"{name}/product")
    if layer.bias is not None:
        bias = graph.constant(np.asarray(layer.bias), f"{name}/bias")
        x = graph.node("Add", [x, bias], f"{name}/biased")
    return [Value(activate(context, call, layer.activation, x), values[0].mask)]


@handles(
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    keras.layers.AlphaDropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.ActivityRegularization,
    keras.layers.Identity,
)
def _identity(context: Context, call: Call, layer: keras.Layer, values: list[Value]) -> Lowered:
    return [values[0]]


@handles(keras.layers.Activation, keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.ELU)
def _activation(context: Context, call: Call, layer: keras.Layer, values: list[Value]) -> Lowered:
    if isinstance(layer, keras.layers.ReLU) and emitter(layer) is None:
        return relu(context, call, layer, values)
    if emitter(layer) is None:
        return None
    x = as_float(context, call, 0, values[0])
    return [Value(activate(context, call, layer, x), values[0].mask)]


@handles(keras.layers.Masking)
def _masking(
    context: Context, call: Call, layer: keras.layers.Masking, values: list[Value]
) -> Lowered:
    graph, name = context.graph, call.name
    x = as_float(context, call, 0, values[0])
    skip = graph.constant(layer.mask_value, f"{name}/mask_value")
    same = graph.node("Equal", [x, skip], f"{name}/same")
    differs = graph.node("Cast", [same], f"{name}/same_number", to=element_type("float32"))
    # All features equal to the mask value <=> the smallest of the equalities is 1.
    lowest = graph.node("ReduceMin", [differs], f"{name}/all_same", axes=[-1], keepdims=1)
    zero, one = graph.constant(0.0, "zero"), graph.constant(1.0, "one")
    column = graph.node("Less", [lowest, one], f"{name}/mask_column")
    x = graph.node("Where", [column, x, zero], f"{name}/masked")
    last_axis = graph.constant([-1], "last_axis", "int64")
    mask = graph.node("Squeeze", [column, last_axis], f"{name}/mask")
    return [Value(x, mask)]


@handles(keras.layers.Normalization)
def _normalization(
    context: Context, call: Call, layer: keras.layers.Normalization, values: list[Value]
) -> Lowered:
    """Subtract the mean, divide by the standard deviation, as fixed by `adapt` or given."""
    if layer.mean is None:
        raise CannotLowerError("it has no mean and variance yet; call its `adapt`")
    graph, name = context.graph, call.name
    x = as_float(context, call, 0, values[0])
    mean, variance = (
        keras.ops.convert_to_numpy(v).astype("float32") for v in (layer.mean, layer.variance)
    )
    if context.streaming and mean.ndim > 2:
        if mean.shape[1] != 1:
            raise CannotLowerError("it has a mean for each step, so it cannot stream")
        mean, variance = mean[:, 0], variance[:, 0]
    deviation = np.maximum(np.sqrt(variance), keras.config.epsilon())
    center = graph.constant(mean, f"{name}/mean")
    spread = graph.constant(deviation, f"{name}/deviation")
    if layer.invert:
        scaled = graph.node("Mul", [x, spread], f"{name}/scaled")
        return [Value(graph.node("Add", [scaled, center], f"{name}/output"), values[0].mask)]
    shifted = graph.node("Sub", [x, center], f"{name}/centred")
    return [Value(graph.node("Div", [shifted, spread], f"{name}/output"), values[0].mask)]


@handles(keras.layers.GlobalAveragePooling1D)
def _running_mean(
    context: Context,
    call: Call,
    layer: keras.layers.GlobalAveragePooling1D,
    values: list[Value],
) -> Lowered:
    """Add the mean over time; as one step, that of the steps so far."""
    if not context.streaming:
        return mean_over_time(context, call, layer, values)
    if layer.data_format != "channels_last" or layer.keepdims:
        raise CannotLowerError("streaming needs data_format='channels_last' and keepdims=False")
    mask_of(context, values[0])
    graph, name = context.graph, call.name
    x = as_float(context, call, 0, values[0])
    features = call.inputs[0].shape[-1] or 1
    total_in, count_in = context.enter(name, "total"), context.enter(name, "count")
    total = graph.node("Add", [total_in, x], f"{name}/total")
    count = graph.node("Add", [count_in, graph.constant(1.0, "one")], f"{name}/count")
    context.leave(name, "total", features, total_in, total)
    context.leave(name, "count", 1, count_in, count)
    return [Value(graph.node("Div", [total, count], f"{name}/output"))]


@handles(keras.layers.TimeDistributed)
def _time_distributed(
    context: Context, call: Call, layer: keras.layers.TimeDistributed, values: list[Value]
) -> Lowered:
    """Lower the inner layer on batch and time folded into one axis; no loop is needed."""
    if not _simple(call):
        raise CannotLowerError("TimeDistributed takes one tensor")
    inner, ref, value = layer.layer, call.inputs[0], values[0]
    if isinstance(inner, keras.layers.RNN | keras.layers.Wrapper):
        raise CannotLowerError(f"TimeDistributed around {type(inner).__name__} is not supported")
    if type(inner) in _LAST_AXIS and not context.streaming:
        return convert(context, Call(call.name, inner, (ref,), {}), values)
    graph, name = context.graph, call.name
    flat = dataclasses.replace(ref, shape=(None, *ref.shape[2:]))
    if context.streaming:  # one step has no time axis to fold
        return _inner(context, name, inner, flat, value.name)
    lead = graph.node("Shape", [value.name], f"{name}/lead", start=0, end=2)
    tail = graph.node("Shape", [value.name], f"{name}/tail", start=2)
    minus = graph.constant([-1], "last_axis", "int64")
    folded = graph.node("Concat", [minus, tail], f"{name}/folded_shape", axis=0)
    x = graph.node("Reshape", [value.name, folded], f"{name}/folded")
    (result,) = _inner(context, name, inner, flat, x)
    rest = graph.node("Shape", [result.name], f"{name}/rest", start=1)
    whole = graph.node("Concat", [lead, rest], f"{name}/whole_shape", axis=0)
    return [Value(graph.node("Reshape", [result.name, whole], f"{name}/unfolded"), value.mask)]


# These treat the axes before the last one alike, so that nothing need be folded.
_LAST_AXIS = (keras.layers.Dense, keras.layers.Activation, keras.layers.ReLU)


def _inner(context: Context, name: str, inner: keras.Layer, ref: Ref, x: str) -> list[Value]:
    """Lower a layer, or the layers of a model, on tensors that have no time axis."""
    context = dataclasses.replace(context, streaming=False)
    if not isinstance(inner, keras.Model):
        return convert(context, Call(name, inner, (ref,), {}), [Value(x)])
    plan = topology.read(inner)
    if len(plan.inputs) != 1 or len(plan.outputs) != 1:
        raise CannotLowerError("TimeDistributed takes a model of one input and one output")
    known = {plan.inputs[0][1].key: Value(x)}
    for call in plan.calls:
        named = dataclasses.replace(call, name=f"{name}/{call.name}")
        outputs = convert(context, named, [known[ref.key] for ref in call.inputs])
        known |= {(call.name, index): output for index, output in enumerate(outputs)}
    return [known[plan.outputs[0][1].key]]


def _simple(call: Call) -> bool:
    """Return whether the call takes one tensor and nothing else that matters."""
    rest = [v for k, v in call.kwargs.items() if k not in ("mask", "training") and v is not None]
    return (
        len(call.inputs) == 1
        and isinstance(call.args[0], Ref)
        and not rest
        and len([a for a in call.args if a is not None]) == 1
    )
