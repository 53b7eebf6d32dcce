"""Presets: list, describe, load and check the models that ship with the package.

A preset is a folder `zoo/NAME` of data: preset.json, config.json (the Keras model), its
model.weights.h5 and golden.npz, the latter an input and the output that belongs to it. preset.json
pins size and sha256 of the other three. zoo/README.md specifies all of it.
"""

import builtins
import difflib
import fnmatch
import warnings
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from snukeras import _content, _files, _html
from snukeras.zoo import hub, published
from snukeras.zoo.contents import Info, OfRecipe, OfSeed, Preset, Results

if TYPE_CHECKING:
    import keras

FORMAT = 1
PRESET = "preset.json"
RECIPE = "recipe.json"
CONFIG = "config.json"
WEIGHTS = "model.weights.h5"
GOLDEN = "golden.npz"
RESULTS = "results"
PINNED = (CONFIG, WEIGHTS, GOLDEN)
# The task of a model and the classes of its layers.
Kind = tuple[str, set[str]]
REMEDY = "Install snukeras again."

# float32 sums in another order differ by some 1e-6; a wrong weight or equation by far more.
GOLDEN_TOLERANCE = 1e-4


def content_folder(content: Path | str | None = None) -> Path:
    """Return the folder of the zoo's content: the given one, or that of the package."""
    return _content.folder("zoo") if content is None else Path(content)


class Names(builtins.list[str]):
    """Names of pretrained models: a list, which a notebook shows as a table.

    Attributes:
        content: Folder of the presets.
    """

    def __init__(self, names: Iterable[str], content: Path) -> None:
        super().__init__(names)
        self.content = content

    def _repr_html_(self) -> str:
        """Return the models as a table."""
        described = (_read(self.content, name) for name in self)
        rows = [
            (
                p["name"],
                p["task"],
                p["network"],
                f"{p['parameters']:,}",
                f"{p['test']:.3f}",
                p["unit"],
            )
            for p in described
        ]
        title = f"{len(self)} pretrained models; snukeras.zoo.load(name) gives one"
        return _html.table(("name", "task", "network", "parameters", "test", "unit"), rows, title)


def list(
    filter: str | Path = "*",
    task: str | None = None,
    unit: str | None = None,
    content: Path | str | None = None,
) -> Names:
    """Return the names of the pretrained models, all of them or some.

        snukeras.zoo.list("*_pcm")
        snukeras.zoo.list(task="jsb_chorales", unit="SNU")

    Args:
        filter: Pattern of names, with the wildcards "*" and "?" and "[...]".
        task: Name of a task: models of that task alone.
        unit: Class of layers, such as "SNU", "SSNU", "ConvSNU2D" or "LSTM", in any case: models
            that have such a layer alone.
        content: Folder of presets. Default: the one that ships with the package.

    Returns:
        The names in order, a list of strings; at the end of a cell of a notebook it is a table.

    Raises:
        ValueError: No model has this task or unit; the message lists those that there are.
    """
    if isinstance(filter, Path) or "/" in filter:
        warnings.warn(
            f"Give the folder of presets as content=. Received: list({str(filter)!r}), which will "
            "be a pattern of names alone.",
            FutureWarning,
            stacklevel=2,
        )
        filter, content = "*", filter
    folder = content_folder(content)
    found = chosen(_names(folder), lambda name: kind(name, folder), filter, task, unit)
    return Names(found, folder)


def kind(name: str, content: Path | str | None = None) -> Kind:
    """Return the task of a pretrained model and the classes of its layers."""
    preset = _read(content_folder(content), name)
    return preset["task"], _units(preset["network"])


def chosen(
    names: builtins.list[str],
    kind: Callable[[str], Kind],
    filter: str,
    task: str | None,
    unit: str | None,
    what: str = "pretrained models",
) -> builtins.list[str]:
    """Return those of some models that `list` returns with such arguments.

    Args:
        names: The models.
        kind: Returns the task of a model and the classes of its layers.
        filter: Pattern of names.
        task: Name of a task.
        unit: Class of layers, in any case.
        what: The word for the models in the error.

    Raises:
        ValueError: No model has this task or unit.
    """
    if task is not None or unit is not None:
        kinds = {name: kind(name) for name in names}
        tasks = {name: {task} for name, (task, _) in kinds.items()}
        units = {name: units for name, (_, units) in kinds.items()}
        for wanted, word, by_name in ((task, "task", tasks), (unit, "unit", units)):
            if wanted is None:
                continue
            known = sorted(set().union(*by_name.values()))
            same = {one for one in known if one.lower() == wanted.lower()}
            if not same:
                raise unknown(wanted, known, f"{word} of {what}")
            names = [name for name in names if by_name[name] & same]
    return [name for name in names if fnmatch.fnmatchcase(name, filter)]


