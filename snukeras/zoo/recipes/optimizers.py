"""Make the optimizer and the noise that a recipe describes."""

import math
from typing import TYPE_CHECKING

from snukeras.zoo.recipes.recipe import SCHEDULE, Recipe

if TYPE_CHECKING:
    import keras

    from snukeras.callbacks import PCMNoise


def optimizer(
    recipe: Recipe, steps_per_epoch: int, seed: int | None = None
) -> "keras.optimizers.Optimizer":
    """Make the recipe's optimizer, with its schedule, weight averaging and devices.

    An entry `devices` holds arguments of `snukeras.optimizers.PCMOptimizer`, which wraps the
    optimizer then.

    Args:
        recipe: A checked recipe.
        steps_per_epoch: Steps of an epoch; a recipe counts in epochs.
        seed: Seed of the devices.

    Raises:
        ValueError: An unknown class, or arguments that it refuses.
    """
    import keras

    arguments = dict(recipe.optimizer)
    kind = arguments.pop("class")
    not_decayed = arguments.pop("exclude_from_weight_decay", [])
    optimizer_class = getattr(keras.optimizers, kind, None)
    if not isinstance(optimizer_class, type):
        raise ValueError(f"keras.optimizers has no such class. Received: {kind!r}")
    if recipe.schedule is not None:
        schedule = {**SCHEDULE, **recipe.schedule}
        warmup = round(schedule["warmup_epochs"] * steps_per_epoch)
        peak = arguments["learning_rate"]
        arguments["learning_rate"] = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup else peak,
            decay_steps=max(1, recipe.epochs * steps_per_epoch - warmup),
            alpha=schedule["final"],
            warmup_target=peak if warmup else None,
            warmup_steps=warmup,
        )
    if recipe.averaging and recipe.averaging["class"] == "ema":
        arguments.update(use_ema=True, ema_momentum=recipe.averaging["momentum"])
    try:
        made = optimizer_class(**arguments)
        if not_decayed:
            made.exclude_from_weight_decay(var_names=not_decayed)
        if recipe.devices is not None:
            from snukeras.optimizers import PCMOptimizer

            made = PCMOptimizer(made, **{"seed": seed, "name": "pcm", **recipe.devices})
    except (TypeError, ValueError) as error:
        raise ValueError(f"The recipe {recipe.name} cannot make its optimizer: {error}") from error
    return made


def noise(recipe: Recipe, seed: int) -> "PCMNoise | None":
    """Make the callback that adds the recipe's noise, None without an entry `noise`.

    The entry holds arguments of `snukeras.callbacks.PCMNoise`; its `noise` may be a device model of
    `snukeras.pcm`, `{"class": NAME, argument: value, ...}`. With `ramp_epochs` the noise grows
    linearly from zero over that many epochs.

    Args:
        recipe: A checked recipe.
        seed: Seed of the noise.

    Raises:
        ValueError: An unknown device model, or arguments that are refused.
    """
    if recipe.noise is None:
        return None
    import snukeras.pcm
    from snukeras.callbacks import PCMNoise

    arguments = dict(recipe.noise)
    ramp = arguments.pop("ramp_epochs", 0)
    if not isinstance(ramp, int | float) or not 0 <= ramp < math.inf:
        raise ValueError(
            f"`ramp_epochs` of `noise` of the recipe {recipe.name} must be a number of epochs. "
            f"Received: {ramp!r}"
        )
    try:
        if isinstance(arguments.get("noise"), dict):
            device = dict(arguments["noise"])
            kind = device.pop("class", None)
            device_class = getattr(snukeras.pcm, str(kind), None)
            if not isinstance(device_class, type):
                raise ValueError(f"snukeras.pcm has no device model {kind!r}")
            arguments["noise"] = device_class(**device)
        schedule = (lambda epoch: min(1.0, epoch / ramp)) if ramp else None
        return PCMNoise(**{"seed": seed, "schedule": schedule, **arguments})
    except (TypeError, ValueError) as error:
        raise ValueError(f"The recipe {recipe.name} cannot make its noise: {error}") from error
