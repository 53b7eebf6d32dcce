"""Train the models of the zoo from their recipes, publish them, and measure them again.

Everything of a training lies in a folder, `runs/NAME/seed-N`: state.npz after each epoch,
result.json at the end. A training that was killed, at any moment, goes on from the last whole
epoch and ends like one that was not: state.npz holds the weights, the optimizer, the random
generators and the best weights so far in one file, which is replaced at once.
(`keras.callbacks.BackupAndRestore` writes weights and epoch one after the other, and leaves out the
state of the random generators.)
"""

import importlib.util
import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import snukeras
from snukeras.zoo import _files, cards, costs, presets, recipes, transfer
from snukeras.zoo.tasks import TASKS, Task

if TYPE_CHECKING:
    import keras

    from snukeras.constraints import PCMConstraint

FORMAT = 1

STATE = "state.npz"
RESULT = "result.json"
RESULTS = "results.json"

Progress = Callable[[dict[str, Any]], None]


def train(
    name: str,
    content: Path | str | None = None,
    runs: Path | str = "runs",
    seeds: Iterable[int] | None = None,
    epochs: int | None = None,
    publish: bool = False,
    restart: bool = False,
    tensorboard: bool = False,
    progress: Progress | None = None,
    tasks: Mapping[str, Task] = TASKS,
) -> dict[str, Any]:
    """Train a model of the zoo with each seed of its recipe.

    The epoch is chosen on the validation split; the test split is measured once, with the
    weights of that epoch. Seeds that are finished are not trained again, unfinished ones go on.
    Keras, NumPy and Python are seeded globally (`keras.utils.set_random_seed`).

    Args:
        name: A model with a recipe.
        content: Folder of recipes. Default: the one that ships with the package.
        runs: Folder for states and results.
        seeds: Seeds to train. Default: the recipe's.
        epochs: Epochs, to try a recipe out. Default: the recipe's.
        publish: Write preset, model card and results into the content folder afterwards; with
            the weights of the seed that is best on validation.
        restart: Forget what earlier runs left.
        tensorboard: Log to `runs/NAME/seed-N/tensorboard`.
        progress: Called after each epoch with a dict of name, seed, epoch, epochs, loss, valid,
            best_valid, best_epoch. Default: print a line.
        tasks: The tasks that recipes may name.

    Returns:
        The results, as written to `runs/NAME/results.json`.

    Raises:
        ValueError: Unknown name, a bad recipe, or a run that was begun with another recipe.
        FloatingPointError: The training diverged.
        ImportError: `tensorboard` is asked for and not installed.
    """
    recipe = recipes.read(name, content)
    asked = {**recipe}
    if seeds is not None:
        asked["seeds"] = [*seeds]
    if epochs is not None:
        asked["epochs"] = epochs
    changed = asked != recipe
    recipe = recipes.check(asked)
    if publish and changed:
        raise ValueError(
            f"{name} cannot be published with other seeds or epochs than its recipe's. Change "
            f"{presets.RECIPE}, or train without publishing."
        )
    if tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise ImportError("TensorBoard logs need the package tensorboard: pip install tensorboard.")
    task = task_of(recipe, tasks)
    folder = Path(runs) / name
    results_of_seeds = []
    for seed in recipe["seeds"]:
        result = train_seed(
            recipe,
            task,
            seed,
            folder / f"seed-{seed}",
            content=content,
            restart=restart,
            tensorboard=tensorboard,
            progress=progress,
        )
        results_of_seeds.append(result)
    results = results_of(recipe, task, results_of_seeds)
    _files.write_json(folder / RESULTS, results)
    if publish:
        _publish(recipe, task, results, folder, presets.content_folder(content))
    return results


def evaluate(
    name: str,
    content: Path | str | None = None,
    splits: Iterable[str] = ("valid", "test"),
    tasks: Mapping[str, Task] = TASKS,
) -> dict[str, tuple[float, float]]:
    """Measure a pretrained model again.

    Args:
        name: One of `snukeras.zoo.list()`.
        content: Folder of presets. Default: the one that ships with the package.
        splits: Splits to measure: "valid", "test".
        tasks: The tasks that presets may name.

    Returns:
        For each split the figure measured now and the one in preset.json.
    """
    preset = presets.info(name, content)
    task = task_of(preset, tasks)
    model = presets.load(name, content=content)
    model.compile(loss=task.loss({}), weighted_metrics=task.metrics())
    return {split: (task.evaluate(model, split), preset[split]) for split in splits}


