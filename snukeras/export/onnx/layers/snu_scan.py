"""SNU and SSNU as ONNX: one Scan for a sequence, or the nodes of one step for streaming.

The input product of all steps stands before the loop. The loop carries what the gate leaves of
the state, k_t = decay * s_t * (1 - gate_t), so that a step is as few nodes as can be:

    a_t = (x_t W + c) + k_{t-1} + y_{t-1} H;   s_t = g(a_t);   y_t = h(s_t - threshold)

k is added first, so that ONNX Runtime makes one node of the recurrent product, a Gemm, and g.
"""

import dataclasses
from typing import Self, TypedDict

import keras
import numpy as np
from onnx import TensorProto, ValueInfoProto, helper

from snukeras.export.onnx.activations import Emit, emitter, supported
from snukeras.export.onnx.graph import GraphBuilder, subgraph
from snukeras.export.onnx.handlers import CannotLowerError
from snukeras.layers import SNUCell

FLOAT, BOOL = TensorProto.FLOAT, TensorProto.BOOL


class Fields(TypedDict):
    """What every `Unit` has."""

    name: str
    spiking: bool
    inhibition: bool
    units: int
    kernel: np.ndarray
    recurrent_kernel: np.ndarray | None
    bias: np.ndarray | None
    decay: np.ndarray
    threshold: np.ndarray
    activation: Emit
    equation: str


def fields_of(cell: SNUCell, name: str, sign: str = "") -> Fields:
    """Read a cell.

    Args:
        cell: The cell.
        name: Name of its layer in the graph.
        sign: What stands for its product in the equation, between x and W.

    Raises:
        CannotLowerError: Its state activation has no ONNX form here.
    """
    activation = emitter(cell.state_activation)
    label = getattr(cell.state_activation, "__name__", type(cell.state_activation).__name__)
    if activation is None:
        raise CannotLowerError(
            f"state_activation {label!r} has no ONNX form; use one of {', '.join(supported())}"
        )
    terms = [f"x[t] {sign}W"]
    terms += ["c"] if cell.bias is not None else []
    terms += [f"y[t-1] {sign}H"] if cell.recurrent_kernel is not None else []
    gate = "max(y[t-1])" if cell.lateral_inhibition else "y[t-1]"
    terms += [f"decay * s[t-1] * (1 - {gate})"]
    h = "step" if cell.spiking else "sigmoid"
    return {
        "name": name,
        "spiking": cell.spiking,
        "inhibition": cell.lateral_inhibition,
        "units": cell.units,
        "kernel": np.asarray(cell.kernel),
        "recurrent_kernel": _array(cell.recurrent_kernel),
        "bias": _array(cell.bias),
        "decay": np.asarray(cell.decay_values()),
        "threshold": np.asarray(cell.threshold_values()),
        "activation": activation,
        "equation": f"s[t] = {label}({' + '.join(terms)}); y[t] = {h}(s[t] - threshold)"
        + ("; step(z) = 1 if z > 0 else 0" if cell.spiking else ""),
    }


