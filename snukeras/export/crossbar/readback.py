"""Read measured conductances back by their addresses and rebuild the weights from them."""

import csv
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from snukeras._files import regular
from snukeras.export.crossbar.map import CrossbarMap, Pair, part_of
from snukeras.export.errors import BadInputError
from snukeras.export.records import Record

COLUMNS = ("tile", "word_line", "bit_line", "measured_uS")
#: Of a map whose tiles have several planes, too.
PLANE = "plane"
FORMAT = "snukeras-readback"
# No device conducts so much more than the target's largest conductance.
_TOO_MUCH = 1000.0
# Measurements in siemens look a million times too small.
_TOO_LITTLE = 1e-4


@dataclasses.dataclass(frozen=True)
class MatrixError(Record):
    """Measured against target weights of a matrix, in units of weight.

    Attributes:
        name: Name of the matrix. Targets are what was to be programmed.
        missing: Number of cross-points that were not measured.
        max_error, rms_error: Of the weights.
        column_slope, column_offset: Of the line measured = slope * target + offset, by column.
    """

    name: str
    missing: int
    max_error: float
    rms_error: float
    column_slope: tuple[float, ...]
    column_offset: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class TileError(Record):
    """Measured against target conductances of a tile."""

    tile: int
    rms_error_uS: float  # noqa: N815 (its name in the file)


@dataclasses.dataclass(frozen=True)
class ReadBackReport(Record):
    """The content of readback.json."""

    format: str
    version: int
    measured: int
    matrices: tuple[MatrixError, ...]
    tiles: tuple[TileError, ...]


@dataclasses.dataclass(frozen=True)
class ReadBack:
    """What was measured, as weights.

    Attributes:
        conductances: Matrix name -> (G+, G-) in uS, (rows, columns); targets where not measured.
        weights: All weights by name, rebuilt from them.
        report: Errors of matrices, columns and tiles.
    """

    conductances: dict[str, Pair]
    weights: dict[str, np.ndarray]
    report: ReadBackReport


