"""Export networks of spiking units as NIR, the Neural Intermediate Representation (HDF5)."""

import dataclasses
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import h5py

from snukeras import __version__
from snukeras.export.errors import BadInputError
from snukeras.export.network import Network
from snukeras.export.nir.layout import lay_out
from snukeras.export.records import Record

if TYPE_CHECKING:
    from nir import NIRGraph

NOTE = (
    "The unit resets one step late: it shows its potential at the step of the spike and drops it "
    "at the next, s_t = W x_t + decay s_(t-1) (1 - y_(t-1)), y_t = (s_t > threshold). A LIF or IF "
    "node that resets to v_reset = 0 in the step of the spike, stepped with Euler's rule and this "
    "dt, has the same spikes; its potential differs at the steps of spikes alone."
)


@dataclasses.dataclass(frozen=True)
class NirFile(Record):
    """What model.nir holds: the types of its nodes by name, the number of edges, and dt in s."""

    file: str
    nodes: dict[str, str]
    edges: int
    dt: float


def library() -> ModuleType:
    """Import the library nir.

    Raises:
        BadInputError: It is not installed.
    """
    try:
        import nir
    except ImportError as error:
        raise BadInputError(
            "The NIR export needs the library nir, which is not installed.",
            "pip install 'snukeras[nir]'",
        ) from error
    return nir


def unchecked(make: Callable[..., "NIRGraph"], *given: object) -> "NIRGraph":
    """Make or read a graph without the library's check of shapes.

    nir 1.0.8 counts the places of a map along both axes with the height of the kernel, so it
    refuses kernels that are not square. nir 1.0.4 checks nothing.
    """
    try:
        return make(*given, type_check=False)
    except TypeError:
        return make(*given)


def write_nir(network: Network, path: str | Path, dt: float) -> NirFile:
    """Write a network as an NIR graph.

    An SNU layer becomes Linear or Affine (its kernel and bias) and LIF with

        tau = dt / (1 - decay),  r = tau / dt,  v_leak = 0,  v_threshold = threshold

    or IF with r = 1 / dt where all its decays are 1; a recurrent kernel becomes a Linear node on
    an edge from the unit back to itself. A LIF layer that resets to zero, or does not fire, becomes
    LIF, IF, CubaLIF, LI or I. Dense layers without activation become Linear or Affine.
    ConvSNU and the convolutions of Keras become Conv1d or Conv2d, pooling by means AvgPool2d (on
    lines a Conv1d), Flatten where a vector is needed: maps are (channels, height, width) in the
    file.
    NIR does not store dt, so it stands in the metadata, with how the unit resets. The file holds
    what nir 1.0.4 knows, so that the tools that depend on it open the file; later versions take 0
    for the v_reset that is not in it.

    Args:
        network: A Sequential or functional model.
        path: File to write.
        dt: Seconds that one step of the network takes.

    Raises:
        BadInputError: dt is not a positive number, or the library nir is not installed.
        UnsupportedLayersError: NIR has no form for a layer; all such layers are named.
    """
    if not 1e-12 <= dt <= 1e6:
        raise BadInputError(
            f"dt must be a positive number of seconds, from 1e-12 to 1e6. Received: {dt}.",
            "Give --dt 1e-3 or such.",
        )
    nir = library()
    layout = lay_out(network.topology, nir, dt)
    graph = unchecked(nir.NIRGraph, layout.nodes, layout.edges)
    graph.metadata = {"dt": float(dt), "snukeras": __version__, "reset": NOTE}
    with io.BytesIO() as memory:
        nir.write(memory, graph)
        _rewrite(memory, path, list(layout.nodes))
    return NirFile(
        file=Path(path).name,
        nodes={name: type(node).__name__ for name, node in layout.nodes.items()},
        edges=len(layout.edges),
        dt=float(dt),
    )


def _rewrite(memory: io.BytesIO, path: str | Path, order: Sequence[str]) -> None:
    """Write a graph to its file, its nodes in the order of the network.

    Resets and the metadata of nodes are left out, because nir 1.0.4 refuses them. The library
    sorts nodes by name, and some readers run nodes in the order of the file.
    HDF5 would note the time of writing in a group that keeps its order; it is told not to, so
    that the same network gives the same bytes.

    Args:
        memory: The file as the library writes it.
        path: File to write.
        order: Names of the nodes.
    """
    listed = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
    listed.set_link_creation_order(h5py.h5p.CRT_ORDER_TRACKED | h5py.h5p.CRT_ORDER_INDEXED)
    listed.set_obj_track_times(False)
    with h5py.File(memory, "r") as source, h5py.File(path, "w") as file:
        for key in sorted(source):
            if key != "node":
                source.copy(key, file)
        graph = file.create_group("node")
        for key in sorted(source["node"]):
            if key != "nodes":
                source["node"].copy(key, graph)
        nodes = h5py.Group(h5py.h5g.create(graph.id, b"nodes", gcpl=listed))
        for name in order:
            node = nodes.create_group(name)
            for key, value in source["node/nodes"][name].items():
                if key not in ("v_reset", "metadata"):
                    source.copy(value, node, name=key)
