"""The neurons of NIR as layers: SNU with the product before it, or LIF."""

import math
from collections.abc import Sequence

import numpy as np

from snukeras._types import PerUnit, Tensor
from snukeras.export.errors import BadInputError
from snukeras.export.nir.file import MAX_BYTES, Node
from snukeras.export.nir.graph import Flat
from snukeras.export.nir.layers import NotReadError, Sizes, flat, keras_order, reshaped, spread
from snukeras.export.nir.writers import Dynamics
from snukeras.layers import LIF, SNU

# The matrix and the constant that a recurrent neuron gets of its own spikes.
Recurrence = tuple[np.ndarray, np.ndarray]


def is_snu(found: Dynamics) -> bool:
    """Return whether SNU, behind a product, computes a neuron."""
    start = found.initial_potential
    return (
        found.threshold is not None
        and found.reset == "zero"
        and found.synaptic_decay is None
        and not (found.several or found.output_delay)
        and (start is None or not np.any(start))
    )


def recurrence(node: Node, graph: Flat, units: int) -> Recurrence:
    """Return the matrix (to, from) of all ways from a neuron back to itself, and what they add.

    Raises:
        BadInputError: The shapes of the products do not fit.
    """
    if units * units * 8 > MAX_BYTES:
        raise BadInputError(
            f"The node {node.name!r} ({node.kind}) has {units:,} recurrent neurons, more than are "
            "read."
        )
    found: dict[str, Recurrence] = {node.name: (np.eye(units), np.zeros(units))}
    for name in graph.loops[node.name]:
        part = graph.nodes[name]
        sources = [found[source] for source in graph.before[name]]
        try:
            matrix = np.sum([source[0] for source in sources], axis=0)
            constant = np.sum([source[1] for source in sources], axis=0)
            if part.kind == "Scale":
                scale = np.broadcast_to(part.number("scale"), constant.shape)
                found[name] = scale[:, None] * matrix, scale * constant
            else:
                weight = part.number("weight")
                bias = np.broadcast_to(part.number("bias"), weight.shape[:1])
                found[name] = weight @ matrix, weight @ constant + bias
        except ValueError:
            raise _mismatch(node, part, units) from None
    back = [found[source] for source in graph.before[node.name] if source in found]
    for matrix, _ in back:
        if matrix.shape != (units, units):
            raise _mismatch(node, graph.nodes[graph.loops[node.name][-1]], units)
    matrices, constants = zip(*back, strict=True)
    return np.sum(matrices, axis=0), np.sum(constants, axis=0)


def _mismatch(node: Node, part: Node, units: int) -> BadInputError:
    return BadInputError(
        f"The recurrent product {part.name!r} ({part.kind}) of the node {node.name!r} does not fit "
        f"its {units} neurons."
    )


def snu(
    node: Node,
    found: Dynamics,
    x: Tensor,
    sizes: Sizes,
    back: Recurrence | None,
    products: Sequence[Node],
    label: str,
) -> tuple[Tensor, str]:
    """Add an SNU that takes the product before a neuron as its kernel; return its output."""
    (product,) = products
    gain = spread(node, "r", found.gain, sizes)
    bias = gain * np.broadcast_to(product.number("bias"), sizes)
    if found.bias is not None:
        bias = bias + spread(node, "v_leak", found.bias, sizes)
    if back is not None:
        bias = bias + gain * back[1]
    assert found.threshold is not None
    layer = SNU(
        sizes[0],
        decay=_numbers(node, "tau", np.clip(found.decay, 0.0, 1.0), sizes),
        threshold=_numbers(node, "v_threshold", found.threshold, sizes),
        recurrent=back is not None,
        use_bias=bool(np.any(bias)),
        return_sequences=True,
        name=label,
    )
    out = layer(x)
    cell = layer.cell
    cell.kernel.assign((gain[:, None] * product.number("weight")).T)
    if back is not None:
        cell.recurrent_kernel.assign((gain[:, None] * back[0]).T)
    if cell.bias is not None:
        cell.bias.assign(bias)
    return out, "SNU"


def lif(
    node: Node,
    found: Dynamics,
    x: Tensor,
    sizes: Sizes,
    back: Recurrence | None,
    products: Sequence[Node],
    label: str,
) -> tuple[Tensor, str]:
    """Add a LIF layer; maps are vectors in it."""
    units = math.prod(sizes)
    bias = spread(node, "v_leak", np.zeros(()) if found.bias is None else found.bias, sizes)
    gain = spread(node, "r", found.gain, sizes)
    if back is not None:
        if len(sizes) > 1:
            raise NotReadError("recurrent neurons on maps are not read")
        bias = bias + gain * back[1]

    def numbers(name: str, values: np.ndarray | None) -> PerUnit | None:
        return None if values is None else _numbers(node, name, values, sizes)

    start = np.zeros(()) if found.initial_potential is None else found.initial_potential
    layer = LIF(
        units,
        decay=_numbers(node, "tau", np.clip(found.decay, 0.0, 1.0), sizes),
        threshold=numbers("v_threshold", found.threshold),
        reset=found.reset,
        reset_by=numbers("v_threshold", found.reset_by),
        synaptic_decay=numbers("tau_syn", found.synaptic_decay),
        gain=_short(gain),
        bias=_short(bias),
        initial_potential=_numbers(node, "v_leak", start, sizes),
        several=found.several,
        output_delay=found.output_delay,
        recurrent=back is not None,
        return_sequences=True,
        name=label,
    )
    if len(sizes) > 1:
        x = flat(x, sizes, f"{label}_in", channels_first=False)
    out = layer(x)
    if back is not None:
        layer.cell.recurrent_kernel.assign(back[0].T)
    if len(sizes) > 1:
        out = reshaped(out, keras_order(sizes), f"{label}_out")
    return out, "LIF"


def _numbers(node: Node, name: str, values: np.ndarray, sizes: Sizes) -> PerUnit:
    return _short(spread(node, name, values, sizes))


def _short(values: np.ndarray) -> PerUnit:
    """Return one number where all are the same."""
    return float(values[0]) if np.all(values == values[0]) else values.tolist()
