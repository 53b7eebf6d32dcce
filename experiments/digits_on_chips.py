"""Models of the zoo that classify digits on many simulated chips, fresh and after a year.

    python -m experiments.digits_on_chips mnist_snu mnist_ssnu --chips 20

Every network is programmed on chips of the generic PCM model, whose range each column has for
itself, and read at the reference time (25 s) and a year later, without drift compensation and with
one factor for each column. Chips that are done are kept.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from experiments import reporting
from experiments.reporting import reported
from snukeras import _files
from snukeras.pcm import DifferentialPair, GenericPCM, evaluate_chips
from snukeras.pcm.monte_carlo import YEAR, summarize
from snukeras.zoo import presets, training
from snukeras.zoo.contents import OnChips
from snukeras.zoo.publishing import publish
from snukeras.zoo.tasks import TASKS, Classification, Task, registry

RESULTS_FOLDER = "digits_on_chips"
TIMES = {"25 s": 25.0, "1 year": YEAR}
COMPENSATIONS = {"none": None, "column": "column"}


def experiment(
    name: str,
    chips: int = 20,
    compensations: Iterable[str] = tuple(COMPENSATIONS),
    runs: Path | str = "runs/digits_on_chips",
    content: Path | str | None = None,
    tasks: Mapping[str, Task] = TASKS,
    root: Path | str | None = None,
) -> dict[str, Any]:
    """Evaluate a preset on chips; goes on where it was stopped.

    Args:
        name: A preset of a task of digits, drawn or spoken.
        chips: Number of chips, each programmed anew.
        compensations: Of "none", "column": what corrects drift.
        runs: Folder for the rows of finished chips.
        content: Folder of presets. Default: the one that ships with the package.
        tasks: The tasks that presets may name.
        root: Folder of all results. Default: `experiments/results` of the checkout.

    Returns:
        The results, as written to `digits_on_chips/NAME.json`: the shipped test figure, and
        by compensation and time the mean and deviation over chips, the worst chip, and what the
        mean loses, all in percent correct.

    Raises:
        ValueError: No such preset, one of another kind of task, or rows of other weights.
    """
    preset = presets.info(name, content)
    task = registry.task_of(preset["task"], tasks)
    if not isinstance(task, Classification):
        raise ValueError(f"{name} has to have a task of digits. Received: {task.name}")
    model = presets.load(name, content=content)
    model.compile(loss=task.loss({}), weighted_metrics=task.metrics())
    x, y = task.samples["test"]
    device = GenericPCM()
    path = reporting.folder(RESULTS_FOLDER, root) / f"{name}.json"
    weights = preset["files"][presets.WEIGHTS]["sha256"]
    results: dict[str, Any] = _files.read_json(path) if path.exists() else {}
    if results.get("weights_sha256") != weights or results.get("chips") != chips:
        results = {"name": name, "weights_sha256": weights, "chips": chips, "cases": {}}
    results |= {
        "unit": preset["unit"],
        "shipped": preset["test"],
        "device": device.get_config(),
        "scale": "column",
        "versions": training.versions(),
    }
    Path(runs).mkdir(parents=True, exist_ok=True)
    for label in compensations:
        rows = evaluate_chips(
            model,
            x,
            y,
            chips=chips,
            times=[*TIMES.values()],
            results=Path(runs) / f"{name}-{label}.json",
            batch_size=500,
            device=device,
            pair=DifferentialPair(device.g_max, scale="column"),
            compensation=COMPENSATIONS[label],
            executor=reporting.executor(),
        )
        summary = summarize(rows)
        results["cases"][label] = {
            time: {
                key: round(100 * summary[seconds][task.metric][key], 4)
                for key in ("mean", "std", "min", "max")
            }
            | {"loss": round(preset["test"] - 100 * summary[seconds][task.metric]["mean"], 4)}
            for time, seconds in TIMES.items()
        }
        _files.write_json(path, results)
    return results


def to_card(
    name: str,
    content: Path | str | None = None,
    tasks: Mapping[str, Task] = TASKS,
    root: Path | str | None = None,
) -> None:
    """Write the figures with compensation by column to the card of the model.

    Args:
        name, content, tasks, root: As for `experiment`.
    """
    results = _files.read_json(reporting.folder(RESULTS_FOLDER, root) / f"{name}.json")
    found: OnChips = {
        "weights_sha256": results["weights_sha256"],
        "device": GenericPCM.__name__,
        "chips": results["chips"],
        "compensation": "column",
        "times": {
            time: {
                "mean": figures["mean"],
                "std": figures["std"],
                "min": figures["min"],
                "max": figures["max"],
            }
            for time, figures in results["cases"]["column"].items()
        },
    }
    publish.keep_chips(name, found, content, tasks)


def table(family: str | None = None, root: Path | str | None = None) -> str:
    """Return the figures as Markdown.

    Args:
        family: Of the models how their names begin, such as "speech". Default: all.
        root: As for `experiment`.
    """
    folder = reporting.folder(RESULTS_FOLDER, root)
    lines = [
        "| model | float | chips | compensation | "
        + " | ".join(f"{time}: mean, worst chip" for time in TIMES)
        + " | lost after a year |",
        "|---|---|---|---|" + "---|" * (len(TIMES) + 1),
    ]
    for path in sorted(folder.glob(f"{family or ''}*.json")):
        results = _files.read_json(path)
        for label, case in results["cases"].items():
            cells = [
                f"{case[t]['mean']:.2f} ± {case[t]['std']:.2f}, {case[t]['min']:.2f}" for t in TIMES
            ]
            row = [
                f"`{results['name']}`",
                f"{results['shipped']:.2f}",
                str(results["chips"]),
                label,
                *cells,
                f"{round(case['1 year']['loss'], 2) + 0.0:.2f}",  # no minus before a zero
            ]
            lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


@reported
@reporting.on_workers
def main(argv: list[str] | None = None) -> int:
    """Evaluate the named models; 0 if all went well."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.digits_on_chips",
        description="Evaluate models of digits, drawn or spoken, on simulated chips over a year.",
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="a preset, e.g. mnist_snu")
    parser.add_argument("--chips", type=int, default=20)
    parser.add_argument(
        "--compensations", nargs="+", choices=[*COMPENSATIONS], default=[*COMPENSATIONS]
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/digits_on_chips"))
    parser.add_argument("--content", type=Path, help="folder of presets")
    parser.add_argument("--cards", action="store_true", help="write the models' cards too")
    given = parser.parse_args(argv)
    for name in given.names:
        experiment(name, given.chips, given.compensations, given.runs, given.content)
        if given.cards:
            to_card(name, given.content)
    print(table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
