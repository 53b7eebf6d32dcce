"""What turns images into input of units, in ONNX: RateCoding and ElasticDistortion."""

from snukeras.export.onnx.handlers import CannotLowerError, Value, as_float, handles
from snukeras.export.onnx.layers.snu_scan import FLOAT
from snukeras.layers import ElasticDistortion, RateCoding


@handles(ElasticDistortion)
def _distortion(context, call, layer, values):
    return [values[0]]  # it distorts in training alone


@handles(RateCoding)
def _coding(context, call, layer, values):
    """A comparison with the thresholds that the layer fixed for inference; the same spikes."""
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
    thresholds = layer.thresholds(call.inputs[0].shape[1:])[None]
    spikes = graph.node(
        "Greater", [x, graph.constant(thresholds, f"{name}/thresholds")], f"{name}/spikes"
    )
    return [Value(graph.node("Cast", [spikes], f"{name}/output", to=FLOAT))]
