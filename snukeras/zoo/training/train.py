"""Train the models of the zoo from their recipes.

Everything of a training lies in a folder, `runs/NAME/seed-N`: state.npz after each epoch,
result.json at the end. A training that was killed, at any moment, goes on from the last whole
epoch and ends like one that was not: state.npz holds the weights, the optimizer, the random
generators and the best weights so far in one file, which is replaced at once.
(`keras.callbacks.BackupAndRestore` writes weights and epoch one after the other, and leaves out the
state of the random generators.)
"""

import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path

from snukeras import _files
from snukeras._executors import Executor
from snukeras.zoo import recipes
from snukeras.zoo.contents import Results
from snukeras.zoo.tasks import TASKS, Task
from snukeras.zoo.tasks.registry import task_of
from snukeras.zoo.training.results import results_of
from snukeras.zoo.training.seeds import Progress
from snukeras.zoo.training.spread import Training, trained_all

RESULTS = "results.json"


def train(
    name: str,
    content: Path | str | None = None,
    runs: Path | str = "runs",
    seeds: Iterable[int] | None = None,
    epochs: int | None = None,
    restart: bool = False,
    tensorboard: bool = False,
    progress: Progress | None = None,
    tasks: Mapping[str, Task] = TASKS,
    test: bool | None = None,
    executor: Executor | None = None,
) -> Results:
    """Train a model of the zoo with each seed of its recipe.

    The epoch is chosen on the validation split; the test split is measured once, with the
    weights of that epoch, and not at all where a recipe is tried out with other epochs. Seeds
    that are finished are not trained again, unfinished ones go on. Keras, NumPy and Python are
    seeded globally (`keras.utils.set_random_seed`).

    Args:
        name: A model with a recipe.
        content: Folder of recipes. Default: the one that ships with the package.
        runs: Folder for states and results.
        seeds: Seeds to train. Default: the recipe's.
        epochs: Epochs, to try a recipe out. Default: the recipe's.
        restart: Forget what earlier runs left.
        tensorboard: Log to `runs/NAME/seed-N/tensorboard`.
        progress: Called after each epoch, and every ten seconds within one, with a dict of name,
            seed, epoch (those that are done), epochs, batch (of the epoch), batches (in an epoch;
            equal at its end), loss, valid, best_valid, best_epoch. Default: print a line. With an
            executor, called when a seed is done; workers print what they do.
        tasks: The tasks that recipes may name.
        test: Whether to measure the test split. Default: with the epochs of the recipe.
        executor: Where to train, each seed in a task of its own: anything with the `submit` of
            concurrent.futures.Executor, such as a pool of spawned processes or a client of Dask.
            A worker needs snukeras in this version, and the data. States and results come to
            `runs`, whether or not workers see that folder. Default: this process.

    Returns:
        The results, as written to `runs/NAME/results.json`.

    Raises:
        ValueError: Unknown name, a bad recipe, or a run that was begun with another recipe.
        RuntimeError: Another process trains a seed in the same folder, a worker has another
            version, or seeds were lost with their workers; begun again, the rest goes on.
        FloatingPointError: The training diverged.
        ImportError: `tensorboard` is asked for and not installed.
    """
    recipe = recipes.read(name, content)
    if test is None:
        test = epochs in (None, recipe.epochs)
    if seeds is not None:
        recipe = recipe.changed(seeds=[*seeds])
    if epochs is not None:
        recipe = recipe.changed(epochs=epochs)
    if tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise ImportError("TensorBoard logs need the package tensorboard: pip install tensorboard.")
    task = task_of(recipe.task, tasks)
    folder = Path(runs) / name
    trainings = [
        Training(
            recipe,
            task,
            seed,
            folder / f"seed-{seed}",
            test=test,
            content=content,
            restart=restart,
            tensorboard=tensorboard,
        )
        for seed in recipe.seeds
    ]
    found = trained_all(trainings, executor, progress)
    results = results_of(recipe, task, found)
    _files.write_json(folder / RESULTS, results)
    return results
