"""Prove a crossbar map: the weights that it rebuilds against those of the model."""

import csv
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from snukeras.export.crossbar.description import MatrixEntry
from snukeras.export.crossbar.device_list import device_rows, header
from snukeras.export.crossbar.map import CrossbarMap
from snukeras.export.verify.results import DeviceListResult, MapResult, MatrixResult
from snukeras.export.verify.spikes import ROUNDOFF
from snukeras.network.weights import Weight


def compare_map(
    weights: Sequence[Weight], crossbar: CrossbarMap, belongs: bool = True
) -> MapResult:
    """Compare the weights rebuilt from a map with those of the model, matrix by matrix.

    Args:
        weights: All weights of the model.
        crossbar: The map.
        belongs: Whether the map names the files that it was found with.
    """
    rebuilt, by_name = crossbar.weights(), {weight.name: weight for weight in weights}
    matrices, absent = [], []
    for index, entry in enumerate(crossbar.description.matrices):
        own = by_name.get(entry.name)
        if own is None or own.values.shape != entry.shape:
            absent.append(entry.name)
        else:
            matrices.append(
                _compare_matrix(crossbar, index, entry, own.values, rebuilt[entry.name])
            )
    parameters = crossbar.parameters()
    equal = all(
        name in by_name and np.array_equal(values, by_name[name].values)
        for name, values in parameters.items()
    )
    complete = set(by_name) == set(parameters) | set(crossbar.matrices)
    good = equal and complete and belongs and not absent
    return MapResult(
        ok=good and all(matrix.ok for matrix in matrices),
        matrices=tuple(matrices),
        absent=tuple(absent),
        parameters_equal=equal,
        complete=complete,
        belongs=belongs,
    )


def _compare_matrix(
    crossbar: CrossbarMap, index: int, entry: MatrixEntry, own: np.ndarray, rebuilt: np.ndarray
) -> MatrixResult:
    """Compare one matrix; weights on stuck devices are left out, and listed in the map."""
    target, description = crossbar.target, crossbar.description
    levels = crossbar.levels(entry.name)
    step = 0.0 if levels is None else (target.g_max - target.g_min) / (levels - 1)
    wanted = entry.unrolling.matrix(own)
    error = entry.unrolling.matrix(rebuilt).astype("float64") - wanted
    # Rounding: of the two conductances (up to g_max), of the product, of the quotient.
    scales = crossbar.scales(entry.name)
    bound = (step / 2 + 8 * ROUNDOFF * target.g_max) / scales
    # What a map was told to clip may be off by that.
    limit = (target.g_max - target.g_min) / scales
    beyond = np.maximum(np.abs(wanted) - limit, 0.0) if description.clip is not None else 0.0
    stuck = {(fault.row, fault.column) for fault in description.faults if fault.matrix == index}
    for row, column in stuck:
        error[row, column] = 0.0
    return MatrixResult(
        name=entry.name,
        layer=entry.layer,
        shape=entry.shape,
        weights=int(wanted.size),
        devices=2 * crossbar.devices_per_polarity * int(wanted.size),
        tiles=len({block.tile for block in description.blocks if block.matrix == index}),
        levels=levels,
        max_weight=float(np.abs(wanted).max()),
        rms_weight=float(np.sqrt(np.mean(wanted.astype("float64") ** 2))),
        max_error=float(np.abs(error).max()),
        rms_error=float(np.sqrt(np.mean(error**2))),
        half_level=float(step / 2 / scales.min()),
        stuck=len(stuck),
        ok=bool(np.all(np.abs(error) <= bound + beyond)),
        clipped=None if description.clip is None else int(np.count_nonzero(beyond > bound)),
    )


def compare_device_list(crossbar: CrossbarMap, path: str | Path) -> DeviceListResult:
    """Compare a list of devices, line by line, with the one that the map gives."""
    expected = itertools.chain([header(crossbar)], device_rows(crossbar))
    line = 0
    try:
        with open(path, newline="", encoding="utf-8") as file:
            for line, (want, got) in enumerate(
                itertools.zip_longest(expected, csv.reader(file)), 1
            ):
                if want is None or got is None or [str(cell) for cell in want] != got:
                    return DeviceListResult(False, line - 1, line)
    except (ValueError, csv.Error):
        return DeviceListResult(False, line, line + 1)
    return DeviceListResult(True, line - 1, 0)
