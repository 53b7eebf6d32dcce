"""The results of a model's seeds as they are kept and shown."""

import platform
from importlib import metadata

import numpy as np

import snukeras
from snukeras._files import JsonObject
from snukeras.zoo.contents import Figure, Results, Summary
from snukeras.zoo.recipes import Recipe
from snukeras.zoo.tasks import Task

FORMAT = 1


def results_of(recipe: Recipe, task: Task, seeds: list[JsonObject]) -> Results:
    """Gather the results of the seeds, with everything that produced them.

    Seeds that were not measured on the test split leave it out of the results.
    """
    summary: Summary = {"valid": _figure([seed["valid"] for seed in seeds])}
    if all("test" in seed for seed in seeds):
        summary["test"] = _figure([seed["test"] for seed in seeds])
    pick = min if task.lower_is_better else max
    # What is trained for chips is chosen by what chips make of it.
    judged = "valid_on_chips" if recipe.analog else "valid"
    return {
        "format": FORMAT,
        "name": recipe.name,
        "task": task.name,
        "metric": task.metric,
        "unit": task.unit,
        "lower_is_better": task.lower_is_better,
        **summary,
        "best_seed": pick(seeds, key=lambda result: result[judged])["seed"],
        "parameters": seeds[0]["parameters"],
        "seeds": seeds,
        "recipe": recipe.record(),
        "data": {"name": task.title, "sha256": task.data_sha256, "licence": task.data_licence},
        "versions": versions(),
    }


def _figure(figures: list[float]) -> Figure:
    """Return the mean, and the deviation of a sample, which a single seed does not have."""
    deviation = float(np.std(figures, ddof=1)) if len(figures) > 1 else None
    return {"mean": float(np.mean(figures)), "deviation": deviation}


def versions() -> dict[str, str]:
    """Return the versions that figures depend on."""
    import tensorflow as tf  # its distribution has several names (tensorflow, tensorflow-cpu)

    return {
        "python": platform.python_version(),
        "snukeras": snukeras.__version__,
        "keras": metadata.version("keras"),
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
    }
