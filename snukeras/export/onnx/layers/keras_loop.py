"""LSTM, GRU and SimpleRNN as a Scan: with masks, or with activations that ONNX's operators lack.

Bidirectional layers of these, too. The input product of all steps stands before the loop.
"""

import dataclasses
from typing import Any

import keras
import numpy as np
from onnx import TensorProto, helper

from snukeras.export.onnx.activations import emitter
from snukeras.export.onnx.graph import GraphBuilder, subgraph
from snukeras.export.onnx.handlers import CannotLowerError, Value

FLOAT, BOOL = TensorProto.FLOAT, TensorProto.BOOL


@dataclasses.dataclass(frozen=True)
class Result:
    """Tensors of a layer: outputs of all steps (batch, time, units), the last one, the states."""

    sequence: str
    last: str
    states: list[str]


def loop(
    graph: GraphBuilder, name: str, layer: Any, x: str, initial: list[str], mask: str | None
) -> Result:
    """Add the loop of a layer.

    Args:
        graph: The graph.
        name: Name of the layer.
        layer: An LSTM, GRU or SimpleRNN.
        x: The sequence (batch, time, features).
        initial: Its first states, or [] for zeros.
        mask: A bool tensor (batch, time), or None.

    Raises:
        CannotLowerError: An activation has no ONNX form.
    """
    cell = layer.cell
    step = _Step(graph, name, cell)
    z = graph.node("MatMul", [x, step.weight(cell.kernel, "kernel")], f"{name}/product")
    if step.input_bias is not None:
        bias = graph.constant(step.input_bias, f"{name}/bias")
        z = graph.node("Add", [z, bias], f"{name}/biased")
    z = graph.node("Transpose", [z], f"{name}/time_first", perm=[1, 0, 2])
    body = step.body
    count = 2 if isinstance(cell, keras.layers.LSTMCell) else 1
    before = [body.unique(f"{name}/state_{i}_before") for i in range(count)]
    starts = initial or [_zeros(graph, name, x, cell.units)] * count
    z_t = body.unique(f"{name}/z")
    states = step.lower(z_t, before)
    inputs = [_info(label, cell.units) for label in before]
    scanned, sequences, shown = [_info(z_t, None)], [z], states[0]
    held = states
    if mask is not None:
        m_t, shown_before = body.unique(f"{name}/mask"), body.unique(f"{name}/shown_before")
        held = [
            body.node("Where", [m_t, new, old], f"{name}/held")
            for new, old in zip(states, before, strict=True)
        ]
        inputs.append(_info(shown_before, cell.units))
        starts = [*starts, _zeros(graph, name, x, cell.units)]
        other = body.constant(0.0, "zero") if layer.zero_output_for_mask else shown_before
        shown = body.node("Where", [m_t, states[0], other], f"{name}/shown")
        held = [*held, shown]
        turned = graph.node("Transpose", [mask], f"{name}/mask_time_first", perm=[1, 0])
        last_axis = graph.constant([-1], "last_axis", "int64")
        column = graph.node("Unsqueeze", [turned, last_axis], f"{name}/mask_column")
        scanned.append(helper.make_tensor_value_info(m_t, BOOL, [None, 1]))
        sequences.append(column)
    out = body.node("Identity", [shown], f"{name}/out")
    results = [_info(body.node("Identity", [h], f"{name}/next"), cell.units) for h in held]
    ends = [graph.unique(f"{name}/end_{i}") for i in range(len(held))]
    steps = graph.unique(f"{name}/steps")
    graph.node(
        "Scan",
        [*starts, *sequences],
        name,
        outputs=[*ends, steps],
        body=subgraph(
            body, f"{name}/body", [*inputs, *scanned], [*results, _info(out, cell.units)]
        ),
        num_scan_inputs=len(sequences),
        scan_input_directions=[int(layer.go_backwards)] * len(sequences),
    )
    sequence = graph.node("Transpose", [steps], f"{name}/batch_first", perm=[1, 0, 2])
    return Result(sequence, ends[-1] if mask is not None else ends[0], ends[:count])


def _info(name: str, units: int | None) -> Any:
    return helper.make_tensor_value_info(name, FLOAT, [None, units])


def _zeros(graph: GraphBuilder, name: str, x: str, units: int) -> str:
    batch = graph.node("Shape", [x], f"{name}/batch", start=0, end=1)
    size = graph.constant([units], f"{name}/units", "int64")
    shape = graph.node("Concat", [batch, size], f"{name}/state_shape", axis=0)
    return graph.node("ConstantOfShape", [shape], f"{name}/zeros")


