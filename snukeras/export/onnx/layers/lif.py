"""LIF layers in ONNX: a Scan for a sequence, or the nodes of one step for streaming."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from onnx import TensorProto, ValueInfoProto, helper

from snukeras._types import PerUnit
from snukeras.export.onnx.graph import GraphBuilder, subgraph
from snukeras.export.onnx.handlers import (
    CannotLowerError,
    Context,
    Value,
    as_float,
    check_step,
    handles,
    mask_of,
)
from snukeras.export.onnx.layers.snu_scan import Trace
from snukeras.layers import LIF, LIFCell
from snukeras.network.topology import Call

FLOAT = TensorProto.FLOAT


@handles(LIF)
def _lif(context: Context, call: Call, layer: LIF, values: list[Value]) -> list[Value]:
    mask = mask_of(context, values[0])
    if len(values) != 1:
        raise CannotLowerError("initial states have no form here; leave them out")
    x = as_float(context, call, 0, values[0])
    step = _Step(layer.cell, call.name)
    if context.streaming:
        check_step(layer, False)
        if np.any(layer.cell.initial_potential):
            raise CannotLowerError("it starts at an initial_potential, and streaming at zero")
        labels = step.labels
        entries = [context.enter(call.name, label) for label in labels]
        output, states = step.lower(context.graph, x, entries)
        for label, entry, state in zip(labels, entries, states, strict=True):
            context.leave(call.name, label, layer.cell.units, entry, state)
        return [Value(output)]
    if layer.stateful:
        raise CannotLowerError("stateful=True has a form in streaming alone")
    (sequence, last, states), trace = _scan(context.graph, step, layer, x, mask)
    context.traces[call.name] = trace
    first = Value(sequence, mask) if layer.return_sequences else Value(last)
    return [first, *(Value(state) for state in states if layer.return_state)]


def side(
    context: Context, name: str, layer: LIF, x: str, mask: str | None, reverse: bool
) -> tuple[str, Trace]:
    """Add a layer inside a Bidirectional; return its output and how to look into the loop.

    Args:
        context: The graph.
        name: Of the loop.
        layer: The layer.
        x, mask: What it takes.
        reverse: Whether all its steps are put out in reverse.
    """
    step = _Step(layer.cell, name)
    (sequence, last, _), trace = _scan(context.graph, step, layer, x, mask, reverse)
    return sequence if layer.return_sequences else last, trace


def _scan(
    graph: GraphBuilder,
    step: "_Step",
    layer: LIF,
    x: str,
    mask: str | None,
    reverse: bool = False,
) -> tuple[tuple[str, str, list[str]], Trace]:
    """Add the loop.

    Returns:
        The outputs of all steps, the last, and the last states; and how to look into the loop.
    """
    name, units = step.name, step.cell.units
    body = GraphBuilder(graph)
    before = [body.unique(f"{name}/{label}_before") for label in step.labels]
    x_t = body.unique(f"{name}/x")
    output, states = step.lower(body, x_t, before)
    potential, starts, ends = states[1], step.starts(graph, x), []
    entries, sequences = [*before, x_t], [x]
    infos = [_info(label, units) for label in entries]
    if mask is None:
        results = [body.node("Identity", [state], f"{name}/next") for state in states]
        shown = body.node("Identity", [output], f"{name}/shown")
    else:
        m_t = body.unique(f"{name}/mask")
        last_axis = graph.constant([-1], "last_axis", "int64")
        sequences.append(graph.node("Unsqueeze", [mask, last_axis], f"{name}/mask_column"))
        pairs = zip(states, before, strict=True)
        results = [body.node("Where", [m_t, *pair], f"{name}/next") for pair in pairs]
        infos.append(helper.make_tensor_value_info(m_t, TensorProto.BOOL, [None, 1]))
        if layer.zero_output_for_mask:
            zero = body.constant(0.0, "zero")
            shown = body.node("Where", [m_t, output, zero], f"{name}/shown")
        else:  # at a masked step a neuron shows what it showed before
            kept = body.unique(f"{name}/shown_before")
            infos.insert(0, _info(kept, units))
            starts.insert(0, starts[0])
            results.insert(0, body.node("Where", [m_t, output, kept], f"{name}/shown_next"))
            shown = body.node("Identity", [results[0]], f"{name}/shown")
            ends.append(graph.unique(f"{name}/shown_end"))
    ends += [graph.unique(f"{name}/{label}_end") for label in step.labels]
    sequence = graph.unique(f"{name}/sequence")
    directions = {"scan_input_directions": [1] * len(sequences)} if layer.go_backwards else {}
    directions |= {"scan_output_directions": [1]} if reverse else {}
    graph.node(
        "Scan",
        [*starts, *sequences],
        name,
        doc=step.equation,
        outputs=[*ends, sequence],
        body=subgraph(
            body, f"{name}/step", infos, [_info(label, units) for label in (*results, shown)]
        ),
        num_scan_inputs=len(sequences),
        scan_input_axes=[1] * len(sequences),
        scan_output_axes=[1],
        **directions,
    )
    trace = Trace(graph.nodes[-1].name, x, potential, shown, mask)
    index = graph.constant(0 if reverse else -1, f"{name}/last_index", "int64")
    last = graph.node("Gather", [sequence, index], f"{name}/last", axis=1)
    return (sequence, last, ends[-len(step.labels) :]), trace


def _info(name: str, units: int) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, FLOAT, [None, units])


@dataclasses.dataclass(frozen=True)
class _Step:
    """One step of a cell, in the order of its states."""

    cell: LIFCell
    name: str

    @property
    def labels(self) -> list[str]:
        return ["y", "v"] if self.cell.synaptic_decay is None else ["y", "v", "i"]

    @property
    def equation(self) -> str:
        cell = self.cell
        after = {
            "subtract": "decay * v[t-1] + d - reset_by * y[t-1]",
            "zero": "decay * v[t-1] * (1 - y[t-1]) + d",
            "silence": "(decay * v[t-1] + d) * (1 - y[t-1])",
            None: "decay * v[t-1] + d",
        }[cell.reset]
        fires = "" if cell.threshold is None else "; y[t] = v[t] > threshold"
        return f"v[t] = {after}{fires}"

    def starts(self, graph: GraphBuilder, x: str) -> list[str]:
        """Add the first states: zeros, and the first potential."""
        name, units = self.name, self.cell.units
        batch = graph.node("Shape", [x], f"{name}/batch", start=0, end=1)
        size = graph.constant([units], f"{name}/units", "int64")
        shape = graph.node("Concat", [batch, size], f"{name}/state_shape", axis=0)
        zeros = graph.node("ConstantOfShape", [shape], f"{name}/zeros")
        potential = zeros
        if np.any(self.cell.initial_potential):
            start = self._constant(graph, self.cell.initial_potential, "initial_potential")
            potential = graph.node("Add", [zeros, start], f"{name}/v_start")
        return [zeros, potential, *([zeros] if "i" in self.labels else [])]

    def _constant(self, graph: GraphBuilder, values: PerUnit | None, label: str) -> str:
        numbers = np.broadcast_to(np.asarray(values, "float32"), (self.cell.units,))
        return graph.constant(numbers, f"{self.name}/{label}")

    def lower(self, graph: GraphBuilder, x: str, states: Sequence[str]) -> tuple[str, list[str]]:
        """Add the nodes of a step; return its output and the new states."""
        cell, name = self.cell, self.name
        y, v, *current = states
        if cell.recurrent_kernel is not None:
            kernel = graph.constant(np.asarray(cell.recurrent_kernel), f"{name}/recurrent_kernel")
            x = graph.node("Gemm", [y, kernel, x], f"{name}/recur")
        if current:
            slow = self._constant(graph, cell.synaptic_decay, "synaptic_decay")
            left = graph.node("Mul", [slow, current[0]], f"{name}/current_left")
            x = graph.node("Add", [left, x], f"{name}/current")
            current = [x]
        drive = x
        if np.any(np.asarray(cell.gain) != 1.0):
            gain = self._constant(graph, cell.gain, "gain")
            drive = graph.node("Mul", [gain, drive], f"{name}/gained")
        if np.any(cell.bias):
            bias = self._constant(graph, cell.bias, "bias")
            drive = graph.node("Add", [drive, bias], f"{name}/biased")
        decay = self._constant(graph, cell.decay, "decay")
        kept = graph.node("Mul", [decay, v], f"{name}/kept")
        v = self._next(graph, kept, drive, y)
        if cell.threshold is None:
            return v, [y, v, *current]
        fired = self._spikes(graph, v)
        return (y if cell.output_delay else fired), [fired, v, *current]

    def _next(self, graph: GraphBuilder, kept: str, drive: str, y: str) -> str:
        cell, name = self.cell, self.name
        if cell.reset in ("zero", "silence"):
            gate = graph.node("Sub", [graph.constant(1.0, "one"), y], f"{name}/gate")
            if cell.reset == "zero":
                kept = graph.node("Mul", [kept, gate], f"{name}/gated")
                return graph.node("Add", [kept, drive], f"{name}/v")
            v = graph.node("Add", [kept, drive], f"{name}/whole")
            return graph.node("Mul", [v, gate], f"{name}/v")
        v = graph.node("Add", [kept, drive], f"{name}/charged")
        if cell.reset is None:
            return v
        amount = self._constant(graph, cell.subtracted, "reset_by")
        taken = graph.node("Mul", [amount, y], f"{name}/taken")
        return graph.node("Sub", [v, taken], f"{name}/v")

    def _spikes(self, graph: GraphBuilder, v: str) -> str:
        name = self.name
        threshold = self._constant(graph, self.cell.threshold, "threshold")
        if not self.cell.several:
            fires = graph.node("Greater", [v, threshold], f"{name}/fires")
            return graph.node("Cast", [fires], f"{name}/y", to=FLOAT)
        ratio = graph.node("Div", [v, threshold], f"{name}/in_thresholds")
        count = graph.node("Floor", [ratio], f"{name}/count")
        return graph.node("Max", [count, graph.constant(0.0, "zero")], f"{name}/y")
