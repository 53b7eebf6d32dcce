"""SNU and SSNU as ONNX: one Scan for a sequence, or the nodes of one step for streaming.

The input product of all steps stands before the loop. The loop carries what the gate leaves of
the state, k_t = decay * s_t * (1 - gate_t), so that a step is as few nodes as can be:

    a_t = (x_t W + c) + k_{t-1} + y_{t-1} H;   s_t = g(a_t);   y_t = h(s_t - threshold)

k is added first, so that ONNX Runtime makes one node of the recurrent product, a Gemm, and g.
"""

import dataclasses
from typing import Any, ClassVar

import numpy as np
from onnx import TensorProto, helper

from snukeras.export.onnx.activations import Emit, emitter, supported
from snukeras.export.onnx.graph import GraphBuilder, subgraph
from snukeras.export.onnx.handlers import CannotLowerError

FLOAT, BOOL = TensorProto.FLOAT, TensorProto.BOOL


@dataclasses.dataclass(frozen=True)
class Unit:
    """The numbers of an SNU or SSNU cell, as the graph needs them, and its matrix products."""

    product_sign: ClassVar[str] = ""
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
    def of(cls, cell: Any, name: str, **more: Any) -> "Unit":
        """Reads a cell; `more` are fields that replace or add to those of the cell.

        Raises:
            CannotLowerError: its state activation has no ONNX form here.
        """
        activation = emitter(cell.state_activation)
        label = getattr(cell.state_activation, "__name__", type(cell.state_activation).__name__)
        if activation is None:
            raise CannotLowerError(
                f"state_activation {label!r} has no ONNX form; use one of {', '.join(supported())}"
            )
        terms = [f"x[t] {cls.product_sign}W"]
        terms += ["c"] if cell.bias is not None else []
        terms += [f"y[t-1] {cls.product_sign}H"] if cell.recurrent_kernel is not None else []
        gate = "max(y[t-1])" if cell.lateral_inhibition else "y[t-1]"
        terms += [f"decay * s[t-1] * (1 - {gate})"]
        h = "step" if cell.spiking else "sigmoid"
        fields = {
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
        return cls(**{**fields, **more})

    def product(self, graph: GraphBuilder, x: str) -> str:
        """x W (+ c) for all leading axes."""
        kernel = graph.constant(self.kernel, f"{self.name}/kernel")
        z = graph.node("MatMul", [x, kernel], f"{self.name}/product")
        if self.bias is not None:
            bias = graph.constant(self.bias, f"{self.name}/bias")
            z = graph.node("Add", [z, bias], f"{self.name}/biased")
        return z

    def recur(self, graph: GraphBuilder, y: str, a: str) -> str:
        """a + y H of one step."""
        kernel = graph.constant(self.recurrent_kernel, f"{self.name}/recurrent_kernel")
        return graph.node("Gemm", [y, kernel, a], f"{self.name}/recur")

    def winner(self, graph: GraphBuilder, y: str) -> str:
        """The largest output among those that compete (lateral inhibition)."""
        return graph.node("ReduceMax", [y], f"{self.name}/winner", axes=[-1], keepdims=1)

    def flat(self, graph: GraphBuilder, state: str) -> str:
        """A state as Keras has it, as (batch, units)."""
        return state

    def shaped(self, graph: GraphBuilder, y: str, lead: int) -> str:
        """States or outputs (..., units) as Keras has them; `lead` axes stand before the units."""
        return y


@dataclasses.dataclass(frozen=True)
class Run:
    """What a lowered layer gives: tensor names; `s_sequence` only on request."""

    sequence: str | None
    last: str | None
    s: str | None
    y: str | None
    s_sequence: str | None = None


def _array(variable):
    return None if variable is None else np.asarray(variable)


def _decide(graph, unit, z, k, y, wants_y=True):
    """Nodes of one step up to the output: (s, what y follows from, y or None).

    y follows from the spikes, as bool, or from s - threshold; see `_put_out`.
    """
    name = unit.name
    a = graph.node("Add", [z, k], f"{name}/a")
    if unit.recurrent_kernel is not None:
        a = unit.recur(graph, y, a)
    s = unit.activation(graph, a, f"{name}/g")
    threshold = graph.constant(unit.threshold, f"{name}/threshold")
    if unit.spiking:
        cause = graph.node("Greater", [s, threshold], f"{name}/spikes")
    else:
        cause = graph.node("Sub", [s, threshold], f"{name}/margin")
    return s, cause, _put_out(graph, unit, cause, f"{name}/y") if wants_y else None


def _put_out(graph, unit, cause, hint):
    """y: 1 where there is a spike, or the sigmoid of s - threshold; of one step or of all."""
    if unit.spiking:
        return graph.node("Cast", [cause], hint, to=FLOAT)
    return graph.node("Sigmoid", [cause], hint)


def _keep(graph, unit, s, y, spikes):
    """k = decay * s * (1 - gate): what the gate leaves of the state."""
    name = unit.name
    decay = graph.constant(unit.decay, f"{name}/decay")
    leak = graph.node("Mul", [decay, s], f"{name}/leak")
    if spikes is not None and not unit.inhibition:
        # The same as the product with 1 - y, in one node instead of two.
        zero = graph.constant(0.0, "zero")
        return graph.node("Where", [spikes, zero, leak], f"{name}/k")
    gate = unit.winner(graph, y) if unit.inhibition else y
    open_ = graph.node("Sub", [graph.constant(1.0, "one"), gate], f"{name}/open")
    return graph.node("Mul", [leak, open_], f"{name}/k")


def step(graph: GraphBuilder, unit: Unit, x: str, s: str, y: str) -> tuple[str, str]:
    """One step for streaming: x (batch, ...), states (batch, units); returns s, y."""
    z = unit.product(graph, x)
    k = _keep(graph, unit, s, y, None)
    s, _, output = _decide(graph, unit, z, k, y)
    graph.nodes[-1].doc_string = unit.equation
    return s, output


def scan(
    graph: GraphBuilder,
    unit: Unit,
    x: str,
    *,
    backwards: bool = False,
    reverse_output: bool = False,
    sequence: bool = True,
    last: bool = False,
    mask: str | None = None,
    zero_output_for_mask: bool = False,
    initial: tuple[str, str] | None = None,
    states: bool = False,
    potentials: bool = False,
) -> Run:
    """A whole sequence as one Scan.

    Args:
        x: (batch, time, ...).
        backwards: from the last step to the first (go_backwards).
        reverse_output: put the outputs in reverse order.
        sequence: whether the outputs of all steps are wanted.
        last: whether the last output is wanted.
        mask: bool (batch, time) or None.
        zero_output_for_mask: zeros at masked steps, else the output before.
        initial: s and y (batch, units), else zeros.
        states: whether the last states are wanted.
        potentials: also give s of all steps (for verification).
    """
    name = unit.name
    z = unit.product(graph, x)
    zeros = None
    if initial is None or mask is not None:
        batch = graph.node("Shape", [x], f"{name}/batch", start=0, end=1)
        units = graph.constant([unit.units], f"{name}/units", "int64")
        shape = graph.node("Concat", [batch, units], f"{name}/state_shape", axis=0)
        zeros = graph.node("ConstantOfShape", [shape], f"{name}/zeros")

    # Without masks outputs become numbers outside the loop, for all steps at once: spikes leave it
    # as bool; soft outputs that the loop carries would need a node more to leave it as well.
    carries_y = unit.recurrent_kernel is not None or states or last or mask is not None
    outside = mask is None and (unit.spiking or carries_y)
    wants_y = carries_y or not unit.spiking or unit.inhibition

    body = GraphBuilder(graph)
    inputs, results, starts = [], [], []

    def carried(label: str, start: Any) -> str:
        inner = body.unique(f"{name}/{label}_before")
        inputs.append(_info(inner, FLOAT, unit.units))
        starts.append(start)
        return inner

    if initial is None:
        k0 = s0 = y0 = zeros
    else:
        s0, y0 = initial
        k0 = _keep(graph, unit, s0, y0, None)
    k_before = carried("k", k0)
    y_before = carried("y", y0) if carries_y else None
    s_before = carried("s", s0) if states else None
    # With a given state the output shown at masked steps before the first one is still zero.
    shows = mask is not None and initial is not None and not zero_output_for_mask
    shown_before: Any = carried("shown", zeros) if shows else None
    z_t = body.unique(f"{name}/z")
    inputs.append(_info(z_t, FLOAT, unit.units))
    sequences = [z]
    m_t: Any = None
    if mask is not None:
        m_t = body.unique(f"{name}/mask")
        inputs.append(helper.make_tensor_value_info(m_t, BOOL, [None, 1]))
        last_axis = graph.constant([-1], "last_axis", "int64")
        sequences.append(graph.node("Unsqueeze", [mask, last_axis], f"{name}/mask_column"))

    y: Any
    s, cause, y = _decide(body, unit, z_t, k_before, y_before, wants_y)
    k = _keep(body, unit, s, y, cause if unit.spiking else None)

    def hold(new, before, label):
        return new if m_t is None else body.node("Where", [m_t, new, before], f"{name}/{label}")

    k_after = hold(k, k_before, "k_held")
    results.append(_info(k_after, FLOAT, unit.units))
    y_after = None
    if carries_y:
        y_after = hold(y, y_before, "y_held")
        results.append(_info(y_after, FLOAT, unit.units))
    if states:
        results.append(_info(hold(s, s_before, "s_held"), FLOAT, unit.units))
    shown: Any = y_after
    if mask is not None and zero_output_for_mask:
        shown = body.node("Where", [m_t, y, body.constant(0.0, "zero")], f"{name}/shown")
    elif shows:
        shown = body.node("Where", [m_t, y, shown_before], f"{name}/shown")
        results.append(_info(shown, FLOAT, unit.units))

    scanned = []
    if sequence:
        if outside:
            out, kind = cause, BOOL if unit.spiking else FLOAT
        elif carries_y:
            taken = shown in (r.name for r in results)
            out = body.node("Identity", [shown], f"{name}/out") if taken else shown
            kind = FLOAT
        else:
            out, kind = y, FLOAT
        results.append(_info(out, kind, unit.units))
        scanned.append("sequence")
    elif last and mask is not None and zero_output_for_mask:
        # The last output shown is not the last state; take it from the steps.
        results.append(_info(shown, FLOAT, unit.units))
        scanned.append("sequence")
    if potentials:
        out = body.node("Identity", [s], f"{name}/potential")
        results.append(_info(out, FLOAT, unit.units))
        scanned.append("potentials")

    finals = ["k"] + ["y"] * carries_y + ["s"] * states + ["shown"] * shows
    produced = {label: graph.unique(f"{name}/{label}") for label in [*finals, *scanned]}
    outward = 1 if reverse_output else 0
    directions: dict[str, Any] = {}
    if backwards:
        directions["scan_input_directions"] = [1] * len(sequences)
    if outward:
        directions["scan_output_directions"] = [outward] * len(scanned)
    if scanned:
        directions["scan_output_axes"] = [1] * len(scanned)
    graph.node(
        "Scan",
        [*starts, *sequences],
        name,
        doc=unit.equation,
        outputs=list(produced.values()),
        body=subgraph(body, f"{name}/step", inputs, results),
        num_scan_inputs=len(sequences),
        scan_input_axes=[1] * len(sequences),
        **directions,
    )
    out = produced.get("sequence")
    if out is not None and sequence and outside:
        out = _put_out(graph, unit, out, f"{name}/output")
    final = None
    if last and mask is not None and zero_output_for_mask:
        index = graph.constant(0 if outward else -1, f"{name}/last_index", "int64")
        final = graph.node("Gather", [out, index], f"{name}/last", axis=1)
    elif last:
        final = produced["shown"] if shows else produced["y"]
    return Run(
        sequence=out if sequence else None,
        last=final,
        s=produced.get("s"),
        y=produced.get("y"),
        s_sequence=produced.get("potentials"),
    )


def _info(name, kind, units):
    return helper.make_tensor_value_info(name, kind, [None, units])
