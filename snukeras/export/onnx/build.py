"""Keras model -> ONNX model."""

import dataclasses
import json

import keras
import numpy as np
import onnx
from onnx import helper

from snukeras._files import JsonObject
from snukeras.export.errors import BadInputError, ExportError, UnsupportedLayersError
from snukeras.export.onnx.convert import convert
from snukeras.export.onnx.graph import IR_VERSION, GraphBuilder, element_type
from snukeras.export.onnx.handlers import CannotLowerError, Context, Value, own_layers
from snukeras.export.onnx.layers import sound
from snukeras.export.onnx.layers.snu_scan import Trace
from snukeras.export.onnx.scans import straighten
from snukeras.export.onnx.trace import UNITS
from snukeras.layers import LIFCell, SNUCell
from snukeras.network import topology
from snukeras.network.topology import Key, Topology

# A protobuf file ends at 2 GiB; a little room for the rest of the graph.
MAX_BYTES = 2**31 - 2**24

Values = dict[Key, Value]


def to_onnx(
    model: keras.Model,
    *,
    streaming: bool = False,
    metadata: dict[str, str] | None = None,
) -> onnx.ModelProto:
    """Convert a Keras model to ONNX (opset 17, IR 8).

    Inputs and outputs keep the names of the Keras model; batch and time are dynamic. SNU and SSNU
    layers become one Scan each, LSTM, GRU and SimpleRNN ONNX's operators of these names, all named
    after the layer. The states of stateful layers, and with `streaming` those of all recurrent
    layers, are inputs NAME/s_in, NAME/y_in (LSTM: h, c; GRU, SimpleRNN: h) and outputs
    NAME/s_out, NAME/y_out, each (batch, units), zeros at the start.

    Args:
        model: A Sequential or functional model of float32 policy that has been built.
        streaming: One step: inputs and outputs have no time axis. A step of sound is a frame of
            samples, (batch, frame_length); of GlobalAveragePooling1D the mean up to this step.
        metadata: Texts to put into the file's metadata, e.g. the sha256 of the source.

    Raises:
        UnsupportedLayersError: Names all layers that have no ONNX form.
        BadInputError: The model has no topology, or is too large for a single ONNX file.
    """
    return build(topology.read(model), model.name, streaming=streaming, metadata=metadata)


def build(
    plan: Topology,
    name: str,
    *,
    streaming: bool = False,
    metadata: dict[str, str] | None = None,
) -> onnx.ModelProto:
    """Build the ONNX model of a topology; see `to_onnx`.

    Args:
        plan: The network.
        name: Name of the graph.
        streaming: One step: inputs and outputs have no time axis.
        metadata: Texts to put into the file's metadata.
    """
    graph = GraphBuilder()
    context = Context(graph, streaming=streaming)
    values = _enter(graph, plan, streaming)
    _lower(context, plan, values)
    inputs = []
    for entry, ref in plan.inputs:
        dims = _dims(ref.shape, entry, plan, streaming)
        if ref.key in context.frames:
            dims = ["batch", context.frames[ref.key].frame_length]
        inputs.append(helper.make_tensor_value_info(entry, element_type(ref.dtype), dims))
    outputs = _leave(context, plan, values)
    for units, state, leave in context.states:
        inputs.append(helper.make_tensor_value_info(state, 1, ["batch", units]))
        outputs.append(helper.make_tensor_value_info(leave, 1, ["batch", units]))
    straighten(graph)
    graph.prune([value.name for value in outputs])
    size = sum(tensor.ByteSize() for tensor in graph.initializers.values())
    if size > MAX_BYTES:
        raise BadInputError(f"The ONNX file would need {size:,} bytes; the format ends at 2 GiB.")
    proto = helper.make_model(
        helper.make_graph(graph.nodes, name, inputs, outputs, list(graph.initializers.values())),
        opset_imports=[helper.make_opsetid(d, v) for d, v in sorted(graph.opsets.items())],
        ir_version=IR_VERSION,
        producer_name="snukeras",
        producer_version=(metadata or {}).get("snukeras.version", ""),
    )
    texts = {UNITS: json.dumps(describe_units(plan, context.traces)), **(metadata or {})}
    if context.frames:
        texts[sound.FRAMES] = json.dumps(sound.describe_frames(context, plan))
    helper.set_model_props(proto, texts)
    try:
        onnx.checker.check_model(proto, full_check=True)
    except Exception as error:
        raise ExportError(f"The ONNX graph is not valid: {str(error).splitlines()[0]}") from error
    return proto