class _Step:
    """A step of a cell, in the body of a loop."""

    def __init__(self, graph: GraphBuilder, name: str, cell: Any) -> None:
        self.graph, self.name, self.cell = graph, name, cell
        self.body = GraphBuilder(graph)
        bias = None if cell.bias is None else np.asarray(cell.bias, "float32")
        both = bias is not None and bias.ndim == 2
        self.input_bias = bias[0] if both and bias is not None else bias
        self.recurrent_bias = bias[1] if both and bias is not None else None

    def weight(self, values: Any, label: str) -> str:
        return self.graph.constant(np.asarray(values), f"{self.name}/{label}")

    def activate(self, activation: Any, x: str, label: str) -> str:
        emit = emitter(activation)
        if emit is None:
            raise CannotLowerError(f"the activation {activation!r} has no ONNX form")
        return emit(self.body, x, f"{self.name}/{label}")

    def lower(self, z: str, states: list[str]) -> list[str]:
        """Add the nodes of a step; return the new states, the output first."""
        if isinstance(self.cell, keras.layers.LSTMCell):
            return self._lstm(z, *states)
        if isinstance(self.cell, keras.layers.GRUCell):
            return self._gru(z, *states)
        a = self._recur(z, states[0], self.cell.recurrent_kernel, "recurrent_kernel")
        return [self.activate(self.cell.activation, a, "h")]

    def _recur(self, z: str, h: str, kernel: Any, label: str) -> str:
        return self.body.node("Gemm", [h, self.weight(kernel, label), z], f"{self.name}/a")

    def _parts(self, x: str, count: int) -> list[str]:
        names = [self.body.unique(f"{self.name}/gate_{i}") for i in range(count)]
        sizes = self.graph.constant([self.cell.units] * count, f"{self.name}/sizes", "int64")
        self.body.node("Split", [x, sizes], f"{self.name}/split", outputs=names, axis=1)
        return names

    def _lstm(self, z: str, h: str, c: str) -> list[str]:
        cell, body, name = self.cell, self.body, self.name
        a = self._recur(z, h, cell.recurrent_kernel, "recurrent_kernel")
        parts = self._parts(a, 4)
        kinds = (cell.recurrent_activation,) * 2 + (cell.activation, cell.recurrent_activation)
        i, f, g, o = (
            self.activate(kind, part, label)
            for kind, part, label in zip(kinds, parts, "ifgo", strict=True)
        )
        kept = body.node("Mul", [f, c], f"{name}/kept")
        fresh = body.node("Mul", [i, g], f"{name}/fresh")
        c = body.node("Add", [kept, fresh], f"{name}/c")
        h = body.node("Mul", [o, self.activate(cell.activation, c, "c_shown")], f"{name}/h")
        return [h, c]

    def _gru(self, z: str, h: str) -> list[str]:
        cell, body, name, units = self.cell, self.body, self.name, self.cell.units
        kernel = np.asarray(cell.recurrent_kernel)
        x_z, x_r, x_h = self._parts(z, 3)
        if cell.reset_after:
            inner = body.node("MatMul", [h, self.weight(kernel, "recurrent_kernel")], f"{name}/hU")
            if self.recurrent_bias is not None:
                bias = self.weight(self.recurrent_bias, "recurrent_bias")
                inner = body.node("Add", [inner, bias], f"{name}/hU_biased")
            h_z, h_r, h_h = self._parts(inner, 3)
        else:
            parts = {"U_z": kernel[:, :units], "U_r": kernel[:, units : 2 * units]}
            h_z, h_r = (
                body.node("MatMul", [h, self.weight(part, label)], f"{name}/h{label}")
                for label, part in parts.items()
            )
        update, reset = (
            self.activate(
                cell.recurrent_activation,
                body.node("Add", [a, b], f"{name}/{label}_sum"),
                label,
            )
            for a, b, label in ((x_z, h_z, "z"), (x_r, h_r, "r"))
        )
        if cell.reset_after:
            h_h = body.node("Mul", [reset, h_h], f"{name}/reset")
        else:
            left = body.node("Mul", [reset, h], f"{name}/reset")
            last = self.weight(kernel[:, 2 * units :], "U_h")
            h_h = body.node("MatMul", [left, last], f"{name}/hU_h")
        summed = body.node("Add", [x_h, h_h], f"{name}/candidate_sum")
        candidate = self.activate(cell.activation, summed, "candidate")
        kept = body.node("Mul", [update, h], f"{name}/kept")
        rest = body.node("Sub", [body.constant(1.0, "one"), update], f"{name}/rest")
        fresh = body.node("Mul", [rest, candidate], f"{name}/fresh")
        return [body.node("Add", [kept, fresh], f"{name}/h")]


def outputs(layer: Any, result: Result, mask: str | None) -> list[Value]:
    """Return what a layer puts out of what its loop gives."""
    first = Value(result.sequence, mask) if layer.return_sequences else Value(result.last)
    return [first, *(Value(state) for state in result.states if layer.return_state)]
