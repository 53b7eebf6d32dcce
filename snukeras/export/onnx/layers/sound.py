"""Layers that turn sound into input of units, in ONNX: LogMel and LevelCrossing.

A frame of sound is a step. So the streaming form takes a frame of samples where the whole form
takes all samples, and says in its metadata, under `FRAMES`, how long a frame is and how far it is
to the next one.
"""

from scipy.signal import get_window

from snukeras.export.onnx.handlers import Context, Value, as_float, handles, mask_of
from snukeras.export.onnx.layers.snu_scan import FLOAT
from snukeras.layers import LevelCrossing, LogMel
from snukeras.network.topology import Call, Key, Topology

FRAMES = "snukeras.frames"


@handles(LogMel)
def _log_mel(context: Context, call: Call, layer: LogMel, values: list[Value]) -> list[Value]:
    """Add ONNX's operator STFT, the sum of powers in bands, and their logarithm."""
    graph, name = context.graph, call.name
    x = as_float(context, call, 0, values[0])
    if context.streaming:
        context.frames[call.inputs[0].key] = layer
    samples = graph.node(
        "Unsqueeze", [x, graph.constant([2], "axis_2", "int64")], f"{name}/samples"
    )
    hop = layer.frame_step
    if context.streaming:
        # ONNX Runtime 1.16 refuses a signal of just one frame; one more zero makes no second frame
        # where the next one begins behind this one.
        pads = graph.constant([0, 0, 0, 0, 1, 0], f"{name}/pads", "int64")
        samples = graph.node("Pad", [samples, pads], f"{name}/longer")
        hop = layer.frame_length
    step = graph.constant(hop, f"{name}/frame_step", "int64")
    length = graph.constant(layer.frame_length, f"{name}/frame_length", "int64")
    window = graph.constant(get_window("hann", layer.frame_length), f"{name}/window")
    spectrum = graph.node("STFT", [samples, step, window, length], f"{name}/stft", onesided=1)
    squares = graph.node("Mul", [spectrum, spectrum], f"{name}/squares")
    last_axis = graph.constant([-1], "last_axis", "int64")
    power = graph.node("ReduceSum", [squares, last_axis], f"{name}/power", keepdims=0)
    if context.streaming:
        power = graph.node(
            "Squeeze", [power, graph.constant([1], "axis_1", "int64")], f"{name}/frame"
        )
    mel = graph.constant(layer.mel_matrix / layer.floor, f"{name}/mel_over_floor")
    bands = graph.node("MatMul", [power, mel], f"{name}/bands")
    shifted = graph.node("Add", [bands, graph.constant(1.0, "one")], f"{name}/above_floor")
    return [Value(graph.node("Log", [shifted], f"{name}/output"))]


@handles(LevelCrossing)
def _level_crossing(
    context: Context, call: Call, layer: LevelCrossing, values: list[Value]
) -> list[Value]:
    """Compare the level of each step with that before it, which is a state in streaming form."""
    graph, name = context.graph, call.name
    mask = mask_of(context, values[0])
    x = as_float(context, call, 0, values[0])
    spacing = graph.constant(layer.spacing, f"{name}/spacing")
    levels = graph.node(
        "Floor", [graph.node("Div", [x, spacing], f"{name}/in_levels")], f"{name}/levels"
    )
    if context.streaming:
        before = context.enter(name, "level")
        context.leave(name, "level", call.inputs[0].shape[-1] or 1, before, levels)
    else:
        # A step of zeros in front, and the last step left out: ONNX pads by a negative number.
        pads = graph.constant([0, 1, 0, 0, -1, 0], f"{name}/pads", "int64")
        before = graph.node("Pad", [levels, pads], f"{name}/before")
    spikes = [
        graph.node(
            "Cast", [graph.node(op, [levels, before], f"{name}/{way}")], f"{name}/{way}_spikes",
            to=FLOAT,
        )
        for op, way in (("Greater", "up"), ("Less", "down"))
    ]  # fmt: skip
    return [Value(graph.node("Concat", spikes, f"{name}/output", axis=-1), mask)]


def misplaced(context: Context, inputs: set[Key]) -> dict[str, str]:
    """Name the LogMel layers that streaming cannot feed, with the reason."""
    return {
        layer.name: "LogMel: streaming takes a frame of samples a step, so it has to come first"
        for key, layer in context.frames.items()
        if key not in inputs
    }


def describe_frames(context: Context, plan: Topology) -> dict[str, dict[str, int]]:
    """Say for each input that takes frames how they are cut of the samples."""
    return {
        name: {
            "frame_length": context.frames[ref.key].frame_length,
            "frame_step": context.frames[ref.key].frame_step,
            "sampling_rate": context.frames[ref.key].sampling_rate,
        }
        for name, ref in plan.inputs
        if ref.key in context.frames
    }
