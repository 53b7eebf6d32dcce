"""Where an experiment keeps its figures, how its command asks for them, how tables print them."""

import argparse
import functools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec

import numpy as np

from snukeras import _files

_Arguments = ParamSpec("_Arguments")

RESULTS = Path(__file__).resolve().parent / "results"


def folder(name: str, root: Path | str | None = None) -> Path:
    """Return the folder of an experiment's results.

    Args:
        name: Of the folder, such as "spatial".
        root: Folder of all results. Default: `experiments/results` of the checkout.
    """
    return (RESULTS if root is None else Path(root)) / name


def parser(
    name: str, description: str, steps: Sequence[str], seeds: Sequence[int]
) -> argparse.ArgumentParser:
    """Return the command line of an experiment in steps; its results go to a folder of its name.

    Args:
        name: Of the module, and of the folder.
        description: What it measures.
        steps: What can be done, such as "search" and "run".
        seeds: Those of the default.
    """
    found = argparse.ArgumentParser(prog=f"python -m experiments.{name}", description=description)
    found.add_argument("what", nargs="+", choices=steps)
    found.add_argument(
        "--results",
        type=Path,
        default=folder(name),
        help=f"folder; default: experiments/results/{name}",
    )
    found.add_argument("--seeds", type=int, nargs="+", default=[*seeds])
    return found


def gather(
    path: Path, cases: Iterable[Mapping[str, Any]], measure: Callable[..., dict[str, Any]]
) -> list[dict[str, Any]]:
    """Measure what a file of results does not hold yet; a command that was killed goes on.

    Args:
        path: JSON file, written anew after each case.
        cases: What tells one case from all others.
        measure: Called with the content of a case; its figures are added to those.

    Returns:
        All that the file holds then.
    """
    runs: list[dict[str, Any]] = _files.read_json(path)["runs"] if path.exists() else []
    for case in cases:
        if any(case.items() <= run.items() for run in runs):
            continue
        runs.append({**case, **measure(**case)})
        _files.write_json(path, {"runs": runs})
        print(runs[-1], flush=True)
    return runs


def reported(main: Callable[_Arguments, int]) -> Callable[_Arguments, int]:
    """Make a command say in one line what was wrong with its input, and return 1."""

    @functools.wraps(main)
    def command(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> int:
        try:
            return main(*args, **kwargs)
        except (ValueError, OSError, FloatingPointError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1

    return command


def save_picture(figure: Any, path: Path) -> None:
    """Write a figure of pyplot to a PNG file, whole or not at all, and close it."""
    from matplotlib import pyplot

    with _files.replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, bbox_inches="tight", facecolor="white")
    pyplot.close(figure)


def spread(values: Any, form: str = ".2f") -> str:
    """Return mean and standard deviation of several seeds' values, for a table."""
    if len(values) == 1:
        return f"{values[0]:{form}}"
    return f"{np.mean(values):{form}} ± {np.std(values, ddof=1):{form}}"
