"""Put the biggest risks of an export on hardware into words."""

from collections.abc import Iterator, Sequence

import numpy as np

from snukeras._units import time_text
from snukeras.export.crossbar.map import CrossbarMap
from snukeras.export.report.forecast import Forecast
from snukeras.export.report.simulation import OverTime
from snukeras.export.verify.results import MapResult, MetricResult, Verification

Risk = tuple[float, str]  # gravity and text


def risks(
    crossbar: CrossbarMap,
    verification: Verification,
    found: Forecast,
    digital: Sequence[str] = (),
) -> tuple[str, ...]:
    """Return the biggest risks in words, each with the number it comes from; the gravest first.

    Args:
        crossbar: The map.
        verification: What the verification found.
        found: The forecast.
        digital: Kernels that no tile holds.
    """
    said: list[Risk] = []
    if not verification.ok:
        said.append((9.0, "The export did not pass its verification. Do not use it."))
    said += _faults(crossbar)
    said += _drift(found)
    if found.metric is not None and verification.metric is not None:
        said += _decay(found.metric, verification.metric, found.times_s)
        said += _other_scale(found, verification.metric, crossbar.description.scale)
    if verification.map is not None:
        said += _levels(crossbar, verification.map)
        said += _clipped(crossbar, verification.map)
    said += _tiles(crossbar)
    said += _small_weights(crossbar)
    if digital:
        said.append(
            (
                1.5,
                f"{len(digital)} kernel(s) stay digital, because no layer calls them a matrix: "
                f"{', '.join(digital[:3])}{' ...' if len(digital) > 3 else ''}. Name them in "
                "tile_matrices of their layer's class to put them on tiles.",
            )
        )
    return tuple(text for _, text in sorted(said, key=lambda item: -item[0]))


def _faults(crossbar: CrossbarMap) -> Iterator[Risk]:
    faults = crossbar.description.faults
    if faults:
        worst = max(abs(fault.weight_error) for fault in faults)
        yield (
            2.0,
            f"{len(faults)} weight(s) sit on stuck devices; the largest weight error that "
            f"remains is {worst:.2g}.",
        )


def _levels(crossbar: CrossbarMap, mapped: MapResult) -> Iterator[Risk]:
    continuous = [matrix for matrix in mapped.matrices if matrix.levels is None]
    if continuous:
        yield (
            0.5,
            "The map asks for continuous conductances. Devices reach them only within the "
            "programming noise that is simulated here; try --levels to see coarser ones.",
        )
    stepped = [matrix for matrix in mapped.matrices if matrix.levels is not None]
    worst = max(stepped, key=lambda m: m.relative_error, default=None)
    if worst is not None:
        yield (
            worst.relative_error * 5,
            f"{worst.levels} levels round the weights of {worst.name} by "
            f"{worst.relative_error:.1%} of their rms value.",
        )


def _clipped(crossbar: CrossbarMap, mapped: MapResult) -> Iterator[Risk]:
    """Say what clipping changes, where weights were cut."""
    cut = [matrix for matrix in mapped.matrices if matrix.clipped]
    worst = max(cut, key=lambda m: m.relative_error, default=None)
    if worst is not None:
        yield (
            worst.relative_error * 5,
            f"--clip {crossbar.description.clip} cut {worst.clipped:,} of {worst.weights:,} "
            f"weights of {worst.name}, which changes them by {worst.relative_error:.1%} of their "
            "rms value.",
        )


def _small_weights(crossbar: CrossbarMap) -> Iterator[Risk]:
    """Say where weights use little of the range of conductances that their scale gives them."""
    tensor = crossbar.description.scale == "tensor"
    largest = "the largest" if tensor else "the largest of their columns"
    advice = ", or export with --scale column" if tensor else ""
    for name in crossbar.matrices:
        plus, minus = crossbar.conductances(name)
        ratio = float(np.sqrt(np.mean((plus - minus) ** 2))) / float(
            np.abs(plus - minus).max() or 1
        )
        if 0 < ratio < 0.12:
            yield (
                1.0 - ratio,
                f"The weights of {name} have an rms value of {ratio:.0%} of {largest}, so "
                "most devices hold little conductance, where noise weighs most. Clip weights in "
                f"training (PCMConstraint){advice}.",
            )


