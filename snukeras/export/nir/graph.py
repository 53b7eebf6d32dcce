"""The graph of an NIR file as one that can be run: graphs inside it unfolded, its loops named."""

import dataclasses
import graphlib
from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from snukeras.export.errors import BadInputError
from snukeras.export.nir.file import MAX_EDGES, Edge, Graph, Node
from snukeras.export.nir.writers import NEURONS

# What a loop of a neuron may pass through.
LINEAR: Final = ("Affine", "Conv1d", "Conv2d", "Linear", "Scale")


@dataclasses.dataclass
class Flat:
    """A graph of nodes alone.

    Attributes:
        nodes: By name.
        before: The nodes that feed each.
        loops: The nodes between a recurrent neuron and itself, in order, by its name.
        problems: Why a node cannot be read, by its name.
        order: Names, each behind those that feed it in the same step.
        dead: Nodes that lead to no output.
    """

    nodes: dict[str, Node]
    before: dict[str, list[str]]
    loops: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    problems: dict[str, str] = dataclasses.field(default_factory=dict)
    order: list[str] = dataclasses.field(default_factory=list)
    dead: set[str] = dataclasses.field(default_factory=set)
    _behind: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self.link()

    def link(self) -> None:
        """Find what each node feeds anew, after a change of `before`."""
        self._behind = {name: [] for name in self.nodes}
        for name, sources in self.before.items():
            for source in sources:
                self._behind[source].append(name)

    def behind(self, name: str) -> list[str]:
        """Return the nodes that a node feeds."""
        return self._behind[name]

    def inner(self, name: str) -> set[str]:
        """Return the nodes of the loop of a neuron, with the neuron itself."""
        return {name, *self.loops.get(name, ())}


def flatten(graph: Graph, input_beside_loop: bool = False) -> Flat:
    """Unfold a graph, and find its order and its loops.

    Args:
        graph: What the file holds.
        input_beside_loop: Whether an edge from outside into the product of a loop leads to its
            neuron; see `Writer`.

    Raises:
        BadInputError: It has no input or no output, several inputs, nodes that nothing feeds, or a
            circle that is not the recurrence of a neuron.
    """
    nodes, edges = _unfolded(graph, "")
    flat = Flat(*_without_identities(nodes, edges))
    kinds = {name: node.kind for name, node in flat.nodes.items()}
    inputs = [name for name, kind in kinds.items() if kind == "Input"]
    if len(inputs) != 1:
        listed = f": {', '.join(inputs[:5])}" if inputs else ""
        raise BadInputError(
            f"The NIR network must have one Input node. Received: {len(inputs)}{listed}.",
            "Join the inputs before the first layer, and write the file again.",
        )
    if "Output" not in kinds.values():
        raise BadInputError("The NIR network has no Output node.")
    for name, kind in kinds.items():
        if kind != "Input" and not flat.before[name]:
            raise BadInputError(
                f"No edge leads to the node {name!r} ({kind}) of the NIR network.",
                "Add the edge that is missing, and write the file again.",
            )
        if kind == "Input" and flat.before[name]:
            raise BadInputError(f"An edge leads to the Input node {name!r} of the NIR network.")
    _find_loops(flat, input_beside_loop)
    _sort(flat)
    return flat


def _unfolded(graph: Graph, prefix: str) -> tuple[dict[str, Node], set[Edge]]:
    """Return the nodes and edges of a graph and the graphs inside it, under full names.

    The Input and the Output of a graph inside become nodes that hand on what they get.
    """
    nodes: dict[str, Node] = {}
    edges: set[Edge] = set()
    ends: dict[str, tuple[str, str]] = {}
    for name, node in graph.nodes.items():
        full = name if not prefix or name.startswith(f"{prefix}.") else f"{prefix}.{name}"
        if isinstance(node, Node):
            nodes[full] = dataclasses.replace(node, name=full)
            ends[name] = (full, full)
            continue
        inner, more = _unfolded(node, full)
        doors = [
            [n for n, part in inner.items() if part.kind == kind] for kind in ("Input", "Output")
        ]
        if any(len(found) != 1 for found in doors) or set(inner) & set(nodes):
            raise BadInputError(
                f"The graph {full!r} inside the NIR network must have one Input and one Output."
            )
        for (door,) in doors:
            inner[door] = Node(door, "Identity")
        nodes |= inner
        edges |= more
        ends[name] = (doors[0][0], doors[1][0])
    edges |= {(ends[a][1], ends[b][0]) for a, b in graph.edges}
    return nodes, edges


