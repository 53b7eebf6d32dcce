"""LSTM, GRU and SimpleRNN as ONNX's operators of these names: sequence or step, with their states.

ONNX stacks a layer's weights gate by gate along the first axis and has two biases, that of the
input product and that of the recurrent one. Masks have no place in these operators; they take a
loop, see `keras_loop`.
"""

import dataclasses

import keras
import numpy as np
from numpy.typing import ArrayLike

from snukeras.export.onnx.activations import Function
from snukeras.export.onnx.graph import GraphBuilder
from snukeras.export.onnx.handlers import (
    CannotLowerError,
    Context,
    Value,
    as_float,
    check_policy,
    check_step,
    handles,
    mask_of,
)
from snukeras.export.onnx.layers import keras_loop
from snukeras.network.topology import Call

# Keras's activation: ONNX's name for it, alpha, beta.
_ACTIVATIONS: dict[Function, tuple[str, float | None, float | None]] = {
    keras.activations.sigmoid: ("Sigmoid", None, None),
    keras.activations.tanh: ("Tanh", None, None),
    keras.activations.relu: ("Relu", None, None),
    keras.activations.softsign: ("Softsign", None, None),
    keras.activations.softplus: ("Softplus", None, None),
    keras.activations.hard_sigmoid: ("HardSigmoid", 1.0 / 6.0, 0.5),
    keras.activations.leaky_relu: ("LeakyRelu", 0.2, None),
    keras.activations.elu: ("Elu", 1.0, None),
    keras.activations.linear: ("Affine", 1.0, 0.0),
}


@dataclasses.dataclass(frozen=True)
class _Kind:
    """How ONNX writes a recurrent layer.

    Attributes:
        operator: Its operator.
        order: ONNX's order of Keras's gates.
        activations: Keras's activations, in ONNX's order.
        attributes: Further attributes of the operator.
        equation: For the node's doc string.
        labels: Names of its states.
    """

    operator: str
    order: tuple[int, ...]
    activations: tuple[Function, ...]
    attributes: dict[str, int | list[float]]
    equation: str
    labels: str


def _kind(cell: keras.Layer) -> _Kind:
    if isinstance(cell, keras.layers.LSTMCell):
        return _Kind(
            "LSTM",
            (0, 3, 1, 2),  # Keras: input, forget, candidate, output; ONNX: i, o, f, c
            (cell.recurrent_activation, cell.activation, cell.activation),
            {},
            "i, f, o = sigma(x[t] W + c + h[t-1] U); c[t] = f c[t-1] + i g(...); h[t] = o g(c[t])",
            "hc",
        )
    if isinstance(cell, keras.layers.GRUCell):
        return _Kind(
            "GRU",
            (0, 1, 2),
            (cell.recurrent_activation, cell.activation),
            {"linear_before_reset": int(cell.reset_after)},
            "z, r = sigma(x[t] W + c + h[t-1] U); h[t] = z h[t-1] + (1 - z) g(...)",
            "h",
        )
    equation = "h[t] = g(x[t] W + c + h[t-1] U)"
    return _Kind("RNN", (0,), (cell.activation,), {}, equation, "h")


@handles(keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN)
def _gated(
    context: Context, call: Call, layer: keras.layers.RNN, values: list[Value]
) -> list[Value] | None:
    graph, name, cell = context.graph, call.name, layer.cell
    kind = _kind(cell)
    initial = [value.name for value in values[1:]]
    keeps = context.streaming or layer.stateful
    known = all(activation in _ACTIVATIONS for activation in kind.activations)
    mask = _check(context, layer, values, keeps, known)
    if not known or mask is not None:
        sequence = as_float(context, call, 0, values[0])
        result = keras_loop.loop(graph, name, layer, sequence, initial, mask)
        return keras_loop.outputs(layer, result, mask)
    x = _time_first(context, name, layer, as_float(context, call, 0, values[0]))
    entries = [context.enter(name, label) for label in kind.labels] if keeps else initial
    starts = [
        _move(graph, "Unsqueeze", entry, 0, f"{name}/{label}_start")
        for entry, label in zip(entries, kind.labels, strict=False)
    ]
    found = [_ACTIVATIONS[activation] for activation in kind.activations]
    alphas = [alpha for _, alpha, _ in found if alpha is not None]
    betas = [beta for _, _, beta in found if beta is not None]
    attributes = dict(kind.attributes)
    attributes |= {"activation_alpha": alphas} if alphas else {}
    attributes |= {"activation_beta": betas} if betas else {}
    weights = _weights(graph, cell, kind.order, name)
    outputs = [graph.unique(f"{name}/{label}") for label in ("all", *kind.labels)]
    graph.node(
        kind.operator,
        [x, *weights, *(["", *starts] if starts else [])],  # "" stands for lengths of sequences
        name,
        doc=kind.equation,
        outputs=outputs,
        hidden_size=cell.units,
        activations=[part[0] for part in found],
        **attributes,
    )
    states = [
        _move(graph, "Squeeze", out, 0, f"{name}/{label}_end")
        for out, label in zip(outputs[1:], kind.labels, strict=True)
    ]
    if keeps:
        for label, entry, state in zip(kind.labels, entries, states, strict=True):
            context.leave(name, label, cell.units, entry, state)
    if context.streaming:
        return [Value(states[0])]
    first = states[0]
    if layer.return_sequences:
        every = _move(graph, "Squeeze", outputs[0], 1, f"{name}/steps")
        first = graph.node("Transpose", [every], f"{name}/batch_first", perm=[1, 0, 2])
    return [Value(first), *(Value(state) for state in states if layer.return_state)]


