"""Read the content of an NIR file, which may come from anywhere: nothing in it is trusted.

HDF5 is read with h5py alone, so that files of all versions of the library nir open without it.
"""

import dataclasses
from pathlib import Path
from typing import Final

import h5py
import numpy as np

from snukeras._files import regular
from snukeras.export.errors import BadInputError

Value = np.ndarray | str
Edge = tuple[str, str]

# What a file may hold at most.
MAX_BYTES: Final = 2**30
MAX_NODES: Final = 2_000
MAX_EDGES: Final = 50_000
MAX_DEPTH: Final = 8
_HINT = "Write it again with nir.write(PATH, graph)."

# What each kind of node needs, and what it may have: numbers, unless the file says otherwise.
FIELDS: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "Affine": (("weight", "bias"), ()),
    "AvgPool2d": (("kernel_size", "stride", "padding"), ()),
    "Conv1d": (("weight", "stride", "padding", "dilation", "groups"), ("bias", "input_shape")),
    "Conv2d": (("weight", "stride", "padding", "dilation", "groups"), ("bias", "input_shape")),
    "CubaLI": (("tau_syn", "tau_mem", "r", "v_leak"), ("w_in",)),
    "CubaLIF": (("tau_syn", "tau_mem", "r", "v_leak", "v_threshold"), ("w_in", "v_reset")),
    "Flatten": (("start_dim", "end_dim"), ("input_type",)),
    "I": (("r",), ()),
    "IF": (("r", "v_threshold"), ("v_reset",)),
    "Identity": ((), ()),
    "Input": ((), ("shape",)),
    "LI": (("tau", "r", "v_leak"), ()),
    "LIF": (("tau", "r", "v_leak", "v_threshold"), ("v_reset",)),
    "Linear": (("weight",), ()),
    "Output": ((), ("shape",)),
    "Scale": (("scale",), ()),
    "SumPool2d": (("kernel_size", "stride", "padding"), ()),
    "Threshold": (("threshold",), ()),
}


@dataclasses.dataclass(frozen=True)
class Node:
    """A node: its name, its kind (a word of NIR), and its numbers by name in float64."""

    name: str
    kind: str
    values: dict[str, Value] = dataclasses.field(default_factory=dict)

    def number(self, name: str, default: float = 0.0) -> np.ndarray:
        """Return the numbers of that name, or the default where the file has none."""
        value = self.values.get(name)
        if isinstance(value, str):
            raise BadInputError(f"The node {self.name!r} has a text for {name!r}: {value[:40]!r}.")
        return np.asarray(default if value is None else value, "float64")


@dataclasses.dataclass(frozen=True)
class Graph:
    """A graph, or a graph inside it.

    Attributes:
        nodes: By name; a graph inside the graph is one of them.
        edges: Pairs of names, each once.
        version: That of the library nir that wrote the file.
        metadata: Numbers and texts that the writer left.
    """

    nodes: "dict[str, Node | Graph]"
    edges: tuple[Edge, ...]
    version: str = ""
    metadata: dict[str, Value] = dataclasses.field(default_factory=dict)


def read_graph(path: str | Path) -> Graph:
    """Read a file.

    Raises:
        BadInputError: There is no such file, it is not HDF5, damaged, larger than can be handled,
            or not an NIR graph; the message is one sentence.
    """
    path = Path(path)
    if "\0" in str(path):
        raise BadInputError(f"{str(path)!r} cannot be the name of a file.")
    try:
        if not regular(path).is_file():
            raise BadInputError(f"There is no file {path}.", "Give an .nir file.")
        if not h5py.is_hdf5(path):
            raise BadInputError(f"{path} is not an NIR file: it is not HDF5.", _HINT)
        with h5py.File(path, "r") as file:
            return _Reader(path).graph(file)
    except BadInputError:
        raise
    except Exception as error:  # h5py raises whatever its parts raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise BadInputError(
            f"{path} cannot be read: {lines[0][:200].rstrip('.')}.", _HINT
        ) from error


