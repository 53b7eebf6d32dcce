"""Train seeds and trials one after the other, or wherever an executor takes them.

A worker that sees the folder of a training, as on this machine or on a shared disk, works in it
as `train_seed` does. One that does not is sent what the folder holds, trains in a temporary folder,
and sends state and result back: so a training always lies where it was asked for.
"""

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from snukeras import _executors, _files
from snukeras._executors import Executor
from snukeras._files import JsonObject
from snukeras.zoo.recipes import Recipe
from snukeras.zoo.tasks import TASKS, Task
from snukeras.zoo.training import transfer
from snukeras.zoo.training.seeds import RESULT, STATE, Progress, identity_of, train_seed

if TYPE_CHECKING:
    import keras

# The name of a file by which a worker sees whether it sees the folder.
_HERE = ".here."
# Seconds until a process has ended whose worker is gone.
_PATIENCE_S = 10.0


@dataclasses.dataclass(frozen=True)
class Training:
    """A seed or a trial; the arguments of `train_seed`."""

    recipe: Recipe
    task: Task
    seed: int
    folder: Path
    finish: "Callable[[keras.Model, keras.optimizers.Optimizer], JsonObject] | None" = None
    test: bool = True
    content: Path | str | None = None
    restart: bool = False
    tensorboard: bool = False

    def arguments(self) -> dict[str, Any]:
        """Return them by name."""
        return {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}


def trained(
    trainings: Sequence[Training],
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Generator[tuple[int, JsonObject | FloatingPointError], None, None]:
    """Yield number and result of each training as they are done, or how it diverged.

    Args:
        trainings: What to train.
        executor: Where to train, each in a task of its own. Default: here, one after the other.
        progress: As for `train_seed`; with an executor, called when a training is done.

    Raises:
        ValueError: As for `train_seed`, or a worker has other models to start or learn from.
        RuntimeError: As for `train_seed`, and as for `_executors.gather`.
    """
    _executors.checked(executor)
    if executor is None:
        for number, training in enumerate(trainings):
            yield number, _outcome(training, progress)
        return
    total, done, away = len(trainings), 0, []
    for number, training in enumerate(trainings):
        if _finished(training):
            done += 1
            yield number, train_seed(**training.arguments())
        else:
            training.folder.mkdir(parents=True, exist_ok=True)
            away.append(number)
    if not away:
        return
    with tempfile.NamedTemporaryFile(prefix=_HERE, dir=trainings[away[0]].folder) as here:
        tasks = [(_sent(trainings[n]), here.name, _left(trainings[n])) for n in away]
        with contextlib.closing(
            _executors.gather(_elsewhere, tasks, executor, seeded=True)
        ) as running:
            for place, (result, files) in running:
                training, done = trainings[away[place]], done + 1
                if isinstance(result, dict):
                    _check(result, training)
                for name, content in files.items():
                    with _files.replacing(training.folder / name) as temporary:
                        temporary.write_bytes(content)
                _report(training, result, done, total, progress)
                yield away[place], result


def _outcome(
    training: Training, progress: Progress | None = None
) -> JsonObject | FloatingPointError:
    try:
        return train_seed(**training.arguments(), progress=progress)
    except FloatingPointError as error:
        return error


def trained_all(
    trainings: Sequence[Training],
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> list[JsonObject]:
    """Return the results of all trainings, in their order.

    Args:
        trainings, executor, progress: As for `trained`.

    Raises:
        FloatingPointError: One diverged; what was not begun is not.
        Exception: As for `trained`.
    """
    found = {}
    with contextlib.closing(trained(trainings, executor, progress)) as running:
        for number, result in running:
            if isinstance(result, FloatingPointError):
                raise result
            found[number] = result
    return [found[number] for number in sorted(found)]


def _finished(training: Training) -> bool:
    """Return whether nothing is left to do but to read the result."""
    path = training.folder / RESULT
    if training.restart or not path.exists():
        return False
    return not training.test or "test" in _files.read_json(path)


def _sent(training: Training) -> tuple[Training, str | None]:
    """Return a training as it is sent, with paths that hold in every folder, and its task's name.

    The name is None for a task that workers do not know; it travels with the training then.
    """
    known = TASKS.get(training.task.name) is training.task
    return dataclasses.replace(
        training,
        task=cast(Task, None) if known else training.task,
        folder=training.folder.resolve(),
        content=None if training.content is None else Path(training.content).resolve(),
    ), training.task.name if known else None


def _left(training: Training) -> dict[str, bytes]:
    """Return what an earlier run left in the folder, by name."""
    if training.restart:
        return {}
    paths = (training.folder / name for name in (STATE, RESULT))
    return {path.name: path.read_bytes() for path in paths if path.exists()}


def _elsewhere(
    sent: tuple[Training, str | None], here: str, left: dict[str, bytes]
) -> tuple[JsonObject | FloatingPointError, dict[str, bytes]]:
    """Train on a worker; return the result, and files where the folder is not seen from there."""
    training, task = sent
    if task is not None:
        training = dataclasses.replace(training, task=TASKS[task])
    if Path(here).exists():
        with _files.locked(training.folder, "training", patience=_PATIENCE_S):
            pass  # what a worker that died has started ends with it
        return _outcome(training), {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, content in left.items():
            (folder / file).write_bytes(content)
        found = _outcome(dataclasses.replace(training, folder=folder))
        files = (path for path in (folder / STATE, folder / RESULT) if path.exists())
        return found, {path.name: path.read_bytes() for path in files}


def _check(result: JsonObject, training: Training) -> None:
    """Refuse the result of a worker that has other pretrained models than this process."""
    sources = transfer.sources(training.recipe, training.content)
    if result["recipe_sha256"] != identity_of(training.recipe, sources):
        raise ValueError(
            f"A worker trained {training.recipe.name} seed {training.seed} from other pretrained "
            "models than this process has. Give both the same content folder."
        )


def _report(
    training: Training,
    result: JsonObject | FloatingPointError,
    done: int,
    total: int,
    progress: Progress | None,
) -> None:
    """Say that a training is done; its epochs are printed where it runs."""
    if progress is None or isinstance(result, FloatingPointError):
        how = f" {result}" if isinstance(result, FloatingPointError) else ""
        name = f"{training.recipe.name} seed {training.seed}"
        print(f"{name} is done, {done} of {total}.{how}", flush=True)
        return
    progress(
        {
            "name": training.recipe.name,
            "seed": training.seed,
            "epoch": result["epochs_trained"],
            "epochs": training.recipe.epochs,
            "batch": 1,
            "batches": 1,
            "loss": result["history"]["loss"][-1],
            "valid": result["history"]["valid"][-1],
            "best_valid": result["valid"],
            "best_epoch": result["epoch"],
        }
    )
