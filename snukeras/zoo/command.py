"""The command `snukeras-zoo`: list, describe, train, measure and check the models of the zoo."""

import argparse
import fnmatch
import functools
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from snukeras import __version__, _completion, _executors
from snukeras._files import JsonObject, JsonValue
from snukeras._terminal import console, plain, start_keras

if TYPE_CHECKING:
    from rich.table import Table

    from snukeras.zoo import presets
    from snukeras.zoo.contents import Results
    from snukeras.zoo.training.seeds import Event
    from snukeras.zoo.training.seeds import Progress as Reported

Run = Callable[[argparse.Namespace], int]

_DONE, _FAILED, _USAGE, _INTERRUPTED = 0, 1, 2, 130

_EPILOG = """\
exit codes:
  0    done
  1    failed: a check did not hold, a file is missing or damaged, a training diverged
  2    wrong usage, or a name that does not exist
  130  interrupted; a training goes on from its last epoch when it is started again

data:
  Training and measuring fetch their data on first use. Without network, name a folder that
  holds the files in the environment variable SNUKERAS_DATA.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    try:
        arguments = _parser().parse_args(argv)
        content = arguments.content
        if content is not None and not content.is_dir():
            _complain(f"--content must be a folder. Received: {str(content)!r}")
            return _USAGE
        code = int(arguments.run(arguments))
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("snukeras-zoo: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:  # as in `snukeras-zoo list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _FAILED
    except (ValueError, OSError, ArithmeticError, ImportError, RuntimeError) as error:
        _complain(error)
        return _FAILED
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        _complain(
            f"{type(error).__name__}: {error} ({Path(place.filename).name}, line {place.lineno}).",
            "a file of the content folder is malformed; where all are as zoo/README.md says, "
            "please report this line",
        )
        return _FAILED


def _complain(message: object, hint: str | None = None) -> None:
    """Say on stderr, in a line each, what is wrong and what to do."""
    print(f"snukeras-zoo: error: {plain(' '.join(str(message).split()))}", file=sys.stderr)
    if hint is not None:
        print(f"hint: {hint}", file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(plain(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="snukeras-zoo",
        description="The pretrained models of snukeras: list, describe, train, measure, check.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    common = _Parser(add_help=False)
    common.add_argument(
        "--content",
        type=Path,
        metavar="DIR",
        help="folder of presets, recipes and results (default: the one of the package)",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: Run, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text, parents=[common])
        made.set_defaults(run=run)
        return made

    _add_list(command)
    command("info", _info, "describe a model").add_argument("name")
    _add_training(command)
    command("evaluate", _evaluate, "measure a pretrained model again").add_argument("name")
    compare = command("compare", _compare, "say whether two models of a task differ in the test")
    compare.add_argument("name")
    compare.add_argument("other")
    verify = command("verify", _verify, "check files and golden outputs of pretrained models")
    verify.add_argument("names", nargs="*", metavar="name", help="default: all")
    measure = command(
        "measure", _measure, "count spikes and operations where they are not, write all cards anew"
    )
    measure.add_argument("names", nargs="*", metavar="name", help="count these again")
    card = command("card", _card, "print the model card of a pretrained model")
    card.add_argument("name")
    publish = command("publish", _publish, "write a folder that a hub of models takes")
    publish.add_argument("name")
    publish.add_argument(
        "--hub", type=Path, required=True, metavar="DIR", help="folder to make, then to upload"
    )
    publish.add_argument("--overwrite", action="store_true", help="write into a folder with files")
    picture = command("picture", _picture, "draw what a music model does (needs matplotlib)")
    picture.add_argument("name")
    picture.add_argument("--output", type=Path, required=True, metavar="FILE", help="e.g. a.png")
    picture.add_argument("--chorale", type=int, default=0, metavar="N", help="which sample")
    picture.add_argument("--overwrite", action="store_true", help="replace FILE where it exists")
    command("table", _table, "print the table of all models as Markdown")
    command("doctor", _doctor, "say what is installed, what is in use, and what is missing")
    _completion.add(parser, values=_names)
    return parser


def _names() -> dict[str, list[str]]:
    """Return what the arguments of the commands may be, for shells."""
    from snukeras.zoo import presets

    names = sorted({*presets.list(), *presets.recipes()})
    kinds = [_kind(name, None) for name in names]
    return {
        **dict.fromkeys(("name", "names", "other", "pattern"), names),
        "task": sorted({task for task, _ in kinds}),
        "unit": sorted({unit for _, units in kinds for unit in units}),
    }


def _add_list(command: Callable[[str, Run, str], argparse.ArgumentParser]) -> None:
    """Add the command that lists, with what `snukeras.zoo.list` takes."""
    made = command("list", _list, "list the models, or some: pretrained ones and recipes")
    made.add_argument(
        "pattern", nargs="?", default="*", help="of names, such as 'jsb_*'; quote its * for a shell"
    )
    made.add_argument("--task", metavar="NAME", help="models of this task alone")
    made.add_argument(
        "--unit", metavar="CLASS", help="models with such layers alone, such as SSNU or LSTM"
    )


def _kind(name: str, content: Path | None) -> "presets.Kind":
    """Return the task of a model or recipe, and the classes of its layers."""
    from snukeras.zoo import presets, recipes

    if name in presets.list(content=content):
        return presets.kind(name, content)
    recipe = recipes.read(name, content)
    return recipe.task, {one["class"] for one in recipe.network["layers"] if "class" in one}


def _add_training(command: Callable[[str, Run, str], argparse.ArgumentParser]) -> None:
    """Add the two commands that train."""
    train = command("train", _train, "train a model by its recipe; goes on where it was stopped")
    train.add_argument("name")
    train.add_argument(
        "--seeds", type=_seed, nargs="+", metavar="N", help="instead of the recipe's"
    )
    train.add_argument(
        "--epochs",
        type=_count,
        metavar="N",
        help="instead of the recipe's, to try it out; the test split is left alone then",
    )
    train.add_argument("--test", action="store_true", help="measure the test split all the same")
    train.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="states (default: runs)"
    )
    train.add_argument("--restart", action="store_true", help="forget earlier runs of the model")
    train.add_argument("--tensorboard", action="store_true", help="log to RUNS/NAME/seed-N")
    train.add_argument(
        "--publish",
        action="store_true",
        help="then write preset, card and results into the content folder",
    )
    _executors.add_options(train)
    search = command("search", _search, "try settings of a recipe, judged by validation alone")
    search.add_argument("name")
    search.add_argument(
        "--vary",
        type=_lists,
        required=True,
        metavar="JSON",
        help="values by place, such as '{\"optimizer.learning_rate\": [0.003, 0.01]}'",
    )
    search.add_argument("--epochs", type=_count, metavar="N", help="instead of the recipe's")
    search.add_argument("--seed", type=_seed, default=0, metavar="N", help="default: 0")
    search.add_argument(
        "--around-best", action="store_true", help="vary the best setting so far, not the recipe"
    )
    search.add_argument(
        "--runs",
        type=Path,
        default=Path("runs/search"),
        metavar="DIR",
        help="states (default: runs/search)",
    )
    _executors.add_options(search)


def _seed(text: str) -> int:
    """Read a seed that NumPy, Python and Keras all take."""
    if not text.isdecimal() or len(text) > 10 or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"a seed is 0 to {2**32 - 1}, not {text[:40]!r}")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a number of epochs is 1 or more, not {text[:40]!r}")
    return int(text)


def _lists(text: str) -> JsonValue:
    try:
        values: JsonValue = json.loads(text)
    except (ValueError, RecursionError):
        raise argparse.ArgumentTypeError(
            f'expected JSON such as {{"batch_size": [4, 8]}}, not {text[:80]!r}'
        ) from None
    return values


def _known(name: str, names: list[str], what: str) -> bool:
    from snukeras.zoo import presets

    if name in names:
        return True
    _complain(presets.unknown(name, names, what), "`snukeras-zoo list` shows all of them")
    return False


def _list(arguments: argparse.Namespace) -> int:
    from snukeras.zoo import presets

    shown, content = console(), arguments.content
    known = sorted({*presets.list(content=content), *presets.recipes(content)})
    if not known:
        folder = presets.content_folder(content)
        _complain(f"there is neither preset nor recipe in {folder}")
        return _FAILED
    of_kind = presets.chosen(
        known, lambda name: _kind(name, content), "*", arguments.task, arguments.unit, "models"
    )
    names = [name for name in of_kind if fnmatch.fnmatchcase(name, arguments.pattern)]
    if not names:
        _complain(*_nothing_fits(arguments.pattern, of_kind, known))
        return _USAGE
    groups = _by_task(names, content)
    width = max(len(name) for models in groups.values() for name in models)
    for title, models in groups.items():
        shown.print(_table_of(title, models, width))
    shown.print(
        "test: mean of the seeds and its 95 % interval; published: the figure to compare with, of "
        "another network as a rule (`snukeras-zoo info NAME` names it)."
    )
    return _DONE


def _nothing_fits(pattern: str, names: Sequence[str], known: Sequence[str]) -> tuple[str, str]:
    """Return the message for a pattern that no model of a kind fits, and what to do."""
    if not names:
        return "no model has both this task and this unit.", "leave one of them out"
    if any(fnmatch.fnmatchcase(name, pattern) for name in known):
        return f"no model that fits {pattern!r} is of this kind.", "leave task or unit out"
    wider = f"*{pattern.strip('*')}*"
    fits = sum(fnmatch.fnmatchcase(name, wider) for name in names)
    return (
        f"there is no model whose whole name fits {pattern!r}.",
        f"'{wider}' fits {fits} of them" if fits else "`snukeras-zoo list` shows all of them",
    )


def _by_task(names: Sequence[str], content: Path | None) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return what the list shows of each model, by the title of its task, then by its name."""
    from snukeras.zoo import presets, published, recipes
    from snukeras.zoo.publishing import cards

    figures = published.read(presets.content_folder(content))
    shipped = presets.list(content=content)
    titles: dict[str, str] = {}
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for name in names:
        if name in shipped:
            preset = presets.info(name, content)
            task, results = preset["task"], preset["results"]
            titles[task] = f"{task}: {cards.unit(results or preset)}"
            figure = preset["published"]
            row = (
                plain(preset["network"]),
                f"{preset['parameters']:,}",
                cards.interval(results, "test") if results else f"{preset['test']:.3f}",
            )
        else:
            recipe = recipes.read(name, content)
            task = recipe.task
            figure = figures.get(recipe.published or "")
            row = ("", "", "recipe only")
        rows = found.setdefault(task, {})
        rows[plain(name)] = (*row, f"{figure.value:g}" if figure else "-")
    return {plain(titles.get(task, task)): rows for task, rows in found.items()}


