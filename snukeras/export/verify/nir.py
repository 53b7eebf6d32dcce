"""Prove an NIR graph: stepped by its own equations in float64, against the Keras model."""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from snukeras.export.errors import BadInputError
from snukeras.export.network import Network
from snukeras.export.nir.layout import Layout, lay_out
from snukeras.export.nir.write import library, unchecked
from snukeras.export.samples import Samples
from snukeras.export.verify.results import NirResult
from snukeras.export.verify.running import runner
from snukeras.export.verify.spikes import contradictions, potentials_of

if TYPE_CHECKING:
    from nir import NIRGraph, NIRNode

# Outputs behind the last spikes: Keras adds in float32.
_ABSOLUTE, _RELATIVE = 1e-4, 1e-4


def compare_nir(network: Network, path: str | Path, samples: Samples) -> NirResult:
    """Step an NIR graph by Euler's rule and compare it with the Keras model on the samples.

    Each decision of the graph is checked against the potential that the Keras layer has for the
    graph's own input and spikes: it may differ within float32 rounding of the threshold alone.
    """
    try:
        nir = library()
    except BadInputError as error:
        return NirResult(True, False, 0, 0, error.message)
    try:
        graph = unchecked(nir.read, str(path))
        dt = float(graph.metadata["dt"])
    except Exception as error:  # h5py and nir raise whatever their parts raise
        return NirResult(False, True, 0, 0, f"it cannot be read: {error}")
    layout = lay_out(network.topology, nir, dt)
    if set(graph.nodes) != set(layout.nodes) or set(graph.edges) != set(layout.edges):
        return NirResult(False, True, 0, 0, "it has other nodes or edges")
    return _compare(network, graph, layout, nir, dt, samples)


def _compare(
    network: Network,
    graph: "NIRGraph",
    layout: Layout,
    nir: ModuleType,
    dt: float,
    samples: Samples,
) -> NirResult:
    plan = network.topology
    cells = {call.name: call for call in plan.calls if call.name in layout.units}
    keys = {ref.key for _, ref in plan.outputs} | {(name, 0) for name in layout.units}
    run = runner(plan, network.model, sorted(keys))
    outputs = flips = 0
    for feeds in samples.batches:
        values = run(feeds)
        given = {}
        for (_, ref), feed in zip(plan.inputs, feeds, strict=True):
            place = layout.source[ref.key]
            flat = feed.reshape(*feed.shape[:2], -1)
            given[place.labels[0]] = flat[..., place.order]
        found = simulate(nir, graph, given, dt)
        clean = np.ones(len(feeds[0]), dtype=bool)
        for name, label in layout.units.items():
            call, place = cells[name], layout.source[(name, 0)]
            y = place.turned(found[label])
            y = y.reshape(*y.shape[:2], -1)
            before = layout.source[call.inputs[0].key]
            x = before.turned(np.sum([found[source] for source in before.labels], axis=0))
            cell = call.op.cell
            s, bound = potentials_of(cell, x, y)
            if wrong := contradictions(cell, s, bound, y):
                return NirResult(
                    False, True, outputs, flips, f"{wrong} spikes of {name} differ beyond rounding"
                )
            different = y != values[(name, 0)].reshape(y.shape)
            outputs, flips = outputs + y.size, flips + int(different.sum())
            clean &= ~different.any(axis=(1, 2))
        for label, (name, ref) in zip(layout.outputs, plan.outputs, strict=True):
            got = layout.source[ref.key].turned(found[label])[clean]
            expected = values[ref.key][clean]
            if not np.allclose(got, expected, _RELATIVE, _ABSOLUTE):
                return NirResult(False, True, outputs, flips, f"the output {name} differs")
    return NirResult(True, True, outputs, flips, "")


def simulate(
    nir: ModuleType, graph: "NIRGraph", inputs: dict[str, np.ndarray], dt: float
) -> dict[str, np.ndarray]:
    """Step a graph by Euler's rule; units reset to zero in the step of the spike.

    Args:
        nir: The library.
        graph: An NIR graph of nodes that `snukeras.export.nir.layout` makes.
        inputs: By node (batch, time, ...).
        dt: Seconds that a step takes.

    Returns:
        What every node puts out, (batch, time, ...).
    """
    before = {name: [a for a, b in graph.edges if b == name] for name in graph.nodes}
    order = _order(nir, graph, before)
    batch, steps = next(iter(inputs.values())).shape[:2]
    potentials = {
        name: np.zeros((batch, *node.r.shape)) + getattr(node, "v_leak", 0.0)
        for name, node in graph.nodes.items()
        if _is_neuron(nir, node)
    }
    currents = {name: np.zeros_like(v) for name, v in potentials.items()}
    last = {name: np.zeros_like(v) for name, v in potentials.items()}
    found: dict[str, list[np.ndarray]] = {name: [] for name in graph.nodes}
    for t in range(steps):
        now: dict[str, np.ndarray] = {}
        for name in order:
            node = graph.nodes[name]
            if isinstance(node, nir.Input):
                value = inputs[name][:, t].astype("float64")
            else:
                # An edge back into a unit carries the spikes of the step before.
                value = np.sum([now[a] if a in now else last[a] for a in before[name]], axis=0)
            if name not in potentials:
                value = _at_once(nir, node, value)
            else:
                if isinstance(node, nir.CubaLIF):
                    i = currents[name]
                    value = i + dt / node.tau_syn * (node.w_in * value - i)
                    currents[name] = value
                value, potentials[name] = _step(nir, node, potentials[name], value, dt)
            now[name] = value
            found[name].append(value)
        last = {name: now[name] for name in potentials}
    return {name: np.stack(values, axis=1) for name, values in found.items()}


