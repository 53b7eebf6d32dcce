"""Train a model of the zoo from scratch with simulated PCM devices in the loop.

    python -m experiments.in_the_loop jsb_snu --seeds 0 1 2 3 4 --output loop.json

Network, data, loss, schedule and patience are the recipe's; `averaging` is left out, since no
device holds an average. Everything of a training lies in `runs/VARIANT/seed-N`, as for
`snukeras-zoo train`: a training that was killed goes on from the last whole epoch, bit for bit.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from experiments import reporting
from experiments.reporting import reported, save_picture
from snukeras import _files
from snukeras.zoo import recipes, training
from snukeras.zoo.contents import Results
from snukeras.zoo.publishing import cards
from snukeras.zoo.recipes import Recipe
from snukeras.zoo.tasks import TASKS, Task, registry

if TYPE_CHECKING:
    import keras

    from snukeras.optimizers import PCMOptimizer

RESULTS_FOLDER = "in_the_loop"
UNITS = ("LSTM", "GRU")
READINGS = 10
_BIN = 0.5  # uS


def experiment(
    name: str,
    seeds: Iterable[int] | None = None,
    epochs: int | None = None,
    output: Path | str | None = None,
    unit: str | None = None,
    hardware: bool = True,
    learning_rate: float | None = None,
    arguments: Mapping[str, Any] | None = None,
    runs: Path | str = "runs/in_the_loop",
    content: Path | str | None = None,
    restart: bool = False,
    progress: training.Progress | None = None,
    tasks: Mapping[str, Task] = TASKS,
) -> dict[str, Any]:
    """Train a recipe's network on devices, once per seed, and gather the figures.

    The epoch is chosen on the validation split by the reading of the devices after it; `test` is
    that same reading on the test split. `test_end` holds the test figures of fresh readings of the
    devices as they are after the last epoch, without any choice.

    Args:
        name: A model with a recipe.
        seeds: Seeds of network, data order and devices. Default: the recipe's.
        epochs: Default: the recipe's.
        output: JSON file for the results. Default: `runs/VARIANT/results.json`.
        unit: "LSTM" or "GRU" instead of the recipe's spiking units, with as many units.
        hardware: False trains in float, for comparison, still without averaging.
        learning_rate: Peak of the schedule. Default: the recipe's.
        arguments: Arguments for `snukeras.optimizers.PCMOptimizer`.
        runs: Folder for states and results.
        content: Folder of recipes. Default: the one that ships with the package.
        restart: Forget what earlier runs left.
        progress: As for `snukeras.zoo.training.train`.
        tasks: The tasks that recipes may name.

    Returns:
        The results of `snukeras-zoo train`, and for each seed pulses, refreshes and conductances.

    Raises:
        ValueError: Unknown name or unit, arguments that the optimizer refuses, or a run that was
            begun with others.
        FloatingPointError: The training diverged.
    """
    trainings = planned(
        name, seeds, epochs, unit, hardware, learning_rate, arguments, runs, content, restart, tasks
    )
    of_seeds = training.trained_all(trainings, reporting.executor(), progress)
    recipe, task = trainings[0].recipe, trainings[0].task
    folder = trainings[0].folder.parent
    variant = folder.name
    results = {
        **training.results_of(recipe, task, of_seeds),
        "variant": variant,
        "unit_class": unit,
        "hardware": _settings(recipe, task) if hardware else None,
    }
    _files.write_json(Path(output) if output else folder / training.RESULTS, results)
    return results


def planned(
    name: str,
    seeds: Iterable[int] | None = None,
    epochs: int | None = None,
    unit: str | None = None,
    hardware: bool = True,
    learning_rate: float | None = None,
    arguments: Mapping[str, Any] | None = None,
    runs: Path | str = "runs/in_the_loop",
    content: Path | str | None = None,
    restart: bool = False,
    tasks: Mapping[str, Task] = TASKS,
) -> list[training.Training]:
    """Return the trainings of `experiment`, one for each seed."""
    recipe = _variant(recipes.read(name, content), seeds, epochs, unit, learning_rate)
    devices = {**(recipe.devices or {}), **(arguments or {})} if hardware else None
    recipe = recipe.changed(devices=devices)
    task = registry.task_of(recipe.task, tasks)
    variant = f"{name}{'' if unit is None else f'-{unit.lower()}'}{'' if hardware else '-float'}"
    return [
        training.Training(
            recipe,
            task,
            seed,
            Path(runs) / variant / f"seed-{seed}",
            finish=partial(_final_devices, task=task) if hardware else None,
            content=content,
            restart=restart,
        )
        for seed in recipe.seeds
    ]


def _variant(
    recipe: Recipe,
    seeds: Iterable[int] | None,
    epochs: int | None,
    unit: str | None,
    learning_rate: float | None,
) -> Recipe:
    """Return the recipe as it is to be trained on devices."""
    changed: dict[str, Any] = {"averaging": None}
    if seeds is not None:
        changed["seeds"] = [*seeds]
    if epochs is not None:
        changed["epochs"] = epochs
    if learning_rate is not None:
        changed["optimizer"] = {**recipe.optimizer, "learning_rate": learning_rate}
    if unit is not None:
        if unit not in UNITS:
            raise ValueError(
                f"`unit` has to be None or one of {', '.join(UNITS)}. Received: {unit!r}"
            )
        layers = [
            {
                "class": unit,
                "name": layer.get("name", unit.lower()),
                "units": layer["units"],
                "return_sequences": layer.get("return_sequences", False),
            }
            if layer["class"] in ("SNU", "SSNU")
            else layer
            for layer in recipe.network["layers"]
        ]
        changed["network"] = {**recipe.network, "layers": layers}
    return recipe.changed(**changed)


def _settings(recipe: Recipe, task: Task) -> dict[str, Any]:
    """Return the arguments of the PCMOptimizer, defaults filled in, without the recipe's part."""
    config = recipes.optimizer(recipe, task.steps_per_epoch(recipe)).get_config()
    return {key: config[key] for key in config if key not in ("inner_optimizer", "name", "seed")}


