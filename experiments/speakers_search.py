"""Search settings of the speech models for speakers that are held out, on validation alone.

    python -m experiments.speakers_search speech_snu --vary '{"units.threshold": [0.2, 0.5]}'

A trial is the network of experiments/speakers.py with some settings changed, trained on all six
folds with one seed; the test speaker of a fold is left out of it. Its figure is the mean of
% correct on the validation speakers, each after the best epoch. A place is named as in a recipe,
such as "optimizer.learning_rate"; "units." stands for the layer of units. Every combination is a
trial, and is kept in speakers_search/NAME.json. What is there is not trained again, and what was
killed goes on.

experiments/results/speakers_search.json has the trials before, by which the protocol was made. In
those, 16 changes of each recording were drawn once; here every epoch draws new ones.
"""

import argparse
import functools
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import reporting, speakers
from snukeras import _files
from snukeras.zoo import training
from snukeras.zoo.training import search

FOLDER = "speakers_search"


def experiment(
    name: str,
    vary: Mapping[str, Sequence[Any]],
    seed: int = 0,
    runs: Path | str = "runs/speakers_search",
    root: Path | str | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """Train every combination of settings on all folds; return all trials of the model.

    Args:
        name: A model with a recipe of the task spoken_digits.
        vary: Values to try, by their place.
        seed: Of every training.
        runs: Folder for states and results of the trainings.
        root: Folder of all results. Default: `experiments/results` of the checkout.
        **options: As for `trial`.

    Raises:
        ValueError: Another task, values that are no list, or a place that the recipe does not have.
    """
    cases = [{"settings": settings, "seed": seed} for settings in search.combinations(vary)]
    measure = functools.partial(trial, name, runs=runs, **options)
    return reporting.gather(reporting.folder(FOLDER, root) / f"{name}.json", cases, measure)


def trial(
    name: str,
    settings: Mapping[str, Any],
    seed: int,
    runs: Path | str,
    content: Path | str | None = None,
    held_out: Sequence[str] = speakers.SPEAKERS,
    task: Any = speakers.Bands,
    progress: training.Progress | None = None,
) -> dict[str, Any]:
    """Train one setting on the folds.

    Args:
        name, settings, seed, runs: As for `experiment`.
        content: Folder of recipes. Default: the one that ships with the package.
        held_out: The test speakers of the folds, who are left out.
        task: Makes the task of a fold.
        progress: As for `snukeras.zoo.training.train`.

    Returns:
        `valid`, % correct by the test speaker that is left out, its `mean`, `parameters`,
        `seconds`. `valid` and `mean` are None where a training diverged.
    """
    begin = time.perf_counter()
    recipe = speakers.recipe_of(name, content)
    places = (n for n, part in enumerate(recipe.network["layers"]) if part.get("return_sequences"))
    units = f"network.layers.{next(places)}."
    recipe = search.changed(
        recipe,
        {
            units + place.removeprefix("units.") if place.startswith("units.") else place: value
            for place, value in settings.items()
        },
    )
    folder = Path(runs) / name / _files.sha256_of_json([dict(settings), seed])[:12]
    folds = [
        training.Training(recipe, task(who), seed, folder / who, test=False, content=content)
        for who in held_out
    ]
    found: dict[str, Any] = {}
    try:
        results = training.trained_all(folds, None, progress)
    except FloatingPointError:
        found |= {"valid": None, "mean": None}
    else:
        figures = [round(float(result["valid"]), 2) for result in results]
        found |= {
            "valid": dict(zip(held_out, figures, strict=True)),
            "mean": round(float(np.mean(figures)), 2),
            "parameters": results[0]["parameters"],
        }
    return {**found, "seconds": round(time.perf_counter() - begin, 1)}


@reporting.reported
@reporting.on_workers
def main(argv: list[str] | None = None) -> int:
    """Train the trials of one model; 0 if all went well."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.speakers_search",
        description="Try settings of a speech model on the validation speakers of six folds.",
    )
    parser.add_argument("name", metavar="NAME", help="a recipe, e.g. speech_snu")
    parser.add_argument("--vary", type=json.loads, default={}, metavar="JSON",
                        help="values to try, by place")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=Path("runs/speakers_search"), metavar="DIR")
    given = parser.parse_args(argv)
    experiment(given.name, given.vary, given.seed, given.runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