def _without_identities(
    nodes: dict[str, Node], edges: set[Edge]
) -> tuple[dict[str, Node], dict[str, list[str]]]:
    """Take out the nodes that hand on what they get."""
    before: dict[str, set[str]] = {name: set() for name in nodes}
    behind: dict[str, set[str]] = {name: set() for name in nodes}
    for a, b in edges:
        before[b].add(a)
        behind[a].add(b)
    count = len(edges)
    for name in [name for name, node in nodes.items() if node.kind == "Identity"]:
        sources, targets = before.pop(name) - {name}, behind.pop(name) - {name}
        count += len(sources) * len(targets)
        if count > MAX_EDGES:
            raise BadInputError(f"The NIR network has more than {MAX_EDGES:,} edges.")
        for source in sources:
            behind[source] = (behind[source] - {name}) | targets
        for target in targets:
            before[target] = (before[target] - {name}) | sources
    kept = {name: node for name, node in nodes.items() if name in before}
    order = {name: index for index, name in enumerate(nodes)}
    return kept, {name: sorted(found, key=order.__getitem__) for name, found in before.items()}


def _find_loops(flat: Flat, input_beside_loop: bool) -> None:
    """Find the circles of the graph, and take out the edges that close them.

    Each must be the recurrence of one neuron through products. Others are problems of their nodes.
    """
    names = list(flat.nodes)
    index = {name: number for number, name in enumerate(names)}
    pairs = [(index[a], index[b]) for b, sources in flat.before.items() for a in sources]
    rows, columns = np.array(pairs).T
    shape = (len(names), len(names))
    _, labels = connected_components(
        coo_matrix((np.ones(len(pairs)), (rows, columns)), shape), connection="strong"
    )
    groups: dict[int, list[str]] = {}
    for name, label in zip(names, labels, strict=True):
        groups.setdefault(int(label), []).append(name)
    for group in groups.values():
        if len(group) > 1 or group[0] in flat.before[group[0]]:
            _read_loop(flat, group, input_beside_loop)


def _read_loop(flat: Flat, group: Sequence[str], input_beside_loop: bool) -> None:
    members = set(group)
    neurons = [name for name in group if flat.nodes[name].kind in NEURONS]
    firing = [name for name in neurons if flat.nodes[name].kind in ("CubaLIF", "IF", "LIF")]
    if not neurons:
        raise BadInputError(
            f"The nodes {_listed(group)} of the NIR network feed each other in a circle without a "
            "neuron, so none of them can be computed first.",
            "Take out an edge, or put a neuron into the circle.",
        )
    others = [name for name in group if name not in neurons]
    strange = [name for name in others if flat.nodes[name].kind not in LINEAR]
    problem = ""
    if len(neurons) > 1:
        problem = f"a circle leads through several neurons: {_listed(neurons)}"
    elif not firing:
        problem = "its output comes back to it, and it does not fire"
    elif strange:
        problem = f"its recurrence leads through {flat.nodes[strange[0]].kind} {strange[0]!r}"
    if problem:
        flat.problems |= dict.fromkeys(neurons, problem)
    unit = (firing or neurons)[0]
    for name in others:
        outside = [source for source in flat.before[name] if source not in members]
        if outside and input_beside_loop:
            flat.before[name] = [s for s in flat.before[name] if s in members]
            flat.before[unit] += [s for s in outside if s not in flat.before[unit]]
            flat.link()
        elif outside and not problem:
            problem = f"{outside[0]!r} feeds the recurrent product {name!r}, not the neuron"
            flat.problems[unit] = problem
        if not problem and any(b not in members for b in flat.behind(name)):
            problem = f"the recurrent product {name!r} is read from outside the loop"
            flat.problems[unit] = problem
    flat.loops[unit] = others
    if problem:  # an order that is never used
        for name in neurons:
            flat.before[name] = [s for s in flat.before[name] if s not in members]


def _sort(flat: Flat) -> None:
    """Order the nodes, those of loops behind the neuron, and find those that lead nowhere."""
    sources = {
        name: [s for s in before if s not in flat.inner(name) or name not in flat.loops]
        for name, before in flat.before.items()
    }
    try:
        flat.order = list(graphlib.TopologicalSorter(sources).static_order())
    except graphlib.CycleError as error:
        raise BadInputError(
            f"The nodes {_listed(error.args[1])} of the NIR network feed each other in a circle "
            "that is not the recurrence of one neuron."
        ) from error
    for unit, names in flat.loops.items():
        flat.loops[unit] = [name for name in flat.order if name in set(names)]
    alive = {name for name, node in flat.nodes.items() if node.kind == "Output"}
    waiting = list(alive)
    while waiting:
        for source in flat.before[waiting.pop()]:
            if source not in alive:
                alive.add(source)
                waiting.append(source)
    flat.dead = set(flat.nodes) - alive


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:4]) + (", ..." if len(names) > 4 else "")