def _final_devices(model: "keras.Model", optimizer: "PCMOptimizer", task: Task) -> dict[str, Any]:
    """Describe the devices after the last epoch, and what they give when they are read again."""
    return {
        "test_end": _test_readings(model, optimizer, task),
        "devices": devices(optimizer),
    }


def _test_readings(model: "keras.Model", optimizer: "PCMOptimizer", task: Task) -> dict[str, Any]:
    figures = []
    for _ in range(READINGS):
        optimizer.read()
        figures.append(task.evaluate(model, "test"))
    return {
        "mean": float(np.mean(figures)),
        "deviation": float(np.std(figures, ddof=1)),
        "readings": READINGS,
    }


def devices(optimizer: "PCMOptimizer") -> dict[str, Any]:
    """Describe the devices of a built optimizer, for a results file.

    Returns:
        Counts over all devices, and per kernel a histogram of the conductances in uS.
    """
    pulses = np.concatenate([count.ravel() for count in optimizer.pulse_counts().values()])
    refreshes = np.concatenate([count.ravel() for count in optimizer.refresh_counts().values()])
    edges = np.arange(0.0, optimizer.device.g_max + _BIN, _BIN)
    return {
        "devices": int(pulses.size),
        "seconds": float(optimizer.clock.numpy()),
        "pulses_per_device": _spread(pulses),
        "refreshes_per_pair": _spread(refreshes),
        "histogram_edges_uS": [round(float(edge), 6) for edge in edges],
        "conductances": {
            _short(path): {
                "plus": np.histogram(pair[0], edges)[0].tolist(),
                "minus": np.histogram(pair[1], edges)[0].tolist(),
                "mean_uS": round(float(np.mean(pair, dtype="float64")), 6),
            }
            for path, pair in optimizer.conductances().items()
        },
    }


def _short(path: str) -> str:
    """Return layer and kernel of a path; the names of cells between them differ by run."""
    _, layer, *_, kernel = path.split("/")
    return f"{layer}/{kernel}"


def _spread(counts: np.ndarray) -> dict[str, float]:
    return {
        "total": int(counts.sum()),
        "mean": float(counts.mean()),
        "median": float(np.median(counts)),
        "percentile_99": float(np.percentile(counts, 99)),
        "max": int(counts.max()),
    }


