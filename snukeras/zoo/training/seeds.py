"""Train one seed of a recipe, epoch by epoch, so that it can be interrupted and resumed."""

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from snukeras import _files, _strategy
from snukeras._files import JsonObject
from snukeras.zoo import recipes
from snukeras.zoo.recipes import Recipe
from snukeras.zoo.recipes.recipe import blamed
from snukeras.zoo.tasks import Task
from snukeras.zoo.training import transfer
from snukeras.zoo.training.averaging import add_to_sum, averaged, keep_first
from snukeras.zoo.training.state import State, numbered

if TYPE_CHECKING:
    import keras


STATE = "state.npz"
RESULT = "result.json"


class Event(TypedDict):
    """What a training reports.

    Attributes:
        name, seed: What is trained.
        epoch, epochs: Epochs that are done, and all.
        batch, batches: Batches of the epoch that are done, and all; equal at its end.
        loss: Mean of the epoch so far.
        valid: The latest figure on validation; None before the first.
        best_valid, best_epoch: The best so far.
    """

    name: str
    seed: int
    epoch: int
    epochs: int
    batch: int
    batches: int
    loss: float
    valid: float | None
    best_valid: float | None
    best_epoch: int


Progress = Callable[[Event], None]

# Seconds between two reports within an epoch.
_WITHIN_S = 10.0


def _print(event: Event) -> None:
    """Print a line."""
    if event["batch"] < event["batches"]:
        print(
            f"{event['name']} seed {event['seed']} epoch {event['epoch'] + 1}/{event['epochs']}, "
            f"batch {event['batch']} of {event['batches']}: loss {event['loss']:.4f}",
            flush=True,
        )
        return
    print(
        f"{event['name']} seed {event['seed']} epoch {event['epoch']}/{event['epochs']}: "
        f"loss {event['loss']:.4f}, valid {event['valid']:.4f}, best {event['best_valid']:.4f} "
        f"(epoch {event['best_epoch']})",
        flush=True,
    )


def train_seed(
    recipe: Recipe,
    task: Task,
    seed: int,
    folder: Path,
    finish: "Callable[[keras.Model, keras.optimizers.Optimizer], JsonObject] | None" = None,
    test: bool = True,
    content: Path | str | None = None,
    restart: bool = False,
    tensorboard: bool = False,
    progress: Progress | None = None,
) -> JsonObject:
    """Train one seed of a recipe from where it stands, and return its result.

    Args:
        recipe: A checked recipe.
        task: Its task.
        seed: The seed; Keras is seeded with it globally.
        folder: Folder for state and result.
        finish: Called with model and optimizer as they are after the last epoch; returns more for
            the result.
        test: False leaves the test split alone; the result has no `test` then. Asked again with
            True, a finished training is measured on it.
        content, restart, tensorboard, progress: As for `train`.

    Raises:
        ValueError: A run that was begun with another recipe, or another backend than TensorFlow.
        RuntimeError: Another process trains in the folder.
        FloatingPointError: The training diverged.
    """
    _strategy.needs_tensorflow("Training in the zoo, whose figures are TensorFlow's,")
    # Once: the models may be published anew while this one trains.
    sources = transfer.sources(recipe, content)
    identity = identity_of(recipe, sources)
    with _files.locked(folder, "training"):
        _check_left(recipe, identity, folder, restart)
        if (folder / RESULT).exists():
            result = _files.read_json(folder / RESULT)
        else:
            task.check(recipe)
            model, optimizer, state = _fitted(
                recipe, task, seed, folder, identity, content, tensorboard, progress or _print
            )
            more = {} if finish is None else finish(model, optimizer)
            result = {
                **_result(recipe, task, seed, model, state, folder),
                **more,
                **sources,
                "recipe_sha256": identity,
            }
            _files.write_json(folder / RESULT, result)
        if test and "test" not in result:
            result["test"] = _measured(trained_model(recipe, seed, folder), recipe, task, "test")
            _files.write_json(folder / RESULT, result)
    return result


def _check_left(recipe: Recipe, identity: str, folder: Path, restart: bool) -> None:
    """Refuse, or forget with `restart`, what another training left in the folder."""
    for left in (folder / RESULT, folder / STATE):
        if restart:
            left.unlink(missing_ok=True)
        elif left.exists() and _recipe_of(left) != identity:
            raise ValueError(
                f"{left} is from another recipe for {recipe.name}, or other arguments, or "
                "another number of epochs, or another start or teacher. Restart (--restart) to "
                "replace it, or choose another folder for the runs (--runs)."
            )


