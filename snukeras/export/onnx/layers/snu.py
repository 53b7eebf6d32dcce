"""Layers of SNU and SSNU units in ONNX: sequence or step, states, Bidirectional."""

import dataclasses

import keras

from snukeras.export.onnx.handlers import (
    CannotLowerError,
    Context,
    Value,
    as_float,
    check_policy,
    check_step,
    form_of,
    handles,
    mask_of,
)
from snukeras.export.onnx.layers import keras_recurrent, lif
from snukeras.export.onnx.layers.conv_snu_scan import ConvUnit
from snukeras.export.onnx.layers.snu_scan import Asked, Unit, scan, step
from snukeras.layers import (
    LIF,
    SNU,
    SSNU,
    ConvSNU1D,
    ConvSNU2D,
    ConvSSNU1D,
    ConvSSNU2D,
    SNUCell,
    SSNUCell,
)
from snukeras.network.topology import Call, Key, Ref, Topology

_CONVOLUTIONAL = (ConvSNU1D, ConvSNU2D, ConvSSNU1D, ConvSSNU2D)


@handles(SNU, SSNU, keras.layers.RNN)
def _unit(
    context: Context, call: Call, layer: keras.layers.RNN, values: list[Value]
) -> list[Value] | None:
    if not _is_unit(layer):  # a cell of another class
        return None
    return _lower(context, call, layer, Unit.of(layer.cell, call.name), values)


@handles(*_CONVOLUTIONAL)
def _conv_unit(context: Context, call: Call, layer: SNU, values: list[Value]) -> list[Value]:
    # The layer itself refuses maps of unknown sizes.
    sizes = [size for size in call.inputs[0].shape[2:-1] if size is not None]
    return _lower(context, call, layer, ConvUnit.of(layer.cell, call.name, sizes=sizes), values)


def _split(values: list[Value]) -> tuple[Value, tuple[str, str] | None]:
    """Return the sequence of an RNN call, and the names of its initial s and y, or None."""
    if len(values) == 1:
        return values[0], None
    if len(values) == 3:
        return values[0], (values[2].name, values[1].name)
    raise CannotLowerError(f"it takes {len(values)} tensors; a sequence and [y, s] are known")


def _lower(
    context: Context, call: Call, layer: keras.layers.RNN, unit: Unit, values: list[Value]
) -> list[Value]:
    value, initial = _split(values)
    mask = mask_of(context, value)
    x = as_float(context, call, 0, value)
    if context.streaming:
        return _lower_step(context, call, layer, unit, x, initial)
    membrane = getattr(layer, "return_membrane", False)
    if membrane and mask is not None:
        raise CannotLowerError(
            "return_membrane with a mask is not supported; leave one of them out"
        )
    graph = context.graph
    if initial is not None:
        initial = (unit.flat(graph, initial[0]), unit.flat(graph, initial[1]))
    if layer.stateful:
        if initial is not None:
            raise CannotLowerError("it is stateful and is given an initial state as well")
        initial = (context.enter(call.name, "s"), context.enter(call.name, "y"))
    run = scan(
        graph,
        unit,
        x,
        Asked(
            backwards=layer.go_backwards,
            sequence=layer.return_sequences,
            last=not layer.return_sequences,
            mask=mask,
            zero_output_for_mask=layer.zero_output_for_mask,
            initial=initial,
            states=layer.return_state or layer.stateful or membrane,
            membranes=membrane and layer.return_sequences,
        ),
    )
    context.traces[call.name] = run.trace
    if layer.stateful and initial is not None:
        for label, entry, result in zip("sy", initial, (run.s, run.y), strict=True):
            context.leave(call.name, label, unit.units, entry, str(result))
    out = str(run.sequence if layer.return_sequences else run.last)
    lead = 2 if layer.return_sequences else 1
    first = Value(unit.shaped(graph, out, lead), mask if layer.return_sequences else None)
    returned = [first]
    if membrane:
        s = str(run.membranes if layer.return_sequences else run.s)
        returned.append(Value(unit.shaped(graph, s, lead)))
    if layer.return_state:
        returned += [Value(unit.shaped(graph, str(state), 1)) for state in (run.y, run.s)]
    return returned


