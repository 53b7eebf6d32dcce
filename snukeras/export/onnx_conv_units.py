"""Images and convolutional units in ONNX: RateCoding, ElasticDistortion, ConvSNU, ConvSSNU.

One Conv for all steps stands before the loop, as the matrix product of a dense unit does; the loop
itself is that of dense units, a unit for every place of every map. On tiles a convolution is its
kernel once, unrolled to a row for each tap and channel and a column for each filter, used once for
every place.
"""

import dataclasses
import types
from typing import Any

import numpy as np

from snukeras.export.onnx_handlers import CannotLowerError, Value, as_float, handles, mask_of
from snukeras.export.onnx_recurrent import CONVOLUTIONAL, initial_of, lower_unit
from snukeras.export.onnx_units import FLOAT, Unit
from snukeras.layers import ElasticDistortion, RateCoding


@handles(ElasticDistortion)
def _distortion(context, call, layer, values):
    return [values[0]]  # it distorts in training alone


@handles(RateCoding)
def _coding(context, call, layer, values):
    """A comparison with the thresholds that the layer fixed for inference; the same spikes."""
    if context.streaming:
        raise CannotLowerError(
            "it makes a sequence of one image, which cannot stream; export the layers behind it, "
            "which take spikes step by step"
        )
    if layer.inference != "fixed":
        raise CannotLowerError(
            "it draws new spikes at each call; give it inference='fixed', or export the layers "
            "behind it, which take spike trains"
        )
    graph, name = context.graph, call.name
    x = as_float(context, call, 0, values[0])
    if layer.probability != 1.0:
        x = graph.node(
            "Mul", [x, graph.constant(layer.probability, f"{name}/probability")], f"{name}/rate"
        )
    x = graph.node("Unsqueeze", [x, graph.constant([1], "axis_1", "int64")], f"{name}/image")
    thresholds = layer.thresholds(call.inputs[0].shape[1:])[None]
    spikes = graph.node(
        "Greater", [x, graph.constant(thresholds, f"{name}/thresholds")], f"{name}/spikes"
    )
    return [Value(graph.node("Cast", [spikes], f"{name}/output", to=FLOAT))]


@handles(*CONVOLUTIONAL)
def _conv_unit(context, call, layer, values):
    cell, graph, name = layer.cell, context.graph, call.name
    if cell.recurrent:
        raise CannotLowerError("its recurrent convolution has no ONNX form here")
    if cell.lateral_inhibition:
        raise CannotLowerError("lateral inhibition between maps has no ONNX form here")
    value, initial = initial_of(call, values)
    mask = mask_of(context, value)
    x = as_float(context, call, 0, value)
    sizes, channels = call.inputs[0].shape[2:-1], call.inputs[0].shape[-1]
    out = cell.map_of(sizes)
    places = int(np.prod(out))
    unit = dataclasses.replace(
        Unit.of(cell, name),
        kernel=None,  # the product is made here
        bias=None,
        units=places * cell.filters,
        decay=np.tile(cell.decay_values(), places),
        threshold=np.tile(cell.threshold_values(), places),
    )
    lead = 1 if context.streaming else 2

    def reshaped(tensor, shape, label, axes=0):
        """The tensor with its first `axes` sizes kept and the rest as given."""
        shape = graph.constant(list(shape), f"{name}/{label}_shape", "int64")
        if axes:
            kept = graph.node("Shape", [tensor], f"{name}/{label}_lead", start=0, end=axes)
            shape = graph.node("Concat", [kept, shape], f"{name}/{label}_sizes", axis=0)
        return graph.node("Reshape", [tensor, shape], f"{name}/{label}")

    def restored(tensor, label, axes):
        return reshaped(tensor, (*out, cell.filters), label, axes)

    maps = reshaped(x, (-1, *sizes, channels), "folded")
    drive = _convolution(graph, name, cell, maps, sizes, out)
    flat = graph.constant([unit.units], f"{name}/units", "int64")
    kept = graph.node("Shape", [x], f"{name}/lead", start=0, end=lead)
    shape = graph.node("Concat", [kept, flat], f"{name}/drive_shape", axis=0)
    drive = graph.node("Reshape", [drive, shape], f"{name}/drive")
    if initial is not None:
        initial = tuple(
            reshaped(state, (unit.units,), f"{label}_first", 1)
            for label, state in zip("sy", initial, strict=True)
        )
    first, *states = lower_unit(context, call, layer, unit, drive, mask, initial)
    if name in context.traces:
        # What the proof computes potentials from, with the axes of a map as one.
        size = int(np.prod(sizes)) * channels
        context.traces[name]["input"] = reshaped(x, (size,), "seen", 2)
    sequence = layer.return_sequences and not context.streaming
    results = [Value(restored(first.name, "maps", 2 if sequence else 1), first.mask)]
    results += [
        Value(restored(state.name, f"{label}_last", 1))
        for label, state in zip("ys", states, strict=False)
    ]
    return results


