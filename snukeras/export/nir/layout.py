"""The nodes and edges of NIR for the layers of a network."""

import dataclasses
import math
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import keras
import numpy as np

from snukeras.export.errors import UnsupportedLayersError
from snukeras.export.nir import lif
from snukeras.export.nir.convolution import at_each_place, convolution, convolve, same_pads
from snukeras.export.nir.place import (
    MAKERS,
    Layout,
    Maker,
    NoNodeError,
    Place,
    linear,
    makes,
    no_pads,
    order_of,
)
from snukeras.layers import LIF, SNU, ConvSNU1D, ConvSNU2D, ElasticDistortion
from snukeras.network.topology import Call, Topology

if TYPE_CHECKING:
    from nir import NIRNode

_LAYERS = keras.layers
# Layers that do nothing when a trained network runs.
_NOTHING: Final = (
    _LAYERS.ActivityRegularization,
    _LAYERS.Dropout,
    _LAYERS.GaussianDropout,
    _LAYERS.GaussianNoise,
    _LAYERS.SpatialDropout1D,
    _LAYERS.SpatialDropout2D,
    ElasticDistortion,
)
# Layers that take one step alone: with a sequence they stand in a TimeDistributed.
_OF_A_STEP: Final = (
    _LAYERS.Flatten,
    _LAYERS.GlobalAveragePooling1D,
    _LAYERS.GlobalAveragePooling2D,
    _LAYERS.AveragePooling1D,
    _LAYERS.Conv1D,
)


def lay_out(plan: Topology, nir: ModuleType, dt: float) -> Layout:
    """Make the nodes and edges of a network.

    Raises:
        UnsupportedLayersError: NIR has no form for a layer; all such layers are named.
    """
    found = Layout(nir, dt)
    problems: dict[str, str] = {}
    for name, ref in plan.inputs:
        shape = ref.shape[2:]
        if not 1 <= len(shape) <= 3 or any(size is None for size in shape):
            problems[name] = (
                "an input must be (batch, time, features), or maps (batch, time, height, width, "
                "channels), in the NIR export"
            )
            continue
        sizes = tuple(int(size) for size in shape if size is not None)
        label, order = found.label(name), order_of(sizes)
        found.nodes[label] = nir.Input(input_type={"input": np.array(order.shape)})
        found.source[ref.key] = Place((label,), sizes, order)
    for call in plan.calls:
        layer, each_step = call.op, isinstance(call.op, _LAYERS.TimeDistributed)
        layer = layer.layer if each_step else layer
        try:
            maker = _checked(call, layer, each_step)
            given = [found.source.get(ref.key) for ref in call.inputs]
            if any(place is None for place in given):
                continue  # a layer before it is refused
            places = [place for place in given if place is not None]
            found.source[(call.name, 0)] = maker(found, call, layer, places)
        except NoNodeError as error:
            problems[call.name] = str(error)
    for name, ref in plan.outputs:
        place = found.source.get(ref.key)
        if place is None:
            continue
        if place.pads or not np.array_equal(place.order, order_of(place.shape)):
            problems[f"{ref.key[0]} (output)"] = (
                "it puts out a map as a vector, which NIR orders by channels first; put a Dense "
                "layer behind it, or put out the map"
            )
            continue
        label = found.label(f"{name}_output")
        kind = {"output": np.array(place.order.shape)}
        found.add(label, nir.Output(output_type=kind), place)
        found.outputs.append(label)
    if problems:
        raise UnsupportedLayersError(problems)
    return found


def _checked(call: Call, layer: Any, each_step: bool) -> Maker:
    """Return what makes the nodes of a call, if NIR can express it.

    Raises:
        NoNodeError: It cannot.
    """
    name = type(layer).__name__
    if "@" in call.name:
        raise NoNodeError("it is called more than once")
    if len(call.inputs) != 1 and not isinstance(layer, _LAYERS.Add):
        raise NoNodeError("it takes several inputs, a mask or initial states")
    maker = MAKERS.get(type(layer))
    if maker is None and isinstance(layer, SNU):
        maker = MAKERS[SNU]
    if maker is None and "MaxPooling" in name:
        raise NoNodeError("NIR has no pooling that takes the largest; use AveragePooling2D")
    if maker is None:
        raise NoNodeError(f"NIR has no form for {name}")
    if isinstance(layer, _OF_A_STEP) and not each_step:
        raise NoNodeError(
            f"{name} works across steps here, which NIR cannot express; for each step put it into "
            "keras.layers.TimeDistributed"
        )
    if reason := _problem(layer):
        raise NoNodeError(reason)
    return maker