def _lower_step(
    context: Context,
    call: Call,
    layer: keras.layers.RNN,
    unit: Unit,
    x: str,
    initial: tuple[str, str] | None,
) -> list[Value]:
    graph = context.graph
    check_step(layer, initial is not None)
    s, y = context.enter(call.name, "s"), context.enter(call.name, "y")
    s_next, y_next = step(graph, unit, x, s, y)
    context.leave(call.name, "s", unit.units, s, s_next)
    context.leave(call.name, "y", unit.units, y, y_next)
    returned = [y_next, s_next] if getattr(layer, "return_membrane", False) else [y_next]
    return [Value(unit.shaped(graph, value, 1)) for value in returned]


@handles(keras.layers.Bidirectional)
def _bidirectional(
    context: Context, call: Call, layer: keras.layers.Bidirectional, values: list[Value]
) -> list[Value] | None:
    forward, backward = layer.forward_layer, layer.backward_layer
    if context.streaming:
        raise CannotLowerError("Bidirectional needs the whole sequence; it cannot stream")
    neurons = form_of(forward) is form_of(backward) is LIF
    if not neurons and not (_is_unit(forward) and _is_unit(backward)):
        return keras_recurrent.bidirectional(context, call, layer, values)
    shown = forward.return_state or getattr(forward, "return_membrane", False)
    if len(values) != 1 or forward.stateful or shown:
        raise CannotLowerError("Bidirectional with states or membranes is not supported")
    for each in (forward, backward):
        check_policy(each)
    graph, mask = context.graph, mask_of(context, values[0])
    x = as_float(context, call, 0, values[0])
    outputs = []
    for each, reverse in ((forward, False), (backward, True)):
        name = f"{call.name}/{each.name}"
        if neurons:
            back = reverse and each.return_sequences
            output, context.traces[name] = lif.side(context, name, each, x, mask, back)
            outputs.append(output)
            continue
        run = scan(
            graph,
            Unit.of(each.cell, name),
            x,
            Asked(
                backwards=each.go_backwards,
                reverse_output=reverse and each.return_sequences,
                sequence=each.return_sequences,
                last=not each.return_sequences,
                mask=mask,
                zero_output_for_mask=each.zero_output_for_mask,
            ),
        )
        context.traces[name] = run.trace
        outputs.append(str(run.sequence if each.return_sequences else run.last))
    out_mask = mask if forward.return_sequences else None
    return keras_recurrent.merge_sides(context, call.name, layer.merge_mode, outputs, out_mask)


@dataclasses.dataclass(frozen=True)
class UnitLayer:
    """An SNU layer (or one direction of a Bidirectional) as it is called in a model.

    Attributes:
        name: Its name in the graph.
        layer: The recurrent layer with its cell.
        source: The sequence it takes.
        initial: Its initial state [y, s], or [].
        output: Key of the tensor that it puts out; None where a Bidirectional merges it.
    """

    name: str
    layer: keras.layers.RNN
    source: Ref
    initial: list[Ref]
    output: Key | None


def unit_layers(plan: Topology) -> list[UnitLayer]:
    """Return the SNU and LIF layers of a model that have a Scan of their own."""
    found = []
    for call in plan.calls:
        if form_of(call.op) is keras.layers.Bidirectional:
            sides = (call.op.forward_layer, call.op.backward_layer)
            if all(_is_unit(side) or form_of(side) is LIF for side in sides):
                for side in sides:
                    name = f"{call.name}/{side.name}"
                    found.append(UnitLayer(name, side, call.inputs[0], [], None))
        elif _is_unit(call.op) or form_of(call.op) in (*_CONVOLUTIONAL, LIF):
            mask = call.kwargs.get("mask")
            initial = [ref for ref in call.inputs[1:] if ref is not mask]
            found.append(UnitLayer(call.name, call.op, call.inputs[0], initial, (call.name, 0)))
    return found


def _is_unit(layer: keras.Layer) -> bool:
    form = form_of(layer)
    return form in (SNU, SSNU, keras.layers.RNN) and type(layer.cell) in (SNUCell, SSNUCell)
