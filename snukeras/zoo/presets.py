"""Presets: list, describe, load and check the models that ship with the package.

A preset is a folder `zoo/NAME` of data: preset.json, config.json (the Keras model), its
model.weights.h5 and golden.npz, the latter an input and the output that belongs to it. preset.json
pins size and sha256 of the other three. zoo/README.md specifies all of it.
"""

import builtins
import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from snukeras import _content, _files
from snukeras.zoo import published

if TYPE_CHECKING:
    import keras

FORMAT = 1
PRESET = "preset.json"
RECIPE = "recipe.json"
CONFIG = "config.json"
WEIGHTS = "model.weights.h5"
GOLDEN = "golden.npz"
RESULTS = "results"

# float32 sums in another order differ by some 1e-6; a wrong weight or equation by far more.
GOLDEN_TOLERANCE = 1e-4


def content_folder(content: Path | str | None = None) -> Path:
    """Return the folder of the zoo's content: the given one, or that of the package."""
    return _content.folder("zoo") if content is None else Path(content)


def list(content: Path | str | None = None) -> builtins.list[str]:
    """Return the names of all pretrained models.

    Args:
        content: Folder of presets. Default: the one that ships with the package.
    """
    return sorted(path.parent.name for path in content_folder(content).glob(f"*/{PRESET}"))


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


def info(name: str, content: Path | str | None = None) -> dict[str, Any]:
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
    for key, path in (
        ("recipe", folder / name / RECIPE),
        ("results", folder / RESULTS / f"{name}.json"),
    ):
        preset[key] = _files.read_json(path) if path.is_file() else None
    named = (preset["recipe"] or {}).get("published")
    preset["published"] = None if named is None else published.read(folder)[named]
    return preset


def load(name: str, weights: bool = True, content: Path | str | None = None) -> "keras.Model":
    """Load a model as an ordinary Keras model, not compiled.

    No network is needed: the weights ship with the package. Each file is checked by sha256 before
    it is read.

    Args:
        name: One of `list()`.
        weights: False gives the architecture with fresh weights.
        content: Folder of presets. Default: the one that ships with the package.

    Raises:
        ValueError: No such preset (the message lists those that exist), or a file that is not the
            one that preset.json pins.
    """
    import keras

    # The names in config.json are found only when the classes behind them are registered.
    import snukeras.layers  # noqa: F401

    folder = content_folder(content)
    preset = _read(folder, name)
    config = _checked(folder, preset, CONFIG).read_text("utf-8")
    model = keras.models.model_from_json(config)
    if weights:
        model.load_weights(_checked(folder, preset, WEIGHTS))
    return model


def golden(name: str, content: Path | str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the golden input and output of a preset, float32 arrays with a batch axis."""
    folder = content_folder(content)
    with np.load(_checked(folder, _read(folder, name), GOLDEN), allow_pickle=False) as arrays:
        return arrays["input"], arrays["output"]


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


def _read(folder: Path, name: str) -> dict[str, Any]:
    known = list(folder)
    if name not in known:
        raise unknown(name, known, "pretrained model")
    path = folder / name / PRESET
    preset = _files.read_json(path)
    if preset.get("format") != FORMAT:
        raise ValueError(
            f"{path} has format {preset.get('format')!r}; this version of snukeras reads "
            f"{FORMAT}. Upgrade snukeras."
        )
    return preset


def _checked(folder: Path, preset: dict[str, Any], file: str) -> Path:
    """Return the path of a preset's file after checking that it is the one that was shipped."""
    path = folder / preset["name"] / file
    pinned = preset["files"][file]
    if not path.is_file():
        raise ValueError(f"{path} is missing. Install snukeras again.")
    size = path.stat().st_size
    if size != pinned["bytes"]:
        raise ValueError(
            f"{path} has {size} bytes instead of {pinned['bytes']}. Install snukeras again."
        )
    sha256 = _files.sha256_of(path)
    if sha256 != pinned["sha256"]:
        raise ValueError(
            f"{path} has sha256 {sha256} instead of {pinned['sha256']}. Install snukeras again."
        )
    return path
