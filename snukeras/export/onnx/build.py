"""Keras model -> ONNX model."""

import json
from typing import Any

import keras
import numpy as np
import onnx
from onnx import helper

from snukeras.export.errors import BadInputError, ExportError, UnsupportedLayersError
from snukeras.export.onnx.convert import convert
from snukeras.export.onnx.graph import IR_VERSION, GraphBuilder, element_type
from snukeras.export.onnx.handlers import CannotLowerError, Context, Value, own_layers
from snukeras.export.onnx.layers import snu, sound
from snukeras.layers import SNUCell
from snukeras.network import topology

# A protobuf file ends at 2 GiB; a little room for the rest of the graph.
MAX_BYTES = 2**31 - 2**24


def to_onnx(
    model: keras.Model,
    *,
    streaming: bool = False,
    metadata: dict[str, str] | None = None,
) -> onnx.ModelProto:
    """Converts a Keras model to ONNX (opset 17, IR 8).

    Inputs and outputs keep the names of the Keras model; batch and time are dynamic. SNU and SSNU
    layers become one Scan each, LSTM, GRU and SimpleRNN ONNX's operators of these names, all named
    after the layer. The states of stateful layers, and with `streaming` those of all recurrent
    layers, are inputs NAME/s_in, NAME/y_in (LSTM: h, c; GRU, SimpleRNN: h) and outputs
    NAME/s_out, NAME/y_out, each (batch, units), zeros at the start.

    Args:
        model: a Sequential or functional model of float32 policy that has been built.
        streaming: one step: inputs and outputs have no time axis. A step of sound is a frame of
            samples, (batch, frame_length); of GlobalAveragePooling1D the mean up to this step.
        metadata: texts to put into the file's metadata, e.g. the sha256 of the source.

    Raises:
        UnsupportedLayersError: names all layers that have no ONNX form.
        BadInputError: the model has no topology, or is too large for a single ONNX file.
    """
    return build(model, streaming=streaming, metadata=metadata)[0]


def build(
    model: keras.Model,
    *,
    streaming: bool = False,
    metadata: dict[str, str] | None = None,
    potentials: bool = False,
) -> tuple[onnx.ModelProto, dict[str, dict[str, str]]]:
    """As `to_onnx`; with `potentials` the inner values of SNU layers are outputs too.

    Returns:
        The model, and layer name -> {"input", "sequence", "potentials", "mask"} -> output name.
    """
    plan = topology.read(model)
    graph = GraphBuilder()
    context = Context(graph, streaming=streaming, potentials=potentials)
    values: dict[topology.Key, Value] = {}
    for name, ref in plan.inputs:
        values[ref.key] = Value(graph.unique(name))
    for name, _ in plan.outputs:
        graph.unique(name)

    problems: dict[str, str] = {}
    for call in plan.calls:
        # Where a layer before it failed, this one is tried on stand-ins, to name all at once.
        known = [values.get(ref.key) or Value(graph.unique("missing")) for ref in call.inputs]
        try:
            for index, value in enumerate(convert(context, call, known)):
                values[(call.name, index)] = value
        except CannotLowerError as error:
            problems[call.name] = f"{type(call.op).__name__}: {error.message}"
    problems |= sound.misplaced(context, {ref.key for _, ref in plan.inputs})
    if problems:
        raise UnsupportedLayersError(problems)

    inputs = []
    for name, ref in plan.inputs:
        dims = _dims(ref.shape, name, plan, streaming)
        if ref.key in context.frames:
            dims = ["batch", context.frames[ref.key].frame_length]
        inputs.append(
            helper.make_tensor_value_info(values[ref.key].name, element_type(ref.dtype), dims)
        )
    outputs = []
    taken: set[str] = set()
    for name, ref in plan.outputs:
        inner = values[ref.key].name
        if inner in taken or not graph.rename(inner, name):
            graph.node("Identity", [inner], f"{name}/copy", outputs=[name])
        else:
            _follow(context, values, inner, name)
        taken.add(name)
        outputs.append(
            helper.make_tensor_value_info(
                name, element_type(ref.dtype), _dims(ref.shape, name, plan, streaming)
            )
        )
    for units, entry, leave in context.states:
        inputs.append(helper.make_tensor_value_info(entry, 1, ["batch", units]))
        outputs.append(helper.make_tensor_value_info(leave, 1, ["batch", units]))
    ranks = {entry.name: len(entry.source.shape) for entry in snu.unit_layers(plan)}
    for layer, trace in context.traces.items():
        for key, inner in trace.items():
            trace[key] = graph.unique(f"{layer}/trace/{key}")
            graph.node("Identity", [inner], f"{trace[key]}/copy", outputs=[trace[key]])
            kind = "bool" if key == "mask" else "float32"
            rank = {"mask": 2, "input": ranks.get(layer, 3)}.get(key, 3)
            outputs.append(
                helper.make_tensor_value_info(trace[key], element_type(kind), [None] * rank)
            )
    graph.prune([value.name for value in outputs])
    size = sum(tensor.ByteSize() for tensor in graph.initializers.values())
    if size > MAX_BYTES:
        raise BadInputError(f"The ONNX file would need {size:,} bytes; the format ends at 2 GiB.")
    proto = helper.make_model(
        helper.make_graph(
            graph.nodes,
            model.name,
            inputs,
            outputs,
            [graph.initializers[name] for name in graph.initializers],
        ),
        opset_imports=[helper.make_opsetid(d, v) for d, v in sorted(graph.opsets.items())],
        ir_version=IR_VERSION,
        producer_name="snukeras",
        producer_version=(metadata or {}).get("snukeras.version", ""),
    )
    texts = {"snukeras.units": json.dumps(describe_units(plan)), **(metadata or {})}
    if context.frames:
        texts[sound.FRAMES] = json.dumps(sound.describe_frames(context, plan))
    helper.set_model_props(proto, texts)
    try:
        onnx.checker.check_model(proto, full_check=True)
    except Exception as error:
        raise ExportError(f"The ONNX graph is not valid: {str(error).splitlines()[0]}") from error
    return proto, context.traces


def describe_units(plan: topology.Topology) -> dict[str, Any]:
    """Layer name -> its units, decay, threshold and switches, for the file's metadata."""
    found = {}
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
    return found


def _short(values):
    """One number where all units have the same, else the list."""
    values = np.asarray(values)
    if values.size and np.all(values == values[0]):
        return float(values[0])
    return [float(value) for value in values]


def _follow(context, values, old, new):
    """Keeps references to a renamed tensor right."""
    for key, value in values.items():
        if value.name == old:
            values[key] = Value(new, value.mask)
    for trace in context.traces.values():
        for key, name in trace.items():
            if name == old:
                trace[key] = new


def _dims(shape, name, plan, streaming):
    """Dimensions of an input or output; dynamic ones get a name."""
    if not shape:
        return []
    dims: list[Any] = ["batch", *shape[1:]]
    sequences = [n for n, ref in plan.inputs if len(ref.shape) > 1 and ref.shape[1] is None]
    for axis, size in enumerate(dims):
        if size is None:
            own = "time" if axis == 1 and len(sequences) == 1 else f"{name}_axis{axis}"
            dims[axis] = own
    if streaming and len(dims) > 1 and (len(shape) > 2 or shape[1] is None):
        del dims[1]
    return dims


__all__ = ["build", "describe_units", "own_layers", "to_onnx"]
