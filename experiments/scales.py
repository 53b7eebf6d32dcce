"""A scale of conductance for each column or for the whole matrix, on simulated chips over a year.

    python -m experiments.scales jsb_snu --chips 10

The weights that ship are programmed on chips of the generic PCM model and read at the reference
time (25 s) and a year later, with one drift factor for each tile.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments import reporting
from experiments.reporting import reported
from snukeras import _files
from snukeras.datasets import piano_roll
from snukeras.pcm import DifferentialPair, GenericPCM, evaluate_chips
from snukeras.pcm.monte_carlo import YEAR, summarize
from snukeras.zoo import presets, training
from snukeras.zoo.tasks import TASKS, PianoRolls, Task, registry

RESULTS_FOLDER = "scales"
SCALES = ("column", "tensor")
TIMES = {"25 s": 25.0, "1 year": YEAR}


def experiment(
    name: str,
    chips: int = 10,
    scales: Iterable[str] = SCALES,
    content: Path | str | None = None,
    tasks: Mapping[str, Task] = TASKS,
    root: Path | str | None = None,
) -> dict[str, Any]:
    """Evaluate a preset on chips, for each choice of scales.

    Args:
        name: A preset of a task of piano rolls.
        chips: Number of chips, each programmed anew.
        scales: Of "column", "tensor".
        content: Folder of presets. Default: the one that ships with the package.
        tasks: The tasks that presets may name.
        root: Folder of all results. Default: `experiments/results` of the checkout.

    Returns:
        The results, as written to `scales/NAME.json`: the shipped test figure, and by scale and
        time the mean, deviation, least and largest figure of the chips.

    Raises:
        ValueError: No such preset, or one of another kind of task.
    """
    preset = presets.info(name, content)
    task = registry.task_of(preset["task"], tasks)
    if not isinstance(task, PianoRolls):
        raise ValueError(f"{name} has to have a task of piano rolls. Received: {task.name}")
    model = presets.load(name, content=content)
    model.compile(loss=task.loss({}), weighted_metrics=task.metrics())
    x, y, mask = piano_roll.pad(task.songs["test"])
    device = GenericPCM()
    cases = {}
    for scale in scales:
        rows = evaluate_chips(
            model,
            x,
            y,
            mask.astype(np.float32),
            chips=chips,
            times=[*TIMES.values()],
            batch_size=len(x),
            device=device,
            pair=DifferentialPair(device.g_max, scale=scale),
            compensation="global",
            executor=reporting.executor(),
        )
        summary = summarize(rows)
        cases[scale] = {
            time: {key: summary[t][task.metric][key] for key in ("mean", "std", "min", "max")}
            for time, t in TIMES.items()
        }
    results = {
        "name": name,
        "weights_sha256": preset["files"][presets.WEIGHTS]["sha256"],
        "unit": preset["unit"],
        "shipped": preset["test"],
        "chips": chips,
        "device": device.get_config(),
        "compensation": "global",
        "cases": cases,
        "versions": training.versions(),
    }
    _files.write_json(reporting.folder(RESULTS_FOLDER, root) / f"{name}.json", results)
    return results


def table(root: Path | str | None = None) -> str:
    """Return the figures of all models as Markdown."""
    lines = [
        f"| model | float | chips | one scale a | {' | '.join(TIMES)} |",
        "|---|---|---|---|" + "---|" * len(TIMES),
    ]
    for path in sorted(reporting.folder(RESULTS_FOLDER, root).glob("*.json")):
        results = _files.read_json(path)
        for scale, case in results["cases"].items():
            figures = " | ".join(f"{case[t]['mean']:.3f} ± {case[t]['std']:.3f}" for t in TIMES)
            lines.append(
                f"| `{results['name']}` | {results['shipped']:.3f} | {results['chips']} "
                f"| {scale} | {figures} |"
            )
    return "\n".join(lines) + "\n"


@reported
@reporting.on_workers
def main(argv: list[str] | None = None) -> int:
    """Evaluate the named models; 0 if all went well."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.scales",
        description="Compare scales of conductance for columns and for matrices, on chips.",
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="a preset, e.g. jsb_snu")
    parser.add_argument("--chips", type=int, default=10)
    parser.add_argument("--content", type=Path, help="folder of presets")
    given = parser.parse_args(argv)
    for name in given.names:
        experiment(name, given.chips, content=given.content)
    print(table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