def _names(folder: Path) -> builtins.list[str]:
    return sorted(path.parent.name for path in folder.glob(f"*/{PRESET}"))


def _units(network: str) -> set[str]:
    """Return the classes of layers that a network's line names: "88 - SNU 150 - Dense 88"."""
    parts = (part.removeprefix("recurrent ").split() for part in network.split(" - ")[1:])
    return {part[0] for part in parts if part and part[0] != "tied"}


def recipes(content: Path | str | None = None) -> builtins.list[str]:
    """Return the names of all models that can be trained: those with a recipe."""
    return sorted(path.parent.name for path in content_folder(content).glob(f"*/{RECIPE}"))


def unknown(name: str, known: builtins.list[str], what: str) -> ValueError:
    """Build the error for a name that does not exist."""
    close = difflib.get_close_matches(name, known, n=3)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    return ValueError(
        f"There is no {what} named {name!r}.{hint} There are: {', '.join(known) or 'none yet'}."
    )


def info(name: str, content: Path | str | None = None) -> Info:
    """Describe a pretrained model.

    Args:
        name: One of `list()`.
        content: Folder of presets. Default: the one that ships with the package.

    Returns:
        The preset's task, network, number of parameters, figures, licence and files with sha256;
        under "published" the published figure to compare with (`snukeras.zoo.published.Published`,
        None where there is none), under "recipe" how it was trained, and under "results" the
        figures of all seeds (None where a preset has no results file).

    Raises:
        ValueError: No such preset (the message lists those that exist), or a damaged one.
    """
    folder = content_folder(content)
    preset = _read(folder, name)
    path = folder / name / RECIPE
    recipe = _files.read_json(path) if path.is_file() else None
    results = _read_results(folder / RESULTS / f"{name}.json")
    named = (recipe or {}).get("published")
    figures = {} if named is None else published.read(folder)
    if named is not None and str(named) not in figures:
        raise unknown(str(named), [*figures], "published figure")
    return {
        **preset,
        "recipe": recipe,
        "results": results,
        "published": None if named is None else figures[str(named)],
    }


def load(name: str, weights: bool = True, content: Path | str | None = None) -> "keras.Model":
    """Load a model as an ordinary Keras model, not compiled.

        model = snukeras.zoo.load("jsb_snu")
        model = snukeras.zoo.load("hf://owner/name")      # of a hub, by huggingface_hub

    No network is needed for the names of `list()`: the weights ship with the package. Each file is
    checked by sha256 before it is read. Of a hub only what `snukeras-zoo publish --hub` writes is
    read, and no code of it is run.

    Args:
        name: One of `list()`; or "hf://owner/name", or "hf://owner/name@revision".
        weights: False gives the architecture with fresh weights.
        content: Folder of presets. Default: the one that ships with the package.

    Raises:
        ValueError: No such preset (the message lists those that exist), a file that is not the
            one that preset.json pins, or a repository of a hub that holds no such model.
        ImportError: huggingface_hub is not installed.
        ConnectionError: The hub does not answer.
    """
    if name.startswith(hub.SCHEME):
        place = hub.fetch(name, (CONFIG, WEIGHTS) if weights else (CONFIG,), PRESET)
        preset = _read_file(place / PRESET)
        hub.check_config(_checked(place, preset, CONFIG, hub.REMEDY))
        return _load(place, preset, weights, hub.REMEDY)
    folder = content_folder(content)
    return _load(folder / name, _read(folder, name), weights)


