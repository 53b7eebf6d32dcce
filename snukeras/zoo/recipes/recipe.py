"""Recipes: what a model is and how it is trained, as JSON data.

`read` checks a recipe; `network`, `optimizer` and `noise` make the Keras objects that it describes.
zoo/README.md explains every key.
"""

import contextlib
import copy
import dataclasses
import math
import typing
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from snukeras import _files
from snukeras._files import JsonObject, JsonValue
from snukeras.zoo import presets, published

FORMAT = 1
# What a schedule may say, and what it says by default.
SCHEDULE = {"class": "cosine", "warmup_epochs": 0, "final": 0.0}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a model is and how it is trained; `check` makes one. zoo/README.md explains each entry.

    Entries that name Keras objects hold their class and arguments, as in recipe.json.
    """

    name: str
    title: str
    description: str
    licence: str
    task: str
    network: JsonObject
    optimizer: JsonObject
    epochs: int
    batch_size: int
    seeds: list[int]
    published: str | None = None
    data: JsonObject = dataclasses.field(default_factory=dict)
    loss: JsonObject = dataclasses.field(default_factory=dict)
    start: JsonObject | None = None
    teacher: JsonObject | None = None
    schedule: JsonObject | None = None
    averaging: JsonObject | None = None
    constraint: JsonObject | None = None
    noise: JsonObject | None = None
    devices: JsonObject | None = None
    analog: JsonObject | None = None
    padding: list[int] | None = None
    patience: int | None = None
    ties: str = "first"
    jit_compile: bool | str = False
    half_precision: bool = False
    quick_lstm: bool = False
    notes: str | None = None
    format: int = FORMAT

    def entries(self) -> JsonObject:
        """Return all entries as JSON has them, free to be changed."""
        return dataclasses.asdict(self)

    def record(self) -> JsonObject:
        """Return what a results file keeps: all but `published`, which has a file of its own."""
        return {key: value for key, value in self.entries().items() if key != "published"}

    def changed(self, **entries: Any) -> "Recipe":
        """Return a checked recipe with other entries."""
        return check({**self.entries(), **entries})


_FIELDS = {field.name: field for field in dataclasses.fields(Recipe)}
_REQUIRED = [
    name
    for name, field in _FIELDS.items()
    if name == "format"
    or (field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING)
]


class _Network(TypedDict):
    """What a network has to hold in outer form."""

    input: NotRequired[str]
    input_shape: list[int | None]
    input_dtype: NotRequired[str]
    layers: list[JsonValue]


_HINTS = typing.get_type_hints(Recipe)
_Schedule = TypedDict(
    "_Schedule",
    {
        "class": Literal["cosine"],
        "warmup_epochs": NotRequired[float],
        "final": NotRequired[float],
    },
)
_Ema = TypedDict("_Ema", {"class": Literal["ema"], "momentum": float})
_Swa = TypedDict("_Swa", {"class": Literal["swa"], "first_epoch": int})
_AVERAGING: dict[str, type] = {"ema": _Ema, "swa": _Swa}
_Optimizer = TypedDict(
    "_Optimizer",
    {
        "class": str,
        "learning_rate": NotRequired[float],
        "exclude_from_weight_decay": NotRequired[list[str]],
    },
)


@contextlib.contextmanager
def blamed(recipe: Recipe, task: str) -> Iterator[None]:
    """Turn what Keras and its backend raise for values of a wrong type into one kind of error.

    Args:
        recipe: The recipe whose values are used within the block.
        task: What cannot be done then, such as "make its network".

    Raises:
        ValueError: In place of any error that is none of the kinds that callers are told of:
            ValueError, OSError, ArithmeticError, RuntimeError and ImportError.
    """
    try:
        yield
    except (ValueError, OSError, ArithmeticError, RuntimeError, ImportError):
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise ValueError(
            f"The recipe {recipe.name} cannot {task}: {type(error).__name__}: {reason}. Look for "
            "an entry of a wrong type or size."
        ) from error


def read(name: str, content: Path | str | None = None) -> Recipe:
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
    if recipe.name != name:
        raise ValueError(f"{path}: `name` must be {name!r}. Received: {recipe.name!r}")
    figures = published.read(folder)
    if recipe.published not in (None, *figures):
        raise ValueError(
            f"{path}: `published` must be null or a figure of {published.FILE}. Received: "
            f"{recipe.published!r}. There are: {', '.join(figures) or 'none'}"
        )
    for part, entry in (("schedule", "warmup_epochs"), ("averaging", "first_epoch")):
        given = (getattr(recipe, part) or {}).get(entry, 0)
        if given > recipe.epochs:
            raise ValueError(
                f"{path}: `{part}` says {entry} {given}, which its {recipe.epochs} epochs do "
                f"not go beyond."
            )
    return recipe


def check(recipe: JsonObject, where: str = "The recipe") -> Recipe:
    """Make a recipe of what JSON holds, with all defaults filled in.

    Raises:
        ValueError: An entry is missing, unknown or impossible; the message names it.
    """
    missing = [key for key in _REQUIRED if key not in recipe]
    odd = [key for key in recipe if key not in _FIELDS]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}.")
    if odd:
        raise ValueError(
            f"{where} has the unknown entries {', '.join(odd)}. Allowed: {', '.join(_FIELDS)}."
        )
    if recipe["format"] != FORMAT:
        raise ValueError(
            f"{where} has format {recipe['format']!r}; this version of snukeras reads {FORMAT}."
        )
    for key, value in recipe.items():
        _files.check_type(value, _HINTS[key], f"{where}: `{key}`")
    made = Recipe(**copy.deepcopy(dict(recipe)))
    entries = made.entries()
    _check_network(entries["network"], f"{where}: `network`")
    _check_numbers(entries, where)
    _check_parts(entries, where)
    _check_averaging(entries, where)
    return made


def _check_network(network: JsonObject, where: str) -> None:
    """Check the outer form of a network; each layer checks its own arguments."""
    _entries(network, _Network.__annotations__, where)
    _files.check_type(network, _Network, where)
    sizes = network["input_shape"]
    if not all(size is None or size > 0 for size in sizes):
        raise ValueError(f"{where}: `input_shape` has to hold sizes or null. Received: {sizes}")
    if not network["layers"]:
        raise ValueError(f"{where}: `layers` has to name a layer. Received: []")
    for number, layer in enumerate(network["layers"]):
        named = [key for key in ("class", "layer") if isinstance(layer, dict) and key in layer]
        texts = [*named, *(key for key in ("name",) if named and key in layer)]
        if len(named) != 1 or not all(isinstance(layer[key], str) for key in texts):
            raise ValueError(
                f"{where}: layer {number} must be an object with either a `class` or a `layer` "
                f"of an earlier name, and its `name` a text. Received: {layer!r:.200}"
            )


def _check_numbers(recipe: JsonObject, where: str) -> None:
    for key in ("epochs", "batch_size"):
        if not isinstance(recipe[key], int) or recipe[key] < 1:
            raise ValueError(f"{where}: `{key}` must be at least 1. Received: {recipe[key]!r}")
    if recipe["ties"] not in ("first", "last"):
        raise ValueError(f'{where}: `ties` must be "first" or "last". Received: {recipe["ties"]!r}')
    seeds = recipe["seeds"]
    if not seeds or len(set(seeds)) != len(seeds) or not all(0 <= s < 2**32 for s in seeds):
        raise ValueError(
            f"{where}: `seeds` has to hold different integers from 0 to {2**32 - 1}. "
            f"Received: {seeds}"
        )


def _check_parts(recipe: JsonObject, where: str) -> None:
    """Check the entries that are objects, but for those of `averaging`."""
    optimizer = recipe["optimizer"]
    _files.check_type(optimizer, _Optimizer, f"{where}: `optimizer`")
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
        _entries(recipe["schedule"], SCHEDULE, f"{where}: `schedule`")
        _files.check_type(recipe["schedule"], _Schedule, f"{where}: `schedule`")
        if "learning_rate" not in optimizer:
            raise ValueError(
                f"{where}: `schedule` needs a `learning_rate` of `optimizer`. Received: {optimizer}"
            )
    if recipe["analog"] is not None:
        odd = [key for key in ("devices", "quick_lstm") if recipe[key]]
        if odd or recipe["start"] is None:
            raise ValueError(
                f"{where}: `analog` needs a `start`, whose weights the ranges of converters are "
                "found with, and neither `devices` nor `quick_lstm`. Received: "
                f"{', '.join(odd) or 'no start'}"
            )


def _check_averaging(recipe: JsonObject, where: str) -> None:
    averaging = recipe["averaging"]
    if averaging is not None:
        kind = averaging.get("class")
        if not isinstance(kind, str) or kind not in _AVERAGING:
            raise ValueError(
                f'{where}: `averaging` must be null or of class "ema" or "swa". '
                f"Received: {averaging}"
            )
        _entries(averaging, _AVERAGING[kind].__annotations__, f"{where}: `averaging`")
        _files.check_type(averaging, _AVERAGING[kind], f"{where}: `averaging`")
    if recipe["devices"] is not None and averaging is not None:
        raise ValueError(
            f"{where}: `averaging` must be null with `devices`: no device holds an average. "
            f"Received: {averaging}"
        )


def _check_pretrained(given: JsonValue, number: str, largest: float, where: str) -> None:
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
            f"{where} must be null, or to name a `model` and perhaps a {number} above 0{limit}. "
            f"Received: {given!r}"
        )


def _entries(given: JsonObject, allowed: Collection[str], where: str) -> None:
    """Refuse an object with other entries than the allowed ones."""
    if set(given) - set(allowed):
        raise ValueError(f"{where} has to hold {', '.join(allowed)}. Received: {given}")
