"""Weights of plain and of noise-aware training, on many simulated chips over a year of drift.

    python -m experiments.noise_aware --cards --output experiments/results/noise_aware/jsb_snu.json
    python -m experiments.noise_aware --plot experiments/results/noise_aware/jsb_snu.png

The weights that ship of a model that was trained plainly, and of one with few levels that was
trained at noisy weights, are programmed on chips of the generic PCM model, whose range each column
has for itself, and read 25 s, an hour, a day and a year after the reference reading: without drift
compensation, with one factor for each tile, and with one for each column. Chips that are done are
kept.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import reporting
from experiments.reporting import reported, save_picture
from snukeras import _files
from snukeras.datasets import piano_roll
from snukeras.pcm import DifferentialPair, GenericPCM, evaluate_chips
from snukeras.pcm.monte_carlo import DAY, HOUR, YEAR, summarize
from snukeras.zoo import presets, training
from snukeras.zoo.contents import OnChips
from snukeras.zoo.publishing import publish
from snukeras.zoo.tasks import TASKS, PianoRolls, Task, registry

RESULTS_FOLDER = "noise_aware"
TIMES = {"25 s": 25.0, "1 hour": HOUR, "1 day": DAY, "1 year": YEAR}
COMPENSATIONS = {"none": None, "one factor a tile": "global", "one a column": "column"}


def experiment(
    names: Sequence[str] = ("jsb_snu", "jsb_snu_pcm"),
    chips: int = 20,
    output: Path | str | None = None,
    runs: Path | str = "runs/noise_aware",
    content: Path | str | None = None,
    tasks: Mapping[str, Task] = TASKS,
) -> dict[str, Any]:
    """Evaluate presets on chips; goes on where it was stopped.

    Args:
        names: Presets of a task of piano rolls; the first is the one trained plainly.
        chips: Chips for each preset, the same ones for each compensation.
        output: JSON file for the results.
        runs: Folder for the rows of finished chips.
        content: Folder of presets. Default: the one that ships with the package.
        tasks: The tasks that presets may name.

    Returns:
        For each model the shipped test figure, and by compensation and time the mean and deviation
        of the chips, the best and the worst.

    Raises:
        ValueError: No such preset, one of another kind of task, or rows of other weights.
    """
    device = GenericPCM()
    models = {}
    for name in names:
        preset = presets.info(name, content)
        task = registry.task_of(preset["task"], tasks)
        if not isinstance(task, PianoRolls):
            raise ValueError(f"{name} has to have a task of piano rolls. Received: {task.name}")
        model = presets.load(name, content=content)
        model.compile(loss=task.loss({}), weighted_metrics=task.metrics())
        x, y, mask = piano_roll.pad(task.songs["test"])
        cases = {}
        for label, compensation in COMPENSATIONS.items():
            rows = evaluate_chips(
                model,
                x,
                y,
                mask.astype(np.float32),
                chips=chips,
                times=[*TIMES.values()],
                results=Path(runs) / f"{name}-{compensation}.json",
                batch_size=len(x),
                device=device,
                pair=DifferentialPair(device.g_max, scale="column"),
                compensation=compensation,
                executor=reporting.executor(),
            )
            summary = summarize(rows)
            cases[label] = {
                time: {key: summary[t][task.metric][key] for key in ("mean", "std", "min", "max")}
                for time, t in TIMES.items()
            }
        models[name] = {
            "weights_sha256": preset["files"][presets.WEIGHTS]["sha256"],
            "shipped": preset["test"],
            "cases": cases,
        }
    results = {
        "metric": task.metric,
        "unit": task.unit,
        "chips": chips,
        "device": device.get_config(),
        "scale": "column",
        "models": models,
        "versions": training.versions(),
    }
    if output is not None:
        _files.write_json(Path(output), results)
    return results


def to_cards(results: dict[str, Any], content: Path | str | None = None) -> None:
    """Write the figures with compensation by column to the cards of the models.

    Args:
        results: What `experiment` returned.
        content: Folder of presets. Default: the one that ships with the package.
    """
    for name, model in results["models"].items():
        found: OnChips = {
            "weights_sha256": model["weights_sha256"],
            "device": GenericPCM.__name__,
            "chips": results["chips"],
            "compensation": "column",
            "times": model["cases"]["one a column"],
        }
        publish.keep_chips(name, found, content)


def table(root: Path | str | None = None) -> str:
    """Return the figures over a year, as Markdown; the change is that from the plain weights."""
    lines = [
        f"| model | float | chips | compensation | {' | '.join(TIMES)} | change after 1 year |",
        "|---|---|---|---|" + "---|" * (len(TIMES) + 1),
    ]
    for path in sorted(reporting.folder(RESULTS_FOLDER, root).glob("*.json")):
        results = _files.read_json(path)
        plain = next(iter(results["models"].values()))["shipped"]
        for name, model in results["models"].items():
            for label, case in model["cases"].items():
                figures = " | ".join(f"{case[t]['mean']:.3f} ± {case[t]['std']:.3f}" for t in TIMES)
                lines.append(
                    f"| `{name}` | {model['shipped']:.3f} | {results['chips']} | {label} | "
                    f"{figures} | {case['1 year']['mean'] / plain - 1:+.1%} |"
                )
    return "\n".join(lines) + "\n"


def plot(results: dict[str, Any], path: Path) -> None:
    """Draw the figures over time, with bars of one deviation of the chips."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.0, 4.2), layout="constrained")
    styles = dict(zip(COMPENSATIONS, (":", "--", "-"), strict=True))
    plain = next(iter(results["models"].values()))["shipped"]
    axes.axhline(plain, color="0.5", linewidth=0.8)
    axes.text(TIMES["25 s"], plain, "trained plainly, in float", va="top", color="0.4", fontsize=8)
    # Models differ in marker and colour, compensations in line: both are told apart in grey too.
    for color, (name, model) in enumerate(results["models"].items()):
        for label, case in model["cases"].items():
            axes.errorbar(
                [*TIMES.values()],
                [case[time]["mean"] for time in TIMES],
                [case[time]["std"] for time in TIMES],
                color=f"C{color}",
                linestyle=styles[label],
                marker="os^D"[color % 4],
                markerfacecolor=f"C{color}" if color % 2 else "white",
                markersize=5,
                capsize=2,
                label=f"{name}, compensation: {label}",
            )
    axes.set_xscale("log")
    axes.set_xticks([*TIMES.values()], [*TIMES])
    axes.set_xlabel("time since the reference reading")
    axes.set_ylabel(f"test, {results['unit']}")
    axes.legend(fontsize=8)
    save_picture(figure, path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.noise_aware",
        description="Evaluate weights of plain and noise-aware training on chips over a year.",
    )
    parser.add_argument("--names", nargs="+", default=["jsb_snu", "jsb_snu_pcm"], metavar="NAME")
    parser.add_argument("--chips", type=int, default=20, help="for each network (default: 20)")
    parser.add_argument("--runs", type=Path, default=Path("runs/noise_aware"))
    parser.add_argument("--cards", action="store_true", help="write the models' cards too")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="file for the results")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE.png", help="draw the results in FILE.json beside it"
    )
    return parser


@reported
@reporting.on_workers
def main(argv: list[str] | None = None) -> int:
    """Run the experiment from the command line; 0 if all went well."""
    arguments = _parser().parse_args(argv)
    if arguments.plot is not None:
        plot(_files.read_json(arguments.plot.with_suffix(".json")), arguments.plot)
        return 0
    results = experiment(arguments.names, arguments.chips, arguments.output, arguments.runs)
    if arguments.cards:
        to_cards(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