def _table_of(title: str, models: Mapping[str, tuple[str, ...]], width: int) -> "Table":
    """Return the models of a task as a table whose first column is `width` wide."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, title=Text(title), title_justify="left", pad_edge=False)
    table.add_column("name", min_width=width, overflow="fold")
    table.add_column("network", ratio=1, overflow="fold")
    for heading in ("parameters", "test", "published"):
        table.add_column(heading, justify="right", overflow="fold")
    for name, row in models.items():
        table.add_row(*(Text(cell) for cell in (name, *row)))
    return table


def _info(arguments: argparse.Namespace) -> int:
    from rich.text import Text

    from snukeras.zoo import presets, recipes

    shown = console()
    shipped, planned = presets.list(content=arguments.content), presets.recipes(arguments.content)
    if not _known(arguments.name, sorted({*shipped, *planned}), "model"):
        return _USAGE
    if arguments.name not in shipped:
        planned_recipe = recipes.read(arguments.name, arguments.content)
        print(f"{arguments.name} is a recipe without weights: `snukeras-zoo train` makes them.")
        shown.print_json(data=planned_recipe.entries())
        return _DONE
    preset = presets.info(arguments.name, arguments.content)
    recipe, results, files = preset["recipe"], preset["results"], preset["files"]
    apart = ("recipe", "results", "files")
    lines: JsonObject = {key: value for key, value in preset.items() if key not in apart}
    if results:
        lines["test, all seeds"] = [round(seed["test"], 4) for seed in results["seeds"]]
        lines["data licence"] = results["data"]["licence"]
    for key, value in lines.items():
        shown.print(Text.assemble((plain(key), "bold"), f": {plain(value)}"))
    for file, pinned in files.items():
        line = f": {pinned['bytes']:,} bytes, sha256 {pinned['sha256']}"
        shown.print(Text.assemble((plain(file), "bold"), plain(line)), soft_wrap=True)
    if recipe:
        shown.print(Text("recipe:", "bold"))
        shown.print_json(data=recipe)
    return _DONE


def _train(arguments: argparse.Namespace) -> int:
    from snukeras.zoo import presets

    if not _known(arguments.name, presets.recipes(arguments.content), "recipe"):
        return _USAGE
    start_keras()
    from snukeras.zoo import training
    from snukeras.zoo.contents import MEASURED
    from snukeras.zoo.publishing import cards, publish

    if arguments.publish and not (arguments.seeds is None and arguments.epochs is None):
        raise ValueError(
            f"{arguments.name} cannot be published with other seeds or epochs than its recipe's. "
            f"Change {presets.RECIPE}, or train without --publish."
        )
    with _spread(arguments) as (executor, progress):
        run: Callable[..., Results] = publish.train_and_publish
        if not arguments.publish:
            run = functools.partial(
                training.train,
                seeds=arguments.seeds,
                epochs=arguments.epochs,
                test=True if arguments.test else None,
            )
        results = run(
            arguments.name,
            content=arguments.content,
            runs=arguments.runs,
            restart=arguments.restart,
            tensorboard=arguments.tensorboard,
            progress=progress,
            executor=executor,
        )
    splits = [split for split in MEASURED if split in results]
    for seed in results["seeds"]:
        figures = ", ".join(f"{split} {seed[split]:.4f}" for split in splits)
        print(f"seed {seed['seed']}: epoch {seed['epoch']}, {figures}")
    mean = cards.interval(results, splits[-1])
    of_mean = " (95 % interval of the mean)" if "±" in mean else ""
    print(f"{splits[-1]} {mean} {results['unit']}{of_mean}, {results['parameters']} parameters")
    print(f"Results: {arguments.runs / arguments.name / training.RESULTS}")
    return _DONE


@contextmanager
def _spread(
    arguments: argparse.Namespace,
) -> "Iterator[tuple[_executors.Executor | None, Reported | None]]":
    """Yield where to train, and what training reports to: lines (None) where workers print."""
    with _executors.opened(arguments.workers, arguments.cluster) as executor:
        if executor is not None:
            yield executor, None
            return
        with _progress() as progress:
            yield None, progress


@contextmanager
def _progress() -> "Iterator[Reported | None]":
    """Yield what training reports to: a bar for each seed on a terminal, else lines (None)."""
    shown = console()
    if not shown.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    text = TextColumn("{task.description}", markup=False)
    with Progress(text, BarColumn(), MofNCompleteColumn(), Remaining(), console=shown) as bars:
        tasks: dict[int, TaskID] = {}

        def report(event: "Event") -> None:
            seed = event["seed"]
            if seed not in tasks:
                tasks[seed] = bars.add_task("", total=event["epochs"])
            within = event["batch"] / event["batches"] if event["batch"] < event["batches"] else 0.0
            text = f"{event['name']} seed {seed}: loss {event['loss']:.3f}"
            if event["valid"] is not None:
                text += (
                    f", valid {event['valid']:.3f}, best {event['best_valid']:.3f} "
                    f"(epoch {event['best_epoch']})"
                )
            bars.update(tasks[seed], completed=event["epoch"] + within, description=text)

        yield report


def _search(arguments: argparse.Namespace) -> int:
    from snukeras.zoo import presets

    if not _known(arguments.name, presets.recipes(arguments.content), "recipe"):
        return _USAGE
    start_keras()
    from snukeras.zoo.training import search

    with _spread(arguments) as (executor, progress):
        search.search(
            arguments.name,
            arguments.vary,
            arguments.epochs,
            arguments.seed,
            arguments.around_best,
            arguments.runs,
            arguments.content,
            progress,
            executor=executor,
        )
    print(search.table(arguments.name, arguments.content), end="")
    return _DONE


def _evaluate(arguments: argparse.Namespace) -> int:
    from snukeras.zoo import presets

    if not _known(arguments.name, presets.list(content=arguments.content), "pretrained model"):
        return _USAGE
    start_keras()
    from snukeras.zoo.publishing import publish
    from snukeras.zoo.tasks import registry

    preset = presets.info(arguments.name, arguments.content)
    tolerance = registry.task_of(preset["task"]).tolerance
    figures = publish.evaluate(arguments.name, arguments.content)
    differs = False
    for split, (measured, shipped) in figures.items():
        print(f"{split}: {measured:.6f} {preset['unit']} (shipped with {shipped:.6f})")
        differs |= not abs(measured - shipped) <= tolerance
    if differs:
        _complain(
            f"the figures differ from the shipped ones by more than {tolerance}. Check the files "
            "with `snukeras-zoo verify`."
        )
    return _FAILED if differs else _DONE


def _compare(arguments: argparse.Namespace) -> int:
    from snukeras.zoo import presets

    known = presets.list(content=arguments.content)
    names = (arguments.name, arguments.other)
    if not all(_known(name, known, "pretrained model") for name in names):
        return _USAGE
    start_keras()
    from snukeras.zoo.publishing.compare import compare

    print(f"{arguments.name} minus {arguments.other}, test:")
    for difference in compare(*names, arguments.content):
        print(f"  {difference}")
    return _DONE


def _verify(arguments: argparse.Namespace) -> int:
    from snukeras.zoo import presets

    known = presets.list(content=arguments.content)
    names = arguments.names or known
    if not names:
        folder = presets.content_folder(arguments.content)
        _complain(f"there is no preset in {folder}")
        return _FAILED
    if not all(_known(name, known, "pretrained model") for name in names):
        return _USAGE
    start_keras()
    failed = 0
    for name in names:
        try:
            difference = presets.verify(name, arguments.content)
        except Exception as error:  # whatever a damaged file makes its reader raise
            failed += 1
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            _complain(f"{name}: {kind}{error}")
        else:
            print(f"{name}: sha256 right, golden output met within {difference:.1e}")
    print(f"{len(names) - failed} of {len(names)} presets are right.")
    return _FAILED if failed else _DONE


def _measure(arguments: argparse.Namespace) -> int:
    from snukeras.zoo import presets
    from snukeras.zoo.publishing import cards

    known = presets.list(content=arguments.content)
    if not all(_known(name, known, "pretrained model") for name in arguments.names):
        return _USAGE
    start_keras()
    from snukeras.zoo.publishing import publish

    for name in known:
        results = presets.info(name, arguments.content)["results"]
        if name in arguments.names or (results is not None and "costs" not in results):
            counted = publish.measure(name, arguments.content)
            print(f"{name}: {counted['macs_per_step']:,} MACs a step, {counted['samples']} samples")
    print(f"Cards: {', '.join(cards.write(content=arguments.content))}")
    return _DONE


def _card(arguments: argparse.Namespace) -> int:
    from snukeras.zoo import presets
    from snukeras.zoo.publishing import cards

    if not _known(arguments.name, presets.list(content=arguments.content), "pretrained model"):
        return _USAGE
    print(cards.card(arguments.name, arguments.content), end="")
    return _DONE


def _publish(arguments: argparse.Namespace) -> int:
    from snukeras.zoo import presets
    from snukeras.zoo.publishing import to_hub

    if not _known(arguments.name, presets.list(content=arguments.content), "pretrained model"):
        return _USAGE
    files = to_hub.write(arguments.name, arguments.hub, arguments.content, arguments.overwrite)
    print(f"{arguments.hub}: {', '.join(files)}")
    print(f"Upload it: hf upload OWNER/{arguments.name} {arguments.hub}")
    print(f'Load it:   snukeras.zoo.load("hf://OWNER/{arguments.name}")')
    return _DONE


def _picture(arguments: argparse.Namespace) -> int:
    from snukeras.zoo import presets

    if not _known(arguments.name, presets.list(content=arguments.content), "pretrained model"):
        return _USAGE
    if arguments.output.exists() and not arguments.overwrite:
        _complain(f"{arguments.output} exists.", "--overwrite replaces it")
        return _FAILED
    start_keras()
    from snukeras.zoo import pictures

    pictures.draw(arguments.name, arguments.output, arguments.chorale, arguments.content)
    print(f"Picture: {arguments.output}")
    return _DONE


def _table(arguments: argparse.Namespace) -> int:
    from snukeras.zoo.publishing import cards

    print(cards.table(arguments.content), end="")
    return _DONE


def _doctor(arguments: argparse.Namespace) -> int:
    from snukeras.zoo import doctor

    return _DONE if doctor.report(arguments.content) else _FAILED


if __name__ == "__main__":
    sys.exit(main())
