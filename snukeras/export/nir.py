"""Export networks of spiking units as NIR, the Neural Intermediate Representation (HDF5)."""

from typing import Any

import keras
import numpy as np

from snukeras import __version__
from snukeras.export.errors import BadInputError, UnsupportedLayersError
from snukeras.layers import SNU
from snukeras.network import topology

NOTE = (
    "The unit resets one step late: it shows its potential at the step of the spike and drops it "
    "at the next, s_t = W x_t + decay s_(t-1) (1 - y_(t-1)), y_t = (s_t > threshold). A LIF or IF "
    "node that resets to v_reset = 0 in the step of the spike, stepped with Euler's rule and this "
    "dt, has the same spikes; its potential differs at the steps of spikes alone."
)
RECURRENT = (
    "An edge back into a unit's input carries the spikes of the step before: they take one dt."
)
_NOTHING = (keras.layers.Dropout, keras.layers.SpatialDropout1D, keras.layers.GaussianNoise)


def write_nir(model: keras.Model, path, dt: float) -> dict[str, Any]:
    """Writes a model as an NIR graph.

    An SNU layer becomes Linear or Affine (its kernel and bias) and LIF with

        tau = dt / (1 - decay),  r = tau / dt,  v_leak = v_reset = 0,  v_threshold = threshold

    or IF with r = 1 / dt where all its decays are 1; a recurrent kernel becomes a Linear node on
    an edge from the unit back to itself. Dense layers without activation become Linear or Affine.
    NIR does not store dt, so it stands in the metadata, with how the unit resets.

    Args:
        model: Sequential or functional model of SNU, Dense and dropout layers.
        path: file to write.
        dt: seconds that one step of the network takes.

    Returns:
        {"nodes": names and types, "edges": number of edges, "dt": dt}.

    Raises:
        BadInputError: dt is not a positive number, or the library nir is not installed.
        UnsupportedLayersError: NIR has no form for a layer; all such layers are named.
    """
    if not 0 < dt < float("inf"):
        raise BadInputError(
            f"dt must be a positive number of seconds. Received: {dt}.", "Give --dt 1e-3 or such."
        )
    try:
        import nir
    except ImportError as error:
        raise BadInputError(
            "The NIR export needs the library nir, which is not installed.",
            "pip install 'snukeras[nir]'",
        ) from error
    plan = topology.read(model)
    problems = {call.name: reason for call in plan.calls if (reason := _problem(call))}
    for name, ref in plan.inputs:
        if len(ref.shape) != 3 or ref.shape[-1] is None:
            problems[name] = "an input must be (batch, time, features) in the NIR export"
    if problems:
        raise UnsupportedLayersError(problems)

    metadata = {"dt": float(dt), "snukeras": __version__}
    nodes: dict[str, Any] = {}
    edges: list[tuple[str, str]] = []
    # The node that puts out each tensor of the Keras model.
    source: dict[topology.Key, str] = {}
    for name, ref in plan.inputs:
        label = _label(name, nodes)
        nodes[label] = nir.Input(input_type={"input": np.array([ref.shape[-1]])})
        source[ref.key] = label
    for call in plan.calls:
        (ref, *_) = call.inputs
        layer = call.op.layer if isinstance(call.op, keras.layers.TimeDistributed) else call.op
        label, before = _label(call.name, nodes), source[ref.key]
        if isinstance(layer, SNU):
            cell = layer.cell
            nodes[label] = _unit(nir, cell, dt, metadata)
            kernel = _label(f"{label}_kernel", nodes)
            nodes[kernel] = _linear(nir, cell.kernel, cell.bias)
            edges += [(before, kernel), (kernel, label)]
            if cell.recurrent_kernel is not None:
                loop = _label(f"{label}_recurrent_kernel", nodes)
                nodes[loop] = _linear(nir, cell.recurrent_kernel, None)
                nodes[loop].metadata = {"delay": RECURRENT}
                edges += [(label, loop), (loop, label)]
        elif isinstance(layer, keras.layers.Dense):
            nodes[label] = _linear(nir, layer.kernel, layer.bias)
            edges.append((before, label))
        else:
            label = before
        source[(call.name, 0)] = label
    for name, ref in plan.outputs:
        label = _label(f"{name}_output", nodes)
        nodes[label] = nir.Output(output_type={"output": np.array([ref.shape[-1]])})
        edges.append((source[ref.key], label))
    graph = nir.NIRGraph(nodes, edges)
    graph.metadata = {**metadata, "reset": NOTE}
    nir.write(str(path), graph)
    return {
        "nodes": {name: type(node).__name__ for name, node in nodes.items()},
        "edges": len(edges),
        "dt": float(dt),
    }


def _problem(call):
    """Why NIR cannot express a call; None if it can."""
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
        return (
            f"NIR has no {layer.activation.__name__} activation; make the layer linear and apply "
            "it outside"
        )
    if not isinstance(layer, SNU):
        return f"NIR has no form for {type(layer).__name__}"
    cell = layer.cell
    if not cell.spiking:
        return "NIR has no soft (sigmoid) unit; only SNU, which spikes, can be expressed"
    if cell.state_activation is not keras.activations.linear:
        return (
            f"NIR has no rectified state (state_activation "
            f"{getattr(cell.state_activation, '__name__', cell.state_activation)}); only 'linear' "
            "is a leaky integrator"
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


def _unit(nir, cell, dt, metadata):
    decay = cell.decay_values().astype("float64")
    zero = np.zeros(cell.units)
    threshold = cell.threshold_values().astype("float64")
    metadata = {**metadata, "reset": NOTE}
    if np.all(decay == 1.0):
        r = np.full(cell.units, 1.0 / dt)
        return nir.IF(r=r, v_threshold=threshold, v_reset=zero, metadata=metadata)
    tau = dt / (1.0 - decay)
    return nir.LIF(
        tau=tau, r=tau / dt, v_leak=zero, v_threshold=threshold, v_reset=zero, metadata=metadata
    )


def _linear(nir, kernel, bias):
    """Linear or Affine; NIR's matrices are (outputs, inputs)."""
    weight = keras.ops.convert_to_numpy(kernel).T.copy()
    if bias is None:
        return nir.Linear(weight=weight)
    return nir.Affine(weight=weight, bias=keras.ops.convert_to_numpy(bias))


def _label(name, nodes):
    """A node's name, not taken yet; "/" would make a group in HDF5, "." a nested graph."""
    label = name.replace("/", "_").replace(".", "_")
    while label in nodes:
        label += "_"
    return label