def _at_once(nir: ModuleType, node: "NIRNode", x: np.ndarray) -> np.ndarray:
    """Return what a node without a state makes of numbers (batch, ...)."""
    if isinstance(node, nir.Linear | nir.Affine):
        return x @ node.weight.astype("float64").T + getattr(node, "bias", 0.0)
    if isinstance(node, nir.Scale):
        return x * node.scale
    if isinstance(node, nir.Flatten):
        return x.reshape(len(x), -1)
    if isinstance(node, nir.Conv1d | nir.Conv2d):
        return _convolved(node, x)
    if isinstance(node, nir.AvgPool2d):
        pads = [(int(p), int(p)) for p in node.padding]
        windows = _windows(x, pads, node.kernel_size, node.stride, (1, 1))
        return windows.mean(axis=(-2, -1))
    return x


def _convolved(node: "NIRNode", x: np.ndarray) -> np.ndarray:
    """Return a convolution of maps (batch, channels, ...), with float64 sums."""
    weight = np.asarray(node.weight, "float64")
    size = weight.shape[2:]
    stride, dilation = (
        [int(value) for value in np.broadcast_to(given, len(size))]
        for given in (node.stride, node.dilation)
    )
    if isinstance(node.padding, str):
        reach = [d * (k - 1) for d, k in zip(dilation, size, strict=True)]
        pads = [(r // 2, r - r // 2) if node.padding == "same" else (0, 0) for r in reach]
    else:
        pads = [(int(p), int(p)) for p in np.broadcast_to(node.padding, len(size))]
    windows = _windows(x, pads, size, stride, dilation)
    places, taps = "hw"[: len(size)], "xy"[: len(size)]
    sums = np.einsum(f"bc{places}{taps},fc{taps}->bf{places}", windows, weight, optimize=True)
    return sums + np.reshape(node.bias, (-1, *(1,) * len(size)))


def _windows(
    x: np.ndarray,
    pads: Sequence[tuple[int, int]],
    size: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> np.ndarray:
    """Return the windows of maps: (batch, channels, *places, *size)."""
    padded = np.pad(x, [(0, 0), (0, 0), *pads])
    axes = tuple(range(2, x.ndim))
    spans = [int(d) * (int(k) - 1) + 1 for d, k in zip(dilation, size, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=axes)
    steps = [slice(None, None, int(s)) for s in stride]
    taps = [slice(None, None, int(d)) for d in dilation]
    return windows[(slice(None), slice(None), *steps, *taps)]


def _step(
    nir: ModuleType, node: "NIRNode", v: np.ndarray, drive: np.ndarray, dt: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the spikes (or the potentials, of LI and I) and the potentials after a step."""
    if isinstance(node, nir.LIF | nir.LI | nir.CubaLIF):
        tau = node.tau_mem if isinstance(node, nir.CubaLIF) else node.tau
        v = v + dt / tau * (node.v_leak - v + node.r * drive)
    else:
        v = v + dt * node.r * drive
    if isinstance(node, nir.LI | nir.I):
        return v, v
    spikes = (v > node.v_threshold).astype("float64")
    return spikes, np.where(spikes > 0, 0.0, v)


def _is_neuron(nir: ModuleType, node: "NIRNode") -> bool:
    return isinstance(node, nir.CubaLIF | nir.I | nir.IF | nir.LI | nir.LIF)


def _order(nir: ModuleType, graph: "NIRGraph", before: dict[str, list[str]]) -> list[str]:
    """Order the nodes so that each comes behind those that feed it in the same step."""
    waiting, order = list(graph.nodes), []
    while waiting:
        ready = [
            name
            for name in waiting
            if all(a in order or _loops_back(nir, graph, before, a, name) for a in before[name])
        ]
        order += ready
        waiting = [name for name in waiting if name not in ready]
        if not ready:
            raise ValueError(f"The graph has a circle through {waiting}")
    return order


def _loops_back(
    nir: ModuleType, graph: "NIRGraph", before: dict[str, list[str]], source: str, name: str
) -> bool:
    """Return whether an edge from a unit to a Linear node is on the way back to that unit."""
    return _is_neuron(nir, graph.nodes[source]) and name in before[source]
