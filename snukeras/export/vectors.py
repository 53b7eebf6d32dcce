"""Golden vectors for hardware teams: integers of converters and neurons, a fixed-point neuron.

docs/analog.md describes the file.
"""

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import keras
import numpy as np
from keras import ops

from snukeras import _arguments
from snukeras._files import write_arrays
from snukeras._types import Tensor
from snukeras.export.errors import BadInputError
from snukeras.export.records import Record
from snukeras.layers import LIF
from snukeras.network import observers
from snukeras.network.matrices import matrices
from snukeras.network.models import all_layers
from snukeras.pcm import AnalogNetwork, TiledProduct

FORMAT = "snukeras-vectors"


@dataclasses.dataclass(frozen=True)
class FixedPoint:
    """Integers of a digital neuron.

    Attributes:
        state_bits: Of the membrane potential, the sign included.
        decay_bits: Of the decay: it is a multiple of 2**-decay_bits.

    Raises:
        ValueError: Fewer than 4 bits of state, or than 1 of decay; more than 31 of both together.
    """

    state_bits: int = 16
    decay_bits: int = 8

    def __post_init__(self) -> None:
        _arguments.whole("state_bits", self.state_bits, 4)
        _arguments.whole("decay_bits", self.decay_bits, 1)
        if self.state_bits + self.decay_bits > 31:
            raise ValueError(
                "`state_bits` and `decay_bits` must be at most 31 together, so that their product "
                f"fits 32 bits. Received: {self.state_bits} and {self.decay_bits}"
            )


@dataclasses.dataclass(frozen=True)
class Vectors(Record):
    """What a file of vectors holds of neurons.

    Attributes:
        agreement: For each layer of spiking units the share of spikes that the fixed-point neuron
            gives as the network does.
        left_out: Layers of units without vectors, and why.
    """

    agreement: dict[str, float]
    left_out: dict[str, str]


