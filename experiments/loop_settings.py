"""Choose the settings of the training with the hardware in the loop, by validation figures.

    python -m experiments.loop_settings jsb_snu
    python -m experiments.loop_settings jsb_snu --unit LSTM --settings '{"w_max": 1.0}'

Each setting trains one seed for fewer epochs than the recipe's; the test split has no say.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import in_the_loop, reporting
from experiments.reporting import reported
from snukeras import _files
from snukeras.zoo import training
from snukeras.zoo.tasks import TASKS, Task

RESULTS_FOLDER = "loop_settings"
SETTINGS: tuple[dict[str, Any], ...] = (
    {"w_max": 0.35},
    {"w_max": 0.5},
    {"w_max": 0.75},
    {"w_max": 1.0},
    {"w_max": 1.5},
    {"w_max": 2.5},
    {"w_max": 0.5, "refresh_every": 50},
)


def experiment(
    name: str,
    settings: Sequence[Mapping[str, Any]] = SETTINGS,
    epochs: int = 60,
    seed: int = 0,
    unit: str | None = None,
    output: Path | str | None = None,
    runs: Path | str = "runs/loop_settings",
    content: Path | str | None = None,
    progress: training.Progress | None = None,
    tasks: Mapping[str, Task] = TASKS,
) -> dict[str, Any]:
    """Train one seed with each setting.

    Args:
        name: A model with a recipe.
        settings: Arguments of `snukeras.optimizers.PCMOptimizer` each.
        epochs, seed: Of every training.
        unit: "LSTM" or "GRU" instead of the recipe's spiking units.
        output: JSON file for the results.
        runs: Folder for states; what is done is not done again.
        content: Folder of recipes. Default: the one that ships with the package.
        progress, tasks: As for `snukeras.zoo.training.train`.

    Returns:
        The best validation figure of each setting, and its epoch.
    """
    folders = [
        Path(runs) / "-".join(f"{key}-{value}" for key, value in setting.items())
        for setting in settings
    ]
    trainings = [
        found
        for setting, folder in zip(settings, folders, strict=True)
        for found in in_the_loop.planned(
            name, [seed], epochs, unit, arguments=setting, runs=folder, content=content, tasks=tasks
        )
    ]
    training.trained_all(trainings, reporting.executor(), progress)
    tried = []
    for setting, folder in zip(settings, folders, strict=True):
        # It is done, and read.
        results = in_the_loop.experiment(
            name,
            seeds=[seed],
            epochs=epochs,
            unit=unit,
            arguments=setting,
            runs=folder,
            content=content,
            progress=progress,
            tasks=tasks,
        )
        (trained,) = results["seeds"]
        tried.append({"arguments": setting, "valid": trained["valid"], "epoch": trained["epoch"]})
    gathered = {
        "format": training.FORMAT,
        "name": name,
        "unit_class": unit,
        "unit": results["unit"],
        "epochs": epochs,
        "seed": seed,
        "settings": tried,
        "versions": training.versions(),
    }
    if output is not None:
        _files.write_json(Path(output), gathered)
    return gathered


def table(root: Path | str | None = None) -> str:
    """Return the validation figures of the settings as Markdown."""
    folder = reporting.folder(RESULTS_FOLDER, root)
    lines = ["| network | units | settings | epochs | validation |", "|---|---|---|---|---|"]
    for path in sorted(folder.glob("*.json")):
        results = _files.read_json(path)
        for tried in results["settings"]:
            words = ", ".join(f"`{key}` {value}" for key, value in tried["arguments"].items())
            lines.append(
                f"| `{results['name']}` | {results['unit_class'] or 'its own'} | {words} "
                f"| {results['epochs']} | {tried['valid']:.3f} |"
            )
    return "\n".join(lines) + "\n"


@reported
@reporting.on_workers
def main(argv: list[str] | None = None) -> int:
    """Run the trainings from the command line; 0 if all went well."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.loop_settings",
        description="Choose the settings of the training with devices in the loop by validation.",
    )
    parser.add_argument("name", help="a model with a recipe, such as jsb_snu")
    parser.add_argument("--epochs", type=int, default=60, help="default: 60")
    parser.add_argument("--unit", choices=in_the_loop.UNITS, help="instead of the spiking units")
    parser.add_argument(
        "--settings",
        type=json.loads,
        nargs="+",
        default=SETTINGS,
        metavar="JSON",
        help="arguments of PCMOptimizer, an object for each training",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="JSON file for the results")
    parser.add_argument("--runs", type=Path, default=Path("runs/loop_settings"))
    arguments = parser.parse_args(argv)
    found = experiment(
        arguments.name,
        arguments.settings,
        unit=arguments.unit,
        epochs=arguments.epochs,
        output=arguments.output,
        runs=arguments.runs,
    )
    for tried in found["settings"]:
        print(f"{tried['arguments']}: {tried['valid']:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
