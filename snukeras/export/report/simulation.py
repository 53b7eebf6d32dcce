"""Simulate chips of an exported network: errors of products and the metric over time."""

import dataclasses
from collections.abc import Callable, Iterable

import keras
import numpy as np

from snukeras._units import rounded
from snukeras.export.crossbar.chip import MappedChip, UnrolledChip, contents, slices_of
from snukeras.export.crossbar.map import CrossbarMap
from snukeras.export.network import Network
from snukeras.export.records import Record
from snukeras.export.report.tiled import TiledMatrix
from snukeras.export.samples import Samples
from snukeras.export.verify.folder import Twin
from snukeras.export.verify.metric import measure
from snukeras.network.weights import assign
from snukeras.pcm import (
    AnalogNetwork,
    Chip,
    Converter,
    Crossbar,
    DifferentialPair,
    IdealDevice,
    InferencePCM,
    Tile,
)

#: Seconds since the reference reading (see snukeras.pcm.InferencePCM).
TIMES = (25.0, 3600.0, 86400.0, 31536000.0)
COMPENSATIONS: dict[str, str | None] = {"none": None, "global": "global"}
SCALES = ("tensor", "column")
# Few, so that the report costs the export little.
CHIPS = 3
# Beyond this many weights one chip is simulated, of the map's own scales alone ...
LARGE = 2_000_000
# ... and beyond this many the metric over time is left to snukeras.pcm.evaluate_chips.
MAX_WEIGHTS = 6_000_000
# The products of this many matrices are simulated, on one tile of each.
MAX_MATRICES = 16
_VECTORS = 64


@dataclasses.dataclass(frozen=True)
class Conditions:
    """What is simulated.

    Attributes:
        device: The device model.
        chips: How many chips.
        times: Seconds since the reference reading, ascending.
        seed: Of the first chip.
    """

    device: InferencePCM
    chips: int = CHIPS
    times: tuple[float, ...] = TIMES
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class ProductError(Record):
    """Relative rms error of the product of a matrix, by compensation, in the order of the times."""

    name: str
    relative_error: dict[str, tuple[float, ...]]


@dataclasses.dataclass(frozen=True)
class OverTime(Record):
    """A metric on several chips, in the order of the times."""

    mean: tuple[float, ...]
    min: tuple[float, ...]
    max: tuple[float, ...]


