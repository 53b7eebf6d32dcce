"""How the figure of a rate-coded model depends on its spikes, and on their number.

    python -m experiments.rate_coding mnist_snu mnist_ssnu

A preset codes its images by fixed spikes (`snukeras.layers.RateCoding`), so it has one figure. Here
its weights are measured with other spikes: several seeds of the coding, and other numbers of
steps at the same rate.
"""

import argparse
import contextlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments import reporting
from experiments.reporting import reported
from snukeras import _executors, _files
from snukeras.layers import RateCoding
from snukeras.zoo import presets
from snukeras.zoo.tasks import TASKS, Task, registry

RESULTS_FOLDER = "rate_coding"
STEPS = (5, 10, 20, 40)
CODINGS = (1, 2, 3, 4, 5)


def recoded(model: Any, steps: int, seed: int) -> Any:
    """Return a copy of a model whose RateCoding layers have other steps and another seed.

    The probability of a spike at a step stays what it is.
    """
    import keras

    def copy(layer: keras.Layer) -> keras.Layer:
        config = layer.get_config()
        if isinstance(layer, RateCoding):
            if layer.max_spikes is not None:
                config["max_spikes"] = layer.probability * steps
            config |= {"steps": steps, "training_steps": None, "seed": seed}
        return type(layer).from_config(config)

    twin = keras.models.clone_model(model, clone_function=copy)
    twin.set_weights(model.get_weights())
    return twin


def experiment(
    name: str,
    steps: Iterable[int] = STEPS,
    codings: Iterable[int] = CODINGS,
    content: Path | str | None = None,
    tasks: Mapping[str, Task] = TASKS,
    root: Path | str | None = None,
) -> dict[str, Any]:
    """Measure a model with other spikes, on the test split; goes on where it was stopped.

    Args:
        name: A preset whose network has a RateCoding layer.
        steps: Numbers of steps.
        codings: Seeds of the coding.
        content: Folder of presets. Default: the one that ships with the package.
        tasks: The tasks that presets may name.
        root: Folder of all results. Default: `experiments/results` of the checkout.

    Returns:
        The results, as written to `rate_coding/NAME.json`: the shipped figure, and for each
        number of steps the figure of each seed.

    Raises:
        ValueError: No such preset, or one that codes nothing by rate.
    """
    preset = presets.info(name, content)
    path = reporting.folder(RESULTS_FOLDER, root) / f"{name}.json"
    weights = preset["files"][presets.WEIGHTS]["sha256"]
    results: dict[str, Any] = _files.read_json(path) if path.exists() else {}
    if results.get("weights_sha256") != weights:
        results = {"name": name, "weights_sha256": weights, "figures": {}}
    results |= {"unit": preset["unit"], "shipped": preset["test"]}
    model = presets.load(name, content=content)
    if not any(isinstance(layer, RateCoding) for layer in model.layers):
        raise ValueError(f"{name} has no RateCoding layer: there are no other spikes to give it.")
    cases = [(count, seed) for count in steps for seed in codings]
    missing = [
        case
        for case in dict.fromkeys(cases)
        if str(case[1]) not in results["figures"].get(str(case[0]), {})
    ]
    content = None if content is None else Path(content).resolve()
    shared = (name, content, None if tasks is TASKS else tasks)
    gathered = _executors.gather(_figure, missing, reporting.executor(), shared, seeded=True)
    with contextlib.closing(gathered) as measured:
        for number, found in measured:
            count, seed = missing[number]
            known = results["figures"].setdefault(str(count), {})
            known[str(seed)] = found
            results["figures"] = _sorted({**results["figures"], str(count): _sorted(known)})
            _files.write_json(path, results)
            print(f"{name}, {count} steps, coding {seed}: {found}", flush=True)
    return results


def _sorted(by_number: dict[str, Any]) -> dict[str, Any]:
    """Return entries in the order of their numbers, whichever was done first."""
    return dict(sorted(by_number.items(), key=lambda entry: int(entry[0])))


def _figure(
    preset: tuple[str, Path | None, Mapping[str, Task] | None], steps: int, seed: int
) -> float:
    """Return the figure of a preset with other spikes.

    Args:
        preset: Its name, folder of presets, and tasks; None for those of the package.
        steps: Number of steps.
        seed: Of the coding.
    """
    name, content, tasks = preset
    task = registry.task_of(presets.info(name, content)["task"], tasks or TASKS)
    twin = recoded(presets.load(name, content=content), steps, seed)
    twin.compile(loss=task.loss({}), weighted_metrics=task.metrics())
    return round(task.evaluate(twin, "test"), 4)


def table(root: Path | str | None = None) -> str:
    """Return the figures of all models as Markdown: mean and deviation over codings."""
    folder = reporting.folder(RESULTS_FOLDER, root)
    found = [_files.read_json(path) for path in sorted(folder.glob("*.json"))]
    counts = sorted({int(count) for results in found for count in results["figures"]})
    lines = [
        "| model | as shipped | " + " | ".join(f"{count} steps" for count in counts) + " |",
        "|---|---|" + "---|" * len(counts),
    ]
    for results in found:
        cells = []
        for count in counts:
            figures = [*results["figures"].get(str(count), {}).values()]
            deviation = f" ± {np.std(figures, ddof=1):.3f}" if len(figures) > 1 else ""
            cells.append(f"{np.mean(figures):.3f}{deviation}" if figures else "-")
        row = [f"`{results['name']}`", f"{results['shipped']:.3f}", *cells]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


@reported
@reporting.on_workers
def main(argv: list[str] | None = None) -> int:
    """Measure the named models; 0 if all went well."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.rate_coding",
        description="Measure rate-coded models with other spikes and other numbers of steps.",
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="a preset, e.g. mnist_snu")
    parser.add_argument("--steps", type=int, nargs="+", default=[*STEPS])
    parser.add_argument("--codings", type=int, nargs="+", default=[*CODINGS], help="seeds")
    parser.add_argument("--content", type=Path, help="folder of presets")
    arguments = parser.parse_args(argv)
    for name in arguments.names:
        experiment(name, arguments.steps, arguments.codings, arguments.content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