def _enter(graph: GraphBuilder, plan: Topology, streaming: bool) -> Values:
    """Add the inputs.

    ONNX Runtime ends the whole process where a loop gets no sample or no step. A Reshape to at
    least one of each costs nothing and fails with an error instead.
    """
    for name, _ in [*plan.inputs, *plan.outputs]:
        graph.unique(name)
    values = {ref.key: Value(name) for name, ref in plan.inputs}
    loops = any(isinstance(call.op, _RECURRENT) for call in plan.calls)
    for name, ref in plan.inputs if loops and not streaming else ():
        if ref.shape:
            one = graph.constant(1, "one_at_least", "int64")
            shape = graph.node("Shape", [name], f"{name}/shape")
            wanted = graph.node("Max", [shape, one], f"{name}/at_least_one_of_each")
            checked = graph.node("Reshape", [name, wanted], f"{name}/needs_a_sample_and_a_step")
            values[ref.key] = Value(checked)
    return values


def _lower(context: Context, plan: Topology, values: Values) -> None:
    """Add the nodes of all calls.

    Raises:
        UnsupportedLayersError: Names all layers that have no ONNX form.
    """
    problems: dict[str, str] = {}
    for call in plan.calls:
        # Where a layer before it failed, this one is tried on stand-ins, to name all at once.
        known = [
            values.get(ref.key) or Value(context.graph.unique("missing")) for ref in call.inputs
        ]
        try:
            for index, value in enumerate(convert(context, call, known)):
                values[(call.name, index)] = value
        except CannotLowerError as error:
            problems[call.name] = f"{type(call.op).__name__}: {error.message}"
    problems |= sound.misplaced(context, {ref.key for _, ref in plan.inputs})
    if problems:
        raise UnsupportedLayersError(problems)


def _leave(context: Context, plan: Topology, values: Values) -> list[onnx.ValueInfoProto]:
    """Give the outputs their names."""
    graph, outputs = context.graph, []
    taken: set[str] = set()
    for name, ref in plan.outputs:
        inner = values[ref.key].name
        if inner in taken or not graph.rename(inner, name):
            graph.node("Identity", [inner], f"{name}/copy", outputs=[name])
        else:
            _follow(context, values, inner, name)
        taken.add(name)
        dims = _dims(ref.shape, name, plan, context.streaming)
        outputs.append(helper.make_tensor_value_info(name, element_type(ref.dtype), dims))
    return outputs


def describe_units(plan: Topology, traces: dict[str, Trace]) -> dict[str, JsonObject]:
    """Describe each layer of units for the file's metadata.

    Returns:
        By layer its class, units, decay, threshold and switches, and "scan": its Scan node and the
        tensors that hold its input, its mask, and, inside the loop, s and y of a step.
    """
    found: dict[str, JsonObject] = {}
    for call in plan.calls:
        layer = call.op
        cells = {call.name: getattr(layer, "cell", None)}
        for side in ("forward_layer", "backward_layer"):
            inner = getattr(layer, side, None)
            if inner is not None:
                cells[f"{call.name}/{inner.name}"] = getattr(inner, "cell", None)
        for name, cell in cells.items():
            if isinstance(cell, SNUCell):
                found[name] = {
                    "class": type(cell).__name__,
                    "units": cell.units,
                    "decay": _short(cell.decay_values()),
                    "threshold": _short(cell.threshold_values()),
                    "state_activation": getattr(
                        cell.state_activation, "__name__", type(cell.state_activation).__name__
                    ),
                    "recurrent": cell.recurrent_kernel is not None,
                    "lateral_inhibition": cell.lateral_inhibition,
                }
            elif isinstance(cell, LIFCell):
                found[name] = {
                    "class": type(cell).__name__,
                    "units": cell.units,
                    "decay": cell.decay,
                    "threshold": cell.threshold,
                    "reset": cell.reset,
                    "recurrent": cell.recurrent,
                }
            if name in found and name in traces:
                found[name]["scan"] = dataclasses.asdict(traces[name])
    return found


def _short(values: np.ndarray) -> float | list[float]:
    """Return one number where all units have the same, else the list."""
    if values.size and np.all(values == values[0]):
        return float(values[0])
    return [float(value) for value in values]


def _follow(context: Context, values: Values, old: str, new: str) -> None:
    """Keep references to a renamed tensor right."""
    for key, value in values.items():
        if value.name == old:
            values[key] = Value(new, value.mask)
    for layer, trace in context.traces.items():
        if trace.input == old:
            context.traces[layer] = dataclasses.replace(trace, input=new)


def _dims(
    shape: tuple[int | None, ...], name: str, plan: Topology, streaming: bool
) -> list[int | str]:
    """Return the dimensions of an input or output; dynamic ones get a name."""
    if not shape:
        return []
    sequences = [n for n, ref in plan.inputs if len(ref.shape) > 1 and ref.shape[1] is None]
    dims: list[int | str] = ["batch"]
    for axis, size in enumerate(shape[1:], 1):
        own = "time" if axis == 1 and len(sequences) == 1 else f"{name}_axis{axis}"
        dims.append(own if size is None else size)
    if streaming and len(dims) > 1 and (len(shape) > 2 or shape[1] is None):
        del dims[1]
    return dims


_RECURRENT = (keras.layers.RNN, keras.layers.Bidirectional)

__all__ = ["build", "describe_units", "own_layers", "to_onnx"]