class _Reader:
    """Reads the groups of a file, and counts what they hold."""

    def __init__(self, path: Path) -> None:
        self.path, self.bytes, self.nodes = path, 0, 0

    def graph(self, file: h5py.File) -> Graph:
        root = self._member(file, "node", "the file")
        if not isinstance(root, h5py.Group):
            raise self._bad("it has no graph at 'node'")
        found = self._node("", root, 0)
        if not isinstance(found, Graph):
            raise self._bad(f"it holds a single {found.kind} node, not a graph")
        version = self._member(file, "version", "the file")
        text = self._value(version, "version") if isinstance(version, h5py.Dataset) else ""
        metadata = {}
        group = self._member(root, "metadata", "the graph")
        if isinstance(group, h5py.Group):
            for name in list(group)[:100]:
                item = self._member(group, name, "the metadata")
                if isinstance(item, h5py.Dataset):
                    metadata[name] = self._value(item, f"metadata/{name}")
        return dataclasses.replace(found, version=str(text), metadata=metadata)

    def _node(self, name: str, group: h5py.Group, depth: int) -> Node | Graph:
        place = f"the node {name!r}" if name else "the graph"
        self.nodes += 1
        if self.nodes > MAX_NODES or depth > MAX_DEPTH:
            raise self._bad(f"it has more than {MAX_NODES:,} nodes, or graphs {MAX_DEPTH} deep")
        kind = self._member(group, "type", place)
        kind = self._value(kind, f"{name}/type") if isinstance(kind, h5py.Dataset) else None
        if not isinstance(kind, str):
            raise self._bad(f"{place} has no type")
        if kind == "NIRGraph":
            return self._inner(name, group, depth)
        needed, allowed = FIELDS.get(kind, ((), ()))
        values: dict[str, Value] = {}
        for key in (*needed, *allowed):
            item = self._member(group, key, place)
            if isinstance(item, h5py.Dataset):
                value = self._value(item, f"{name}/{key}")
                if isinstance(value, np.ndarray) and not np.all(np.isfinite(value)):
                    raise self._bad(f"{place} ({kind}) has NaN or infinity in {key!r}")
                values[key] = value
            elif key in needed:
                raise self._bad(f"{place} ({kind}) has no {key!r}")
        return Node(name, kind, values)

    def _inner(self, name: str, group: h5py.Group, depth: int) -> Graph:
        place = f"the graph {name!r}" if name else "the graph"
        members = self._member(group, "nodes", place)
        edges = self._member(group, "edges", place)
        if not isinstance(members, h5py.Group) or not isinstance(edges, h5py.Dataset):
            raise self._bad(f"{place} has no nodes or no edges")
        nodes: dict[str, Node | Graph] = {}
        for key in members:
            item = self._member(members, key, place)
            if not isinstance(item, h5py.Group):
                raise self._bad(f"{key!r} among the nodes of {place} is not a node")
            nodes[key] = self._node(key, item, depth + 1)
        return Graph(nodes, self._edges(edges, nodes, place))

    def _edges(
        self, dataset: h5py.Dataset, nodes: "dict[str, Node | Graph]", place: str
    ) -> tuple[Edge, ...]:
        if dataset.size > 2 * MAX_EDGES:
            raise self._bad(f"{place} has more than {MAX_EDGES:,} edges")
        if dataset.size == 0:
            raise self._bad(f"{place} has no edges")
        if dataset.ndim != 2 or dataset.shape[1] != 2:
            raise self._bad(f"the edges of {place} are not pairs of names")
        self._check(dataset, "edges")
        pairs = [tuple(_text(end) for end in pair) for pair in dataset[()].tolist()]
        for pair in pairs:
            for end in pair:
                if end not in nodes:
                    raise self._bad(f"an edge of {place} names {end!r}, which is no node")
        return tuple(dict.fromkeys((a, b) for a, b in pairs))

    def _member(self, group: h5py.Group, name: str, place: str) -> h5py.Group | h5py.Dataset | None:
        """Return a member that lies in the file itself, or None; links may lead in circles."""
        if name not in group:
            return None
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise self._bad(f"{name!r} of {place} is a link to another place")
        return group[name]

    def _check(self, dataset: h5py.Dataset, place: str) -> None:
        """Refuse what is large or lies elsewhere, before it is read."""
        if dataset.is_virtual or dataset.external:
            raise self._bad(f"{place!r} lies in another file")
        self.bytes += dataset.size * max(dataset.dtype.itemsize, 1)
        if self.bytes > MAX_BYTES:
            raise self._bad(f"it unpacks to more than {MAX_BYTES:,} bytes")

    def _value(self, dataset: h5py.Dataset, place: str) -> Value:
        if dataset.shape is None:
            return np.zeros(0)
        self._check(dataset, place)
        if dataset.dtype.kind in "fiub":
            return np.asarray(dataset[()], "float64")
        if dataset.shape == () and dataset.dtype.kind in "OS":
            return _text(dataset[()])
        raise self._bad(f"{place!r} is neither numbers nor a text")

    def _bad(self, problem: str) -> BadInputError:
        return BadInputError(f"{self.path} is not an NIR network that can be read: {problem}.")


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
