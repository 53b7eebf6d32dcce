"""What becomes of an export on hardware: errors over time, metric, energy, risks in words."""

from typing import Any

import keras
import numpy as np

from snukeras.export.crossbar import CrossbarMap
from snukeras.export.map_proof import rebuilt_model
from snukeras.export.metric import measure, predict
from snukeras.export.samples import Samples
from snukeras.export.simulation import MappedChip, device_of
from snukeras.export.targets import Target, load_target
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
# Targets without figures of their own borrow those of this one.
_STAND_IN = "pcm14nm-2"


def forecast(
    model: keras.Model,
    crossbar: CrossbarMap,
    samples: Samples,
    verification: dict[str, Any],
    seed: int = 0,
    chips: int = CHIPS,
    progress=lambda text: None,
) -> dict[str, Any]:
    """Simulates the export on a few chips and says what to expect.

    Returns:
        {"device", "chips", "times_s", "products", "metric", "energy", "risks"}: the relative rms
        error of each matrix's product and, where the samples have targets, their metric, each by
        compensation and in the order of the times; energy
        and latency per step; risks as sentences.
    """
    progress("simulating the products of the matrices")
    device = device_of(crossbar.target)
    products = _products(crossbar, device, seed, chips)
    metric = None
    left_out: str | None = "there are no samples with a metric"
    if verification["metric"] is not None:
        left_out = f"the network has more than {MAX_WEIGHTS:,} weights on tiles"
        if crossbar.totals["weights"] <= MAX_WEIGHTS:
            progress("simulating chips over a year")
            metric = _metric(model, crossbar, device, samples, seed, chips)
            left_out = None
    found: dict[str, Any] = {
        "device": type(device).__name__,
        "chips": chips,
        "seed": seed,
        "times_s": list(TIMES),
        "products": products,
        "metric": metric,
        "metric_left_out": left_out,
        "energy": energy(crossbar),
    }
    found["risks"] = risks(crossbar, verification, found)
    return found


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


def energy(crossbar: CrossbarMap) -> dict[str, Any]:
    """Energy and latency of one step as a range, with what they assume.

    The lower energy counts the weights in use, E = weights * (energy of a tile / weights of a
    tile); the upper one takes a whole product for every tile, however little of it is used.
    """
    own, target = crossbar.target, crossbar.target
    assumptions = []
    if not target.energy:
        target = load_target(_STAND_IN)
        assumptions.append(
            f"The target {own.name} has no figures of its own; those of {_STAND_IN} "
            f"({target.title}) stand in, in proportion to the cross-points of a tile."
        )
    matrices = crossbar.description["matrices"]
    weights, tiles = crossbar.totals["weights"], crossbar.totals["tiles"]
    depth = len({entry["layer"] for entry in matrices})
    part = _points(own) / _points(target)
    cases = [
        {
            "name": figure["name"],
            "low_nJ": _round(weights * figure["mvm_nJ"] / target.weights_per_tile),
            "high_nJ": _round(tiles * figure["mvm_nJ"] * part),
            "latency_ns": _round(depth * figure["mvm_ns"]),
            "source": figure["source"],
        }
        for figure in target.energy
    ]
    assumptions += [
        "Lower energy: only weights in use cost energy, each its share of a full tile.",
        "Upper energy: every tile costs a whole product, however little of it is used.",
        f"Latency: {depth} layer(s) with matrices, one after the other; a layer's matrices and "
        "tiles work at the same time.",
        "Each matrix is used once per step (a convolution: once per output position).",
        "Left out: digital neurons and adders, transfer between tiles, the host, programming. "
        "Sparse spikes save nothing here, because converters dominate.",
    ]
    return {
        "low_nJ": min((case["low_nJ"] for case in cases), default=None),
        "high_nJ": max((case["high_nJ"] for case in cases), default=None),
        "latency_ns": [case["latency_ns"] for case in cases],
        "cases": cases,
        "assumptions": assumptions,
    }


def _points(target: Target) -> int:
    return target.rows * target.columns


