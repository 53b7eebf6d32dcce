"""Tables of the experiments on all-memristive networks."""

from pathlib import Path

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


def table(part: str = "patterns", root: Path | str | None = None) -> str:
    """Return the table of a task as Markdown.

    Args:
        part: "patterns", "overlap" or "streams".
        root: Folder of all results. Default: `experiments/results` of the checkout.
    """
    path = reporting.folder("level_tuned", root) / f"{part}.json"
    known = _files.read_json(path)["runs"]
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
