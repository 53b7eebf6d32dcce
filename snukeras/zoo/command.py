"""The command `snukeras-zoo`: list, describe, train, measure and check the models of the zoo."""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

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
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        print("snukeras-zoo: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except (ValueError, OSError, ArithmeticError, ImportError, RuntimeError) as error:
        print(f"snukeras-zoo: error: {' '.join(str(error).split())}", file=sys.stderr)
        return _FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="snukeras-zoo",
        description="The pretrained models of snukeras: list, describe, train, measure, check.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--content",
        type=Path,
        metavar="DIR",
        help="folder of presets, recipes and results (default: the one of the package)",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text, parents=[common])
        made.set_defaults(run=run)
        return made

    command("list", _list, "list the models: pretrained ones and recipes")
    command("info", _info, "describe a model").add_argument("name")
    train = command("train", _train, "train a model by its recipe; goes on where it was stopped")
    train.add_argument("name")
    train.add_argument("--seeds", type=int, nargs="+", metavar="N", help="instead of the recipe's")
    train.add_argument("--epochs", type=int, metavar="N", help="instead of the recipe's")
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
    command("evaluate", _evaluate, "measure a pretrained model again").add_argument("name")
    verify = command("verify", _verify, "check files and golden outputs of pretrained models")
    verify.add_argument("names", nargs="*", metavar="name", help="default: all")
    measure = command(
        "measure", _measure, "count spikes and operations where they are not, write all cards anew"
    )
    measure.add_argument("names", nargs="*", metavar="name", help="count these again")
    card = command("card", _card, "print the model card of a pretrained model")
    card.add_argument("name")
    picture = command("picture", _picture, "draw what a music model does (needs matplotlib)")
    picture.add_argument("name")
    picture.add_argument("--output", type=Path, required=True, metavar="FILE", help="e.g. a.png")
    picture.add_argument("--chorale", type=int, default=0, metavar="N", help="which sample")
    command("table", _table, "print the table of all models as Markdown")
    return parser


def _console() -> "Console":
    from rich.console import Console

    return Console()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep TensorFlow's notes on the processor off stderr; it has no switch for the first ones."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


def _start_keras() -> None:
    with _quiet():
        import keras

        keras.ops.zeros(1)  # the first operation makes the last of the notes


def _known(name: str, names: list[str], what: str) -> bool:
    from snukeras.zoo import presets

    if name in names:
        return True
    print(f"snukeras-zoo: error: {presets.unknown(name, names, what)}", file=sys.stderr)
    print("hint: `snukeras-zoo list` shows all of them", file=sys.stderr)
    return False


def _list(arguments: argparse.Namespace) -> int:
    from rich.table import Table

    from snukeras.zoo import presets, published, recipes

    shipped = presets.list(arguments.content)
    figures = published.read(presets.content_folder(arguments.content))
    table = Table("name", "task", "network", "parameters", "test", "published")
    for name in sorted({*shipped, *presets.recipes(arguments.content)}):
        if name in shipped:
            preset = presets.info(name, arguments.content)
            figure = preset["published"]
            row = (
                preset["network"],
                f"{preset['parameters']:,}",
                f"{preset['test']:.3f} {preset['unit']}",
            )
        else:
            recipe = recipes.read(name, arguments.content)
            preset = {"task": recipe.task}
            figure = figures.get(recipe.published or "")
            row = ("", "", "recipe only")
        table.add_row(
            name,
            preset["task"],
            *row,
            f"{figure.value:g}" if figure else "-",
        )
    _console().print(table)
    return _DONE


def _info(arguments: argparse.Namespace) -> int:
    from snukeras.zoo import presets, recipes

    shipped, planned = presets.list(arguments.content), presets.recipes(arguments.content)
    if not _known(arguments.name, sorted({*shipped, *planned}), "model"):
        return _USAGE
    if arguments.name not in shipped:
        recipe = recipes.read(arguments.name, arguments.content)
        print(f"{arguments.name} is a recipe without weights: `snukeras-zoo train` makes them.")
        _console().print_json(data=recipe)
        return _DONE
    preset = presets.info(arguments.name, arguments.content)
    recipe, results = preset.pop("recipe"), preset.pop("results")
    if results:
        preset["test, all seeds"] = [round(seed["test"], 4) for seed in results["seeds"]]
        preset["data licence"] = results["data"]["licence"]
    files = preset.pop("files")
    console = _console()
    for key, value in preset.items():
        console.print(f"[bold]{key}[/]: {value}", highlight=False)
    for file, pinned in files.items():
        line = f"[bold]{file}[/]: {pinned['bytes']:,} bytes, sha256 {pinned['sha256']}"
        console.print(line, highlight=False, soft_wrap=True)
    if recipe:
        console.print("[bold]recipe[/]:")
        console.print_json(data=recipe)
    return _DONE


