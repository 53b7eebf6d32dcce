"""Layers of SNU and SSNU units in ONNX: sequence or step, states, Bidirectional."""

import dataclasses
from typing import Any

import keras

from snukeras.export.onnx.handlers import (
    CannotLowerError,
    Value,
    as_float,
    check_policy,
    check_step,
    handles,
    mask_of,
)
from snukeras.export.onnx.layers import snu_scan
from snukeras.export.onnx.layers.conv_snu_scan import ConvUnit
from snukeras.export.onnx.layers.snu_scan import Unit
from snukeras.layers import (
    SNU,
    SSNU,
    ConvSNU1D,
    ConvSNU2D,
    ConvSSNU1D,
    ConvSSNU2D,
    SNUCell,
    SSNUCell,
)
from snukeras.network.topology import Ref, Topology

_CONVOLUTIONAL = (ConvSNU1D, ConvSNU2D, ConvSSNU1D, ConvSSNU2D)


@handles(SNU, SSNU)
def _unit(context, call, layer, values):
    return _lower(context, call, layer, Unit.of(layer.cell, call.name), values)


@handles(keras.layers.RNN)
def _rnn(context, call, layer, values):
    return _unit(context, call, layer, values) if _is_unit(layer) else None


@handles(*_CONVOLUTIONAL)
def _conv_unit(context, call, layer, values):
    sizes = call.inputs[0].shape[2:-1]
    return _lower(context, call, layer, ConvUnit.of(layer.cell, call.name, sizes=sizes), values)


def _split(call, values):
    """The values of an RNN call: sequence, and the names of its initial s and y or None."""
    if len(values) == 1:
        return values[0], None
    if len(values) == 3:
        return values[0], (values[2].name, values[1].name)
    raise CannotLowerError(f"it takes {len(values)} tensors; a sequence and [y, s] are known")


def _lower(context, call, layer, unit, values):
    value, initial = _split(call, values)
    mask = mask_of(context, value)
    x = as_float(context, call, 0, value)
    if context.streaming:
        return _lower_step(context, call, layer, unit, x, initial)
    if layer.return_membrane and mask is not None:
        raise CannotLowerError(
            "return_membrane with a mask is not supported; leave one of them out"
        )
    graph = context.graph
    if initial is not None:
        initial = tuple(unit.flat(graph, state) for state in initial)
    if layer.stateful:
        if initial is None:
            initial = (context.enter(call.name, "s"), context.enter(call.name, "y"))
        else:
            raise CannotLowerError("it is stateful and is given an initial state as well")
    run = snu_scan.scan(
        graph,
        unit,
        x,
        backwards=layer.go_backwards,
        sequence=layer.return_sequences or context.potentials,
        last=not layer.return_sequences,
        mask=mask,
        zero_output_for_mask=layer.zero_output_for_mask,
        initial=initial,
        states=layer.return_state or layer.stateful or layer.return_membrane,
        potentials=context.potentials or layer.return_membrane,
    )
    if layer.stateful:
        for label, entry, result in zip("sy", initial, (run.s, run.y), strict=True):
            context.leave(call.name, label, unit.units, entry, result)
    _trace(context, call.name, x, run, mask)
    out = run.sequence if layer.return_sequences else run.last
    lead = 2 if layer.return_sequences else 1
    first = Value(unit.shaped(graph, out, lead), mask if layer.return_sequences else None)
    returned = [first]
    if layer.return_membrane:
        s = run.s_sequence if layer.return_sequences else run.s
        returned.append(Value(unit.shaped(graph, s, lead)))
    if layer.return_state:
        returned += [Value(unit.shaped(graph, state, 1)) for state in (run.y, run.s)]
    return returned


