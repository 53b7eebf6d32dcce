"""Layers that turn images into input of units, in ONNX: RateCoding and ElasticDistortion."""

from snukeras.export.onnx.handlers import CannotLowerError, Context, Value, as_float, handles
from snukeras.export.onnx.layers.snu_scan import FLOAT
from snukeras.layers import ElasticDistortion, RateCoding
from snukeras.network.topology import Call


@handles(ElasticDistortion)
def _distortion(
    context: Context, call: Call, layer: ElasticDistortion, values: list[Value]
) -> list[Value]:
    return [values[0]]  # it distorts in training alone


@handles(RateCoding)
def _coding(context: Context, call: Call, layer: RateCoding, values: list[Value]) -> list[Value]:
    """Compare with the thresholds that the layer fixed for inference: the same spikes."""
    if context.streaming:
        raise CannotLowerError(
            "it makes a sequence of one image, which cannot stream; export the layers behind it, "
            "which take spikes step by step"
        )
    if layer.inference != "fixed":
        raise CannotLowerError(
            "it draws new spikes at each call; give it inference='fixed', or export the layers "
            "behind it, which take spike trains"
        )
    graph, name = context.graph, call.name
    x = as_float(context, call, 0, values[0])
    if layer.probability != 1.0:
        x = graph.node(
            "Mul", [x, graph.constant(layer.probability, f"{name}/probability")], f"{name}/rate"
        )
    x = graph.node("Unsqueeze", [x, graph.constant([1], "axis_1", "int64")], f"{name}/image")
    thresholds = layer.thresholds(tuple(size or 1 for size in call.inputs[0].shape[1:]))[None]
    spikes = graph.node(
        "Greater", [x, graph.constant(thresholds, f"{name}/thresholds")], f"{name}/spikes"
    )
    return [Value(graph.node("Cast", [spikes], f"{name}/output", to=FLOAT))]