def _problem(layer: Any) -> str | None:
    """Return why NIR cannot express a layer of a kind that it knows; None if it can."""
    if isinstance(layer, SNU | ConvSNU1D | ConvSNU2D):
        return _unit_problem(layer)
    if isinstance(layer, LIF):
        return lif.problem(layer)
    activation = getattr(layer, "activation", None)
    if activation not in (None, keras.activations.linear):
        name = getattr(activation, "__name__", type(activation).__name__)
        return f"NIR has no {name} activation; make the layer linear and apply it outside"
    if getattr(layer, "data_format", None) == "channels_first":
        return "it has channels_first; use channels_last"
    return None


def _unit_problem(layer: Any) -> str | None:
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


@makes(SNU)
def _snu(found: Layout, call: Call, layer: SNU, given: list[Place]) -> Place:
    cell, label = layer.cell, found.label(call.name)
    before = found.vector(given[0], label)
    kernel = found.label(f"{label}_kernel")
    found.add(kernel, linear(found.nir, cell.kernel, cell.bias, before.order), before)
    order = np.arange(cell.units)
    node = _unit(found, cell, order)
    return _neurons(found, call, label, node, Place((kernel,), (cell.units,), order), cell)


@makes(LIF)
def _lif(found: Layout, call: Call, layer: LIF, given: list[Place]) -> Place:
    cell, label = layer.cell, found.label(call.name)
    before = given[0]
    no_pads(before)
    if cell.recurrent_kernel is not None:
        before = found.vector(before, label)
    node = lif.unit(found.nir, cell, found.dt, before.order)
    return _neurons(found, call, label, node, before, cell)


def _neurons(
    found: Layout, call: Call, label: str, node: "NIRNode", before: Place, cell: Any
) -> Place:
    """Add a node of neurons behind what drives it, and its recurrence."""
    found.edges += [(source, label) for source in before.labels]
    if cell.recurrent_kernel is not None:
        loop = found.label(f"{label}_recurrent_kernel")
        kernel = keras.ops.convert_to_numpy(cell.recurrent_kernel)
        if kernel.ndim == 2:
            turned = kernel[before.order][:, before.order]
            found.nodes[loop] = linear(found.nir, turned, None)
        else:
            sizes = cell.map_shape
            ones = (1,) * len(sizes)
            pads = same_pads(sizes, kernel.shape, ones, ones)
            found.nodes[loop] = convolution(found.nir, kernel, None, sizes, ones, ones, pads)
        found.edges += [(label, loop), (loop, label)]
    # Behind its kernels, since there are readers that run nodes in their order.
    found.nodes[label] = node
    if cell.spiking:
        found.units[call.name] = label
    return Place((label,), before.shape, before.order)


