"""Run the GRAPES experiments on MNIST and print their tables.

python -m experiments.grapes accuracy forgetting robustness --output experiments/results/grapes
"""

import argparse
import contextlib
import functools
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from experiments import reporting
from experiments.grapes.training import (
    BATCH,
    DAY,
    DROPOUT,
    EPOCHS,
    EPOCHS_ON_DEVICES,
    HELD_OUT,
    LEARNING_RATE,
    METHODS,
    NETWORKS,
    PARTS,
    SCENARIOS,
    SEEDS,
    STEPS,
    UNITS,
    settings,
    train,
)
from experiments.reporting import reported
from snukeras import _executors, _files
from snukeras.zoo import training


def experiment(
    parts: Iterable[str] = PARTS,
    networks: Iterable[str] = NETWORKS,
    scenarios: Iterable[str] | None = None,
    seeds: Iterable[int] = SEEDS,
    runs: Path | str = "runs/grapes",
    output: Path | str | None = None,
    **changed: Any,
) -> None:
    """Train what is missing under `runs`, and gather all that is there.

    Args:
        parts, networks, scenarios, seeds: What to train; scenarios None for all of a part.
        runs: Folder with a file for each training.
        output: Folder for PART.json, each of all trainings of the part under `runs`; None: none.
        changed: See `train`.

    Raises:
        FloatingPointError: A training diverged.
        ValueError: A file under `runs` is of other settings.
    """
    runs = Path(runs)
    runs.mkdir(parents=True, exist_ok=True)  # what cannot be written should fail before training
    seeds, networks = [*seeds], [*networks]
    for part in parts:
        cases = [
            (part, kind, scenario, method, seed)
            for scenario in (SCENARIOS[part] if scenarios is None else scenarios)
            if scenario in SCENARIOS[part]
            for seed in seeds
            for kind in networks
            for method in METHODS
        ]
        missing = [case for case in cases if not _is_done(runs, case, changed)]
        training_of = functools.partial(train, **changed)
        found = _executors.gather(training_of, missing, reporting.executor(), seeded=True)
        with contextlib.closing(found) as running:
            for number, result in running:
                path, named = _place(runs, missing[number], changed)
                _files.write_json(path, {**named, **result})
                last = result.get("test", result.get("course", [None])[-1])
                print(f"{path.stem}: {last}", flush=True)
        if output is not None:
            _files.write_json(Path(output) / f"{part}.json", gathered(part, runs))


_Case = tuple[str, str, str, str, int]


def _place(runs: Path, case: _Case, changed: Any) -> tuple[Path, dict[str, Any]]:
    """Return the file of a training, and what it says of it."""
    part, kind, scenario, method, seed = case
    named = {"network": kind, "scenario": scenario, "method": method, "seed": seed}
    named |= settings(part, kind, scenario, changed)
    return runs / part / f"{kind}-{scenario}-{method}-{seed}.json", named


def _is_done(runs: Path, case: _Case, changed: Any) -> bool:
    path, named = _place(runs, case, changed)
    if not path.exists():
        return False
    found = _files.read_json(path)
    # Older files do not say what they were trained with.
    if any(found.get(key, value) != value for key, value in named.items()):
        raise ValueError(
            f"{path} is of another learning rate or number of epochs. Choose another folder "
            "(--runs), or delete what is in it."
        )
    return True


def gathered(part: str, runs: Path | str) -> dict[str, Any]:
    """Return the results of a part: its settings, and the figures of all trainings in order."""
    found = [_files.read_json(path) for path in (Path(runs) / part).glob("*.json")]
    return {
        "part": part,
        "settings": {
            "batch": BATCH,
            "learning_rate": LEARNING_RATE,
            "epochs": EPOCHS if part == "accuracy" else EPOCHS_ON_DEVICES,
            "units": UNITS,
            "steps": STEPS,
            "dropout": DROPOUT,
            "held_out": HELD_OUT,
            "seconds_on_chip": DAY,
        },
        "versions": training.versions(),
        "trainings": sorted(
            found,
            key=lambda r: (r["network"], r["scenario"], METHODS.index(r["method"]), r["seed"]),
        ),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.grapes",
        description="GRAPES on MNIST, against plain training and a matched learning rate.",
    )
    parser.add_argument("parts", nargs="+", choices=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--scenarios", nargs="+", help="default: all of a part")
    parser.add_argument("--seeds", type=int, nargs="+", default=[*SEEDS])
    parser.add_argument("--runs", type=Path, default=Path("runs/grapes"), help="working folder")
    parser.add_argument("--output", type=Path, help="folder for the results")
    parser.add_argument("--epochs", type=int, help="to try something out")
    parser.add_argument("--learning-rate", type=float, help="to try something out")
    parser.add_argument("--images", type=int, help="of each set, to try something out")
    return parser


@reported
@reporting.on_workers
def main(argv: list[str] | None = None) -> int:
    """Run the experiment from the command line; 0 if all went well."""
    arguments = vars(_parser().parse_args(argv))
    tried = ("epochs", "learning_rate", "images")
    changed = {name: value for name in tried if (value := arguments.pop(name)) is not None}
    experiment(**arguments, **changed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
