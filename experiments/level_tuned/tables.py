"""Tables of the experiments on all-memristive networks."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments import reporting
from experiments.level_tuned.experiment import couplings
from experiments.level_tuned.tasks import TASKS
from snukeras import _files

TITLES = {
    "level-tuned": "level-tuned",
    "chain": "level-tuned, chain",
    "winner-takes-all": "winner takes all",
    "uncoupled": "uncoupled",
}


# The conditions of the short table: words, task, condition.
_SHORT: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("four patterns, noise 0.1", "patterns", {"noise": 0.1}),
    ("three nested squares, noise 0.1", "overlap", {"noise": 0.1}),
    ("three nested squares, noise 0.2", "overlap", {"noise": 0.2}),
    ("streams, groups of 50 and 50, c = 0.6", "streams", {"sizes": [50, 50], "correlation": 0.6}),
    ("streams, groups of 30 and 70, c = 0.6", "streams", {"sizes": [30, 70], "correlation": 0.6}),
)


def runs(part: str, root: Path | str | None = None) -> list[dict[str, Any]]:
    """Return the measured runs of a task, one for each condition and coupling."""
    path = reporting.folder("level_tuned", root) / f"{part}.json"
    found: list[dict[str, Any]] = _files.read_json(path)["runs"]
    return found


def _short(root: Path | str | None) -> str:
    """Return what two couplings have learned and recognise under some conditions."""
    lines = [
        "| what | level-tuned: learned | recognised | winner takes all: learned | recognised |",
        "|---|--:|--:|--:|--:|",
    ]
    for words, part, condition in _SHORT:
        cells = [words]
        for coupling in ("level-tuned", "winner-takes-all"):
            run = next(
                r for r in runs(part, root)
                if r["coupling"] == coupling and r["condition"] == condition
            )  # fmt: skip
            learned = reporting.spread([seed["learned"] for seed in run["seeds"]], ".1f")
            told = reporting.spread([100.0 * seed["recognised"] for seed in run["seeds"]], ".0f")
            cells += [f"{learned} of {run['things']}", f"{told} %"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def table(part: str = "patterns", root: Path | str | None = None) -> str:
    """Return the table of a task as Markdown.

    Args:
        part: "patterns", "overlap" or "streams", or "short" for some rows of each.
        root: Folder of all results. Default: `experiments/results` of the checkout.
    """
    if part == "short":
        return _short(root)
    known = runs(part, root)
    conditions = TASKS[part]["conditions"]
    keys = [*conditions[0]]
    lines = [
        f"| {' | '.join(keys)} | coupling | learned | recognised "
        "| steps to learn all | conductance inside / outside, uS | synapse pulses "
        "| neuron pulses |",
        "|" + "---|" * (len(keys) + 7),
    ]
    for condition in conditions:
        for coupling in couplings(part, condition):
            run = next(
                r for r in known
                if r["coupling"] == coupling and r["condition"] == condition
            )  # fmt: skip
            seeds = run["seeds"]
            learned = reporting.spread([seed["learned"] for seed in seeds], ".1f")
            told = reporting.spread([100.0 * seed["recognised"] for seed in seeds], ".0f")
            times = [s["steps_to_learn"] for s in seeds if s["steps_to_learn"] is not None]
            share = f"{len(times)} of {len(seeds)} runs"
            when = f"{np.mean(times):.0f} ({share})" if times else f"never ({share})"
            inside = np.mean([seed["inside_uS"] for seed in seeds])
            outside = np.mean([seed["outside_uS"] for seed in seeds])
            events = {
                part: np.mean(
                    [seed["events"][f"{part}_set"] + seed["events"][f"{part}_reset"]
                     for seed in seeds]
                )
                for part in ("synapse", "neuron")
            }  # fmt: skip
            values = [str(condition[key]).strip("[]") for key in keys]
            lines.append(
                f"| {' | '.join(values)} | {TITLES[coupling]} "
                f"| {learned} of {run['things']} | {told} % | {when} "
                f"| {inside:.1f} / {outside:.1f} | {events['synapse']:,.0f} "
                f"| {events['neuron']:,.0f} |"
            )
    return "\n".join(lines) + "\n"