def _unit(found: Layout, cell: Any, order: np.ndarray) -> "NIRNode":
    """Return the LIF node of a cell, or the IF node where it does not decay."""

    def spread(values: np.ndarray) -> np.ndarray:
        return np.tile(values.astype("float64"), order.size // values.size)[order]

    nir, dt = found.nir, found.dt
    decay, threshold = spread(cell.decay_values()), spread(cell.threshold_values())
    if np.all(decay == 1.0):
        return nir.IF(r=np.full(order.shape, 1.0 / dt), v_threshold=threshold)
    tau = dt / (1.0 - decay)
    return nir.LIF(tau=tau, r=tau / dt, v_leak=np.zeros(order.shape), v_threshold=threshold)


@makes(ConvSNU1D, ConvSNU2D)
def _conv_snu(found: Layout, call: Call, layer: Any, given: list[Place]) -> Place:
    cell, label = layer.cell, found.label(call.name)
    kernel = found.label(f"{label}_kernel")
    before = found.maps(given[0], "convolutions take")
    shape = (*cell.map_shape, cell.filters)
    convolve(found, kernel, before, cell, cell.kernel, cell.bias)
    order = order_of(shape)
    return _neurons(
        found, call, label, _unit(found, cell, order), Place((kernel,), shape, order), cell
    )


@makes(_LAYERS.Dense)
def _dense(found: Layout, call: Call, layer: Any, given: list[Place]) -> Place:
    label, units = found.label(call.name), layer.kernel.shape[-1]
    if len(given[0].shape) == 1:
        before = found.vector(given[0], label)
        found.add(label, linear(found.nir, layer.kernel, layer.bias, before.order), before)
        return Place((label,), (units,), np.arange(units))
    return at_each_place(found, label, given[0], layer.kernel, layer.bias)


@makes(_LAYERS.BatchNormalization)
def _normalise(found: Layout, call: Call, layer: Any, given: list[Place]) -> Place:
    (before,), label = given, found.label(call.name)
    axis = layer.axis if isinstance(layer.axis, int) else layer.axis[0]
    if axis not in (-1, len(before.shape), len(before.shape) + 1):
        raise NoNodeError("it normalises another axis than the last")
    mean, variance = (
        keras.ops.convert_to_numpy(values).astype("float64")
        for values in (layer.moving_mean, layer.moving_variance)
    )
    scale = 1.0 / np.sqrt(variance + layer.epsilon)
    if layer.scale:
        scale = scale * keras.ops.convert_to_numpy(layer.gamma)
    shift = -mean * scale
    if layer.center:
        shift = shift + keras.ops.convert_to_numpy(layer.beta)
    kernel, bias = np.diag(scale).astype("float32"), shift.astype("float32")
    if len(before.shape) > 1:
        return at_each_place(found, label, before, kernel, bias)
    before = found.vector(before, label)
    found.add(label, linear(found.nir, kernel, bias, before.order), before)
    return Place((label,), before.shape, np.arange(before.size))


@makes(_LAYERS.Rescaling)
def _rescale(found: Layout, call: Call, layer: Any, given: list[Place]) -> Place:
    (before,), label = given, found.label(call.name)
    no_pads(before)
    if np.any(np.asarray(layer.offset)):
        raise NoNodeError("NIR scales and adds nothing; it has an offset")
    scale = np.broadcast_to(np.asarray(layer.scale, "float32"), before.shape).reshape(-1)
    found.add(label, found.nir.Scale(scale=scale[before.order]), before)
    return dataclasses.replace(before, labels=(label,))


@makes(_LAYERS.Add)
def _add(found: Layout, call: Call, layer: Any, given: list[Place]) -> Place:
    first, *others = given
    labels = [label for place in given for label in place.labels]
    for place in given:
        no_pads(place)
    if any(not np.array_equal(place.order, first.order) for place in others):
        raise NoNodeError("it adds numbers in different orders, which NIR cannot express")
    if len(set(labels)) < len(labels):
        raise NoNodeError("it adds a tensor to itself; NIR has one edge between two nodes")
    return dataclasses.replace(first, labels=tuple(labels))


@makes(_LAYERS.Flatten, _LAYERS.Reshape, _LAYERS.Permute)
def _shape(found: Layout, call: Call, layer: Any, given: list[Place]) -> Place:
    (before,) = given
    no_pads(before)
    each_step = layer is not call.op
    if isinstance(layer, _LAYERS.Permute):
        axes = tuple(layer.dims) if each_step else tuple(axis - 1 for axis in layer.dims[1:])
        if not each_step and layer.dims[0] != 1:
            raise NoNodeError("it exchanges time and features")
        places = np.arange(before.size).reshape(before.shape).transpose([a - 1 for a in axes])
        order = np.empty(before.size, int)
        order[places.reshape(-1)] = np.arange(before.size)
        return dataclasses.replace(before, shape=places.shape, order=order[before.order])
    wanted = tuple(getattr(layer, "target_shape", (-1,)))
    wanted = wanted if each_step else wanted[1:]
    known = math.prod(size for size in wanted if size not in (-1, None))
    shape = tuple(before.size // known if size in (-1, None) else int(size) for size in wanted)
    if math.prod(shape) != before.size or not shape:
        raise NoNodeError("it moves elements between steps")
    return dataclasses.replace(before, shape=shape)


@makes(*_NOTHING)
def _nothing(found: Layout, call: Call, layer: Any, given: list[Place]) -> Place:
    return given[0]


@makes(_LAYERS.Activation)
def _activation(found: Layout, call: Call, layer: Any, given: list[Place]) -> Place:
    return given[0]