def measure(
    name: str, content: Path | str | None = None, tasks: Mapping[str, Task] = TASKS
) -> dict[str, Any]:
    """Count spikes and operations of a preset, and keep them in its results file.

    `snukeras.zoo.cards.write` then writes them into the cards.

    Args:
        name: One of `snukeras.zoo.list()`.
        content: Folder of presets. Default: the one that ships with the package.
        tasks: The tasks that presets may name.

    Returns:
        What `snukeras.zoo.costs.counted` says.

    Raises:
        ValueError: No such preset, or one without its results file.
    """
    preset = presets.info(name, content)
    if preset["results"] is None:
        raise ValueError(f"{presets.RESULTS}/{name}.json is missing. Train and publish {name}.")
    model = presets.load(name, content=content)
    counted = _costs(model, task_of(preset, tasks))
    path = presets.content_folder(content) / presets.RESULTS / f"{name}.json"
    _files.write_json(path, {**preset["results"], "costs": counted})
    return counted


def task_of(recipe: dict[str, Any], tasks: Mapping[str, Task] = TASKS) -> Task:
    """Return the task that a recipe or a preset names.

    Raises:
        ValueError: No such task.
    """
    if recipe["task"] not in tasks:
        raise presets.unknown(recipe["task"], sorted(tasks), "task")
    return tasks[recipe["task"]]


def _print(event: dict[str, Any]) -> None:
    print(
        f"{event['name']} seed {event['seed']} epoch {event['epoch']}/{event['epochs']}: "
        f"loss {event['loss']:.4f}, valid {event['valid']:.4f}, best {event['best_valid']:.4f} "
        f"(epoch {event['best_epoch']})",
        flush=True,
    )


