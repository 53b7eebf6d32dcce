"""When to program a chip again, over years, and what that costs."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from snukeras import _arguments
from snukeras.pcm.monte_carlo import YEAR, Row


@dataclasses.dataclass(frozen=True)
class RefreshPlan:
    """A chip that is programmed again before its metric leaves a limit.

    Attributes:
        every: Seconds between two programmings.
        measured: Whether the limit was reached within the times that were evaluated; if not,
            `every` is the last of them, since nothing is known beyond.
        programmings: How often the chip is programmed in its life, the first time included.
        writes: Devices that are programmed in all.
        busy: Seconds of its life in which the chip is programmed, 0 if the time of a write is not
            given.
        wear: Share of the endurance of a device that is used up, 0 if it is not given.
    """

    every: float
    measured: bool
    programmings: int
    writes: int
    busy: float
    wear: float


def refresh_plan(
    rows: Sequence[Row],
    metric: str,
    limit: float,
    devices: int,
    life: float = 10 * YEAR,
    write_time: float | None = None,
    pulses: float = 1.0,
    endurance: float | None = None,
) -> RefreshPlan:
    """Plan when to program a chip again, from its metric over time.

        rows = snukeras.pcm.evaluate_chips(model, x, y, compensation="column")
        plan = snukeras.pcm.refresh_plan(rows, "accuracy", 0.985, devices=chip.devices)

    The mean over chips goes linearly with the logarithm of time between the times of the rows.
    Programming starts everything anew: chips forget what was before.

    Args:
        rows: of `evaluate_chips`, at two times or more.
        metric: name of a metric in the rows.
        limit: the worst value allowed; that of the first time must be better.
        devices: that are programmed each time, such as `Chip.devices`.
        life: s, how long the chip is used.
        write_time: s that programming a device takes, with reading back; None: not known.
        pulses: that programming a device takes.
        endurance: pulses that a device bears; None: not known.

    Raises:
        ValueError: a metric that the rows do not have, a single time, a limit that is broken from
            the start, or numbers that are not positive.
    """
    known = sorted({name for row in rows for name in row} - {"chip", "time"})
    if not known:
        raise ValueError("`rows` must hold what evaluate_chips returns. Received: no metrics")
    if metric not in known:
        raise ValueError(f"`metric` must be one of {known}. Received: {metric!r}")
    devices = _arguments.whole("devices", devices, 1)
    life = _arguments.number("life", life, above=0.0)
    pulses = _arguments.number("pulses", pulses, above=0.0)
    for name, value in (("write_time", write_time), ("endurance", endurance)):
        if value is not None:
            _arguments.number(name, value, above=0.0)
    times = sorted({row["time"] for row in rows})
    if len(times) < 2:
        raise ValueError(f"`rows` must have two times or more. Received: {times}")
    means = np.array([np.mean([row[metric] for row in rows if row["time"] == t]) for t in times])
    every, measured = _crossing(times, means, _arguments.number("limit", limit))
    programmings = max(1, math.ceil(life / every))
    return RefreshPlan(
        every=every,
        measured=measured,
        programmings=programmings,
        writes=programmings * devices,
        busy=programmings * devices * (write_time or 0.0),
        wear=programmings * pulses / endurance if endurance else 0.0,
    )


def _crossing(times: Sequence[float], means: np.ndarray, limit: float) -> tuple[float, bool]:
    """Return the first time at which the means leave a limit, and whether they do."""
    sign = 1.0 if means[-1] >= means[0] else -1.0
    gap = sign * (limit - means)
    if gap[0] <= 0:
        raise ValueError(
            f"`limit` must be worse than the mean at {times[0]:g} s, {means[0]:.6g}. "
            f"Received: {limit:g}"
        )
    beyond = np.flatnonzero(gap < 0)
    if not len(beyond):
        return float(times[-1]), False
    at = int(beyond[0])
    share = gap[at - 1] / (gap[at - 1] - gap[at])
    # 0 is a time too: the logarithm starts a second after it.
    low, high = (math.log1p(times[i]) for i in (at - 1, at))
    return math.expm1(low + share * (high - low)), True