@dataclasses.dataclass(frozen=True)
class _Measured:
    """Measured cross-points, numbered over all tiles and sorted, and their conductances in uS."""

    points: np.ndarray
    values: np.ndarray

    def at(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the values of cross-points, and which of them were measured."""
        index = np.minimum(np.searchsorted(self.points, points), len(self.points) - 1)
        return self.values[index], self.points[index] == points


def read_back(crossbar: CrossbarMap, path: str | Path) -> ReadBack:
    """Read measured conductances and compare them with the targets of a map.

    Args:
        crossbar: The map that the devices were programmed from.
        path: CSV with the columns tile, word_line, bit_line and measured_uS (others are ignored);
            one line per device, so that parallel devices of one cross-point are added up. Where
            tiles have several planes, a column plane says on which a device is. Cross-points that
            are not listed keep their targets and are counted as missing.

    Raises:
        BadInputError: A column is missing, a line cannot be read, an address is not in the map,
            or the numbers cannot be conductances in uS.
    """
    measured = _read(path, crossbar)
    conductances: dict[str, Pair] = {}
    for name in crossbar.matrices:
        g_plus, g_minus = crossbar.programmed(name)
        conductances[name] = (np.array(g_plus), np.array(g_minus))
    missing = dict.fromkeys(conductances, 0)
    squares: dict[int, list[tuple[float, int]]] = {}
    used = 0
    for block, lines in crossbar.blocks():
        name, part = crossbar.matrices[block.matrix], part_of(block)
        for g, bits in zip(conductances[name], (lines.plus, lines.minus), strict=True):
            points = _points(crossbar, block.tile, lines.word[:, None], bits[None, :])
            values, found = measured.at(points)
            missing[name] += int(found.size - found.sum())
            used += int(found.sum())
            error = (values - g[part])[found]
            squares.setdefault(block.tile, []).append((float(np.sum(error**2)), error.size))
            g[part] = np.where(found, values, g[part])
    if used != len(measured.points):
        raise BadInputError(
            f"{path} has {len(measured.points) - used} cross-points that the map does not use.",
            "Give the measurement of this map, addressed by tile, word line and bit line.",
        )
    targets = crossbar.weights({name: crossbar.programmed(name) for name in crossbar.matrices})
    weights = crossbar.weights(conductances)
    report = ReadBackReport(
        format=FORMAT,
        version=1,
        measured=used,
        matrices=tuple(
            _matrix_error(crossbar, name, targets[name], weights[name], missing[name])
            for name in crossbar.matrices
        ),
        tiles=tuple(
            TileError(tile, math.sqrt(sum(s for s, _ in parts) / max(sum(n for _, n in parts), 1)))
            for tile, parts in sorted(squares.items())
        ),
    )
    return ReadBack(conductances, weights, report)


def _matrix_error(
    crossbar: CrossbarMap, name: str, target: np.ndarray, weights: np.ndarray, missing: int
) -> MatrixError:
    entry = crossbar.entry(name)
    wanted = entry.unrolling.matrix(target).astype("float64")
    got = entry.unrolling.matrix(weights).astype("float64")
    if not np.all(np.isfinite(got)):
        raise BadInputError(f"The measured conductances make weights of {name} infinite.")
    slope, offset = _regress(wanted, got)
    return MatrixError(
        name=name,
        missing=missing,
        max_error=float(np.abs(got - wanted).max()),
        rms_error=float(np.sqrt(np.mean((got - wanted) ** 2))),
        column_slope=tuple(slope.tolist()),
        column_offset=tuple(offset.tolist()),
    )


def _regress(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit y = slope * x + offset by column; the slope is 1 where all targets are equal."""
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    spread = np.sum((x - mean_x) ** 2, axis=0)
    joint = np.sum((x - mean_x) * (y - mean_y), axis=0)
    slope = np.where(spread > 0, joint / np.where(spread > 0, spread, 1.0), 1.0)
    return slope, mean_y - slope * mean_x


def _points(
    crossbar: CrossbarMap,
    tile: int | np.ndarray,
    word_line: np.ndarray,
    bit_line: np.ndarray,
) -> np.ndarray:
    """Number the cross-points of all tiles."""
    target = crossbar.target
    lines = np.asarray(word_line, "int64") * target.bit_lines + np.asarray(bit_line, "int64")
    return np.asarray(tile, "int64") * (target.rows * target.bit_lines) + lines


def _read(path: str | Path, crossbar: CrossbarMap) -> _Measured:
    """Read the file, check the addresses, and add up parallel devices."""
    target = crossbar.target
    significances = np.asarray(crossbar.significances)
    limits = (crossbar.totals["tiles"], target.rows, target.bit_lines, len(significances))
    addresses, values = [], []
    for number, address, g in _lines(path, len(significances) > 1):
        if any(not 0 <= part < limit for part, limit in zip(address, limits, strict=True)):
            raise BadInputError(
                f"{path}, line {number}: no such address; the map has {limits[0]} tile(s) of "
                f"{limits[1]} word lines and {limits[2]} bit lines on {limits[3]} plane(s), "
                f"counted from 0. Received: {'.'.join(map(str, address))}."
            )
        if not 0 <= g <= _TOO_MUCH * target.g_max:
            raise BadInputError(
                f"{path}, line {number}: measured_uS must be between 0 and "
                f"{_TOO_MUCH * target.g_max:g} uS. Received: {g:g}.",
                "Conductances are in microsiemens; set noise below zero to 0.",
            )
        addresses.append(address)
        values.append(g)
    if not addresses:
        raise BadInputError(f"{path} has no measurement.")
    _check_unit(path, crossbar, max(values))
    *lines, planes = np.asarray(addresses, dtype="int64").T
    numbers = _points(crossbar, *lines)
    points, where = np.unique(numbers, return_inverse=True)
    counts = np.zeros((len(points), len(significances)), "int64")
    np.add.at(counts, (where, planes), 1)
    parallel = target.devices_per_polarity
    if counts.max() > parallel:
        raise BadInputError(
            f"{path} lists a cross-point {counts.max()} times; it has {parallel} device(s)"
            f"{' on each plane' if len(significances) > 1 else ''}."
        )
    if counts.min() < parallel:
        each = f"{parallel} on each of {len(significances)} planes"
        raise BadInputError(
            f"{path} lacks parallel devices: each cross-point has "
            f"{each if len(significances) > 1 else parallel}."
        )
    shares = (significances / significances.sum())[planes]
    return _Measured(points, np.bincount(where, weights=shares * np.asarray(values)))


def _check_unit(path: str | Path, crossbar: CrossbarMap, largest: float) -> None:
    """Refuse numbers that are no measurement in uS, but zeros or siemens."""
    wanted = max(
        float(max(p.max(), m.max())) for p, m in map(crossbar.programmed, crossbar.matrices)
    )
    if wanted == 0.0:  # all weights are zero
        return
    if largest == 0.0:
        raise BadInputError(
            f"{path}: every measured conductance is 0.", "Was the array powered while it was read?"
        )
    if largest < _TOO_LITTLE * crossbar.target.g_max:
        raise BadInputError(
            f"{path}: the largest conductance is {largest:g} uS, of a target of "
            f"{crossbar.target.g_max:g} uS.",
            "Conductances are in microsiemens; multiply siemens by 1e6.",
        )


def _lines(path: str | Path, planes: bool) -> Iterator[tuple[int, tuple[int, ...], float]]:
    """Iterate over the lines of the file: line number, address with plane, conductance in uS."""
    wanted = (*COLUMNS[:3], PLANE, COLUMNS[3]) if planes else COLUMNS
    try:
        with open(regular(path), newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            absent = [name for name in wanted if name not in (reader.fieldnames or ())]
            if absent:
                raise BadInputError(
                    f"{path} lacks the column(s) {', '.join(absent)}.",
                    f"Its first line must name {', '.join(wanted)}.",
                )
            for row in reader:
                try:
                    address = tuple(int(row[name]) for name in wanted[:-1])
                    g = float(row["measured_uS"])
                except (TypeError, ValueError) as error:
                    raise BadInputError(f"{path}, line {reader.line_num}: {error}.") from error
                if math.isnan(g):
                    raise BadInputError(f"{path}, line {reader.line_num}: measured_uS is NaN.")
                yield reader.line_num, address if planes else (*address, 0), g
    except BadInputError:
        raise
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, csv.Error) as error:
        raise BadInputError(f"{path} cannot be read: {error}.") from error
