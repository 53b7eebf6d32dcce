"""Read measured conductances back by their addresses and rebuild the weights from them."""

import csv
import dataclasses
from typing import Any

import numpy as np

from snukeras.export.crossbar.map import CrossbarMap
from snukeras.export.errors import BadInputError

COLUMNS = ("tile", "word_line", "bit_line", "measured_uS")


@dataclasses.dataclass(frozen=True)
class ReadBack:
    """What was measured, as weights.

    Attributes:
        conductances: matrix name -> (G+, G-) in uS, (rows, columns); targets where not measured.
        weights: all weights by name, rebuilt from them.
        report: errors per matrix and tile, and per column the line measured = slope * target +
            offset (offset in units of weight).
    """

    conductances: dict[str, tuple[np.ndarray, np.ndarray]]
    weights: dict[str, np.ndarray]
    report: dict[str, Any]


def read_back(crossbar: CrossbarMap, path) -> ReadBack:
    """Reads measured conductances and compares them with the targets of a map.

    Args:
        crossbar: the map the devices were programmed from.
        path: CSV with the columns tile, word_line, bit_line and measured_uS (others are ignored);
            one line per device, so that parallel devices of one cross-point are added up. Cross-
            points that are not listed keep their targets and are counted as missing.

    Raises:
        BadInputError: a column is missing, a line cannot be read, or an address is not in the map.
    """
    measured = _read(path, crossbar)
    conductances, matrices = {}, []
    tiles: dict[int, list[float]] = {}
    for entry in crossbar.description["matrices"]:
        name = entry["name"]
        g_plus, g_minus = crossbar.conductances(name)
        conductances[name] = (np.array(g_plus), np.array(g_minus))
    missing = dict.fromkeys(conductances, 0)
    used = 0
    for block, word, plus, minus in crossbar.blocks():
        name = crossbar.description["matrices"][block["matrix"]]["name"]
        rows = slice(block["row"], block["row"] + block["rows"])
        columns = slice(block["column"], block["column"] + block["columns"])
        for g, lines in zip(conductances[name], (plus, minus), strict=True):
            points = _points(crossbar, block["tile"], word[:, None], lines[None, :])
            values, found = _look_up(measured, points)
            missing[name] += int(found.size - found.sum())
            used += int(found.sum())
            error = (values - g[rows, columns])[found]
            tiles.setdefault(block["tile"], []).extend([float(np.sum(error**2)), error.size])
            g[rows, columns] = np.where(found, values, g[rows, columns])
    if used != len(measured[0]):
        raise BadInputError(
            f"{path} has {len(measured[0]) - used} cross-points that the map does not use.",
            "Give the measurement of this map, addressed by tile, word line and bit line.",
        )
    targets = crossbar.weights()
    weights = crossbar.weights(conductances)
    for entry in crossbar.description["matrices"]:
        name = entry["name"]
        shape = (entry["rows"], entry["columns"])
        wanted = targets[name].reshape(shape).astype("float64")
        got = weights[name].reshape(shape).astype("float64")
        slope, offset = _regress(wanted, got)
        matrices.append(
            {
                "name": name,
                "missing": missing[name],
                "max_error": float(np.abs(got - wanted).max()),
                "rms_error": float(np.sqrt(np.mean((got - wanted) ** 2))),
                "column_slope": slope.tolist(),
                "column_offset": offset.tolist(),
            }
        )
    report = {
        "format": "snukeras-readback",
        "version": 1,
        "measured": used,
        "matrices": matrices,
        "tiles": [
            {
                "tile": tile,
                "rms_error_uS": float(np.sqrt(sum(parts[::2]) / max(sum(parts[1::2]), 1))),
            }
            for tile, parts in sorted(tiles.items())
        ],
    }
    return ReadBack(conductances, weights, report)


def _regress(x, y):
    """Least-squares slope and offset of each column; slope 1 where all targets are equal."""
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    spread = np.sum((x - mean_x) ** 2, axis=0)
    joint = np.sum((x - mean_x) * (y - mean_y), axis=0)
    slope = np.where(spread > 0, joint / np.where(spread > 0, spread, 1.0), 1.0)
    return slope, mean_y - slope * mean_x


def _points(crossbar, tile, word_line, bit_line):
    """One number per cross-point of all tiles."""
    target = crossbar.target
    lines = np.asarray(word_line, "int64") * target.bit_lines + np.asarray(bit_line, "int64")
    return np.asarray(tile, "int64") * (target.rows * target.bit_lines) + lines


def _look_up(measured, points):
    known, values = measured
    if not len(known):
        return np.zeros(points.shape), np.zeros(points.shape, dtype=bool)
    index = np.minimum(np.searchsorted(known, points), len(known) - 1)
    return values[index], known[index] == points


def _read(path, crossbar):
    """Measured cross-points, sorted, and their conductances in uS."""
    rows = []
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            absent = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if absent:
                raise BadInputError(
                    f"{path} lacks the column(s) {', '.join(absent)}.",
                    f"Its first line must name {', '.join(COLUMNS)}.",
                )
            for row in reader:
                try:
                    rows.append(
                        (*(int(row[name]) for name in COLUMNS[:3]), float(row["measured_uS"]))
                    )
                except (TypeError, ValueError) as error:
                    raise BadInputError(f"{path}, line {reader.line_num}: {error}.") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInputError(f"{path} cannot be read: {error}.") from error
    if not rows:
        raise BadInputError(f"{path} has no measurement.")
    target, tiles = crossbar.target, crossbar.totals["tiles"]
    try:
        address = np.asarray([row[:3] for row in rows], dtype="int64")
    except OverflowError as error:
        raise BadInputError(f"{path} has an address that no tile has.") from error
    g = np.asarray([row[3] for row in rows], dtype="float64")
    limits = np.asarray([tiles, target.rows, target.bit_lines])
    wrong = np.any((address < 0) | (address >= limits), axis=1) | ~np.isfinite(g)
    if wrong.any():
        line = int(np.argmax(wrong)) + 2
        raise BadInputError(f"{path}, line {line}: no such address, or no finite conductance.")
    points, where, counts = np.unique(
        _points(crossbar, *address.T), return_inverse=True, return_counts=True
    )
    if counts.max() > target.devices_per_polarity:
        raise BadInputError(
            f"{path} lists a cross-point {counts.max()} times; it has "
            f"{target.devices_per_polarity} device(s)."
        )
    if counts.min() < target.devices_per_polarity:
        raise BadInputError(
            f"{path} lacks parallel devices: each cross-point has {target.devices_per_polarity}."
        )
    return points, np.bincount(where, weights=g)
