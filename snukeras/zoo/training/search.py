"""Try settings of a recipe, judged by the validation split alone.

    snukeras-zoo search jsb_lstm --epochs 120 \\
        --vary '{"optimizer.learning_rate": [0.003, 0.01], "network.layers.1.rate": [0.3, 0.5]}'

Every combination is trained once. A setting is named by its place in the recipe. The test split is
never measured here, so nobody can look at its figures while choosing. What was tried before, in
zoo/results/search/NAME.json, is not tried again, and a training that was killed goes on.
`--around-best` starts from the best setting so far, to search one direction after the other.
"""

import contextlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from snukeras import _files
from snukeras._executors import Executor
from snukeras._files import JsonObject, JsonValue
from snukeras.zoo import presets, recipes
from snukeras.zoo.contents import OfRecipe, Outcome, Trial, Trials
from snukeras.zoo.recipes import Recipe
from snukeras.zoo.tasks import TASKS, Task, registry
from snukeras.zoo.training import seeds, transfer
from snukeras.zoo.training.results import versions
from snukeras.zoo.training.spread import Training, trained

FOLDER = "search"


def search(
    name: str,
    vary: Mapping[str, Sequence[JsonValue]],
    epochs: int | None = None,
    seed: int = 0,
    around_best: bool = False,
    runs: Path | str = "runs/search",
    content: Path | str | None = None,
    progress: seeds.Progress | None = None,
    tasks: Mapping[str, Task] = TASKS,
    executor: Executor | None = None,
) -> Trials:
    """Train every combination of settings, and add their validation figures to the results.

    Args:
        name: A model with a recipe.
        vary: Values to try for each place in the recipe, such as "optimizer.learning_rate" or
            "network.layers.0.units"; numbers count the entries of a list.
        epochs: Epochs of each training; a schedule shrinks with them. Default: the recipe's.
        seed: Seed of each training.
        around_best: Vary the best setting so far, of those trained for as many epochs, instead of
            the recipe.
        runs: Folder for states.
        content: Folder of recipes and results. Default: the one that ships with the package.
        progress: As for `snukeras.zoo.training.train`.
        tasks: The tasks that recipes may name.
        executor: Where to train, each trial in a task of its own; as for
            `snukeras.zoo.training.train`.

    Returns:
        The results, as written to `results/search/NAME.json` of the content folder.

    Raises:
        ValueError: Unknown name, a place that the recipe does not have, or a value that it refuses,
            or values that are no list.
    """
    base = recipes.read(name, content)
    task = registry.task_of(base.task, tasks)
    chosen = combinations(vary)
    path = presets.content_folder(content) / presets.RESULTS / FOLDER / f"{name}.json"
    results = _read(path, name, task)
    # Trainings of another length do not compare.
    length = base.epochs if epochs is None else epochs
    alike = [trial for trial in results["trials"] if trial["recipe"]["epochs"] == length]
    if around_best and alike:
        best = _sorted({**results, "trials": alike})[0]["recipe"]
        base = base.changed(**{key: best[key] for key in best if key not in ("seeds", "epochs")})
    planned = [changed(base, settings, epochs) for settings in chosen]
    known = {trial["identity"] for trial in results["trials"]}
    places: dict[str, int] = {}  # in the plan
    trainings, of_trainings = [], []
    for settings, recipe in zip(chosen, planned, strict=True):
        sources = transfer.sources(recipe, content)
        identity = _files.sha256_of_json([seeds.identity_of(recipe, sources), seed])
        if identity in places:
            continue
        places[identity] = len(places)
        if identity in known:
            continue
        folder = Path(runs) / name / identity[:12]
        trainings.append(Training(recipe, task, seed, folder, test=False, content=content))
        of_trainings.append((settings, identity))
    with contextlib.closing(trained(trainings, executor, progress)) as running:
        for number, result in running:
            settings, identity = of_trainings[number]
            # Read again: another process may have added trials meanwhile.
            results = _read(path, name, task)
            trials, place = results["trials"], places[identity]
            # In the order of the plan, whichever was done first.
            later = (n for n, t in enumerate(trials) if places.get(t["identity"], -1) > place)
            trial: Trial = {
                "settings": settings,
                "seed": seed,
                **_outcome(result),
                "identity": identity,
                "recipe": trainings[number].recipe.record(),
            }
            trials.insert(next(later, len(trials)), trial)
            results["versions"] = versions()
            _files.write_json(path, results)
    return results


def _outcome(result: JsonObject | FloatingPointError) -> Outcome:
    """Return what a trial keeps of a training, or of one that diverged."""
    if isinstance(result, FloatingPointError):
        return {"valid": None, "epoch": None, "epochs_trained": None, "seconds": None}
    return {
        "valid": result["valid"],
        "epoch": result["epoch"],
        "epochs_trained": result["epochs_trained"],
        "seconds": result["seconds"],
    }


def _read(path: Path, name: str, task: Task) -> Trials:
    """Return the results so far; without trials where there is no file."""
    if path.is_file():
        return _trials(path)
    return {
        "name": name,
        "task": task.name,
        "metric": task.metric,
        "unit": task.unit,
        "lower_is_better": task.lower_is_better,
        "trials": [],
    }


