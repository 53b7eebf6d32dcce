"""Export networks of spiking units as NIR, the Neural Intermediate Representation (HDF5)."""

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import h5py
import keras
import numpy as np

from snukeras import __version__
from snukeras.export.errors import BadInputError, UnsupportedLayersError
from snukeras.export.network import Network
from snukeras.export.nir import lif
from snukeras.export.records import Record
from snukeras.layers import LIF, SNU, SNUCell
from snukeras.network.topology import Call, Key, Topology

if TYPE_CHECKING:
    from nir import NIRNode

NOTE = (
    "The unit resets one step late: it shows its potential at the step of the spike and drops it "
    "at the next, s_t = W x_t + decay s_(t-1) (1 - y_(t-1)), y_t = (s_t > threshold). A LIF or IF "
    "node that resets to v_reset = 0 in the step of the spike, stepped with Euler's rule and this "
    "dt, has the same spikes; its potential differs at the steps of spikes alone."
)
_NOTHING = (keras.layers.Dropout, keras.layers.SpatialDropout1D, keras.layers.GaussianNoise)


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


def write_nir(network: Network, path: str | Path, dt: float) -> NirFile:
    """Write a network as an NIR graph.

    An SNU layer becomes Linear or Affine (its kernel and bias) and LIF with

        tau = dt / (1 - decay),  r = tau / dt,  v_leak = 0,  v_threshold = threshold

    or IF with r = 1 / dt where all its decays are 1; a recurrent kernel becomes a Linear node on
    an edge from the unit back to itself. A LIF layer that resets to zero, or does not fire, becomes
    LIF, IF, CubaLIF, LI or I. Dense layers without activation become Linear or Affine.
    NIR does not store dt, so it stands in the metadata, with how the unit resets. The file holds
    what nir 1.0.4 knows, so that the tools that depend on it open the file; later versions take 0
    for the v_reset that is not in it.

    Args:
        network: A Sequential or functional model of SNU, LIF, Dense and dropout layers.
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
    plan = network.topology
    problems = {call.name: reason for call in plan.calls if (reason := _problem(call))}
    for name, ref in plan.inputs:
        if len(ref.shape) != 3 or ref.shape[-1] is None:
            problems[name] = "an input must be (batch, time, features) in the NIR export"
    if problems:
        raise UnsupportedLayersError(problems)
    layout = lay_out(plan, nir, dt)
    graph = nir.NIRGraph(layout.nodes, layout.edges)
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


@dataclasses.dataclass
class Layout:
    """The nodes and edges of a graph, and the node for each part of the network.

    Attributes:
        nodes: By label.
        edges: Pairs of labels.
        source: The node that puts out each tensor of the Keras model.
        units: The node of each layer of units, by the name of its call.
        outputs: The Output nodes, in the order of the network.
    """

    nodes: "dict[str, NIRNode]" = dataclasses.field(default_factory=dict)
    edges: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    source: dict[Key, str] = dataclasses.field(default_factory=dict)
    units: dict[str, str] = dataclasses.field(default_factory=dict)
    outputs: list[str] = dataclasses.field(default_factory=list)

    def label(self, name: str) -> str:
        """Return a free label; "/" would make a group in HDF5, "." a graph in the graph."""
        label = name.replace("/", "_").replace(".", "_")
        while label in self.nodes:
            label += "_"
        return label


def lay_out(plan: Topology, nir: ModuleType, dt: float) -> Layout:
    """Make the nodes and edges of a network that NIR can express."""
    found = Layout()
    for name, ref in plan.inputs:
        label = found.label(name)
        found.nodes[label] = nir.Input(input_type={"input": np.array([ref.shape[-1]])})
        found.source[ref.key] = label
    for call in plan.calls:
        layer = call.op.layer if isinstance(call.op, keras.layers.TimeDistributed) else call.op
        label, before = found.label(call.name), found.source[call.inputs[0].key]
        if isinstance(layer, SNU | LIF):
            cell = layer.cell
            if isinstance(layer, SNU):
                kernel = found.label(f"{label}_kernel")
                found.nodes[kernel] = _linear(nir, cell.kernel, cell.bias)
                found.edges.append((before, kernel))
                before = kernel
            found.edges.append((before, label))
            if cell.recurrent_kernel is not None:
                loop = found.label(f"{label}_recurrent_kernel")
                found.nodes[loop] = _linear(nir, cell.recurrent_kernel, None)
                found.edges += [(label, loop), (loop, label)]
            # Behind its kernel, since there are readers that run nodes in their order.
            make = _unit if isinstance(layer, SNU) else lif.unit
            found.nodes[label] = make(nir, cell, dt)
            if cell.spiking:
                found.units[call.name] = label
        elif isinstance(layer, keras.layers.Dense):
            found.nodes[label] = _linear(nir, layer.kernel, layer.bias)
            found.edges.append((before, label))
        else:
            label = before
        found.source[(call.name, 0)] = label
    for name, ref in plan.outputs:
        label = found.label(f"{name}_output")
        found.nodes[label] = nir.Output(output_type={"output": np.array([ref.shape[-1]])})
        found.edges.append((found.source[ref.key], label))
        found.outputs.append(label)
    return found


def _problem(call: Call) -> str | None:
    """Return why NIR cannot express a call; None if it can."""
    layer = call.op
    if isinstance(layer, keras.layers.TimeDistributed):
        layer = layer.layer
    if len(call.inputs) != 1:
        return "it takes several inputs, a mask or initial states"
    if "@" in call.name:
        return "it is called more than once"
    if isinstance(layer, _NOTHING):
        return None
    if isinstance(layer, keras.layers.Dense):
        if layer.activation is keras.activations.linear:
            return None
        name = getattr(layer.activation, "__name__", type(layer.activation).__name__)
        return f"NIR has no {name} activation; make the layer linear and apply it outside"
    if isinstance(layer, LIF):
        return lif.problem(layer)
    if not isinstance(layer, SNU):
        return f"NIR has no form for {type(layer).__name__}"
    cell = layer.cell
    if not cell.spiking:
        return "NIR has no soft (sigmoid) unit; only SNU, which spikes, can be expressed"
    if cell.state_activation is not keras.activations.linear:
        name = getattr(cell.state_activation, "__name__", cell.state_activation)
        return (
            f"NIR has no rectified state (state_activation {name}); only 'linear' is a leaky "
            "integrator"
        )
    if cell.lateral_inhibition:
        return "NIR has no lateral inhibition"
    if layer.return_membrane:
        return "NIR has no output for membrane potentials (return_membrane)"
    if not layer.return_sequences or layer.return_state or layer.go_backwards:
        return "NIR runs forward and puts out every step (return_sequences alone)"
    decay = cell.decay_values()
    if np.any(decay == 1.0) and not np.all(decay == 1.0):
        return "a decay of 1 has no finite tau; NIR's IF node takes it if all units have it"
    return None


def _unit(nir: ModuleType, cell: SNUCell, dt: float) -> "NIRNode":
    """Return the LIF node of a cell, or the IF node where it does not decay."""
    decay = cell.decay_values().astype("float64")
    zero = np.zeros(cell.units)
    threshold = cell.threshold_values().astype("float64")
    if np.all(decay == 1.0):
        return nir.IF(r=np.full(cell.units, 1.0 / dt), v_threshold=threshold)
    tau = dt / (1.0 - decay)
    return nir.LIF(tau=tau, r=tau / dt, v_leak=zero, v_threshold=threshold)


def _linear(nir: ModuleType, kernel: keras.Variable, bias: keras.Variable | None) -> "NIRNode":
    """Return Linear or Affine; NIR's matrices are (outputs, inputs)."""
    weight = keras.ops.convert_to_numpy(kernel).T.copy()
    if bias is None:
        return nir.Linear(weight=weight)
    return nir.Affine(weight=weight, bias=keras.ops.convert_to_numpy(bias))
