"""Compare two pretrained models of a task on its test split: difference and interval."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from snukeras.zoo import presets
from snukeras.zoo.tasks import TASKS, Task
from snukeras.zoo.tasks.registry import task_of

RESAMPLES = 10_000


@dataclasses.dataclass(frozen=True)
class Difference:
    """The figure of one model minus that of another.

    Attributes:
        of: What varies, in words.
        value: The difference.
        low, high: Its 95 % interval.
    """

    of: str
    value: float
    low: float
    high: float

    @property
    def significant(self) -> bool:
        """Whether the interval leaves out zero."""
        return not self.low <= 0.0 <= self.high

    def __str__(self) -> str:
        words = "significant" if self.significant else "not significant"
        return (
            f"{self.value:+.3f}, 95 % interval {self.low:+.3f} to {self.high:+.3f} "
            f"({self.of}): {words}"
        )


def compare(
    first: str,
    second: str,
    content: Path | str | None = None,
    tasks: Mapping[str, Task] = TASKS,
) -> list[Difference]:
    """Compare two presets on the test split of their task.

    Args:
        first, second: Names of presets of one task.
        content: Folder of presets. Default: the one that ships with the package.
        tasks: The tasks that presets may name.

    Returns:
        The differences, first minus second: of the weights that ship, by a paired bootstrap over
        the samples; and of the means of the seeds, by Welch's t interval, where both have two
        seeds or more.

    Raises:
        ValueError: No such preset, presets of different tasks, or a task without samples.
    """
    a, b = (presets.info(name, content) for name in (first, second))
    if a["task"] != b["task"]:
        raise ValueError(
            f"{first} and {second} have to be of one task. Received: {a['task']}, {b['task']}"
        )
    task = task_of(a["task"], tasks)
    scores = []
    for name in (first, second):
        model = presets.load(name, content=content)
        model.compile(loss=task.loss({}), weighted_metrics=task.metrics())
        scores.append(task.scores(model, "test"))
    (sums, weights), (others, _) = scores
    found = [
        bootstrap(sums, others, weights, f"paired bootstrap over {len(sums):,} samples, as shipped")
    ]
    known = [preset["results"] for preset in (a, b)]
    seeds = [[seed["test"] for seed in results["seeds"]] if results else [] for results in known]
    if min(map(len, seeds)) > 1:
        found.append(welch(*seeds))
    return found


def bootstrap(
    sums: np.ndarray, others: np.ndarray, weights: np.ndarray, of: str = "paired bootstrap"
) -> Difference:
    """Return the difference of two figures sum(sums) / sum(weights), with its bootstrap interval.

    Args:
        sums, others: What each sample adds to the figures of the two, shape (samples,).
        weights: What it counts, shape (samples,).
        of: For the result.
    """
    random = np.random.default_rng(0)
    gap = sums - others
    drawn: list[float] = []
    # As many at once as some ten million numbers allow.
    rows = max(1, 10_000_000 // len(gap))
    for start in range(0, RESAMPLES, rows):
        size = min(rows, RESAMPLES - start)
        times = random.multinomial(len(gap), np.full(len(gap), 1 / len(gap)), size=size)
        drawn += ((times @ gap) / (times @ weights)).tolist()
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Difference(of, float(gap.sum() / weights.sum()), float(low), float(high))


def welch(figures: list[float], others: list[float]) -> Difference:
    """Return the difference of two means of seeds, with Welch's t interval."""
    from scipy.special import stdtrit

    parts = [np.var(values, ddof=1) / len(values) for values in (figures, others)]
    value = float(np.mean(figures) - np.mean(others))
    squares = sum(p**2 / (len(v) - 1) for p, v in zip(parts, (figures, others), strict=True))
    if squares == 0.0:
        return Difference("seeds", value, value, value)
    half = float(stdtrit(sum(parts) ** 2 / squares, 0.975)) * math.sqrt(sum(parts))
    of = f"Welch's t over {len(figures)} and {len(others)} seeds"
    return Difference(of, value, value - half, value + half)