def _trials(path: Path) -> Trials:
    results = _files.read_json(path)
    _files.check_type(results, Trials, path)
    for number, trial in enumerate(results["trials"]):
        _files.check_type(trial["recipe"], OfRecipe, f"{path}: `recipe` of entry {number}")
    return cast(Trials, results)


def combinations(vary: Mapping[str, Sequence[JsonValue]]) -> list[dict[str, JsonValue]]:
    """Return every combination of settings, a value for each place.

    Args:
        vary: Values to try for each place.

    Raises:
        ValueError: Values that are no list.
    """
    if not isinstance(vary, Mapping) or not all(isinstance(v, list | tuple) for v in vary.values()):
        raise ValueError(
            "Argument `vary` has to name a list of values for each place, like "
            f'{{"optimizer.learning_rate": [0.003, 0.01]}}. Received: {vary}'
        )
    return [dict(zip(vary, values, strict=True)) for values in itertools.product(*vary.values())]


def changed(base: Recipe, settings: Mapping[str, JsonValue], epochs: int | None = None) -> Recipe:
    """Return a recipe with other settings.

    Args:
        base: The recipe.
        settings: A value for each place, such as "optimizer.learning_rate".
        epochs: Default: the recipe's.

    Raises:
        ValueError: A place that the recipe does not have, or a value that it refuses.
    """
    recipe = base.entries()
    for place, value in settings.items():
        *way, last = place.split(".")
        try:
            at: JsonValue = recipe
            for step in way:
                at = _inside(at, step)
            if isinstance(at, list):
                at[int(last)] = value
            elif isinstance(at, dict):
                at[last] = value
            else:
                raise TypeError(f"{last} would be inside {at!r}")
        except (KeyError, IndexError, TypeError, ValueError):
            raise ValueError(
                f"The recipe {base.name} has no such place. Received: {place!r}. A place is "
                'like "optimizer.learning_rate" or "network.layers.0.units".'
            ) from None
    if epochs is not None:
        recipe["epochs"] = epochs
    return recipes.check(recipe)


def _inside(at: JsonValue, step: str) -> JsonValue:
    """Return the entry of a list by its number, or of an object by its key."""
    if isinstance(at, list):
        return at[int(step)]
    if isinstance(at, dict):
        return at[step]
    raise TypeError(f"{step} would be inside {at!r}")


def _at(recipe: JsonObject, place: str) -> JsonValue:
    """Return the value at a place, None where the recipe leaves it out."""
    at: JsonValue = recipe
    for step in place.split("."):
        try:
            at = _inside(at, step)
        except (KeyError, IndexError, TypeError):
            return None
    return at


def table(name: str | None = None, content: Path | str | None = None) -> str:
    """Return the trials of a model, best first, or what was searched for each model.

    Args:
        name: A model that was searched. Default: a line for each of them.
        content: Folder of recipes and results. Default: the one that ships with the package.
    """
    folder = presets.content_folder(content) / presets.RESULTS / FOLDER
    if name is None:
        lines = ["| model | settings tried | best on validation | unit |", "|---|---|---|---|"]
        for path in sorted(folder.glob("*.json")):
            results = _trials(path)
            best = _sorted(results)[0]["valid"]
            lines.append(
                f"| `{results['name']}` | {len(results['trials'])} | "
                f"{'-' if best is None else f'{best:.3f}'} | {results['unit']} |"
            )
        return "\n".join(lines) + "\n"
    results = _trials(folder / f"{name}.json")
    trials = _sorted(results)
    places = list(dict.fromkeys(place for trial in trials for place in trial["settings"]))
    recipe = recipes.read(name, content).entries()
    lines = [
        f"| {' | '.join(_title(recipe, place) for place in places)} | epochs | validation, "
        f"{results['unit']} |",
        "|---" * (len(places) + 2) + "|",
    ]
    for trial in trials:
        values = [_at(trial["recipe"], place) for place in places]
        figure = "diverged" if trial["valid"] is None else f"{trial['valid']:.3f}"
        if all(value == _at(recipe, place) for value, place in zip(values, places, strict=True)):
            figure = f"{figure}, chosen"
        cells = [json.dumps(value) for value in values]
        lines.append(f"| {' | '.join(cells)} | {trial['recipe']['epochs']} | {figure} |")
    return "\n".join(lines) + "\n"


def _title(recipe: JsonObject, place: str) -> str:
    """Write a place for people: its last two steps, a layer by its class."""
    way = place.split(".")
    if way[:2] == ["network", "layers"]:
        return f"{recipe['network']['layers'][int(way[2])]['class']} {'.'.join(way[3:])}"
    return way[-1].replace("_", " ")


def _sorted(results: Trials) -> list[Trial]:
    """Return the trials, best first, those that diverged last."""
    sign = 1 if results["lower_is_better"] else -1
    return sorted(
        results["trials"],
        key=lambda trial: float("inf") if trial["valid"] is None else sign * trial["valid"],
    )
