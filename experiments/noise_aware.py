"""Plain and noise-aware training, on many simulated chips over a year of drift.

    python -m experiments.noise_aware --output experiments/results/noise_aware/jsb_snu.json
    python -m experiments.noise_aware --plot experiments/results/noise_aware/jsb_snu.png

A plain recipe and one with noise and few levels are trained with some seeds each. Every network is
then programmed on many chips of the generic PCM model, whose range each column has for itself, and
read 25 s, an hour, a day and a year after the reference reading: without drift compensation, with
one factor for each tile, and with one for each column. What was done is kept: trainings by epoch,
chips one by one.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import reporting
from experiments.reporting import reported, save_picture
from snukeras import _files
from snukeras.datasets import piano_roll
from snukeras.pcm import DifferentialPair, GenericPCM, evaluate_chips
from snukeras.pcm.monte_carlo import DAY, HOUR, YEAR
from snukeras.zoo import recipes, training
from snukeras.zoo.publishing import cards
from snukeras.zoo.recipes import Recipe
from snukeras.zoo.tasks import TASKS, PianoRolls, Task, registry

RESULTS_FOLDER = "noise_aware"
TIMES = {"25 s": 25.0, "1 hour": HOUR, "1 day": DAY, "1 year": YEAR}
COMPENSATIONS = (None, "global", "column")


def experiment(
    names: Sequence[str] = ("jsb_snu", "jsb_snu_pcm"),
    seeds: Iterable[int] = (0, 1, 2),
    chips: int = 100,
    output: Path | str | None = None,
    runs: Path | str = "runs",
    epochs: int | None = None,
    workers: int = 1,
    content: Path | str | None = None,
    progress: training.Progress | None = None,
    tasks: Mapping[str, Task] = TASKS,
) -> dict[str, Any]:
    """Train the recipes where they are not trained yet, and evaluate them on chips.

    Args:
        names: Models with a recipe for a task of piano rolls; the first is the one trained plainly.
        seeds: Seeds of the trainings.
        chips: Chips for each trained network and compensation.
        output: JSON file for the results.
        runs: Folder of the runs, the same as for `snukeras-zoo train`: its trainings are taken.
        epochs: Default: the recipes'.
        workers: Processes that evaluate chips.
        content: Folder of recipes. Default: the one that ships with the package.
        progress: As for `snukeras.zoo.training.train`.
        tasks: The tasks that recipes may name.

    Returns:
        For each model the test figures of its weights as trained and as the chips hold them.

    Raises:
        ValueError: Unknown name, a task of another kind, or a run of another recipe.
    """
    seeds = [*seeds]
    trained = {}
    for name in names:
        recipe = recipes.read(name, content)
        recipe = recipe if epochs is None else recipe.changed(epochs=epochs)
        task = registry.task_of(recipe.task, tasks)
        if not isinstance(task, PianoRolls):
            raise ValueError(f"{name} has to have a task of piano rolls. Received: {task.name}")
        trained[name] = [
            _seed(
                recipe,
                task,
                seed,
                Path(runs) / name / f"seed-{seed}",
                content,
                chips,
                workers,
                progress,
            )
            for seed in seeds
        ]
    results = {
        "format": training.FORMAT,
        "metric": task.metric,
        "unit": task.unit,
        "chips": chips,
        "times": TIMES,
        "device": _chip()["device"].get_config(),
        "scale": "column",
        "models": {
            name: {
                "recipe": recipes.read(name, content).record(),
                "test": _spread([seed["test"] for seed in of_seeds]),
                "chips": [
                    {
                        "compensation": compensation,
                        "time": time,
                        # Over the seeds: the mean of all chips, the deviation of the means of
                        # networks; and the mean deviation of the chips of one network.
                        **_spread([seed["chips"][index]["mean"] for seed in of_seeds]),
                        "deviation_of_chips": float(
                            np.mean([seed["chips"][index]["deviation"] for seed in of_seeds])
                        ),
                    }
                    for index, (compensation, time) in enumerate(_cases())
                ],
                "seeds": of_seeds,
            }
            for name, of_seeds in trained.items()
        },
        "versions": training.versions(),
    }
    if output is not None:
        _files.write_json(Path(output), results)
    return results


def _cases() -> list[tuple[str | None, str]]:
    return [(compensation, time) for compensation in COMPENSATIONS for time in TIMES]


def _chip() -> dict[str, Any]:
    return {"device": GenericPCM(), "pair": DifferentialPair(GenericPCM().g_max, scale="column")}


def _spread(figures: Sequence[float]) -> dict[str, float | None]:
    deviation = float(np.std(figures, ddof=1)) if len(figures) > 1 else None
    return {"mean": float(np.mean(figures)), "deviation": deviation}


def _seed(
    recipe: Recipe,
    task: PianoRolls,
    seed: int,
    folder: Path,
    content: Path | str | None,
    chips: int,
    workers: int,
    progress: training.Progress | None,
) -> dict[str, Any]:
    """Return the figures of one trained network."""
    result = training.train_seed(recipe, task, seed, folder, content=content, progress=progress)
    model = training.trained_model(recipe, seed, folder)
    model.compile(loss=task.loss({}), weighted_metrics=task.metrics())
    x, y, mask = piano_roll.pad(task.songs["test"])
    figures = []
    for compensation in COMPENSATIONS:
        rows = evaluate_chips(
            model,
            x,
            y,
            mask.astype(np.float32),
            chips=chips,
            times=[*TIMES.values()],
            seed=seed,
            results=folder / f"chips-{compensation}.json",
            workers=workers,
            batch_size=len(x),
            compensation=compensation,
            **_chip(),
        )
        for time in TIMES.values():
            of_chips = [row[task.metric] for row in rows if row["time"] == time]
            figures.append(_spread(of_chips))
    kept = ("seed", "valid", "test", "epoch", "epochs_trained", "seconds", "recipe_sha256")
    return {**{key: result[key] for key in kept}, "chips": figures}


def _results(root: Path | str | None) -> list[dict[str, Any]]:
    paths = sorted(reporting.folder(RESULTS_FOLDER, root).glob("*.json"))
    return [_files.read_json(path) for path in paths]


def table(root: Path | str | None = None) -> str:
    """Return the figures over a year, as Markdown; the change is that from the plain weights."""
    lines = [
        f"| model | compensation | as trained | {' | '.join(TIMES)} | change after 1 year |",
        "|---|---|---|" + "---|" * (len(TIMES) + 1),
    ]
    for results in _results(root):
        plain = next(iter(results["models"].values()))["test"]["mean"]
        for name, model in results["models"].items():
            for compensation in COMPENSATIONS:
                row = [r for r in model["chips"] if r["compensation"] == compensation]
                figures = " | ".join(
                    f"{r['mean']:.3f} ± {r['deviation_of_chips']:.3f}" for r in row
                )
                word = {None: "none", "global": "one factor a tile", "column": "one a column"}
                lines.append(
                    f"| `{name}` | {word[compensation]} | {cards.spread(model['test'])} | "
                    f"{figures} | {row[-1]['mean'] / plain - 1:+.1%} |"
                )
    return "\n".join(lines) + "\n"


def plot(results: dict[str, Any], path: Path) -> None:
    """Draw the figures over time, with bars of one deviation of the chips."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.0, 4.2), layout="constrained")
    styles = {None: ":", "global": "--", "column": "-"}
    words = {None: "no compensation", "global": "one factor a tile", "column": "one a column"}
    plain = next(iter(results["models"].values()))["test"]["mean"]
    axes.axhline(plain, color="0.5", linewidth=0.8)
    axes.text(TIMES["25 s"], plain, "trained plainly, in float", va="top", color="0.4", fontsize=8)
    for color, (name, model) in enumerate(results["models"].items()):
        for compensation in COMPENSATIONS:
            rows = [r for r in model["chips"] if r["compensation"] == compensation]
            axes.errorbar(
                [TIMES[r["time"]] for r in rows],
                [r["mean"] for r in rows],
                [r["deviation_of_chips"] for r in rows],
                color=f"C{color}",
                linestyle=styles[compensation],
                marker="o",
                markersize=3,
                capsize=2,
                label=f"{name}, {words[compensation]}",
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
        description="Evaluate plain and noise-aware training on many simulated chips over a year.",
    )
    parser.add_argument("--names", nargs="+", default=["jsb_snu", "jsb_snu_pcm"], metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--chips", type=int, default=100, help="for each network (default: 100)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: 1)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="working folder")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="file for the results")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE.png", help="draw the results in FILE.json beside it"
    )
    return parser


@reported
def main(argv: list[str] | None = None) -> int:
    """Run the experiment from the command line; 0 if all went well."""
    arguments = _parser().parse_args(argv)
    if arguments.plot is not None:
        plot(_files.read_json(arguments.plot.with_suffix(".json")), arguments.plot)
        return 0
    experiment(
        arguments.names,
        arguments.seeds,
        arguments.chips,
        arguments.output,
        arguments.runs,
        workers=arguments.workers,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
