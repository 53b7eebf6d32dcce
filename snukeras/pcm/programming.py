"""What to program into devices: several pairs a weight, and targets for a time to come."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from snukeras import _arguments
from snukeras._types import Tensor
from snukeras.pcm.devices import InferencePCM
from snukeras.pcm.pairs import DifferentialPair

# Points of the curve from a target to the conductance that is expected of it.
_POINTS = 513
# The least significance, as a share of the largest, that float32 weights resolve.
_LEAST = 1e-6


def check_slices(slices: Sequence[float]) -> tuple[float, ...]:
    """Return the significances of the pairs of a weight as numbers.

    Raises:
        ValueError: none, one that is not above 0, one larger than that before it, or one of less
            than a millionth of the first.
    """
    listed = isinstance(slices, Sequence | np.ndarray) and not isinstance(slices, str)
    found = tuple(slices) if listed else ()
    checked = tuple(_arguments.number("slices", value, above=0.0) for value in found)
    if not checked or list(checked) != sorted(checked, reverse=True):
        raise ValueError(
            "Argument `slices` must hold the significance of at least one pair, the largest first, "
            f"such as (1.0, 0.125). Received: {slices!r}"
        )
    if checked[-1] < _LEAST * checked[0]:
        raise ValueError(
            f"Argument `slices` must hold no significance below {_LEAST:g} times the first. "
            f"Received: {slices!r}"
        )
    return checked


def groups(slices: Sequence[float]) -> Iterator[tuple[float, int]]:
    """Yield each significance, and how many pairs have it."""
    for significance, members in itertools.groupby(slices):
        yield significance, len(list(members))


def combined(parts: Sequence[Tensor], slices: Sequence[float], power: int = 1) -> Tensor:
    """Return what the pairs of a weight give together: their mean, weighted by significance.

    Args:
        parts: of each pair, arrays of one shape.
        slices: their significances.
        power: 1 for conductances, 2 for variances.
    """
    if len(parts) == 1:
        return parts[0]
    whole = float(sum(slices))
    return sum(
        (part * (significance / whole) ** power)
        for part, significance in zip(parts, slices, strict=True)
    )


def targets_for(device: InferencePCM, targets: np.ndarray, t: float) -> np.ndarray:
    """Return what to program so that devices hold the targets at a later time, on average.

    Small conductances drift more than large ones, so a factor of drift compensation leaves them too
    small. What is expected of a device, over its programming noise and drift exponent, is a curve
    of its target; the targets are taken where that curve has them, up to the factor that the
    largest conductance drifts by, which compensation undoes (Mackin et al. 2022, doi
    10.1038/s41467-022-31405-1, optimise targets so, by search).

    Args:
        device: its curves.
        targets: uS, any shape.
        t: s, as in InferencePCM.

    Returns:
        uS, at most the device's g_max.

    Raises:
        ValueError: a time that is negative, or one for which the device has no curves.
    """
    t = _arguments.number("t", t, minimum=0.0)
    grid = np.linspace(0.0, device.g_max, _POINTS)
    expected = np.maximum.accumulate(device.expected(grid, t))
    low, high = expected[0], expected[-1]
    wanted = low + np.asarray(targets, "float64") / device.g_max * (high - low)
    return np.interp(wanted, expected, grid).astype("float32")


def plan(
    pair: DifferentialPair,
    weights: np.ndarray,
    scales: np.ndarray,
    slices: Sequence[float],
    device: InferencePCM,
    programmed_for: float | None,
) -> np.ndarray:
    """Return what to program into the pairs of weights where each is hit exactly.

    A chip programs pairs of less significance to what a reading of those before them has left over
    (see Crossbar); this is what it aims at before any reading.

    Args:
        pair: The range of conductances.
        weights: (rows, columns), within the range.
        scales: uS per unit of weight, () or (columns,).
        slices: Significances, the largest first.
        device: Its curves.
        programmed_for: As for Crossbar.

    Returns:
        uS, float32 (slices, 2, rows, columns).
    """
    left = float(sum(slices)) * np.asarray(weights, "float64")
    found: list[np.ndarray] = []
    for significance, count in groups(slices):
        aims = pair.to_conductances(left / (significance * count), scales)
        left = left - significance * count * np.asarray(pair.to_weights(*aims, scales))
        aim = np.stack([np.asarray(g, "float32") for g in aims])
        planned = aim if programmed_for is None else targets_for(device, aim, programmed_for)
        found += [planned] * count
    return np.stack(found)