def _convolution(graph, name, cell, x, sizes, out):
    """x * W (+ c) with channels last, as Keras has it; ONNX has them first."""
    rank = cell.rank
    pads = []
    for size, kernel, stride, dilation, new in zip(
        sizes, cell.kernel_size, cell.strides, cell.dilation_rate, out, strict=True
    ):
        lost = max((new - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
        pads.append((lost // 2, lost - lost // 2) if cell.padding == "same" else (0, 0))
    kernel = np.moveaxis(np.asarray(cell.kernel), (-1, -2), (0, 1))
    inputs = [
        graph.node("Transpose", [x], f"{name}/first", perm=[0, rank + 1, *range(1, rank + 1)]),
        graph.constant(kernel, f"{name}/kernel"),
    ]
    if cell.bias is not None:
        inputs.append(graph.constant(np.asarray(cell.bias), f"{name}/bias"))
    z = graph.node(
        "Conv",
        inputs,
        f"{name}/convolution",
        kernel_shape=list(cell.kernel_size),
        strides=list(cell.strides),
        dilations=list(cell.dilation_rate),
        pads=[before for before, _ in pads] + [after for _, after in pads],
    )
    return graph.node("Transpose", [z], f"{name}/last", perm=[0, *range(2, rank + 2), 1])


def at_places(layer: Any, x: np.ndarray) -> tuple[Any, np.ndarray]:
    """A convolutional layer as a dense unit that looks at one place of the maps at a time.

    Args:
        layer: a convolutional layer that is not recurrent.
        x: its input, (batch, time, ...), with the axes of a map apart or as one.

    Returns:
        What `decisions.potentials_of` takes for the cell, and the input of every place,
        (batch * places, time, taps * channels); outputs go along with `of_places`.
    """
    cell = layer.cell
    shape = (*cell.input_map, cell.kernel.shape[-2])
    x = np.asarray(x).reshape(*x.shape[:2], *shape)
    pads, windows = [], []
    for size, kernel, stride, dilation, new in zip(
        shape[:-1], cell.kernel_size, cell.strides, cell.dilation_rate, cell.map_shape, strict=True
    ):
        lost = max((new - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
        pads.append((lost // 2, lost - lost // 2) if cell.padding == "same" else (0, 0))
        # places along an axis by taps along it
        windows.append(np.arange(new)[:, None] * stride + np.arange(kernel) * dilation)
    x = np.pad(x, [(0, 0), (0, 0), *pads, (0, 0)])
    if cell.rank == 1:
        seen = x[:, :, windows[0]]  # batch, time, place, tap, channel
    else:
        # batch, time, row, column, tap down, tap right, channel
        seen = x[:, :, windows[0][:, None, :, None], windows[1][None, :, None, :]]
    places = int(np.prod(cell.map_shape))
    seen = seen.reshape(*x.shape[:2], places, -1)
    dense = types.SimpleNamespace(
        spiking=cell.spiking,
        units=cell.filters,
        kernel=np.asarray(cell.kernel).reshape(-1, cell.filters),
        bias=None if cell.bias is None else np.asarray(cell.bias),
        recurrent_kernel=None,
        lateral_inhibition=cell.lateral_inhibition,
        state_activation=cell.state_activation,
        decay_values=cell.decay_values,
        threshold_values=cell.threshold_values,
    )
    return dense, of_places(seen)


def of_places(values: np.ndarray) -> np.ndarray:
    """(batch, time, places, n) as (batch * places, time, n)."""
    return values.swapaxes(1, 2).reshape(-1, values.shape[1], values.shape[3])
