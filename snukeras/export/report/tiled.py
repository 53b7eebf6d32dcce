"""Simulate an exported network with the converters and the noise of a kind of tile."""

import dataclasses
import warnings

import keras
import numpy as np

from snukeras._files import JsonObject
from snukeras.export.crossbar.chip import slices_of
from snukeras.export.crossbar.map import CrossbarMap
from snukeras.export.crossbar.targets import Target
from snukeras.export.records import Record, optional
from snukeras.export.samples import Samples
from snukeras.export.verify.folder import Twin
from snukeras.export.verify.running import runner
from snukeras.network import topology
from snukeras.network.matrices import matrices
from snukeras.pcm import (
    AnalogNetwork,
    Chip,
    DifferentialPair,
    IdealDevice,
    InferencePCM,
    Tile,
    analog,
    calibrate,
)


@dataclasses.dataclass(frozen=True)
class Converters(Record):
    """With which converters the forecast computes.

    Attributes:
        tile: The kind of tile, as `snukeras.pcm.Tile` has it.
        ranges: What their ranges were found with.
        digital: Matrices of the network whose products no tile can compute; the forecast takes
            their weights from one reading.
        alone: The metric of the samples with these converters and exact devices, where there is
            one: what the converters cost by themselves.
    """

    tile: JsonObject
    ranges: str
    digital: tuple[str, ...] = ()
    alone: float | None = optional()

    @property
    def text(self) -> str:
        """What it is, in words."""
        parts = []
        for side in ("input", "output"):
            converter = self.tile[side] or {"bits": None}
            bits = converter["bits"]
            parts.append(f"{side}s of {bits} bits" if bits else f"{side}s as they are")
            if converter.get("noise"):
                parts.append(f"output noise of {converter['noise']:g}")
        return f"{', '.join(parts)}; ranges from {self.ranges}"


@dataclasses.dataclass(frozen=True)
class OnTiles:
    """What lets a network compute on tiles in the forecast.

    Attributes:
        tile: The kind of tile, of the size of the target's.
        source: The calibrated network on such tiles that is exported, whose ranges are taken where
            the map has its scales; None: the samples set them.
    """

    tile: Tile
    source: AnalogNetwork | None = None

    def twin(
        self, twin: Twin, ideal: Chip, device: InferencePCM, samples: Samples
    ) -> tuple[Twin, Converters]:
        """Return a copy of a network whose products chips compute, with the ranges set.

        Args:
            twin: The network rebuilt from a map.
            ideal: A chip of ideal devices with the scales of the map.
            device: The device model of the chips to come.
            samples: They set the ranges, where `source` does not.
        """
        with warnings.catch_warnings():
            # What stays digital is told in the report.
            warnings.simplefilter("ignore")
            net = analog(twin.model, self.tile, device).on_chip(0)
        ideal.write(net, 0.0)
        ranges = "the tile"
        if self.tile.calibrates and self.source is not None and _same_units(net, self.source):
            _take_ranges(net, self.source)
            ranges = "the network"
        elif self.tile.calibrates:
            calibrate(net, ((feeds if len(feeds) > 1 else feeds[0],) for feeds in samples.batches))
            ranges = samples.kind
        plan = topology.read(net.network)
        made = Twin(net, plan, runner(plan, net.network, [plan.outputs[0][1].key]))
        there = net.products()
        digital = tuple(m.name for m in matrices(twin.model) if m.name not in there)
        return made, Converters(self.tile.get_config(), ranges, digital)


def fitted(tile: Tile, target: Target) -> Tile:
    """Return a kind of tile in the size of the target's."""
    return dataclasses.replace(tile, rows=target.rows, columns=target.bit_lines // 2)


def sized(target: Target, tile: Tile) -> Target:
    """Return a target in the size of a kind of tile."""
    wide = 1 if target.crosspoint == "pair" else 2
    if (target.rows, target.bit_lines // 2) == (tile.rows, tile.columns):
        return target
    return target.replace(rows=tile.rows, columns=wide * tile.columns)


class TiledMatrix:
    """One block of a matrix on a tile with converters, to measure products with.

    Args:
        matrix: Weights, (rows, columns), that fit a tile.
        scales: uS per unit of weight, (columns,).
        crossbar: The map, whose range, planes and time of programming there are.
        tile: The kind of tile.
        device: The device model.
        typical: Inputs that set the ranges, (vectors, rows).
    """

    def __init__(
        self,
        matrix: np.ndarray,
        scales: np.ndarray,
        crossbar: CrossbarMap,
        tile: Tile,
        device: InferencePCM,
        typical: np.ndarray,
    ) -> None:
        layer = keras.layers.Dense(matrix.shape[1], use_bias=False, name="block")
        model = keras.Sequential([keras.Input(matrix.shape[:1]), layer])
        layer.set_weights([matrix])
        self.net = analog(model, tile, device)
        target = crossbar.target
        self.device, self.range = device, (target.g_max, target.g_min)
        self.slices = slices_of(target, crossbar.significances)
        self.programmed_for = crossbar.programmed_for
        self.scales = scales.astype("float32")
        self.copy = self.net.on_chip(0)
        ideal = self._chip(IdealDevice(target.g_max), 0, None)
        ideal.write(self.copy, 0.0)
        if tile.calibrates:
            calibrate(self.copy, typical, batch_size=len(typical))

    def chip(self, seed: int, compensation: str | None) -> Chip:
        """Make a chip that holds the block."""
        return self._chip(self.device, seed, compensation)

    def products(self, chip: Chip, x: np.ndarray, t: float) -> np.ndarray:
        """Return what a chip makes of vectors at a time."""
        chip.write(self.copy, t)
        return np.asarray(keras.ops.convert_to_numpy(self.copy(x)))

    def _chip(self, device: InferencePCM, seed: int, compensation: str | None) -> Chip:
        g_max, g_min = self.range
        return Chip(
            self.net,
            device,
            seed=seed,
            compensation=compensation,
            pair=DifferentialPair(g_max, g_min, None, "column"),
            slices=self.slices,
            programmed_for=self.programmed_for,
            scales={matrix.variable.path: self.scales for matrix in matrices(self.net)},
        )


def _same_units(net: AnalogNetwork, source: AnalogNetwork) -> bool:
    """Return whether the columns of two networks have the same ranges of weights.

    They have not where the map has other scales than the network was calibrated with.
    """
    held = {matrix.name: matrix.variable for matrix in matrices(source)}
    return all(
        np.allclose(
            keras.ops.convert_to_numpy(mine.unit),
            other.held(keras.ops.convert_to_tensor(held[other.matrix_name]))[1],
            rtol=1e-3,
        )
        for mine, other in zip(net.tiles, source.tiles, strict=True)
    )


def _take_ranges(net: AnalogNetwork, source: AnalogNetwork) -> None:
    """Copy the ranges of converters from one network to another."""
    for mine, other in zip(net.tiles, source.tiles, strict=True):
        for name in ("input_range", "output_range"):
            if getattr(mine, name) is not None:
                # JAX would share the array, and give its memory away with one network's state.
                getattr(mine, name).assign(keras.ops.copy(getattr(other, name)))
