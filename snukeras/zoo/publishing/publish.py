"""Publish a trained model: weights, golden outputs, card, measured results."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from snukeras import _files
from snukeras._executors import Executor
from snukeras._files import JsonValue
from snukeras.zoo import presets, recipes
from snukeras.zoo.contents import MEASURED, CostsOnData, OnChips, Results, Split
from snukeras.zoo.publishing import cards, costs
from snukeras.zoo.recipes import Recipe
from snukeras.zoo.tasks import TASKS, Task
from snukeras.zoo.tasks.registry import task_of
from snukeras.zoo.training import Progress, train, trained_model

if TYPE_CHECKING:
    import keras


def train_and_publish(
    name: str,
    content: Path | str | None = None,
    runs: Path | str = "runs",
    restart: bool = False,
    tensorboard: bool = False,
    progress: Progress | None = None,
    tasks: Mapping[str, Task] = TASKS,
    executor: Executor | None = None,
) -> Results:
    """Train a model with its recipe's seeds and epochs, then publish the seed best on validation.

    Preset, golden vectors, card and results go into the content folder.

    Args:
        name: A model with a recipe.
        content: Folder of recipes. Default: the one that ships with the package.
        runs: Folder for states and results.
        restart: Forget what earlier runs left.
        tensorboard: Log to `runs/NAME/seed-N/tensorboard`.
        progress, executor: As for `snukeras.zoo.training.train`.
        tasks: The tasks that recipes may name.

    Returns:
        The results of `snukeras.zoo.training.train`.
    """
    results = train(
        name,
        content,
        runs,
        restart=restart,
        tensorboard=tensorboard,
        progress=progress,
        tasks=tasks,
        executor=executor,
    )
    recipe = recipes.read(name, content)
    folder = Path(runs) / name
    _publish(recipe, task_of(recipe.task, tasks), results, folder, presets.content_folder(content))
    return results


def evaluate(
    name: str,
    content: Path | str | None = None,
    splits: Iterable[Split] = MEASURED,
    tasks: Mapping[str, Task] = TASKS,
) -> dict[Split, tuple[float, float]]:
    """Measure a pretrained model again.

    Args:
        name: One of `snukeras.zoo.list()`.
        content: Folder of presets. Default: the one that ships with the package.
        splits: Splits to measure: "valid", "test".
        tasks: The tasks that presets may name.

    Returns:
        For each split the figure measured now and the one in preset.json.
    """
    preset = presets.info(name, content)
    task = task_of(preset["task"], tasks)
    model = presets.load(name, content=content)
    model.compile(loss=task.loss({}), weighted_metrics=task.metrics())
    return {split: (task.evaluate(model, split), preset[split]) for split in splits}


def measure(
    name: str, content: Path | str | None = None, tasks: Mapping[str, Task] = TASKS
) -> CostsOnData:
    """Count spikes and operations of a preset, and keep them in its results file.

    `snukeras.zoo.publishing.cards.write` then writes them into the cards.

    Args:
        name: One of `snukeras.zoo.list()`.
        content: Folder of presets. Default: the one that ships with the package.
        tasks: The tasks that presets may name.

    Returns:
        What `snukeras.zoo.publishing.costs.counted` says.

    Raises:
        ValueError: No such preset, or one without its results file.
    """
    preset = presets.info(name, content)
    if preset["results"] is None:
        raise ValueError(f"{presets.RESULTS}/{name}.json is missing. Train and publish {name}.")
    model = presets.load(name, content=content)
    counted = _costs(model, task_of(preset["task"], tasks))
    path = presets.content_folder(content) / presets.RESULTS / f"{name}.json"
    _files.write_json(path, {**preset["results"], "costs": counted})
    return counted


def keep_chips(
    name: str,
    found: OnChips,
    content: Path | str | None = None,
    tasks: Mapping[str, Task] = TASKS,
) -> None:
    """Keep figures on chips in the results file of a preset, and write the cards of its task anew.

    Args:
        name: One of `snukeras.zoo.list()`.
        found: The figures, in the unit of the task.
        content: Folder of presets. Default: the one that ships with the package.
        tasks: The tasks that presets may name.

    Raises:
        ValueError: No such preset, one without its results file, or figures of other weights.
    """
    preset = presets.info(name, content)
    if preset["results"] is None:
        raise ValueError(f"{presets.RESULTS}/{name}.json is missing. Train and publish {name}.")
    if found["weights_sha256"] != preset["files"][presets.WEIGHTS]["sha256"]:
        raise ValueError(f"These figures on chips are of other weights of {name}. Measure it anew.")
    path = presets.content_folder(content) / presets.RESULTS / f"{name}.json"
    _files.write_json(path, {**preset["results"], "chips": found})
    cards.write(preset["task"], content, tasks)


def _halve(path: Path | str) -> None:
    """Write a file of weights anew, float16 in place of float32; Keras reads it all the same."""
    import h5py

    with h5py.File(path, "r") as whole, h5py.File(f"{path}.half", "w") as half:

        def copy(name: str, item: h5py.HLObject) -> None:
            if isinstance(item, h5py.Dataset):
                values = item[()]
                kind = np.float16 if values.dtype == np.float32 else values.dtype
                made = half.create_dataset(name, data=values.astype(kind))
            else:
                made = half.require_group(name)
            made.attrs.update(item.attrs)

        half.attrs.update(whole.attrs)
        whole.visititems(copy)
    os.replace(f"{path}.half", path)


def _publish(
    recipe: Recipe,
    task: Task,
    results: Results,
    folder: Path,
    content: Path,
) -> None:
    """Write preset, golden vectors, card and results of the seed that is best on validation."""
    name = recipe.name
    seed = results["best_seed"]
    model = trained_model(recipe, seed, folder / f"seed-{seed}")
    target = content / name
    _files.write_json(target / presets.CONFIG, _portable(json.loads(model.to_json())))
    with _files.replacing(target / presets.WEIGHTS) as temporary:
        model.save_weights(temporary)
        if recipe.half_precision:
            _halve(temporary)
    given, output = _golden(model, task)
    with _files.replacing(target / presets.GOLDEN) as temporary:
        np.savez_compressed(temporary, input=given, output=output)
    results = {**results, "costs": _costs(model, task)}
    _files.write_json(content / presets.RESULTS / f"{name}.json", results)
    best = next(result for result in results["seeds"] if result["seed"] == seed)
    # Last, so that a preset that is listed is whole.
    _files.write_json(
        target / presets.PRESET,
        {
            "format": presets.FORMAT,
            "name": name,
            "title": recipe.title,
            "description": recipe.description,
            "licence": recipe.licence,
            "task": recipe.task,
            "network": cards.outline(model),
            "parameters": model.count_params(),
            "metric": task.metric,
            "unit": task.unit,
            "seed": seed,
            "valid": best["valid"],
            "test": best["test"],
            "files": {
                file: {
                    "sha256": _files.sha256_of(target / file),
                    "bytes": (target / file).stat().st_size,
                }
                for file in (presets.CONFIG, presets.WEIGHTS, presets.GOLDEN)
            },
        },
    )
    cards.write(task.name, content, {task.name: task})


def _costs(model: "keras.Model", task: Task) -> CostsOnData:
    return {"data": task.measured_on, **costs.counted(model, task.measured_inputs())}


# Arguments that Keras 3.8 does not know, with their defaults, by class.
_NEWER = {"BatchNormalization": {"renorm": False, "renorm_momentum": 0.99}}


def _portable(config: JsonValue) -> JsonValue:
    """Drop from a Keras config what says nothing, but may be refused by an older Keras.

    Each Keras adds arguments to its classes; those not used are None in the config, or a default
    of `_NEWER`.
    """
    if isinstance(config, list):
        return [_portable(value) for value in config]
    if not isinstance(config, dict):
        return config
    arguments = config.get("config") if "class_name" in config else None
    if isinstance(arguments, dict) and str(config.get("module")).startswith("keras"):
        newer = _NEWER.get(str(config["class_name"]), {})
        arguments = {
            key: value
            for key, value in arguments.items()
            if value is not None and (key not in newer or newer[key] != value)
        }
        config = {**config, "config": arguments}
    return {key: _portable(value) for key, value in config.items()}


def _golden(model: "keras.Model", task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Choose an input whose output rounding does not change, and return both.

    A spike whose potential is within rounding of the threshold may fall either way on another
    machine. So each candidate is computed with weights moved by some 1e-6 of themselves, more
    than float32 sums differ by; the first whose output stays is taken.
    """
    random = np.random.default_rng(0)
    weights = model.get_weights()
    for given in task.golden_inputs():
        output = model.predict(given, verbose=0)
        largest = 0.0
        for _ in range(4):
            model.set_weights(
                [w * (1 + 1e-6 * random.standard_normal(w.shape)).astype(w.dtype) for w in weights]
            )
            largest = max(largest, float(np.abs(model.predict(given, verbose=0) - output).max()))
        model.set_weights(weights)
        if largest <= 0.5 * presets.GOLDEN_TOLERANCE:
            return given, output
    raise RuntimeError(
        f"No golden input of the task {task.name} has an output that rounding leaves alone."
    )
