"""Train one seed of a recipe, epoch by epoch, so that it can be interrupted and resumed."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from snukeras import _files
from snukeras.zoo import recipes
from snukeras.zoo.recipes import Recipe
from snukeras.zoo.tasks import Task
from snukeras.zoo.training import transfer
from snukeras.zoo.training.averaging import _add_to_sum, _averaged
from snukeras.zoo.training.state import _numbered, _State

if TYPE_CHECKING:
    import keras


STATE = "state.npz"
RESULT = "result.json"


Progress = Callable[[dict[str, Any]], None]


def _print(event: dict[str, Any]) -> None:
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
                f"{left} is from another recipe for {recipe.name}, or other arguments, or "
                "another number of epochs, or another start or teacher. Restart (--restart) to "
                "replace it, or choose another folder for the runs (--runs)."
            )
    if (folder / RESULT).exists():
        return _files.read_json(folder / RESULT)

    task.check(recipe)
    keras.utils.set_random_seed(seed)
    steps = task.steps_per_epoch(recipe)
    model = recipes.network(recipe, seed)
    transfer.start(recipe, model, content)
    trainer = task.trainer(model, recipe)
    trainer.compile(
        optimizer=recipes.optimizer(recipe, steps, seed),
        loss=task.loss(recipe.loss),
        # A trainer of its own has outputs of its own, which the metrics do not fit.
        weighted_metrics=task.metrics() if trainer is model else None,
        jit_compile=recipe.jit_compile,
    )
    trainer.optimizer.build(trainer.trainable_variables)
    state = _State(folder / STATE, identity, model, trainer)
    if not state.stopped and state.epoch < recipe.epochs:
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
            epochs=recipe.epochs,
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
        "valid": task.evaluate(model, "valid") if recipe.half_precision else state.best_valid,
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
        model.set_weights(_stored(_numbered(arrays, "best"), recipe))
    return model


def _identity(recipe: Recipe, sources: dict[str, str]) -> str:
    """Return the sha256 of what decides how one seed trains.

    Args:
        recipe: A checked recipe.
        sources: What `transfer.sources` says of it.
    """
    words = {"title", "description", "licence", "published", "notes", "seeds"}
    # Runs that were begun before there were these entries go on.
    words |= {key for key in ("constraint", "noise", "half_precision") if not getattr(recipe, key)}
    words |= {key for key in ("devices", "start", "teacher") if getattr(recipe, key) is None}
    decisive = {k: v for k, v in recipe.entries().items() if k not in words}
    return _files.sha256_of_json({**decisive, **sources})


def _recipe_of(path: Path) -> str:
    if path.name == RESULT:
        return str(_files.read_json(path)["recipe_sha256"])
    with np.load(path, allow_pickle=False) as arrays:
        return str(json.loads(str(arrays["state"]))["recipe_sha256"])


def _epoch_callback(
    recipe: Recipe, task: Task, seed: int, state: _State, progress: Progress
) -> "keras.callbacks.Callback":
    """Make the callback that measures, keeps the best, saves and reports after each epoch."""
    import keras

    def refuse(what: str, value: float, epoch: int) -> None:
        if not np.isfinite(value):
            raise FloatingPointError(
                f"{recipe.name} seed {seed} diverged in epoch {epoch + 1}: the {what} is "
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
            patience = recipe.patience
            state.stopped = patience is not None and state.epoch - state.best_epoch >= patience
            now = time.perf_counter()
            state.seconds += now - self.since
            self.since = now
            state.save()
            logs["valid"] = valid
            progress(
                {
                    "name": recipe.name,
                    "seed": seed,
                    "epoch": state.epoch,
                    "epochs": recipe.epochs,
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