def _fitted(
    recipe: Recipe,
    task: Task,
    seed: int,
    folder: Path,
    identity: str,
    content: Path | str | None,
    tensorboard: bool,
    progress: Progress,
) -> "tuple[keras.Model, keras.optimizers.Optimizer, State]":
    """Train the network to the end of its recipe from where it stands.

    Returns:
        The network and its optimizer as they are after the last epoch, and the state, which has
        the best weights.
    """
    import keras

    from snukeras.network.lstm_loop import quick_lstm

    keras.utils.set_random_seed(seed)
    steps = task.steps_per_epoch(recipe)
    model = recipes.network(recipe, seed)
    transfer.start(recipe, model, content)
    with blamed(recipe, "be trained"):
        trainer = _trainer(recipe, task, model, seed)
        if recipe.analog is not None:
            model = trainer.network
        trainer.compile(
            optimizer=recipes.optimizer(recipe, steps, seed),
            loss=task.loss(recipe.loss),
            # A task-specific trainer returns other outputs, so the task's metrics do not apply.
            weighted_metrics=task.metrics() if trainer is model or recipe.analog else None,
            jit_compile=recipe.jit_compile,
        )
        trainer.optimizer.build(trainer.trainable_variables)
        state = State(folder / STATE, identity, model, trainer)
        if not state.stopped and state.epoch < recipe.epochs:
            callbacks: list[keras.callbacks.Callback] = [
                _epoch_callback(recipe, task, seed, state, steps, progress)
            ]
            if tensorboard:
                callbacks.append(keras.callbacks.TensorBoard(folder / "tensorboard"))
            noise = recipes.noise(recipe, seed)
            if noise is not None:
                callbacks.append(noise)
            with quick_lstm(model) if recipe.quick_lstm else contextlib.nullcontext():
                trainer.fit(
                    transfer.taught(recipe, task.training_data(recipe, seed, state.epoch), content),
                    epochs=recipe.epochs,
                    initial_epoch=state.epoch,
                    steps_per_epoch=steps,
                    shuffle=False,  # training_data has its own order
                    callbacks=callbacks,
                    verbose=0,
                )
    return model, trainer.optimizer, state


def _trainer(recipe: Recipe, task: Task, model: "keras.Model", seed: int) -> "keras.Model":
    """Return the model that `fit` trains: the network, the task's, or the network on tiles."""
    trainer = task.trainer(model, recipe)
    if recipe.analog is None:
        return trainer
    if trainer is not model:
        raise ValueError(
            f"The recipe {recipe.name} has `analog`, and the task {task.name} trains its networks "
            "by a model of its own. Leave it out."
        )
    return recipes.tiles(recipe, model, task.typical_inputs(), seed)


def _result(
    recipe: Recipe, task: Task, seed: int, model: "keras.Model", state: State, folder: Path
) -> JsonObject:
    """Return what a finished training has to say without the test split."""
    valid, more = state.best_valid, {}
    if recipe.analog is not None:
        # The preset is the plain network; it was chosen by what chips make of it.
        more["valid_on_chips"] = valid
        valid = _measured(trained_model(recipe, seed, folder), recipe, task, "valid")
    elif recipe.half_precision:
        # The weights that ship are rounded: measure them, since training measured others.
        model.set_weights(_stored(state.best_weights, recipe))
        valid = _measured(model, recipe, task, "valid")
    return {
        "seed": seed,
        "valid": valid,
        **more,
        "epoch": state.best_epoch,
        "epochs_trained": state.epoch,
        "seconds": round(state.seconds, 1),
        "parameters": model.count_params(),
        "history": state.history,
    }


def _measured(model: "keras.Model", recipe: Recipe, task: Task, split: str) -> float:
    model.compile(
        loss=task.loss({}), weighted_metrics=task.metrics(), jit_compile=recipe.jit_compile
    )
    return task.evaluate(model, split)


def _stored(weights: list[np.ndarray], recipe: Recipe) -> list[np.ndarray]:
    """Return weights as they will be when they are read from the preset's file."""
    if not recipe.half_precision:
        return weights
    return [weight.astype(np.float16).astype(weight.dtype) for weight in weights]


def trained_model(recipe: Recipe, seed: int, folder: Path) -> "keras.Model":
    """Return the network of a trained seed with its best weights, as they ship; not compiled.

    Args:
        recipe, seed, folder: As given to `train_seed`.
    """
    model = recipes.network(recipe, seed)
    with np.load(folder / STATE, allow_pickle=False) as arrays:
        model.set_weights(_stored(numbered(arrays, "best"), recipe))
    return model


