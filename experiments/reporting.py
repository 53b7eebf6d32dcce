"""Where an experiment keeps its figures, how its command asks for them, how tables print them."""

import argparse
import contextlib
import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ParamSpec, Protocol

import numpy as np

from snukeras import _executors, _files
from snukeras._executors import Executor

_Arguments = ParamSpec("_Arguments")

RESULTS = Path(__file__).resolve().parent / "results"
_EXECUTOR: ContextVar[Executor | None] = ContextVar("executor", default=None)


@contextlib.contextmanager
def on(executor: Executor | None) -> Iterator[None]:
    """Hand the cases, seeds and chips of experiments to an executor within the block.

    Args:
        executor: Whatever has the `submit` of concurrent.futures.Executor; None for this process.
    """
    token = _EXECUTOR.set(_executors.checked(executor))
    try:
        yield
    finally:
        _EXECUTOR.reset(token)


def executor() -> Executor | None:
    """Return what `on` was given."""
    return _EXECUTOR.get()


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
    path: Path,
    cases: Iterable[Mapping[str, Any]],
    measure: Callable[..., dict[str, Any]],
    here: bool = False,
) -> list[dict[str, Any]]:
    """Measure what a file of results does not hold yet; a command that was killed goes on.

    The file has the cases in the order in which they were given, whichever was done first.

    Args:
        path: JSON file, written anew after each case.
        cases: What tells one case from all others.
        measure: Called with the content of a case, on the executor of `on` where there is one; its
            figures are added to those. Workers have to find it in a module.
        here: Whether to call it in this process all the same, since it uses the executor itself.

    Returns:
        All that the file holds then.
    """
    runs: list[dict[str, Any]] = _files.read_json(path)["runs"] if path.exists() else []
    planned = [*cases]

    def place_of(run: Mapping[str, Any]) -> int:
        return next((at for at, case in enumerate(planned) if case.items() <= run.items()), -1)

    done = {place_of(run) for run in runs}
    missing = [n for n, case in enumerate(planned) if n not in done and place_of(case) == n]
    tasks = [(measure, planned[place]) for place in missing]
    gathered = _executors.gather(_case, tasks, None if here else executor(), seeded=True)
    with contextlib.closing(gathered) as running:
        for number, figures in running:
            place = missing[number]
            run = {**planned[place], **figures}
            later = (at for at, other in enumerate(runs) if place_of(other) > place)
            runs.insert(next(later, len(runs)), run)
            _files.write_json(path, {"runs": runs})
            print(run, flush=True)
    return runs


def _case(measure: Callable[..., dict[str, Any]], case: Mapping[str, Any]) -> dict[str, Any]:
    return measure(**case)


def reported(main: Callable[_Arguments, int]) -> Callable[_Arguments, int]:
    """Make a command say in one line what was wrong with its input, and return 1."""

    @functools.wraps(main)
    def command(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> int:
        try:
            return main(*args, **kwargs)
        except (ValueError, OSError, FloatingPointError, ImportError, RuntimeError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1

    return command


class _Main(Protocol):
    def __call__(self, argv: list[str] | None = None) -> int: ...


def on_workers(main: _Main) -> _Main:
    """Give a command the options --workers and --cluster, for its cases, seeds and chips."""

    @functools.wraps(main)
    def command(argv: list[str] | None = None) -> int:
        options = argparse.ArgumentParser(add_help=False, allow_abbrev=False, usage="")
        _executors.add_options(options)
        given, rest = options.parse_known_args(sys.argv[1:] if argv is None else argv)
        try:
            with _executors.opened(given.workers, given.cluster) as pool, on(pool):
                return main(rest)
        except SystemExit:
            if {"-h", "--help"} & set(rest):
                print(options.format_help().removeprefix("usage: ").strip())
            raise

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