@dataclasses.dataclass(frozen=True)
class Unit:
    """The numbers of an SNU or SSNU cell for the graph, and its matrix products."""

    name: str
    spiking: bool
    inhibition: bool
    units: int
    kernel: np.ndarray
    recurrent_kernel: np.ndarray | None
    bias: np.ndarray | None
    decay: np.ndarray
    threshold: np.ndarray
    activation: Emit
    equation: str

    @classmethod
    def of(cls, cell: SNUCell, name: str) -> Self:
        """Read a cell; see `fields_of`."""
        return cls(**fields_of(cell, name))

    def product(self, graph: GraphBuilder, x: str) -> str:
        """Add x W (+ c) for all leading axes."""
        kernel = graph.constant(self.kernel, f"{self.name}/kernel")
        z = graph.node("MatMul", [x, kernel], f"{self.name}/product")
        if self.bias is not None:
            bias = graph.constant(self.bias, f"{self.name}/bias")
            z = graph.node("Add", [z, bias], f"{self.name}/biased")
        return z

    def recur(self, graph: GraphBuilder, y: str, a: str) -> str:
        """Add a + y H of one step."""
        assert self.recurrent_kernel is not None
        kernel = graph.constant(self.recurrent_kernel, f"{self.name}/recurrent_kernel")
        return graph.node("Gemm", [y, kernel, a], f"{self.name}/recur")

    def winner(self, graph: GraphBuilder, y: str) -> str:
        """Add the largest output among those that compete (lateral inhibition)."""
        return graph.node("ReduceMax", [y], f"{self.name}/winner", axes=[-1], keepdims=1)

    def flat(self, graph: GraphBuilder, state: str) -> str:
        """Add a state of Keras's shape as (batch, units)."""
        return state

    def shaped(self, graph: GraphBuilder, y: str, lead: int) -> str:
        """Add outputs (..., units) in Keras's shape; `lead` axes stand before the units."""
        return y


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is asked of a sequence.

    Attributes:
        backwards: From the last step to the first (go_backwards).
        reverse_output: Put the outputs in reverse order.
        sequence: Whether the outputs of all steps are wanted.
        last: Whether the last output is wanted.
        mask: Name of a bool tensor (batch, time), or None.
        zero_output_for_mask: Zeros at masked steps, else the output before.
        initial: s and y (batch, units), else zeros.
        states: Whether the last states are wanted.
        membranes: Whether the membrane potentials s of all steps are wanted.
    """

    backwards: bool = False
    reverse_output: bool = False
    sequence: bool = True
    last: bool = False
    mask: str | None = None
    zero_output_for_mask: bool = False
    initial: tuple[str, str] | None = None
    states: bool = False
    membranes: bool = False


@dataclasses.dataclass(frozen=True)
class Trace:
    """Names by which the loop of a layer can be looked into.

    Attributes:
        node: The Scan node.
        input: The sequence that the layer takes.
        s, y: Membrane potential and output of a step, inside the loop.
        mask: The mask, or None.
    """

    node: str
    input: str
    s: str
    y: str
    mask: str | None


@dataclasses.dataclass(frozen=True)
class Run:
    """Tensor names of what a lowered layer gives, and its trace."""

    sequence: str | None
    last: str | None
    s: str | None
    y: str | None
    membranes: str | None
    trace: Trace


def _array(variable: keras.Variable | None) -> np.ndarray | None:
    return None if variable is None else np.asarray(variable)


def _decide(
    graph: GraphBuilder, unit: Unit, z: str, k: str, y: str | None, wants_y: bool = True
) -> tuple[str, str, str | None]:
    """Add the nodes of one step up to the output.

    Returns:
        s; the cause of y, which is the spikes as bool, or s - threshold (see `_put_out`); and y,
        or None where it is not wanted.
    """
    name = unit.name
    a = graph.node("Add", [z, k], f"{name}/a")
    if unit.recurrent_kernel is not None:
        a = unit.recur(graph, str(y), a)
    s = unit.activation(graph, a, f"{name}/g")
    threshold = graph.constant(unit.threshold, f"{name}/threshold")
    if unit.spiking:
        cause = graph.node("Greater", [s, threshold], f"{name}/spikes")
    else:
        cause = graph.node("Sub", [s, threshold], f"{name}/margin")
    return s, cause, _put_out(graph, unit, cause, f"{name}/y") if wants_y else None


def _put_out(graph: GraphBuilder, unit: Unit, cause: str, hint: str) -> str:
    """Add y, of one step or of all: 1 where there is a spike, or the sigmoid of s - threshold."""
    if unit.spiking:
        return graph.node("Cast", [cause], hint, to=FLOAT)
    return graph.node("Sigmoid", [cause], hint)


def _keep(graph: GraphBuilder, unit: Unit, s: str, y: str | None, spikes: str | None) -> str:
    """Add k = decay * s * (1 - gate): what the gate leaves of the state."""
    name = unit.name
    decay = graph.constant(unit.decay, f"{name}/decay")
    leak = graph.node("Mul", [decay, s], f"{name}/leak")
    if spikes is not None and not unit.inhibition:
        # The same as the product with 1 - y, in one node instead of two.
        zero = graph.constant(0.0, "zero")
        return graph.node("Where", [spikes, zero, leak], f"{name}/k")
    gate = unit.winner(graph, str(y)) if unit.inhibition else str(y)
    open_ = graph.node("Sub", [graph.constant(1.0, "one"), gate], f"{name}/open")
    return graph.node("Mul", [leak, open_], f"{name}/k")


def step(graph: GraphBuilder, unit: Unit, x: str, s: str, y: str) -> tuple[str, str]:
    """Add one step for streaming: x (batch, ...), states (batch, units); return s, y."""
    z = unit.product(graph, x)
    k = _keep(graph, unit, s, y, None)
    s, _, output = _decide(graph, unit, z, k, y)
    graph.nodes[-1].doc_string = unit.equation
    return s, str(output)


def scan(graph: GraphBuilder, unit: Unit, x: str, asked: Asked) -> Run:
    """Lower a whole sequence, (batch, time, ...), to one Scan."""
    return _Scan(graph, unit, asked).lower(x)


class _Scan:
    """Builds the Scan of one layer, in the order of its nodes."""

    def __init__(self, graph: GraphBuilder, unit: Unit, asked: Asked) -> None:
        self.graph, self.unit, self.asked = graph, unit, asked
        mask = asked.mask is not None
        recurrent = unit.recurrent_kernel is not None
        # Without masks outputs become numbers outside the loop, for all steps at once: spikes
        # leave it as bool. Soft outputs that the loop carries would need one more node to leave
        # it as well.
        self.carries_y = recurrent or asked.states or asked.last or mask
        self.outside = not mask and (unit.spiking or self.carries_y)
        # Masked steps before the first other one show zeros, even where a state is given.
        self.shows = mask and asked.initial is not None and not asked.zero_output_for_mask
        self.body = GraphBuilder(graph)
        self.inputs: list[ValueInfoProto] = []
        self.results: list[ValueInfoProto] = []
        self.starts: list[str] = []
        self.sequences: list[str] = []
        self.scanned: list[str] = []

    def lower(self, x: str) -> Run:
        """Add the nodes before the loop, the loop, and those behind it."""
        graph, unit, name = self.graph, self.unit, self.unit.name
        z = unit.product(graph, x)
        before = self._start(x)
        z_t, m_t = self._enter(z)
        s, cause, y = _decide(
            self.body,
            unit,
            z_t,
            before["k"],
            before.get("y"),
            self.carries_y or not unit.spiking or unit.inhibition,
        )
        k = _keep(self.body, unit, s, y, cause if unit.spiking else None)
        shown = self._carry(before, m_t, k, s, y)
        self._leave(cause, y, shown)
        if self.asked.membranes:
            self._scan_out(self.body.node("Identity", [s], f"{name}/potential"), FLOAT, "membranes")
        labels = ["k", *(label for label in ("y", "s", "shown") if label in before)]
        produced = {label: graph.unique(f"{name}/{label}") for label in [*labels, *self.scanned]}
        graph.node(
            "Scan",
            [*self.starts, *self.sequences],
            name,
            doc=unit.equation,
            outputs=list(produced.values()),
            body=subgraph(self.body, f"{name}/step", self.inputs, self.results),
            num_scan_inputs=len(self.sequences),
            scan_input_axes=[1] * len(self.sequences),
            **self._directions(),
        )
        visible = shown if m_t is not None else cause if unit.spiking else y
        assert visible is not None
        trace = Trace(graph.nodes[-1].name, x, s, visible, self.asked.mask)
        return self._run(produced, trace)

    def _start(self, x: str) -> dict[str, str]:
        """Add the states at the start; return the names that they have inside the loop."""
        graph, unit, name, asked = self.graph, self.unit, self.unit.name, self.asked
        zeros = ""
        if asked.initial is None or asked.mask is not None:
            batch = graph.node("Shape", [x], f"{name}/batch", start=0, end=1)
            units = graph.constant([unit.units], f"{name}/units", "int64")
            shape = graph.node("Concat", [batch, units], f"{name}/state_shape", axis=0)
            zeros = graph.node("ConstantOfShape", [shape], f"{name}/zeros")
        if asked.initial is None:
            k0 = s0 = y0 = zeros
        else:
            s0, y0 = asked.initial
            k0 = _keep(graph, unit, s0, y0, None)
        starts = {"k": k0}
        starts |= {"y": y0} if self.carries_y else {}
        starts |= {"s": s0} if asked.states else {}
        starts |= {"shown": zeros} if self.shows else {}
        before = {}
        for label, start in starts.items():
            before[label] = self.body.unique(f"{name}/{label}_before")
            self.inputs.append(_info(before[label], FLOAT, unit.units))
            self.starts.append(start)
        return before

    def _enter(self, z: str) -> tuple[str, str | None]:
        """Let the input product, and the mask, of a step into the loop."""
        name, mask = self.unit.name, self.asked.mask
        z_t = self.body.unique(f"{name}/z")
        self.inputs.append(_info(z_t, FLOAT, self.unit.units))
        self.sequences.append(z)
        if mask is None:
            return z_t, None
        m_t = self.body.unique(f"{name}/mask")
        self.inputs.append(helper.make_tensor_value_info(m_t, BOOL, [None, 1]))
        last_axis = self.graph.constant([-1], "last_axis", "int64")
        column = self.graph.node("Unsqueeze", [mask, last_axis], f"{name}/mask_column")
        self.sequences.append(column)
        return z_t, m_t

    def _carry(
        self, before: dict[str, str], m_t: str | None, k: str, s: str, y: str | None
    ) -> str | None:
        """Hand the states to the next step; return the output shown, if it is another than y."""
        body, name = self.body, self.unit.name

        def carry(new: str, label: str) -> str:
            if m_t is not None:
                new = body.node("Where", [m_t, new, before[label]], f"{name}/{label}_held")
            self.results.append(_info(new, FLOAT, self.unit.units))
            return new

        carry(k, "k")
        shown = None
        if "y" in before:
            assert y is not None
            shown = carry(y, "y")
        if "s" in before:
            carry(s, "s")
        if m_t is not None and self.asked.zero_output_for_mask:
            zero = body.constant(0.0, "zero")
            shown = body.node("Where", [m_t, str(y), zero], f"{name}/shown")
        elif "shown" in before:
            shown = body.node("Where", [m_t or "", str(y), before["shown"]], f"{name}/shown")
            self.results.append(_info(shown, FLOAT, self.unit.units))
        return shown

    def _leave(self, cause: str, y: str | None, shown: str | None) -> None:
        """Let the output of a step leave the loop, where all are wanted."""
        asked, unit = self.asked, self.unit
        if asked.sequence and self.outside:
            self._scan_out(cause, BOOL if unit.spiking else FLOAT)
        elif asked.sequence and self.carries_y:
            assert shown is not None
            if shown in (result.name for result in self.results):
                shown = self.body.node("Identity", [shown], f"{unit.name}/out")
            self._scan_out(shown, FLOAT)
        elif asked.sequence:
            self._scan_out(str(y), FLOAT)
        elif self._last_of_sequence():
            self._scan_out(str(shown), FLOAT)

    def _last_of_sequence(self) -> bool:
        """Return whether the last output shown is not the last state, but one of the sequence."""
        asked = self.asked
        return asked.last and asked.mask is not None and asked.zero_output_for_mask

    def _scan_out(self, result: str, kind: int, label: str = "sequence") -> None:
        self.results.append(_info(result, kind, self.unit.units))
        self.scanned.append(label)

    def _directions(self) -> dict[str, list[int]]:
        directions = {}
        if self.asked.backwards:
            directions["scan_input_directions"] = [1] * len(self.sequences)
        if self.asked.reverse_output:
            directions["scan_output_directions"] = [1] * len(self.scanned)
        if self.scanned:
            directions["scan_output_axes"] = [1] * len(self.scanned)
        return directions

    def _run(self, produced: dict[str, str], trace: Trace) -> Run:
        """Add the nodes behind the loop."""
        graph, asked, name = self.graph, self.asked, self.unit.name
        out = produced.get("sequence")
        if out is not None and asked.sequence and self.outside:
            out = _put_out(graph, self.unit, out, f"{name}/output")
        final = None
        if self._last_of_sequence():
            place = 0 if asked.reverse_output else -1
            index = graph.constant(place, f"{name}/last_index", "int64")
            final = graph.node("Gather", [str(out), index], f"{name}/last", axis=1)
        elif asked.last:
            final = produced["shown"] if self.shows else produced["y"]
        return Run(
            sequence=out if asked.sequence else None,
            last=final,
            s=produced.get("s"),
            y=produced.get("y"),
            membranes=produced.get("membranes"),
            trace=trace,
        )


def _info(name: str, kind: int, units: int) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, [None, units])