def risks(crossbar: CrossbarMap, verification: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """The biggest risks in words, each with the number it comes from; the gravest first."""
    said: list[tuple[float, str]] = []
    if not verification["ok"]:
        said.append((9.0, "The export did not pass its verification. Do not use it."))
    faults = crossbar.description["faults"]
    if faults:
        worst = max(abs(fault["weight_error"]) for fault in faults)
        said.append(
            (
                2.0,
                f"{len(faults)} weight(s) sit on stuck devices; the largest weight error that "
                f"remains is {worst:.2g}.",
            )
        )
    said += _drift(found)
    if found["metric"] is not None:
        said += _decay(found["metric"], verification["metric"])
    target = crossbar.target
    if target.levels is None:
        said.append(
            (
                0.5,
                "The map asks for continuous conductances. Devices reach them only within the "
                "programming noise that is simulated here; try --levels to see coarser ones.",
            )
        )
    else:
        worst = max(
            verification["map"]["matrices"], key=lambda m: m["rms_error"] / (m["rms_weight"] or 1)
        )
        ratio = worst["rms_error"] / (worst["rms_weight"] or 1)
        said.append(
            (
                ratio * 5,
                f"{target.levels} levels round the weights of {worst['name']} by "
                f"{ratio:.1%} of their rms value.",
            )
        )
    for entry in verification["map"]["matrices"]:
        ratio = entry["rms_weight"] / entry["max_weight"] if entry["max_weight"] else 1.0
        if ratio < 0.12:
            said.append(
                (
                    1.0 - ratio,
                    f"The weights of {entry['name']} have an rms value of {ratio:.0%} of the "
                    "largest, so most devices hold little conductance, where noise weighs most. "
                    "Clip weights in training (PCMConstraint), or export with --scale column.",
                )
            )
    tiles = crossbar.description["tiles"]
    used = sum(t["devices_used"] for t in tiles) / sum(t["devices"] for t in tiles)
    if used < 0.3 and len(tiles) > 1:
        said.append(
            (
                0.4,
                f"Only {used:.1%} of the devices of {len(tiles)} tiles are used; the upper energy "
                "pays for all. --pack may need fewer tiles.",
            )
        )
    if crossbar.description["adders"]:
        said.append(
            (
                0.3,
                f"{len(crossbar.description['adders'])} group(s) of columns are split over word "
                "lines; their partial sums are converted one by one, then added.",
            )
        )
    return [text for _, text in sorted(said, key=lambda item: -item[0])]


def _drift(found):
    """The risk from the simulated errors of products."""
    if found["products"]:
        worst = max(found["products"], key=lambda entry: entry["relative_error"]["global"][-1])
        errors = worst["relative_error"]
        yield (
            1.0 + errors["global"][-1],
            f"The product of {worst['name']} is off by {errors['global'][0]:.1%} at {TIMES[25.0]} "
            f"and by {errors['global'][-1]:.1%} after a year with drift compensation "
            f"({errors['none'][-1]:.1%} without).",
        )


def _decay(metric, reference):
    """Risks from the simulated metric; `reference` is that of the verification."""
    bare, helped = metric["none"], metric["global"]
    exact, sign = reference["values"]["keras"], 1.0 if reference["lower_is_better"] else -1.0
    end = helped["mean"][-1]
    worst = max(sign * end, sign * bare["mean"][-1]) * sign
    # How much worse it gets, as a share of the figure.
    loss = sign * (worst - exact) / max(abs(exact), abs(worst), 1e-9)
    text = (
        f"The {reference['title']} on the samples is {exact:.2f} {reference['unit']} in Keras, "
        f"{helped['mean'][0]:.2f} on chips at 25 s, {end:.2f} after a year with drift "
        f"compensation and {bare['mean'][-1]:.2f} without."
    )
    if loss <= 0.01:
        text += " Ask more chips and more data before relying on that little loss."
    yield 0.2 if loss <= 0.01 else 2.5 + loss, text
    best, worst_of = ("min", "max") if sign > 0 else ("max", "min")
    harmed = [
        name
        for name, with_it, without in zip(TIMES.values(), helped[best], bare[worst_of], strict=True)
        if sign * with_it > sign * without
    ]
    if harmed:
        yield (
            1.4,
            f"Compensation does harm at {', '.join(harmed)}: every chip is better without it "
            "there.",
        )


def _seed(seed, chip, index):
    return int(np.random.SeedSequence([seed, chip, index]).generate_state(1)[0] >> 1)


def _round(value):
    """Six digits: what the report says must not hang on the order of a sum."""
    return float(f"{float(value):.6g}")
