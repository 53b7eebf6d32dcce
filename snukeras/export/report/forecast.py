"""Say what becomes of an export on hardware: errors over time, metric, energy, risks in words."""

import dataclasses
from collections.abc import Callable

from snukeras._units import rounded
from snukeras.export.crossbar.chip import device_of
from snukeras.export.crossbar.map import CrossbarMap
from snukeras.export.errors import BadInputError
from snukeras.export.network import Network
from snukeras.export.records import Record
from snukeras.export.report.energy import Energy, energy
from snukeras.export.report.simulation import (
    CHIPS,
    LARGE,
    MAX_WEIGHTS,
    SCALES,
    TIMES,
    Conditions,
    OverTime,
    ProductError,
    chips_of_map,
    chips_of_scale,
    exact_chip,
    metric_over_time,
    products,
)
from snukeras.export.report.tiled import Converters, OnTiles
from snukeras.export.samples import Samples
from snukeras.export.verify.folder import Twin
from snukeras.export.verify.metric import measure
from snukeras.export.verify.results import Verification
from snukeras.pcm import IdealDevice


@dataclasses.dataclass(frozen=True)
class Forecast(Record):
    """What to expect of the hardware.

    Attributes:
        device: Name of the device model.
        chips, seed: How many chips are simulated, and the seed of the first.
        times_s: Seconds since the reference reading.
        products: Relative rms error of each matrix's product, by compensation.
        metric: The metric of the samples, by compensation; None where it is left out.
        metric_left_out: Why, or None.
        metric_by_scale: The metric of the same weights with one scale of conductance for each
            matrix ("tensor") and for each column ("column"), with compensation.
        energy: Energy and latency of a step.
        risks: The biggest risks in words.
        converters: With which converters products and metric are computed; None: the products with
            the bits of the target, the metric without any.
    """

    device: str
    chips: int
    seed: int
    times_s: tuple[float, ...]
    products: tuple[ProductError, ...]
    metric: dict[str, OverTime] | None
    metric_left_out: str | None
    metric_by_scale: dict[str, dict[str, OverTime]] | None
    energy: Energy
    risks: tuple[str, ...] = ()
    converters: Converters | None = dataclasses.field(default=None, metadata={"optional": True})


@dataclasses.dataclass(frozen=True)
class Simulated:
    """How much is simulated.

    Attributes:
        chips: How many chips; None for 3, or 1 where the network is large.
        times: Seconds since the reference reading.
        seed: Of the first chip.
    """

    chips: int | None = None
    times: tuple[float, ...] = TIMES
    seed: int = 0

    def __post_init__(self) -> None:
        if self.chips is not None and not 1 <= self.chips <= 1000:
            raise BadInputError(
                f"The number of chips must be between 1 and 1000. Received: {self.chips}."
            )
        good = self.times and all(0 <= t <= 1e11 for t in self.times)
        if not good or list(self.times) != sorted(set(self.times)) or len(self.times) > 32:
            raise BadInputError(
                "Times must be up to 32 ascending numbers of seconds, from 0 to 1e11. "
                f"Received: {', '.join(f'{t:g}' for t in self.times) or 'none'}.",
                "Give --times 25,3600,86400 or such.",
            )


def forecast(
    network: Network,
    crossbar: CrossbarMap,
    samples: Samples,
    verification: Verification,
    simulated: Simulated,
    twin: Twin | None = None,
    progress: Callable[[str], None] = lambda text: None,
    on_tiles: OnTiles | None = None,
) -> Forecast:
    """Simulate an export on a few chips.

    Args:
        network: The network.
        crossbar: Its map.
        samples: Samples; those with targets give the metric over time.
        verification: What the verification found.
        simulated: How much is simulated.
        twin: The network rebuilt from the map; its weights are changed.
        progress: Called with what is being done.
        on_tiles: The converters that chips have; None: those of the target for the products of
            matrices, none for the metric.
    """
    device = device_of(crossbar.target)
    large = crossbar.totals["weights"] > LARGE
    chips = simulated.chips or (1 if large else CHIPS)
    conditions = Conditions(device, chips, simulated.times, simulated.seed)
    progress("simulating the products of the matrices")
    errors = products(crossbar, conditions, None if on_tiles is None else on_tiles.tile)
    left_out, found = verification.metric_left_out, _Metric()
    if verification.metric is not None and crossbar.totals["weights"] > MAX_WEIGHTS:
        left_out = f"the network has more than {MAX_WEIGHTS:,} weights on tiles"
    elif verification.metric is not None or on_tiles is not None:
        twin = twin or Twin.of(network.model, crossbar)
        found = _metrics(network, crossbar, samples, conditions, twin, progress, on_tiles)
    return Forecast(
        device=type(device).__name__,
        chips=chips,
        seed=simulated.seed,
        times_s=simulated.times,
        products=errors,
        metric=found.metric,
        metric_left_out=left_out,
        metric_by_scale=found.by_scale,
        energy=energy(crossbar, network.uses),
        converters=found.converters,
    )


@dataclasses.dataclass(frozen=True)
class _Metric:
    """The metric over time, with both choices of scales, and the converters it is computed with."""

    metric: dict[str, OverTime] | None = None
    by_scale: dict[str, dict[str, OverTime]] | None = None
    converters: Converters | None = None


def _metrics(
    network: Network,
    crossbar: CrossbarMap,
    samples: Samples,
    conditions: Conditions,
    twin: Twin,
    progress: Callable[[str], None],
    on_tiles: OnTiles | None,
) -> _Metric:
    """Simulate the whole network on chips; see `forecast`."""
    device, ideal = conditions.device, IdealDevice(crossbar.target.g_max)
    used, converters = twin, None
    if on_tiles is not None:
        progress("setting the ranges of converters")
        used, converters = on_tiles.twin(twin, exact_chip(crossbar), device, samples)
    if samples.targets is None:
        return _Metric(converters=converters)
    if converters is not None:
        # The devices are exact yet.
        alone = rounded(measure(used.outputs(samples), samples))
        converters = dataclasses.replace(converters, alone=alone)
    progress("simulating chips over time")
    metric = metric_over_time(used, chips_of_map(crossbar, device), samples, conditions)
    by_scale = {}
    description = crossbar.description
    large = crossbar.totals["weights"] > LARGE
    for scale in (description.scale,) if large else SCALES:
        progress(f"simulating chips with one scale for each {scale}")
        own = scale == description.scale and not any(e.levels for e in description.matrices)
        if own and not description.faults:
            by_scale[scale] = metric
            continue
        if on_tiles is not None:
            exact = chips_of_scale(network, crossbar, ideal, scale)(0, None)
            used, _ = dataclasses.replace(on_tiles, source=None).twin(twin, exact, device, samples)
        make = chips_of_scale(network, crossbar, device, scale)
        by_scale[scale] = metric_over_time(used, make, samples, conditions, ("global",))
    return _Metric(metric, by_scale, converters)