def _lower_step(context, call, layer, unit, x, initial):
    graph = context.graph
    check_step(layer, initial)
    s, y = context.enter(call.name, "s"), context.enter(call.name, "y")
    s_next, y_next = snu_scan.step(graph, unit, x, s, y)
    context.leave(call.name, "s", unit.units, s, s_next)
    context.leave(call.name, "y", unit.units, y, y_next)
    returned = [y_next, s_next] if layer.return_membrane else [y_next]
    return [Value(unit.shaped(graph, value, 1)) for value in returned]


def _trace(context, name, x, run, mask):
    if context.potentials:
        trace = {"input": x, "potentials": run.s_sequence, "sequence": run.sequence}
        context.traces[name] = trace | ({"mask": mask} if mask else {})


@handles(keras.layers.Bidirectional)
def _bidirectional(context, call, layer, values):
    forward, backward = layer.forward_layer, layer.backward_layer
    if context.streaming:
        raise CannotLowerError("Bidirectional needs the whole sequence; it cannot stream")
    if not (_is_unit(forward) and _is_unit(backward)):
        return None
    if len(values) != 1 or forward.stateful or forward.return_state or forward.return_membrane:
        raise CannotLowerError("Bidirectional with states or membranes is not supported")
    for each in (forward, backward):
        check_policy(each)
    graph, mask = context.graph, mask_of(context, values[0])
    x = as_float(context, call, 0, values[0])
    outputs = []
    for each, reverse in ((forward, False), (backward, True)):
        name = f"{call.name}/{each.name}"
        run = snu_scan.scan(
            graph,
            Unit.of(each.cell, name),
            x,
            backwards=each.go_backwards,
            reverse_output=reverse and each.return_sequences,
            sequence=each.return_sequences or context.potentials,
            last=not each.return_sequences,
            mask=mask,
            zero_output_for_mask=each.zero_output_for_mask,
            potentials=context.potentials,
        )
        _trace(context, name, x, run, mask)
        outputs.append(run.sequence if each.return_sequences else run.last)
    out_mask = mask if forward.return_sequences else None
    mode = layer.merge_mode
    if mode is None:
        return [Value(out, out_mask) for out in outputs]
    if mode == "concat":
        return [Value(graph.node("Concat", outputs, f"{call.name}/merge", axis=-1), out_mask)]
    op = {"sum": "Add", "ave": "Add", "mul": "Mul"}[mode]
    merged = graph.node(op, outputs, f"{call.name}/merge")
    if mode == "ave":
        merged = graph.node("Div", [merged, graph.constant(2.0, "two")], f"{call.name}/mean")
    return [Value(merged, out_mask)]


@dataclasses.dataclass(frozen=True)
class UnitLayer:
    """An SNU layer (or one direction of a Bidirectional) as it is called in a model.

    Attributes:
        name: name of its Scan node.
        layer: the recurrent layer with its cell.
        source: the sequence it takes.
        initial: its initial state [y, s], or [].
        reverse: whether the outputs stand in reverse order of processing.
    """

    name: str
    layer: Any
    source: Ref
    initial: list[Ref]
    reverse: bool = False


def unit_layers(plan: Topology) -> list[UnitLayer]:
    """The SNU layers of a model that have a Scan of their own."""
    found = []
    for call in plan.calls:
        if type(call.op) is keras.layers.Bidirectional:
            sides = (call.op.forward_layer, call.op.backward_layer)
            if all(_is_unit(side) for side in sides):
                for side in sides:
                    reverse = side is call.op.backward_layer and side.return_sequences
                    name = f"{call.name}/{side.name}"
                    found.append(UnitLayer(name, side, call.inputs[0], [], reverse))
        elif _is_unit(call.op) or isinstance(call.op, _CONVOLUTIONAL):
            mask = call.kwargs.get("mask")
            initial = [ref for ref in call.inputs[1:] if ref is not mask]
            found.append(UnitLayer(call.name, call.op, call.inputs[0], initial))
    return found


def _is_unit(layer):
    return type(layer) in (SNU, SSNU) or (
        type(layer) is keras.layers.RNN and type(layer.cell) in (SNUCell, SSNUCell)
    )