def table(part: str | None = None, root: Path | str | None = None) -> str:
    """Return the table of the trainings with the hardware in the loop, as Markdown.

    Args:
        part: None, or "units" for the shorter trainings of networks of other units; their files
            are in a folder of their own.
        root: Folder of all results. Default: `experiments/results` of the checkout.

    `python -m experiments.in_the_loop NAME --output FILE` makes them, and with `--float`
    the figures beside them.
    """
    own = RESULTS_FOLDER if part is None else f"{RESULTS_FOLDER}_{part}"
    files = sorted(reporting.folder(own, root).glob("*.json"))
    of_variants = {path.stem: _files.read_json(path) for path in files}
    lines = [
        "| network | devices | test, in float | test, devices in the loop | change "
        "| final devices, read again | pulses a device | refreshes a pair |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for variant, results in of_variants.items():
        if results["hardware"] is None:
            continue
        in_float = of_variants[f"{variant}-float"]
        counts = [cards.count(cast(Results, found)) for found in (in_float, results)]
        change = results["test"]["mean"] / in_float["test"]["mean"] - 1.0
        devices = [seed["devices"] for seed in results["seeds"]]
        pulses = np.mean([entry["pulses_per_device"]["mean"] for entry in devices])
        again = np.mean([seed["test_end"]["mean"] for seed in results["seeds"]])
        refreshes = np.mean([entry["refreshes_per_pair"]["mean"] for entry in devices])
        lines.append(
            f"| {_outline(results)} | {devices[0]['devices']:,} | "
            f"{cards.spread(in_float['test'])}, {counts[0]} | "
            f"{cards.spread(results['test'])}, {counts[1]} | {change:+.1%} | "
            f"{again:.3f} | {pulses:.1f} | {refreshes:.2f} |"
        )
    return "\n".join(lines) + "\n"


def _outline(results: Mapping[str, Any]) -> str:
    return cards.outline(recipes.network(recipes.check(results["recipe"]), 0))


def plot(results: Mapping[str, Any], path: Path) -> None:
    """Draw histograms of the conductances at the end, of all seeds together."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    devices = [seed["devices"] for seed in results["seeds"]]
    edges = np.asarray(devices[0]["histogram_edges_uS"])
    kernels = [*devices[0]["conductances"]]
    figure, all_axes = pyplot.subplots(
        1, len(kernels), figsize=(3.6 * len(kernels), 3.0), layout="constrained", sharey=True
    )
    for axes, kernel in zip(np.atleast_1d(all_axes), kernels, strict=True):
        for polarity, sign, line in (("plus", "+", "-"), ("minus", "\N{MINUS SIGN}", "--")):
            counts = np.sum([entry["conductances"][kernel][polarity] for entry in devices], axis=0)
            axes.stairs(counts / counts.sum(), edges, label=f"G{sign}", linestyle=line)
        axes.set(title=kernel, xlabel="conductance after the last pulse, uS")
        axes.set_xlim(0.0, edges[min(np.flatnonzero(counts)[-1] + 2, len(edges) - 1)])
    np.atleast_1d(all_axes)[0].set_ylabel("share of the devices")
    np.atleast_1d(all_axes)[0].legend()
    save_picture(figure, path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.in_the_loop",
        description="Train a model of the zoo from scratch with simulated PCM devices in the loop.",
    )
    parser.add_argument("name", nargs="?", help="a model with a recipe, such as jsb_snu")
    parser.add_argument("--seeds", type=int, nargs="+", help="default: the recipe's")
    parser.add_argument("--epochs", type=int, help="default: the recipe's")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    parser.add_argument("--unit", choices=UNITS, help="instead of the recipe's spiking units")
    parser.add_argument("--float", action="store_true", help="train without devices")
    parser.add_argument("--learning-rate", type=float, help="peak; default: the recipe's")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/in_the_loop"), help="working folder"
    )
    parser.add_argument("--content", type=Path, help="folder of recipes")
    parser.add_argument("--restart", action="store_true", help="forget what earlier runs left")
    parser.add_argument(
        "--arguments",
        type=json.loads,
        default={},
        metavar="JSON",
        help='arguments of PCMOptimizer, such as \'{"w_max": 1.5, "refresh_every": 20}\'',
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FILE.png", help="draw the results in FILE.json beside it"
    )
    return parser


@reported
@reporting.on_workers
def main(argv: list[str] | None = None) -> int:
    """Run the experiment from the command line; 0 if all went well."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.name is None and arguments.plot is None:
        parser.error("name a model, or a picture to draw (--plot)")
    if arguments.plot is not None:
        plot(_files.read_json(arguments.plot.with_suffix(".json")), arguments.plot)
        return 0
    found = experiment(
        arguments.name,
        seeds=arguments.seeds,
        epochs=arguments.epochs,
        output=arguments.output,
        unit=arguments.unit,
        hardware=not arguments.float,
        learning_rate=arguments.learning_rate,
        arguments=arguments.arguments,
        runs=arguments.runs,
        content=arguments.content,
        restart=arguments.restart,
    )
    print(f"{found['variant']}: test {found['test']['mean']:.4f} {found['unit']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