def _load(place: Path, preset: Preset, weights: bool, remedy: str = REMEDY) -> "keras.Model":
    """Load the model of a folder with a preset."""
    import keras

    # The names in config.json are found only when the classes behind them are registered.
    import snukeras.layers  # noqa: F401

    path = _checked(place, preset, CONFIG, remedy)
    try:
        model = keras.models.model_from_json(path.read_text("utf-8"))
    except Exception as error:  # Keras raises whatever its parts raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(f"{path} is not the config of a Keras model: {reason}") from error
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"{path} has to hold the config of a Keras model. Received: {type(model).__name__}"
        )
    if weights:
        model.load_weights(_checked(place, preset, WEIGHTS, remedy))
    return model


def golden(name: str, content: Path | str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the golden input and output of a preset, float32 arrays with a batch axis."""
    path = checked(name, GOLDEN, content)
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not an .npz file. Install snukeras again.")
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["input"], arrays["output"]


def checked(name: str, file: str, content: Path | str | None = None) -> Path:
    """Return the path of one of a preset's files, `PINNED`, after comparing its sha256."""
    folder = content_folder(content)
    return _checked(folder / name, _read(folder, name), file)


def verify(name: str, content: Path | str | None = None) -> float:
    """Check a preset: its files by sha256, and its output for the golden input.

    Returns:
        The largest difference from the golden output.

    Raises:
        ValueError: A file differs, the model does not load, or the output is off by more than
            `GOLDEN_TOLERANCE`.
    """
    given, expected = golden(name, content)
    model = load(name, content=content)
    parameters = _read(content_folder(content), name)["parameters"]
    if model.count_params() != parameters:
        raise ValueError(
            f"{name} has {model.count_params()} parameters; {PRESET} says {parameters}."
        )
    output = model.predict(given, verbose=0)
    if output.shape != expected.shape:
        raise ValueError(f"{name} gives shape {output.shape} instead of {expected.shape}.")
    difference = float(np.abs(output - expected).max())
    if not difference <= GOLDEN_TOLERANCE:
        raise ValueError(
            f"{name} misses its golden output by {difference:.3g}; allowed is {GOLDEN_TOLERANCE}."
        )
    return difference


def _read(folder: Path, name: str) -> Preset:
    """Read and check preset.json of a model."""
    known = _names(folder)
    if name not in known:
        raise unknown(name, known, "pretrained model")
    path = folder / name / PRESET
    preset = _read_file(path)
    if preset["name"] != name:
        raise ValueError(f"{path}: `name` must be {name!r}. Received: {preset['name']!r}")
    return preset


def _read_file(path: Path) -> Preset:
    """Read and check a preset.json."""
    preset = _files.read_json(path)
    if preset.get("format") != FORMAT:
        raise ValueError(
            f"{path} has format {preset.get('format')!r}; this version of snukeras reads "
            f"{FORMAT}. Upgrade snukeras."
        )
    _files.check_type(preset, Preset, path)
    missing = set(PINNED) - set(preset["files"])
    if missing:
        raise ValueError(f"{path}: `files` has to hold {', '.join(sorted(missing))} too.")
    return cast(Preset, preset)


def _read_results(path: Path) -> Results | None:
    """Read the results of a model, and check what cards and commands use; None without a file.

    Raises:
        ValueError: An entry is missing or of another type.
    """
    if not path.is_file():
        return None
    results = _files.read_json(path)
    _files.check_type(results, Results, path)
    _files.check_type(results["seeds"], builtins.list[OfSeed], f"{path}: `seeds`")
    _files.check_type(results["recipe"], OfRecipe, f"{path}: `recipe`")
    if not results["seeds"]:
        raise ValueError(f"{path}: `seeds` has to hold a seed. Received: []")
    return cast(Results, results)


def _checked(place: Path, preset: Preset, file: str, remedy: str = REMEDY) -> Path:
    """Return the path of a preset's file after checking that it is the one that was shipped.

    Args:
        place: The folder of the preset.
        preset: Its preset.json.
        file: Name of the file.
        remedy: What to do where it is another.
    """
    path = place / file
    pinned = preset["files"][file]
    if not path.is_file():
        raise ValueError(f"{path} is missing. {remedy}")
    size = path.stat().st_size
    if size != pinned["bytes"]:
        raise ValueError(f"{path} has {size} bytes instead of {pinned['bytes']}. {remedy}")
    sha256 = _files.sha256_of(path)
    if sha256 != pinned["sha256"]:
        raise ValueError(f"{path} has sha256 {sha256} instead of {pinned['sha256']}. {remedy}")
    return path