def train_seed(
    recipe: dict[str, Any],
    task: Task,
    seed: int,
    folder: Path,
    finish: "Callable[[keras.Model, keras.optimizers.Optimizer], dict[str, Any]] | None" = None,
    test: bool = True,
    content: Path | str | None = None,
    restart: bool = False,
    tensorboard: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train one seed of a recipe from where it stands, and return its result.

    Args:
        recipe: A checked recipe.
        task: Its task.
        seed: The seed; Keras is seeded with it globally.
        folder: Folder for state and result.
        finish: Called with model and optimizer as they are after the last epoch; returns more for
            the result.
        test: False leaves the test split alone; the result has no `test` then.
        content, restart, tensorboard, progress: As for `train`.

    Raises:
        ValueError: A run that was begun with another recipe.
        FloatingPointError: The training diverged.
    """
    import keras

    # Once: the models may be published anew while this one trains.
    sources = transfer.sources(recipe, content)
    identity = _identity(recipe, sources)
    for left in (folder / RESULT, folder / STATE):
        if restart:
            left.unlink(missing_ok=True)
        elif left.exists() and _recipe_of(left) != identity:
            raise ValueError(
                f"{left} is from another recipe for {recipe['name']}, or other arguments, or "
                "another number of epochs, or another start or teacher. Restart (--restart) to "
                "replace it, or choose another folder for the runs (--runs)."
            )
    if (folder / RESULT).exists():
        return _files.read_json(folder / RESULT)

    keras.utils.set_random_seed(seed)
    steps = task.steps_per_epoch(recipe)
    model = recipes.network(recipe, seed)
    transfer.start(recipe, model, content)
    trainer = task.trainer(model, recipe)
    trainer.compile(
        optimizer=recipes.optimizer(recipe, steps, seed),
        loss=task.loss(recipe["loss"]),
        # A trainer of its own has outputs of its own, which the metrics do not fit.
        weighted_metrics=task.metrics() if trainer is model else None,
        jit_compile=recipe["jit_compile"],
    )
    trainer.optimizer.build(trainer.trainable_variables)
    state = _State(folder / STATE, identity, model, trainer)
    if not state.stopped and state.epoch < recipe["epochs"]:
        callbacks: list[keras.callbacks.Callback] = [
            _epoch_callback(recipe, task, seed, state, progress or _print)
        ]
        if tensorboard:
            callbacks.append(keras.callbacks.TensorBoard(folder / "tensorboard"))
        noise = recipes.noise(recipe, seed)
        if noise is not None:
            callbacks.append(noise)
        trainer.fit(
            transfer.taught(recipe, task.training_data(recipe, seed, state.epoch), content),
            epochs=recipe["epochs"],
            initial_epoch=state.epoch,
            steps_per_epoch=steps,
            shuffle=False,  # training_data has its own order
            callbacks=callbacks,
            verbose=0,
        )
    more = {} if finish is None else finish(model, trainer.optimizer)
    model.set_weights(_stored(state.best_weights, recipe))
    result = {
        "seed": seed,
        # As in training, but where the weights are stored in half precision.
        "valid": task.evaluate(model, "valid") if recipe["half_precision"] else state.best_valid,
        **({"test": task.evaluate(model, "test")} if test else {}),
        **more,
        "epoch": state.best_epoch,
        "epochs_trained": state.epoch,
        "seconds": round(state.seconds, 1),
        **sources,
        "parameters": model.count_params(),
        "recipe_sha256": identity,
        "history": state.history,
    }
    _files.write_json(folder / RESULT, result)
    return result


def _stored(weights: list[np.ndarray], recipe: dict[str, Any]) -> list[np.ndarray]:
    """Return weights as they will be when they are read from the preset's file."""
    if not recipe["half_precision"]:
        return weights
    return [weight.astype(np.float16).astype(weight.dtype) for weight in weights]


def _halve(path: Path | str) -> None:
    """Write a file of weights anew, float16 in place of float32; Keras reads it all the same."""
    import h5py

    with h5py.File(path, "r") as whole, h5py.File(f"{path}.half", "w") as half:

        def copy(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                values = item[()]
                kind = np.float16 if values.dtype == np.float32 else values.dtype
                made = half.create_dataset(name, data=values.astype(kind))
            else:
                made = half.require_group(name)
            made.attrs.update(item.attrs)

        half.attrs.update(whole.attrs)
        whole.visititems(copy)
    os.replace(f"{path}.half", path)


def trained_model(recipe: dict[str, Any], seed: int, folder: Path) -> "keras.Model":
    """Return the network of a trained seed with its best weights, as they ship; not compiled.

    Args:
        recipe, seed, folder: As given to `train_seed`.
    """
    model = recipes.network(recipe, seed)
    with np.load(folder / STATE, allow_pickle=False) as arrays:
        model.set_weights(_stored(_numbered(arrays, "best"), recipe))
    return model


def _identity(recipe: dict[str, Any], sources: dict[str, str]) -> str:
    """Return the sha256 of what decides how one seed trains.

    Args:
        recipe: A checked recipe.
        sources: What `transfer.sources` says of it.
    """
    words = {"title", "description", "licence", "published", "notes", "seeds"}
    # Runs that were begun before there were these entries go on.
    words |= {key for key in ("constraint", "noise", "half_precision") if not recipe[key]}
    words |= {key for key in ("devices", "start", "teacher") if recipe[key] is None}
    decisive = {k: v for k, v in recipe.items() if k not in words}
    return _files.sha256_of_json({**decisive, **sources})


def _recipe_of(path: Path) -> str:
    if path.name == RESULT:
        return str(_files.read_json(path)["recipe_sha256"])
    with np.load(path, allow_pickle=False) as arrays:
        return str(json.loads(str(arrays["state"]))["recipe_sha256"])


class _State:
    """Where a training stands after an epoch; kept in one file.

    Attributes:
        epoch: Epochs done.
        stopped: Whether the patience was at its end.
        best_valid, best_epoch, best_weights: The best on validation so far.
        seconds: Time spent in training.
        history: For each epoch its loss and validation figure.
        sum_of_weights, summed: For the averaging of class "swa".
    """

    _FIELDS = ("epoch", "stopped", "best_valid", "best_epoch", "seconds", "history", "summed")

    def __init__(
        self, path: Path, recipe_sha256: str, model: "keras.Model", trainer: "keras.Model"
    ) -> None:
        self.path = path
        self.recipe_sha256 = recipe_sha256
        self.model = model
        self.trainer = trainer
        self.epoch = 0
        self.stopped = False
        self.best_valid: float | None = None
        self.best_epoch = 0
        self.best_weights: list[np.ndarray] = []
        self.seconds = 0.0
        self.history: dict[str, list[float]] = {"loss": [], "valid": []}
        self.sum_of_weights: list[np.ndarray] = []
        self.summed = 0
        if path.exists():
            self._load()

    def _variables(self) -> "list[keras.Variable]":
        # A model's variables have the seeds of dropout too, which weight files leave out.
        return [
            *self.trainer.variables,
            *self.trainer.optimizer.variables,
            *(
                v
                for kernel, constraint in _constrained(self.model)
                for v in constraint.state(kernel)
            ),
        ]

    def save(self) -> None:
        """Write all of it, replacing the state of the epoch before."""
        fields = {key: getattr(self, key) for key in self._FIELDS}
        arrays: dict[str, Any] = {
            "state": np.array(json.dumps({**fields, "recipe_sha256": self.recipe_sha256}))
        }
        for kind, values in (
            ("variable", [variable.numpy() for variable in self._variables()]),
            ("best", self.best_weights),
            ("sum", self.sum_of_weights),
        ):
            arrays.update({f"{kind}_{index}": value for index, value in enumerate(values)})
        with _files.replacing(self.path) as temporary:
            np.savez(temporary, **arrays)

    def _load(self) -> None:
        with np.load(self.path, allow_pickle=False) as arrays:
            for key, value in json.loads(str(arrays["state"])).items():
                setattr(self, key, value)
            for index, variable in enumerate(self._variables()):
                variable.assign(arrays[f"variable_{index}"])
            self.best_weights = _numbered(arrays, "best")
            self.sum_of_weights = _numbered(arrays, "sum")


def _numbered(arrays: Mapping[str, np.ndarray], kind: str) -> list[np.ndarray]:
    return [arrays[f"{kind}_{i}"] for i in range(sum(k.startswith(f"{kind}_") for k in arrays))]


def _epoch_callback(
    recipe: dict[str, Any], task: Task, seed: int, state: _State, progress: Progress
) -> "keras.callbacks.Callback":
    """Make the callback that measures, keeps the best, saves and reports after each epoch."""
    import keras

    def refuse(what: str, value: float, epoch: int) -> None:
        if not np.isfinite(value):
            raise FloatingPointError(
                f"{recipe['name']} seed {seed} diverged in epoch {epoch + 1}: the {what} is "
                f"{value}. Lower the learning rate or clip the gradients (clipnorm)."
            )

    class EndOfEpoch(keras.callbacks.Callback):
        def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
            self.since = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            logs = {} if logs is None else logs
            loss = float(logs["loss"])
            refuse("loss", loss, epoch)
            # Spiking units with NaN are silent, and the loss stays finite.
            refuse("sum of weights", sum(float(w.sum()) for w in state.model.get_weights()), epoch)
            state.epoch = epoch + 1
            _add_to_sum(state, recipe)
            with _averaged(state, recipe):
                valid = task.evaluate(state.model, "valid")
                refuse("validation figure", valid, epoch)
                if state.best_valid is None or _better(valid, state.best_valid, task):
                    state.best_valid = valid
                    state.best_epoch = state.epoch
                    state.best_weights = state.model.get_weights()
            state.history["loss"].append(round(loss, 6))
            state.history["valid"].append(round(valid, 6))
            patience = recipe["patience"]
            state.stopped = patience is not None and state.epoch - state.best_epoch >= patience
            now = time.perf_counter()
            state.seconds += now - self.since
            self.since = now
            state.save()
            logs["valid"] = valid
            progress(
                {
                    "name": recipe["name"],
                    "seed": seed,
                    "epoch": state.epoch,
                    "epochs": recipe["epochs"],
                    "loss": loss,
                    "valid": valid,
                    "best_valid": state.best_valid,
                    "best_epoch": state.best_epoch,
                }
            )
            if state.stopped:
                self.model.stop_training = True

    return EndOfEpoch()


def _better(value: float, best: float, task: Task) -> bool:
    return value < best if task.lower_is_better else value > best


def _add_to_sum(state: _State, recipe: dict[str, Any]) -> None:
    averaging = recipe["averaging"]
    if averaging and averaging["class"] == "swa" and state.epoch >= averaging["first_epoch"]:
        weights = [variable.numpy() for variable in state.trainer.trainable_variables]
        sums = state.sum_of_weights or [np.zeros_like(weight, np.float64) for weight in weights]
        state.sum_of_weights = [a + b for a, b in zip(sums, weights, strict=True)]
        state.summed += 1


@contextmanager
def _averaged(state: _State, recipe: dict[str, Any]) -> Iterator[None]:
    """Give the model its averaged weights within the block, where the recipe averages.

    An average of weights on a grid is off it, and is rounded to it again.
    """
    averaging = recipe["averaging"]
    if not averaging or (averaging["class"] == "swa" and not state.summed):
        yield
        return
    variables = state.trainer.trainable_variables
    raw = [variable.numpy() for variable in variables]
    try:
        if averaging["class"] == "ema":
            state.trainer.optimizer.finalize_variable_values(variables)
        else:
            for variable, total in zip(variables, state.sum_of_weights, strict=True):
                variable.assign((total / state.summed).astype(np.float32))
        for variable, constraint in _constrained(state.model):
            variable.assign(constraint.nearest(variable))
        yield
    finally:
        for variable, value in zip(variables, raw, strict=True):
            variable.assign(value)


def _constrained(model: "keras.Model") -> "list[tuple[keras.Variable, PCMConstraint]]":
    """Return the weights with a PCMConstraint, each with it."""
    from snukeras.constraints import PCMConstraint

    pairs = ((variable, variable.constraint) for variable in model.trainable_variables)
    return [(variable, found) for variable, found in pairs if isinstance(found, PCMConstraint)]


def results_of(recipe: dict[str, Any], task: Task, seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Gather the results of the seeds, with everything that produced them."""
    summary = {}
    for split in ("valid", "test"):
        figures = [result[split] for result in seeds]
        summary[split] = {
            "mean": float(np.mean(figures)),
            # Deviation of a sample; none of a single seed.
            "deviation": float(np.std(figures, ddof=1)) if len(figures) > 1 else None,
        }
    pick = min if task.lower_is_better else max
    return {
        "format": FORMAT,
        "name": recipe["name"],
        "task": task.name,
        "metric": task.metric,
        "unit": task.unit,
        **summary,
        "best_seed": pick(seeds, key=lambda result: result["valid"])["seed"],
        "parameters": seeds[0]["parameters"],
        "seeds": [{k: v for k, v in seed.items() if k != "history"} for seed in seeds],
        "recipe": recipe,
        "data": {"name": task.title, "sha256": task.data_sha256, "licence": task.data_licence},
        "versions": versions(),
    }


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


def _publish(
    recipe: dict[str, Any],
    task: Task,
    results: dict[str, Any],
    folder: Path,
    content: Path,
) -> None:
    """Write preset, golden vectors, card and results of the seed that is best on validation."""
    name = recipe["name"]
    seed = results["best_seed"]
    model = trained_model(recipe, seed, folder / f"seed-{seed}")
    target = content / name
    _files.write_json(target / presets.CONFIG, _portable(json.loads(model.to_json())))
    with _files.replacing(target / presets.WEIGHTS) as temporary:
        model.save_weights(temporary)
        if recipe["half_precision"]:
            _halve(temporary)
    given, output = _golden(model, task)
    with _files.replacing(target / presets.GOLDEN) as temporary:
        np.savez_compressed(temporary, input=given, output=output)
    results = {**results, "costs": _costs(model, task)}
    _files.write_json(content / presets.RESULTS / f"{name}.json", results)
    best = next(result for result in results["seeds"] if result["seed"] == seed)
    # Last, so that a preset that is listed is whole.
    _files.write_json(
        target / presets.PRESET,
        {
            "format": presets.FORMAT,
            **{key: recipe[key] for key in ("name", "title", "description", "licence", "task")},
            "network": cards.outline(model),
            "parameters": model.count_params(),
            "metric": task.metric,
            "unit": task.unit,
            "seed": seed,
            "valid": best["valid"],
            "test": best["test"],
            "published": recipe["published"],
            "files": {
                file: {
                    "sha256": _files.sha256_of(target / file),
                    "bytes": (target / file).stat().st_size,
                }
                for file in (presets.CONFIG, presets.WEIGHTS, presets.GOLDEN)
            },
        },
    )
    cards.write(task.name, content)


def _costs(model: "keras.Model", task: Task) -> dict[str, Any]:
    return {"data": task.measured_on, **costs.counted(model, task.measured_inputs())}


def _portable(config: Any) -> Any:
    """Drop from a Keras config what is None: it says nothing, but an older Keras may refuse it.

    Each Keras adds arguments to its classes; those not used are None in the config.
    """
    if isinstance(config, list):
        return [_portable(value) for value in config]
    if not isinstance(config, dict):
        return config
    arguments = config.get("config") if "class_name" in config else None
    if isinstance(arguments, dict) and str(config.get("module")).startswith("keras"):
        arguments = {key: value for key, value in arguments.items() if value is not None}
        config = {**config, "config": arguments}
    return {key: _portable(value) for key, value in config.items()}


def _golden(model: "keras.Model", task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Choose an input whose output does not hang on rounding, and return both.

    A spike whose potential is within rounding of the threshold may fall either way on another
    machine. So each candidate is computed with weights moved by some 1e-6 of themselves, more
    than float32 sums differ by; the first whose output stays is taken.
    """
    random = np.random.default_rng(0)
    weights = model.get_weights()
    for given in task.golden_inputs():
        output = model.predict(given, verbose=0)
        largest = 0.0
        for _ in range(4):
            model.set_weights(
                [w * (1 + 1e-6 * random.standard_normal(w.shape)).astype(w.dtype) for w in weights]
            )
            largest = max(largest, float(np.abs(model.predict(given, verbose=0) - output).max()))
        model.set_weights(weights)
        if largest <= 0.5 * presets.GOLDEN_TOLERANCE:
            return given, output
    raise RuntimeError(
        f"No golden input of the task {task.name} has an output that rounding leaves alone."
    )
