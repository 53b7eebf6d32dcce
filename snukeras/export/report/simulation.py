"""Simulate chips of an exported network: errors of products and the metric over time."""

from typing import Any

import keras
import numpy as np

from snukeras.export.crossbar.chip import MappedChip
from snukeras.export.verify.metric import measure, predict
from snukeras.network.weights import rebuilt_model
from snukeras.pcm import Converter, Crossbar, DifferentialPair

#: Seconds since the reference reading (see snukeras.pcm.InferencePCM), with their names.
TIMES = {25.0: "25 s", 3600.0: "1 h", 86400.0: "1 day", 31536000.0: "1 year"}
COMPENSATIONS: dict[str, Any] = {"none": None, "global": "global"}


# Few, so that the report costs the export little.
CHIPS = 3


# Beyond this many weights the metric over time is left to snukeras.pcm.evaluate_chips.
MAX_WEIGHTS = 2_000_000


# As many matrices, and one tile of each, have their product simulated.
MAX_MATRICES = 16
_VECTORS = 64


def _products(crossbar, device, seed, chips):
    """Relative rms error of x W on simulated tiles, for normal x, by matrix and compensation."""
    target = crossbar.target
    converters = {
        "input_converter": _converter(target.dac_bits),
        "output_converter": _converter(target.adc_bits),
    }
    size = (target.rows, target.bit_lines // 2)
    pair = DifferentialPair(
        target.g_max, target.g_min, target.levels, crossbar.description["scale"]
    )
    entries = sorted(crossbar.description["matrices"], key=lambda e: -e["rows"] * e["columns"])
    chosen = {entry["name"] for entry in entries[:MAX_MATRICES]}
    found = []
    for index, entry in enumerate(crossbar.description["matrices"]):
        if entry["name"] not in chosen:
            continue
        matrix = _largest_tile(crossbar, entry, size)
        if not matrix.any():
            continue  # of nothing, no error is a share
        x = np.random.default_rng([seed, index]).standard_normal((_VECTORS, len(matrix)))
        x = x.astype("float32")
        wanted = x.astype("float64") @ matrix
        power = float(np.mean(wanted**2))
        errors: dict[str, list[float]] = {}
        for label, compensation in COMPENSATIONS.items():
            squares = np.zeros(len(TIMES))
            for chip in range(chips):
                tile = Crossbar(
                    matrix,
                    device,
                    pair,
                    size,
                    compensation=compensation,
                    name=entry["name"],
                    seed=_seed(seed, chip, index),
                    **converters,
                )
                for place, t in enumerate(TIMES):
                    got = keras.ops.convert_to_numpy(tile.matmul(x, t))
                    squares[place] += float(np.mean((got - wanted) ** 2)) / power / chips
            errors[label] = [_round(value) for value in np.sqrt(squares)]
        found.append({"name": entry["name"], "relative_error": errors})
    return found


def _largest_tile(crossbar, entry, size):
    """The block of a matrix with its largest weight, so that the scale stays what it is."""
    plus, minus = crossbar.conductances(entry["name"])
    rows, columns = np.unravel_index(np.argmax(np.abs(plus - minus)), plus.shape)
    block = tuple(
        slice(at // step * step, at // step * step + step)
        for at, step in zip((rows, columns), size, strict=True)
    )
    difference = plus[block].astype("float64") - minus[block]
    return (difference / crossbar.scales(entry["name"])[block[1]]).astype("float32")


def _converter(bits):
    return None if bits is None or bits < 2 else Converter(bits)


def _metric(model, crossbar, device, samples, seed, chips):
    """Mean, smallest and largest metric over the chips, by compensation and time."""
    twin = rebuilt_model(model, crossbar.weights())
    found = {}
    for label, compensation in COMPENSATIONS.items():
        values = np.empty((chips, len(TIMES)))
        for chip in range(chips):
            held = MappedChip(
                crossbar, model, device, seed=_seed(seed, chip, 0), compensation=compensation
            )
            for place, t in enumerate(TIMES):
                held.write(twin, t)
                values[chip, place] = measure(predict(twin, samples), samples)
        found[label] = {
            name: [_round(value) for value in reduced]
            for name, reduced in (
                ("mean", values.mean(axis=0)),
                ("min", values.min(axis=0)),
                ("max", values.max(axis=0)),
            )
        }
    return found


def _seed(seed, chip, index):
    return int(np.random.SeedSequence([seed, chip, index]).generate_state(1)[0] >> 1)


def _round(value):
    """Six digits: what the report says must not hang on the order of a sum."""
    return float(f"{float(value):.6g}")
