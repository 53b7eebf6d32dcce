"""Recipes: what a model is and how it is trained, as JSON data.

`read` checks a recipe; `network`, `optimizer` and `noise` make the Keras objects that it describes.
zoo/README.md explains every key.
"""

import math
from pathlib import Path
from typing import Any

from snukeras import _files
from snukeras.zoo import presets, published
from snukeras.zoo.recipes.optimizers import _SCHEDULE

FORMAT = 1
_REQUIRED = (
    "format",
    "name",
    "title",
    "description",
    "licence",
    "task",
    "network",
    "optimizer",
    "epochs",
    "batch_size",
    "seeds",
)


_DEFAULTS: dict[str, Any] = {
    "published": None,
    "data": {},
    "loss": {},
    "start": None,
    "teacher": None,
    "schedule": None,
    "averaging": None,
    "constraint": None,
    "noise": None,
    "devices": None,
    "padding": None,
    "patience": None,
    "jit_compile": False,
    "half_precision": False,
    "notes": None,
}


_NETWORK = {"input": 0, "input_shape": 0, "input_dtype": 0, "layers": 0}


def read(name: str, content: Path | str | None = None) -> dict[str, Any]:
    """Read and check the recipe of a model.

    Args:
        name: A model with a recipe in the content folder.
        content: Folder of recipes. Default: the one that ships with the package.

    Raises:
        ValueError: No such recipe, or one with an unknown, missing or impossible entry.
    """
    folder = presets.content_folder(content)
    known = presets.recipes(folder)
    if name not in known:
        raise presets.unknown(name, known, "recipe")
    path = folder / name / presets.RECIPE
    recipe = check(_files.read_json(path), str(path))
    if recipe["name"] != name:
        raise ValueError(f"{path}: `name` has to be {name!r}. Received: {recipe['name']!r}")
    figures = published.read(folder)
    if recipe["published"] not in (None, *figures):
        raise ValueError(
            f"{path}: `published` has to be null or a figure of {published.FILE}. Received: "
            f"{recipe['published']!r}. There are: {', '.join(figures) or 'none'}"
        )
    for part, entry in (("schedule", "warmup_epochs"), ("averaging", "first_epoch")):
        given = (recipe[part] or {}).get(entry, 0)
        if given >= recipe["epochs"]:
            raise ValueError(
                f"{path}: `{part}` says {entry} {given}, which its {recipe['epochs']} epochs do "
                f"not go beyond."
            )
    return recipe


def record(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return what a results file keeps of a recipe: all but `published`, which has its own file."""
    return {key: value for key, value in recipe.items() if key != "published"}


def check(recipe: dict[str, Any], where: str = "The recipe") -> dict[str, Any]:
    """Return the recipe with all defaults filled in.

    Raises:
        ValueError: An entry is missing, unknown or impossible; the message names it.
    """
    missing = [key for key in _REQUIRED if key not in recipe]
    odd = [key for key in recipe if key not in (*_REQUIRED, *_DEFAULTS)]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}.")
    if odd:
        raise ValueError(
            f"{where} has the unknown entries {', '.join(odd)}. Allowed: "
            f"{', '.join((*_REQUIRED, *_DEFAULTS))}."
        )
    if recipe["format"] != FORMAT:
        raise ValueError(
            f"{where} has format {recipe['format']!r}; this version of snukeras reads {FORMAT}."
        )
    recipe = {**_DEFAULTS, **recipe}
    _check_numbers(recipe, where)
    _check_parts(recipe, where)
    _check_averaging(recipe, where)
    return recipe


def _check_numbers(recipe: dict[str, Any], where: str) -> None:
    for key in ("epochs", "batch_size"):
        if not isinstance(recipe[key], int) or recipe[key] < 1:
            raise ValueError(f"{where}: `{key}` has to be at least 1. Received: {recipe[key]!r}")
    seeds = recipe["seeds"]
    if not seeds or len(set(seeds)) != len(seeds) or not all(isinstance(s, int) for s in seeds):
        raise ValueError(f"{where}: `seeds` has to hold different integers. Received: {seeds}")


def _check_parts(recipe: dict[str, Any], where: str) -> None:
    """Check the entries that are objects, but for those of `averaging`."""
    _entries(recipe["network"], _NETWORK, f"{where}: `network`")
    optimizer = recipe["optimizer"]
    decays = "weight_decay" in optimizer or optimizer.get("class") == "AdamW"
    if "exclude_from_weight_decay" in optimizer and not decays:
        raise ValueError(
            f"{where}: `exclude_from_weight_decay` needs a `weight_decay`. Received: {optimizer}"
        )
    if recipe["start"] is not None:
        _check_pretrained(recipe["start"], "scale", math.inf, f"{where}: `start`")
    if recipe["teacher"] is not None:
        _check_pretrained(recipe["teacher"], "weight", 1.0, f"{where}: `teacher`")
    if recipe["schedule"] is not None:
        _entries(recipe["schedule"], _SCHEDULE, f"{where}: `schedule`")
        if recipe["schedule"].get("class") != "cosine":
            raise ValueError(
                f'{where}: `schedule` has to be null or of class "cosine". '
                f"Received: {recipe['schedule']}"
            )
    for key in ("constraint", "noise", "devices"):
        if recipe[key] is not None and not isinstance(recipe[key], dict):
            raise ValueError(
                f"{where}: `{key}` has to be null or an object of arguments. "
                f"Received: {recipe[key]!r}"
            )


def _check_averaging(recipe: dict[str, Any], where: str) -> None:
    averaging = recipe["averaging"]
    if averaging is not None:
        allowed = {"ema": {"class": 0, "momentum": 0}, "swa": {"class": 0, "first_epoch": 0}}
        if averaging.get("class") not in allowed:
            raise ValueError(
                f'{where}: `averaging` has to be null or of class "ema" or "swa". '
                f"Received: {averaging}"
            )
        _entries(averaging, allowed[averaging["class"]], f"{where}: `averaging`", all_of_them=True)
    if recipe["devices"] is not None and averaging is not None:
        raise ValueError(
            f"{where}: `averaging` has to be null with `devices`: no device holds an average. "
            f"Received: {averaging}"
        )


def _check_pretrained(given: Any, number: str, largest: float, where: str) -> None:
    """Check an entry that names a pretrained model and may have one number above 0."""
    value = given.get(number, 1.0) if isinstance(given, dict) else None
    if (
        not isinstance(given, dict)
        or not set(given) <= {"model", number}
        or not isinstance(given.get("model"), str)
        or not isinstance(value, int | float)
        or not (0 < value <= largest and math.isfinite(value))
    ):
        limit = "" if largest == math.inf else f" and at most {largest:g}"
        raise ValueError(
            f"{where} has to be null, or to name a `model` and perhaps a {number} above 0{limit}. "
            f"Received: {given!r}"
        )


def _entries(
    given: dict[str, Any], allowed: dict[str, Any], where: str, all_of_them: bool = False
) -> None:
    odd = set(given) - set(allowed)
    if odd or (all_of_them and set(given) != set(allowed)):
        raise ValueError(f"{where} has to hold {', '.join(allowed)}. Received: {given}")