def identity_of(recipe: Recipe, sources: dict[str, str]) -> str:
    """Return the sha256 of what decides how one seed trains.

    Args:
        recipe: A checked recipe.
        sources: What `transfer.sources` says of it.
    """
    words = {"title", "description", "licence", "published", "notes", "seeds"}
    # Entries that came later count only where they are set, so that older runs can go on.
    added = ("constraint", "noise", "analog", "half_precision", "quick_lstm")
    words |= {key for key in added if not getattr(recipe, key)}
    words |= {"ties"} if recipe.ties == "first" else set()
    words |= {key for key in ("devices", "start", "teacher") if getattr(recipe, key) is None}
    decisive = {k: v for k, v in recipe.entries().items() if k not in words}
    return _files.sha256_of_json({**decisive, **sources})


def _recipe_of(path: Path) -> str:
    if path.name == RESULT:
        return str(_files.read_json(path)["recipe_sha256"])
    with np.load(path, allow_pickle=False) as arrays:
        return str(json.loads(str(arrays["state"]))["recipe_sha256"])


def _epoch_callback(
    recipe: Recipe, task: Task, seed: int, state: State, steps: int, progress: Progress
) -> "keras.callbacks.Callback":
    """Make the callback that measures, keeps the best, saves and reports after each epoch."""
    import keras

    def report(loss: float, batch: int) -> None:
        progress(
            {
                "name": recipe.name,
                "seed": seed,
                "epoch": state.epoch,
                "epochs": recipe.epochs,
                "batch": batch,
                "batches": steps,
                "loss": loss,
                "valid": state.history["valid"][-1] if state.history["valid"] else None,
                "best_valid": state.best_valid,
                "best_epoch": state.best_epoch,
            }
        )

    class EndOfEpoch(keras.callbacks.Callback):
        def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
            self.since = self.reported = time.perf_counter()

        def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
            keep_first(state, recipe)
            now = time.perf_counter()
            if now - self.reported > _WITHIN_S and batch + 1 < steps:
                self.reported = now
                report(float((logs or {}).get("loss", np.nan)), batch + 1)

        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            logs = {} if logs is None else logs
            loss = float(logs["loss"])
            state.epoch = epoch + 1
            logs["valid"] = valid = _measured_epoch(recipe, task, seed, state, loss)
            state.history["loss"].append(round(loss, 6))
            state.history["valid"].append(round(valid, 6))
            patience = recipe.patience
            state.stopped = patience is not None and state.epoch - state.best_epoch >= patience
            now = time.perf_counter()
            state.seconds += now - self.since
            self.since = self.reported = now
            state.save()
            report(loss, steps)
            if state.stopped:
                self.model.stop_training = True

    return EndOfEpoch()


def _measured_epoch(recipe: Recipe, task: Task, seed: int, state: State, loss: float) -> float:
    """Measure the network after an epoch on validation, and keep it if it is the best so far.

    Raises:
        FloatingPointError: Loss, weights or figure are no numbers.
    """

    def refuse(what: str, value: float) -> None:
        if not np.isfinite(value):
            raise FloatingPointError(
                f"{recipe.name} seed {seed} diverged in epoch {state.epoch}: the {what} is "
                f"{value}. Lower the learning rate or clip the gradients (clipnorm)."
            )

    refuse("loss", loss)
    # Spiking units with NaN are silent, and the loss stays finite.
    refuse("sum of weights", sum(float(w.sum()) for w in state.model.get_weights()))
    add_to_sum(state, recipe)
    with averaged(state, recipe):
        valid = _valid(recipe, task, seed, state)
        refuse("validation figure", valid)
        if state.best_valid is None or _better(valid, state.best_valid, recipe, task):
            state.best_valid = valid
            state.best_epoch = state.epoch
            state.best_weights = state.model.get_weights()
    return valid


def _valid(recipe: Recipe, task: Task, seed: int, state: State) -> float:
    """Return the validation figure of the network, or of chips that hold it."""
    if recipe.analog is None:
        return task.evaluate(state.model, "valid")
    recipes.calibrate(recipe, state.trainer, task.typical_inputs())
    return recipes.on_chips(
        recipe, state.trainer, lambda model: task.evaluate(model, "valid"), seed
    )


def _better(value: float, best: float, recipe: Recipe, task: Task) -> bool:
    if value == best:
        return recipe.ties == "last"
    return (value < best) == task.lower_is_better