def _tiles(crossbar: CrossbarMap) -> Iterator[Risk]:
    tiles = crossbar.description.tiles
    used = sum(t.devices_used for t in tiles) / sum(t.devices for t in tiles)
    if used < 0.3 and len(tiles) > 1:
        yield (
            0.4,
            f"Only {used:.1%} of the devices of {len(tiles)} tiles are used; the upper energy "
            "pays for all. --pack may need fewer tiles.",
        )
    if crossbar.description.adders:
        yield (
            0.3,
            f"{len(crossbar.description.adders)} group(s) of columns are split over word lines; "
            "their partial sums are converted one by one, then added.",
        )


def _drift(found: Forecast) -> Iterator[Risk]:
    """Name the product with the largest simulated error."""
    if found.products:
        worst = max(found.products, key=lambda entry: entry.relative_error["global"][-1])
        errors = worst.relative_error
        first, last = time_text(found.times_s[0]), time_text(found.times_s[-1])
        yield (
            1.0 + errors["global"][-1],
            f"The product of {worst.name} is off by {errors['global'][0]:.1%} at {first} "
            f"and by {errors['global'][-1]:.1%} after {last} with drift compensation "
            f"({errors['none'][-1]:.1%} without).",
        )


def _decay(
    metric: dict[str, OverTime], reference: MetricResult, times: Sequence[float]
) -> Iterator[Risk]:
    """Say how the simulated metric falls; `reference` is that of the verification."""
    bare, helped = metric["none"], metric["global"]
    exact, sign = reference.values["keras"], 1.0 if reference.lower_is_better else -1.0
    end = helped.mean[-1]
    worst = max(sign * end, sign * bare.mean[-1]) * sign
    # The loss of the metric, as a share of its value.
    loss = sign * (worst - exact) / max(abs(exact), abs(worst), 1e-9)
    text = (
        f"The {reference.title} on the samples is {exact:.2f} {reference.unit} in Keras, "
        f"{helped.mean[0]:.2f} on chips at {time_text(times[0])}, {end:.2f} after "
        f"{time_text(times[-1])} with drift compensation and {bare.mean[-1]:.2f} without."
    )
    if loss <= 0.01:
        text += " Ask more chips (--chips) and more data before relying on that little loss."
    yield (0.2 if loss <= 0.01 else 2.5 + loss), text
    best, worst_of = ("min", "max") if sign > 0 else ("max", "min")
    harmed = [
        time_text(t)
        for t, with_it, without in zip(times, helped[best], bare[worst_of], strict=True)
        if sign * with_it > sign * without
    ]
    if harmed:
        yield (
            1.4,
            f"On these samples every chip is better without compensation at {', '.join(harmed)}. "
            "Where a network is surer of itself than it should be on its samples, drift, which "
            "shrinks all weights, does it good; that says nothing of the compensation.",
        )


def _other_scale(found: Forecast, reference: MetricResult, own: str) -> Iterator[Risk]:
    """Compare with the other choice of scales, where it is better."""
    by_scale = found.metric_by_scale or {}
    other = "tensor" if own == "column" else "column"
    if found.metric is None or other not in by_scale:
        return
    sign = 1.0 if reference.lower_is_better else -1.0
    here, there = found.metric["global"].mean, by_scale[other]["global"].mean
    if sign * (here[0] - there[0]) > 0.005 * max(abs(here[0]), 1e-9):
        yield (
            1.6,
            f"With --scale {other} the {reference.title} would be {there[0]:.2f} instead of "
            f"{here[0]:.2f} {reference.unit} at {time_text(found.times_s[0])}, and "
            f"{there[-1]:.2f} instead of {here[-1]:.2f} after {time_text(found.times_s[-1])}.",
        )