class FixedNeuron:
    """The spiking unit in integers, the reference for a circuit.

    With the potential s, the spike y and the drive d of a step as integers in units of
    2**-fraction_bits, D the decay in units of 2**-decay_bits and T the threshold:

        kept = (D s + 2**(decay_bits - 1)) >> decay_bits     rounded; >> of negative numbers floors
        s    = saturated(g(d + (0 if gate else kept)))       to state_bits
        y    = s > T

    The gate is the unit's own spike of the step before, or with lateral inhibition that of any unit
    of its sample (of any filter at its place). g is the identity, or 0 for negative numbers.

    Args:
        decay: Of each unit, (units,) or ().
        threshold: Likewise.
        form: Bits.
        fraction_bits: Bits behind the point.
        rectified: Whether g is 0 for negative numbers.
        lateral_inhibition: Whether units share the gate.
    """

    def __init__(
        self,
        decay: np.ndarray,
        threshold: np.ndarray,
        form: FixedPoint,
        fraction_bits: int,
        rectified: bool = False,
        lateral_inhibition: bool = False,
    ) -> None:
        self.form, self.fraction_bits = form, fraction_bits
        self.rectified, self.lateral_inhibition = rectified, lateral_inhibition
        self.decay = np.rint(np.asarray(decay, "float64") * 2**form.decay_bits).astype("int64")
        self.threshold = self.integers(threshold)

    def integers(self, values: np.ndarray) -> np.ndarray:
        """Return numbers in units of 2**-fraction_bits, rounded and saturated."""
        scaled = np.rint(np.asarray(values, "float64") * 2.0**self.fraction_bits)
        return self._saturated(scaled).astype("int64")

    def _saturated(self, values: np.ndarray) -> np.ndarray:
        top = 2 ** (self.form.state_bits - 1)
        return np.clip(values, -top, top - 1)

    def run(self, drive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Run all steps from a state of 0.

        Args:
            drive: Integers, (samples, steps, ..., units).

        Returns:
            Potentials and spikes, likewise.
        """
        bits = self.form.decay_bits
        s = np.zeros_like(drive[:, 0], dtype="int64")
        y = np.zeros_like(s)
        potentials, spikes = [], []
        for step in range(drive.shape[1]):
            gate = y.max(axis=-1, keepdims=True) if self.lateral_inhibition else y
            kept = (self.decay * s + 2 ** (bits - 1)) >> bits
            s = drive[:, step].astype("int64") + kept * (1 - gate)
            s = self._saturated(np.maximum(s, 0) if self.rectified else s)
            y = (s > self.threshold).astype("int64")
            potentials.append(s)
            spikes.append(y)
        return np.stack(potentials, axis=1), np.stack(spikes, axis=1)


def write_vectors(
    path: str | Path,
    net: keras.Model,
    batches: Sequence[Sequence[np.ndarray]],
    form: FixedPoint | None = None,
    most: int = 4096,
) -> Vectors:
    """Write what converters and neurons of a network on tiles compute, without noise.

    Args:
        path: File to write, .npz.
        net: An analog network with bits for inputs and outputs, or that of a chip.
        batches: Inputs of the network; in each batch one array for each input.
        form: Bits of the digital neuron.
        most: Vectors of each matrix that are kept, the first ones.

    Returns:
        How the fixed-point neuron of each layer of spiking units agrees with the network, and which
        layers have none.

    Raises:
        BadInputError: What `checked` refuses, or no samples.
    """
    net = checked(net)
    if not batches:
        raise BadInputError("Vectors need at least one sample. Received: none.")
    form = FixedPoint() if form is None else form
    units, left_out = _units(net)
    # Cells have states, and step through time.
    cells = {m.name for m in matrices(net) if hasattr(m.layer, "state_size")}
    records = [_Record(tiles, most, tiles.matrix_name in cells) for tiles in net.tiles]
    watch = _Watch()
    arrays: dict[str, np.ndarray] = {}
    with _quiet(net):
        with ExitStack() as stack:
            stack.enter_context(_recording(net, records))
            stack.enter_context(observers.watching(watch, units.values()))
            for feeds in batches:
                net(list(feeds) if len(feeds) > 1 else feeds[0], training=False)
                for record in records:
                    record.close()
        held = {matrix.name: matrix for matrix in matrices(net)}
        described = [r.described(held[r.tiles.matrix_name].variable, arrays) for r in records]
        agreement, neurons = {}, []
        for name, layer in units.items():
            runs = watch.runs[id(layer)]
            # A masked step, or another state at the start, is no matter of the neuron.
            if any(run.mask is not None for run in runs):
                left_out[name] = "it was given a mask"
            elif any(run.initial_state is not None for run in runs):
                left_out[name] = "it was given a state to start from"
            else:
                agreement[name], neuron = _neuron(name, layer, runs, form, arrays)
                neurons.append(neuron)
    description = {
        "format": FORMAT,
        "version": 1,
        "matrices": described,
        "neurons": neurons,
        "left_out": left_out,
    }
    arrays["description"] = np.asarray(json.dumps(description))
    write_arrays(path, arrays, compress=True)
    return Vectors(agreement, left_out)


def checked(net: keras.Model) -> AnalogNetwork:
    """Return a network that vectors can come from.

    Raises:
        BadInputError: Another network, no converters with bits, or ranges that are not known yet.
    """
    if not isinstance(net, AnalogNetwork):
        raise BadInputError(
            f"Vectors come from a network on tiles. Received: {net.name!r}, a plain model.",
            "Make one with snukeras.pcm.analog(model), calibrate and save it.",
        )
    tile = net.tile
    if tile.input is None or tile.output is None or not (tile.input.bits and tile.output.bits):
        raise BadInputError(
            f"Vectors need converters with bits for inputs and outputs. Received: {tile}.",
            'Use another tile, such as "generic8".',
        )
    if any(tiles.uncalibrated for tiles in net.tiles):
        raise BadInputError(
            f"Vectors need the ranges of all converters. Received: {net.name!r}, not calibrated.",
            "Run snukeras.pcm.calibrate(net, x) with typical inputs and save the network again.",
        )
    return net


def _units(net: keras.Model) -> tuple[dict[str, keras.Layer], dict[str, str]]:
    """Return the layers that have a neuron in integers, by name, and why others have none."""
    units, left_out = {}, {}
    for name, layer in observers.units_of(net).items():
        reason = _not_fixed(layer)
        if reason is None:
            units[name] = layer
        else:
            left_out[name] = reason
    for layer in all_layers(net):
        if isinstance(layer, LIF):
            left_out[layer.name] = "LIF has no form in integers"
    return units, left_out


def _not_fixed(layer: keras.Layer) -> str | None:
    """Return why a layer has no form in integers, None where it has one."""
    if not layer.cell.spiking:
        return "its units are soft and do not spike"
    activation = keras.activations.serialize(layer.state_activation)
    if activation not in ("linear", "relu"):
        return f"its state_activation is {activation!r}, neither linear nor relu"
    for name in ("go_backwards", "stateful"):
        if getattr(layer, name):
            return f"it has {name}=True"
    return None


@contextmanager
def _quiet(net: AnalogNetwork) -> Iterator[None]:
    """Leave out all noise."""
    try:
        for tiles in net.tiles:
            tiles.quiet = True
        yield
    finally:
        for tiles in net.tiles:
            tiles.quiet = False


@contextmanager
def _recording(net: AnalogNetwork, records: "Sequence[_Record]") -> Iterator[None]:
    try:
        for tiles, record in zip(net.tiles, records, strict=True):
            tiles.recorder = record.add
        yield
    finally:
        for tiles in net.tiles:
            tiles.recorder = None


class _Record:
    """The codes of one matrix."""

    def __init__(self, tiles: TiledProduct, most: int, in_a_loop: bool) -> None:
        self.tiles, self.most, self.in_a_loop = tiles, most, in_a_loop
        self.inputs: list[list[np.ndarray]] = [[] for _ in tiles.blocks]
        self.outputs: list[list[np.ndarray]] = [[] for _ in tiles.blocks]
        self.ranges: list[list[np.ndarray]] = [[] for _ in tiles.blocks]
        self.calls: list[list[tuple[np.ndarray, ...]]] = [[] for _ in tiles.blocks]

    def add(self, block: int, voltage: Tensor, current: Tensor, r: Tensor) -> None:
        """Take note of a product of a block of rows."""
        rank = 1 if self.tiles.groups == 1 else 2
        v = ops.convert_to_numpy(ops.cast(voltage, "float32"))
        i = ops.convert_to_numpy(current).reshape(-1, self.tiles.shape[1])
        full = np.broadcast_to(ops.convert_to_numpy(r), (*v.shape[:-rank], *[1] * rank))
        self.calls[block].append((v.reshape(-1, *v.shape[-rank:]), i, full.reshape(-1)))

    def close(self) -> None:
        """Keep the vectors of a batch, up to the largest number."""
        for block, calls in enumerate(self.calls):
            if not calls:
                continue
            # The loop of Keras takes a first step beforehand, to see what a step gives.
            if self.in_a_loop and len(calls) > 1 and np.array_equal(calls[0][0], calls[1][0]):
                del calls[0]
            left = self.most - sum(len(part) for part in self.inputs[block])
            kept = (self.inputs, self.outputs, self.ranges)
            for store, parts in zip(kept, zip(*calls, strict=True), strict=True):
                store[block].append(np.concatenate(parts)[: max(left, 0)])
            calls.clear()

    def described(
        self, variable: keras.Variable, arrays: dict[str, np.ndarray]
    ) -> dict[str, object]:
        """Add the arrays of the matrix to those of the file, and return what it is."""
        tiles, name = self.tiles, self.tiles.matrix_name
        source, sink = tiles.tile.input, tiles.tile.output
        assert source is not None and sink is not None and source.bits and sink.bits
        share, unit = tiles.held(variable)
        full = np.stack([tiles.output_ranges(block) for block in range(len(tiles.blocks))])
        codes = [np.concatenate(parts) * (2 ** (source.bits - 1) - 1) for parts in self.inputs]
        currents = np.stack([np.concatenate(parts) for parts in self.outputs], axis=1)
        outputs = np.rint(currents / full * (2 ** (sink.bits - 1) - 1))
        ranges = np.stack([np.concatenate(parts) for parts in self.ranges], axis=1)
        factor = np.ones_like(full) if tiles.factor is None else ops.convert_to_numpy(tiles.factor)
        shift = np.zeros_like(full) if tiles.shift is None else ops.convert_to_numpy(tiles.shift)
        arrays[f"{name}/input"] = np.rint(np.concatenate(codes, axis=-1)).astype("int32")
        arrays[f"{name}/output"] = outputs.astype("int32")
        arrays[f"{name}/sum"] = np.sum(
            (currents * factor + shift) * unit * ranges[..., None], axis=1
        ).astype("float32")
        arrays |= {
            f"{name}/weights": share,
            f"{name}/unit": unit,
            f"{name}/input_range": ranges.astype("float32"),
            f"{name}/output_range": full.astype("float32"),
            f"{name}/factor": factor,
            f"{name}/shift": shift,
        }
        return {
            "name": name,
            "rows": tiles.shape[0],
            "columns": tiles.shape[1],
            "groups": tiles.groups,
            "row_blocks": [[block.start, block.stop] for block in tiles.blocks],
            "input_bits": source.bits,
            "output_bits": sink.bits,
        }


class _Watch(observers.Observer):
    """Keeps the runs of layers."""

    wants_membranes = True

    def __init__(self) -> None:
        self.runs: dict[int, list[observers.Run]] = {}  # by the identity of the layer

    def observe(self, run: observers.Run) -> None:
        self.runs.setdefault(id(run.layer), []).append(run)


def _neuron(
    name: str,
    layer: keras.Layer,
    runs: Sequence[observers.Run],
    form: FixedPoint,
    arrays: dict[str, np.ndarray],
) -> tuple[float, dict[str, object]]:
    """Add the arrays of a layer of units to those of the file.

    Returns:
        The share of spikes that agree, and what the layer is.
    """
    cell = layer.cell
    found = [(_drive(cell, run), *(_numpy(x) for x in (run.membranes, run.spikes))) for run in runs]
    top = max(max(np.abs(drive).max(), np.abs(s).max()) for drive, s, _ in found)
    top = max(float(top), float(np.abs(cell.threshold_values()).max()), 2.0**-30)
    fraction_bits = form.state_bits - 1 - max(0, math.ceil(math.log2(top)))
    rectified = keras.activations.serialize(layer.state_activation) == "relu"
    neuron = FixedNeuron(
        cell.decay_values(), cell.threshold_values(), form, fraction_bits, rectified,
        cell.lateral_inhibition,
    )  # fmt: skip
    same, total = 0, 0
    for number, (drive, potentials, spikes) in enumerate(found):
        whole = neuron.integers(drive)
        s, y = neuron.run(whole)
        same, total = same + int(np.sum(y == (spikes > 0.5))), total + y.size
        place = f"{name}/{number}"
        arrays |= {
            f"{place}/drive": drive.astype("float32"),
            f"{place}/potential": potentials.astype("float32"),
            f"{place}/spikes": spikes.astype("uint8"),
            f"{place}/fixed_drive": whole.astype("int32"),
            f"{place}/fixed_potential": s.astype("int32"),
            f"{place}/fixed_spikes": y.astype("uint8"),
        }
    arrays[f"{name}/decay"] = neuron.decay.astype("int32")
    arrays[f"{name}/threshold"] = neuron.threshold.astype("int32")
    return same / total, {
        "name": name,
        "runs": len(found),
        "state_bits": form.state_bits,
        "decay_bits": form.decay_bits,
        "fraction_bits": fraction_bits,
        "rectified": rectified,
        "lateral_inhibition": bool(cell.lateral_inhibition),
        "agreement": same / total,
    }


def _drive(cell: keras.Layer, run: observers.Run) -> np.ndarray:
    """Return what goes into the potential at each step, but for what remains of it."""
    drive = ops.cast(cell.project(run.sequences), cell.compute_dtype)
    if cell.recurrent:
        before = ops.concatenate([ops.zeros_like(run.spikes[:, :1]), run.spikes[:, :-1]], axis=1)
        drive = drive + ops.reshape(
            cell.recur(ops.reshape(before, (-1, *before.shape[2:]))), ops.shape(drive)
        )
    return _numpy(drive)


def _numpy(x: Tensor) -> np.ndarray:
    return ops.convert_to_numpy(x)