def products(
    crossbar: CrossbarMap, conditions: Conditions, tile: Tile | None = None
) -> tuple[ProductError, ...]:
    """Simulate x W on tiles, for normal x; matrices of zeros have no relative error.

    Args:
        crossbar: The map.
        conditions: What is simulated.
        tile: A kind of tile in the size of the target's, whose converters and noise there are; None
            for the bits of the target.
    """
    target = crossbar.target
    size = (target.rows, target.bit_lines // 2)
    entries = sorted(crossbar.description.matrices, key=lambda e: -e.rows * e.columns)
    chosen = {entry.name for entry in entries[:MAX_MATRICES]}
    found = []
    for index, name in enumerate(crossbar.matrices):
        if name not in chosen:
            continue
        matrix, scales = largest_tile(crossbar, name, size)
        if matrix.any():
            errors = _product_errors(crossbar, index, matrix, scales, conditions, tile)
            found.append(ProductError(name, errors))
    return tuple(found)


def _product_errors(
    crossbar: CrossbarMap,
    index: int,
    matrix: np.ndarray,
    scales: np.ndarray,
    conditions: Conditions,
    kind: Tile | None,
) -> dict[str, tuple[float, ...]]:
    target = crossbar.target
    typical, x = (
        np.random.default_rng([conditions.seed, index, tag]).standard_normal(
            (_VECTORS, len(matrix)), "float32"
        )
        for tag in (0, 1)
    )
    wanted = x.astype("float64") @ matrix
    power = float(np.mean(wanted**2))
    block = None
    if kind is not None:
        block = TiledMatrix(matrix, scales, crossbar, kind, conditions.device, typical)
    errors: dict[str, tuple[float, ...]] = {}
    for label, compensation in COMPENSATIONS.items():
        squares = np.zeros(len(conditions.times))
        for chip in range(conditions.chips):
            seed = _seed(conditions.seed, chip, index)
            if block is not None:
                held = block.chip(seed, compensation)
                for place, t in enumerate(conditions.times):
                    error = np.mean((block.products(held, x, t) - wanted) ** 2)
                    squares[place] += float(error) / power / conditions.chips
                continue
            tile = Crossbar(
                matrix,
                conditions.device,
                DifferentialPair(target.g_max, target.g_min, None, "column"),
                (target.rows, target.bit_lines // 2),
                compensation=compensation,
                input_converter=_converter(target.dac_bits),
                output_converter=_converter(target.adc_bits),
                name=crossbar.matrices[index],
                seed=seed,
                scales=scales.astype("float32"),
                slices=slices_of(target, crossbar.significances),
                programmed_for=crossbar.programmed_for,
            )
            tile.calibrate(typical)  # converters have fixed ranges
            for place, t in enumerate(conditions.times):
                got = keras.ops.convert_to_numpy(tile.matmul(x, t))
                squares[place] += float(np.mean((got - wanted) ** 2)) / power / conditions.chips
        errors[label] = tuple(rounded(value) for value in np.sqrt(squares))
    return errors


def largest_tile(
    crossbar: CrossbarMap, name: str, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the block of a matrix with its largest weight, and the scales of its columns."""
    plus, minus = crossbar.conductances(name)
    size_of = np.abs(plus - minus) / crossbar.scales(name)
    rows, columns = np.unravel_index(np.argmax(size_of), plus.shape)
    block = tuple(
        slice(int(at) // step * step, int(at) // step * step + step)
        for at, step in zip((rows, columns), size, strict=True)
    )
    scales = crossbar.scales(name)[block[1]]
    difference = plus[block].astype("float64") - minus[block]
    return (difference / scales).astype("float32"), scales


def _converter(bits: int | None) -> Converter | None:
    return None if bits is None or bits < 2 else Converter(bits)


Chips = Callable[[int, str | None], Chip]


def chips_of_map(crossbar: CrossbarMap, device: InferencePCM) -> Chips:
    """Return a maker of chips that hold a map: takes seed and compensation."""
    return lambda seed, compensation: MappedChip(
        crossbar, None, device, seed=seed, compensation=compensation
    )


def exact_chip(crossbar: CrossbarMap) -> Chip:
    """Return a chip whose devices hold exactly what those of a map are to hold when needed."""
    return UnrolledChip(**contents(crossbar), device=IdealDevice(crossbar.target.g_max))


def chips_of_scale(
    network: Network, crossbar: CrossbarMap, device: InferencePCM, scale: str
) -> Chips:
    """Return a maker of chips that hold the same matrices with another choice of scales."""
    target = crossbar.target
    weights = {w.name: w.values for w in network.weights if w.matrix}
    unrollings = {w.name: w.unrolling for w in network.weights if w.unrolling is not None}
    pair = DifferentialPair(
        target.g_max, target.g_min, target.levels, scale, crossbar.description.clip
    )
    return lambda seed, compensation: UnrolledChip(
        weights,
        unrollings,
        device,
        seed=seed,
        compensation=compensation,
        pair=pair,
        tile_size=(target.rows, target.bit_lines // 2),
        slices=slices_of(target, crossbar.significances),
        programmed_for=crossbar.programmed_for,
    )


def metric_over_time(
    twin: Twin,
    make: Chips,
    samples: Samples,
    conditions: Conditions,
    compensations: Iterable[str] = COMPENSATIONS,
) -> dict[str, OverTime]:
    """Measure the metric of chips, by compensation and time.

    Args:
        twin: A copy of the network, plain or on tiles; its weights are changed.
        make: Makes the chips.
        samples: Samples with targets.
        conditions: What is simulated.
        compensations: Which of `COMPENSATIONS`.
    """
    found = {}
    for label in compensations:
        compensation = COMPENSATIONS[label]
        values = np.empty((conditions.chips, len(conditions.times)))
        for chip in range(conditions.chips):
            held = make(_seed(conditions.seed, chip, 0), compensation)
            for place, t in enumerate(conditions.times):
                write(twin, held, t)
                values[chip, place] = measure(twin.outputs(samples), samples)
        found[label] = OverTime(
            *(
                tuple(rounded(value) for value in reduced)
                for reduced in (values.mean(axis=0), values.min(axis=0), values.max(axis=0))
            )
        )
    return found


def write(twin: Twin, chip: Chip, t: float) -> None:
    """Put what a chip holds at a time into a twin."""
    if isinstance(twin.model, AnalogNetwork):
        chip.write(twin.model, t)
    else:
        assign(twin.model, chip.weights(t))


def _seed(seed: int, *parts: int) -> int:
    return int(np.random.SeedSequence([seed, *parts]).generate_state(1)[0] >> 1)
