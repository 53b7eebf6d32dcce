"""Put the network of a recipe on tiles, and measure it on chips, as its entry `analog` says."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from snukeras import _arguments
from snukeras._files import JsonObject
from snukeras.zoo.recipes.recipe import Recipe

if TYPE_CHECKING:
    import keras

    from snukeras.pcm import AnalogNetwork, InferencePCM

#: What the entry may say beside the tile, and what it says by default.
ANALOG: JsonObject = {
    "tile": "generic8",
    "device": {"class": "GenericPCM"},
    "clip": None,
    "modifiers": [],
    "samples": 64,
    "percentile": 100.0,
    "output_share": 1.0,
    "chips": 3,
    "time": 31536000.0,
    "compensation": "column",
}


def tiles(recipe: Recipe, model: "keras.Model", inputs: np.ndarray, seed: int) -> "AnalogNetwork":
    """Return the network of a recipe on tiles, its converters calibrated.

    Args:
        recipe: A checked recipe with an entry `analog`.
        model: Its network, with the weights to start from; it is copied.
        inputs: Typical inputs; the first of them, as many as `samples` says, set the ranges.
        seed: Seed of the noise.

    Raises:
        ValueError: An unknown tile or device, or arguments that are refused.
    """
    import snukeras.pcm

    entry = _entry(recipe)
    try:
        device = _device(entry["device"])
        modifiers = [snukeras.pcm.WeightModifier(**modifier) for modifier in entry["modifiers"]]
        given = entry["tile"]
        read = snukeras.pcm.Tile.from_config if isinstance(given, dict) else snukeras.pcm.get_tile
        tile = read(given)
        made = snukeras.pcm.analog(
            model,
            tile,
            device,
            seed,
            snukeras.pcm.DifferentialPair(device.g_max, scale="column", clip=entry["clip"]),
            modifiers,
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"The recipe {recipe.name} cannot make its tiles: {error}") from error
    _calibrate(entry, made, inputs)
    return made


def calibrate(recipe: Recipe, net: "AnalogNetwork", inputs: np.ndarray) -> None:
    """Set ranges of converters by the first of some inputs, unless the network learns them."""
    if not any(part.learns_ranges for part in net.tiles):
        _calibrate(_entry(recipe), net, inputs)


def _calibrate(entry: JsonObject, net: "AnalogNetwork", inputs: np.ndarray) -> None:
    import snukeras.pcm

    if net.tile.calibrates:
        snukeras.pcm.calibrate(
            net,
            inputs[: entry["samples"]],
            entry["percentile"],
            output_share=entry["output_share"],
        )


def on_chips(
    recipe: Recipe, net: "AnalogNetwork", measure: "Callable[[keras.Model], float]", seed: int
) -> float:
    """Return the mean of a figure over chips that hold a network, at the time of the entry.

    Args:
        recipe: A checked recipe with an entry `analog`.
        net: Its network on tiles, compiled, with ranges.
        measure: Takes a compiled network and returns its figure.
        seed: The same seed gives the same chips.
    """
    from snukeras.pcm import Chip

    entry = _entry(recipe)
    figures, copy = [], None
    for number in range(entry["chips"]):
        own = np.random.SeedSequence([seed, number, 0xC419]).generate_state(1)[0] >> 1
        chip = Chip(net, seed=int(own), compensation=entry["compensation"])
        if copy is None:
            copy = chip.model(entry["time"])
        else:
            chip.write(copy, entry["time"])
        figures.append(measure(copy))
    return float(np.mean(figures))


def _entry(recipe: Recipe) -> JsonObject:
    """Return the entry with its defaults, checked as far as no other class checks it."""
    given = recipe.analog or {}
    where = f"The recipe {recipe.name}: `analog`"
    if odd := set(given) - set(ANALOG):
        raise ValueError(
            f"{where} has to hold {', '.join(ANALOG)}. Received: {', '.join(sorted(odd))}"
        )
    entry = {**ANALOG, **given}
    for name in ("samples", "chips"):
        if type(entry[name]) is not int or entry[name] < 1:
            raise ValueError(
                f"{where}: `{name}` must be an integer of at least 1. Received: {entry[name]!r}"
            )
    try:
        _arguments.number("time", entry["time"], minimum=0.0)
        _arguments.number("percentile", entry["percentile"], above=0.0, maximum=100.0)
        _arguments.choice("compensation", entry["compensation"], (None, "global", "column"))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error
    return entry


def _device(entry: JsonObject) -> "InferencePCM":
    """Make the device model `{"class": NAME, argument: value, ...}`."""
    import snukeras.pcm

    arguments = dict(entry)
    kind = getattr(snukeras.pcm, str(arguments.pop("class", None)), None)
    if not isinstance(kind, type) or not issubclass(kind, snukeras.pcm.InferencePCM):
        raise ValueError(f"snukeras.pcm has no device model {entry.get('class')!r}")
    return kind(**arguments)
