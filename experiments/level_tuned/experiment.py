"""Search settings of all-memristive networks, and compare couplings of their neurons."""

import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import reporting
from experiments.level_tuned.learning import runs
from experiments.level_tuned.tasks import TASKS
from snukeras import _executors, _files

SEEDS = range(10)
SEARCH_SEEDS = range(100, 103)
COUPLINGS = ("level-tuned", "chain", "winner-takes-all", "uncoupled")


# The controls run with what was chosen for the coupling that they vary.
SETTINGS_OF = {
    "level-tuned": "level-tuned",
    "chain": "level-tuned",
    "winner-takes-all": "winner-takes-all",
    "uncoupled": "winner-takes-all",
}


def search(name: str, folder: Path) -> list[dict[str, Any]]:
    """Choose level and depression of each coupling for a task, on seeds of its own.

    The most things learned count, then the agreement of the synapses.
    """
    definition = TASKS[name]
    cases = [
        {"coupling": coupling, "condition": condition, "seeds": [*SEARCH_SEEDS]}
        for condition in definition["searched"]
        for coupling in sorted(set(SETTINGS_OF.values()))
    ]
    return reporting.gather(folder / f"search_{name}.json", cases, functools.partial(_tried, name))


def _tried(name: str, coupling: str, condition: dict[str, Any], seeds: list[int]) -> dict[str, Any]:
    """Try all settings of a coupling; return the chosen ones, and the figures of all."""
    definition = TASKS[name]
    task = definition["make"](**condition)
    trials = []
    for level, depression in itertools.product(definition["level"], definition["depression"]):
        found = runs(task, coupling, level, depression, definition["steps"], seeds, test=False)
        trial = {"level": level, "depression": depression}
        for key in ("learned", "agreement"):
            trial[key] = float(np.mean([run[key] for run in found]))
        trial["events"] = float(np.mean([sum(run["events"].values()) for run in found]))
        trials.append(trial)
    best = max(trials, key=lambda t: (t["learned"], t["agreement"]))
    return {"chosen": {key: best[key] for key in ("level", "depression")}, "tried": trials}


def settings(folder: Path, name: str, coupling: str, condition: dict[str, Any]) -> dict[str, float]:
    """Return level and depression that `search` has chosen for a coupling and condition."""
    found = [
        search for search in _files.read_json(folder / f"search_{name}.json")["runs"]
        if search["coupling"] == SETTINGS_OF[coupling]
    ]  # fmt: skip
    own = [search for search in found if search["condition"] == condition]
    # A task that was searched at one condition has one choice for all.
    return dict((own or found)[0]["chosen"])


def couplings(name: str, condition: dict[str, Any]) -> list[str]:
    """Return the couplings that run at a condition: controls do not run everywhere."""
    controlled = TASKS[name].get("controlled", [condition])
    return [c for c in COUPLINGS if SETTINGS_OF[c] == c or condition in controlled]


def _by_seed(
    name: str,
    condition: dict[str, Any],
    coupling: str,
    chosen: dict[str, float],
    seeds: Sequence[int],
) -> list[dict[str, Any]]:
    """Train a network a seed: each in a task of its own where there is an executor."""
    executor = reporting.executor()
    parts = [[*seeds]] if executor is None else [[seed] for seed in seeds]
    tasks = [(name, condition, coupling, chosen, part) for part in parts]
    found = dict(_executors.gather(_of_seeds, tasks, executor, seeded=True))
    return [run for number in sorted(found) for run in found[number]]


def _of_seeds(
    name: str,
    condition: dict[str, Any],
    coupling: str,
    chosen: dict[str, float],
    seeds: list[int],
) -> list[dict[str, Any]]:
    definition = TASKS[name]
    task = definition["make"](**condition)
    return runs(task, coupling, chosen["level"], chosen["depression"], definition["steps"], seeds)


def experiment(name: str, folder: Path, seeds: Sequence[int] = SEEDS) -> list[dict[str, Any]]:
    """Run a task with every coupling, condition and seed; a run that was killed goes on.

    Args:
        name: "patterns", "overlap" or "streams".
        folder: Where the search's result is, and where the result goes.
        seeds: Seeds of inputs, devices and learning.

    Returns:
        The figures of each coupling and condition, by seed.
    """
    definition = TASKS[name]
    path = folder / f"{name}.json"
    known: list[dict[str, Any]] = _files.read_json(path)["runs"] if path.exists() else []
    for condition in definition["conditions"]:
        task = definition["make"](**condition)
        for coupling in couplings(name, condition):
            chosen = settings(folder, name, coupling, condition)
            run = {
                "coupling": coupling,
                "condition": condition,
                "settings": chosen,
                "things": len(task.sets),
                "steps": definition["steps"],
            }
            done: list[dict[str, Any]] = next(
                (old["seeds"] for old in known if run.items() <= old.items()), []
            )
            missing = [s for s in seeds if s not in [seed["seed"] for seed in done]]
            if not missing:
                continue
            found = _by_seed(name, condition, coupling, chosen, missing)
            # What was run with other settings goes.
            case = (coupling, condition)
            known = [old for old in known if (old["coupling"], old["condition"]) != case]
            known.append({**run, "seeds": sorted([*done, *found], key=lambda s: s["seed"])})
            _files.write_json(path, {"runs": known})
            print(name, coupling, condition, [seed["learned"] for seed in found], flush=True)
    return known