def _train(arguments: argparse.Namespace) -> int:
    from snukeras.zoo import presets

    if not _known(arguments.name, presets.recipes(arguments.content), "recipe"):
        return _USAGE
    _start_keras()
    from snukeras.zoo import training
    from snukeras.zoo.publishing import cards, publish

    if arguments.publish and (arguments.seeds or arguments.epochs):
        raise ValueError(
            f"{arguments.name} cannot be published with other seeds or epochs than its recipe's. "
            f"Change {presets.RECIPE}, or train without --publish."
        )
    with _progress() as progress:
        options: dict[str, Any] = {
            "content": arguments.content,
            "runs": arguments.runs,
            "restart": arguments.restart,
            "tensorboard": arguments.tensorboard,
            "progress": progress,
        }
        if arguments.publish:
            results = publish.train_and_publish(arguments.name, **options)
        else:
            results = training.train(
                arguments.name, seeds=arguments.seeds, epochs=arguments.epochs, **options
            )
    for seed in results["seeds"]:
        print(
            f"seed {seed['seed']}: epoch {seed['epoch']}, valid {seed['valid']:.4f}, "
            f"test {seed['test']:.4f}"
        )
    mean = cards.interval(results, "test")
    of_mean = " (95 % interval of the mean)" if "±" in mean else ""
    print(f"test {mean} {results['unit']}{of_mean}, {results['parameters']} parameters")
    print(f"Results: {arguments.runs / arguments.name / training.RESULTS}")
    return _DONE


@contextmanager
def _progress() -> Iterator[Any]:
    """Yield what training reports to: a bar for each seed on a terminal, else lines (None)."""
    console = _console()
    if not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Remaining())
    with Progress(*columns, console=console) as bars:
        tasks: dict[int, Any] = {}

        def report(event: dict[str, Any]) -> None:
            seed = event["seed"]
            if seed not in tasks:
                tasks[seed] = bars.add_task("", total=event["epochs"])
            bars.update(
                tasks[seed],
                completed=event["epoch"],
                description=f"{event['name']} seed {seed}: loss {event['loss']:.3f}, "
                f"valid {event['valid']:.3f}, best {event['best_valid']:.3f} "
                f"(epoch {event['best_epoch']})",
            )

        yield report


def _evaluate(arguments: argparse.Namespace) -> int:
    from snukeras.zoo import presets

    if not _known(arguments.name, presets.list(arguments.content), "pretrained model"):
        return _USAGE
    _start_keras()
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
        print(
            "snukeras-zoo: error: the figures differ from the shipped ones by more than "
            f"{tolerance}. Check the files with `snukeras-zoo verify`.",
            file=sys.stderr,
        )
    return _FAILED if differs else _DONE


def _verify(arguments: argparse.Namespace) -> int:
    from snukeras.zoo import presets

    known = presets.list(arguments.content)
    names = arguments.names or known
    if not names:
        folder = presets.content_folder(arguments.content)
        print(f"snukeras-zoo: error: there is no preset in {folder}", file=sys.stderr)
        return _FAILED
    if not all(_known(name, known, "pretrained model") for name in names):
        return _USAGE
    _start_keras()
    failed = 0
    for name in names:
        try:
            difference = presets.verify(name, arguments.content)
        except ValueError as error:
            failed += 1
            print(f"snukeras-zoo: error: {name}: {error}", file=sys.stderr)
        else:
            print(f"{name}: sha256 right, golden output met within {difference:.1e}")
    print(f"{len(names) - failed} of {len(names)} presets are right.")
    return _FAILED if failed else _DONE


def _measure(arguments: argparse.Namespace) -> int:
    from snukeras.zoo import presets
    from snukeras.zoo.publishing import cards

    known = presets.list(arguments.content)
    if not all(_known(name, known, "pretrained model") for name in arguments.names):
        return _USAGE
    _start_keras()
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

    if not _known(arguments.name, presets.list(arguments.content), "pretrained model"):
        return _USAGE
    print(cards.card(arguments.name, arguments.content), end="")
    return _DONE


def _picture(arguments: argparse.Namespace) -> int:
    from snukeras.zoo import presets

    if not _known(arguments.name, presets.list(arguments.content), "pretrained model"):
        return _USAGE
    _start_keras()
    from snukeras.zoo import pictures

    pictures.draw(arguments.name, arguments.output, arguments.chorale, arguments.content)
    print(f"Picture: {arguments.output}")
    return _DONE


def _table(arguments: argparse.Namespace) -> int:
    from snukeras.zoo.publishing import cards

    print(cards.table(arguments.content), end="")
    return _DONE


if __name__ == "__main__":
    sys.exit(main())