def bidirectional(
    context: Context, call: Call, layer: keras.layers.Bidirectional, values: list[Value]
) -> list[Value] | None:
    """Add a Bidirectional of LSTM, GRU or SimpleRNN; the backward outputs are put in order."""
    sides = (layer.forward_layer, layer.backward_layer)
    kinds = (keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN)
    if any(type(side) not in kinds or side.return_state or side.stateful for side in sides):
        return None
    if len(values) != 1:
        return None
    graph, outputs = context.graph, []
    for side in sides:
        check_policy(side)
        named = dataclasses.replace(call, name=f"{call.name}/{side.name}")
        found = _gated(context, named, side, values)
        if found is None:
            return None
        x = found[0].name
        if side is layer.backward_layer and side.return_sequences:
            last, before, axis, back = (
                graph.constant([value], f"slice_{value}", "int64")
                for value in (-1, np.iinfo("int64").min, 1, -1)
            )
            x = graph.node("Slice", [x, last, before, axis, back], f"{named.name}/in_order")
        outputs.append(x)
    mask = values[0].mask if layer.forward_layer.return_sequences else None
    return merge_sides(context, call.name, layer.merge_mode, outputs, mask)


def merge_sides(
    context: Context, name: str, mode: str | None, outputs: list[str], mask: str | None
) -> list[Value]:
    """Merge the outputs of the two directions as `merge_mode` says."""
    graph = context.graph
    if mode is None:
        return [Value(out, mask) for out in outputs]
    if mode == "concat":
        return [Value(graph.node("Concat", outputs, f"{name}/merge", axis=-1), mask)]
    op = {"sum": "Add", "ave": "Add", "mul": "Mul"}[mode]
    merged = graph.node(op, outputs, f"{name}/merge")
    if mode == "ave":
        merged = graph.node("Div", [merged, graph.constant(2.0, "two")], f"{name}/mean")
    return [Value(merged, mask)]


def _check(
    context: Context, layer: keras.layers.RNN, values: list[Value], keeps: bool, known: bool
) -> str | None:
    """Refuse what has no form; return the mask.

    Args:
        context: The graph.
        layer: The layer.
        values: Its inputs.
        keeps: Whether its states enter and leave the graph.
        known: Whether ONNX has its activations.
    """
    mask, initial = mask_of(context, values[0]), values[1:]
    if context.streaming:
        check_step(layer, bool(initial))
    if layer.stateful and initial:
        raise CannotLowerError("it is stateful and is given an initial state as well")
    if layer.stateful and mask is not None:
        raise CannotLowerError("it is stateful and masked; only SNU and SSNU can be both")
    if keeps and not known:
        raise CannotLowerError(
            "with these activations it has no operator of its own in ONNX, so its states cannot "
            f"enter; use {', '.join(sorted(a.__name__ for a in _ACTIVATIONS))}"
        )
    return mask


def _time_first(context: Context, name: str, layer: keras.layers.RNN, x: str) -> str:
    """Add the sequence as ONNX has it, (time, batch, features), in the order of processing."""
    graph = context.graph
    if context.streaming:
        return _move(graph, "Unsqueeze", x, 0, f"{name}/step")
    x = graph.node("Transpose", [x], f"{name}/time_first", perm=[1, 0, 2])
    if layer.go_backwards:
        last, before, first_axis, back = (
            graph.constant([value], f"slice_{value}", "int64")
            for value in (-1, np.iinfo("int64").min, 0, -1)
        )
        x = graph.node("Slice", [x, last, before, first_axis, back], f"{name}/backwards")
    return x


def _move(graph: GraphBuilder, op: str, x: str, axis: int, hint: str) -> str:
    """Add or take away an axis: `op` is "Unsqueeze" or "Squeeze"."""
    axes = graph.constant([axis], f"axis_{axis}", "int64")
    return graph.node(op, [x, axes], hint)


def _weights(
    graph: GraphBuilder, cell: keras.Layer, order: tuple[int, ...], name: str
) -> list[str]:
    """Return the names of W, R and B in ONNX's shapes and order of gates."""

    def stacked(values: ArrayLike) -> np.ndarray:
        gates = np.split(np.asarray(values, "float32"), len(order), axis=-1)
        return np.concatenate([gates[gate] for gate in order], axis=-1)

    bias = np.zeros((2, len(order) * cell.units), "float32")
    if cell.bias is not None:
        given = np.asarray(cell.bias)
        bias[: given.ndim] = given  # GRU with reset_after has both
    return [
        graph.constant(stacked(cell.kernel).T[None], f"{name}/kernel"),
        graph.constant(stacked(cell.recurrent_kernel).T[None], f"{name}/recurrent_kernel"),
        graph.constant(stacked(bias).reshape(1, -1), f"{name}/bias"),
    ]
