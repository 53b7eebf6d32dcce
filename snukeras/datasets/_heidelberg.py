"""The Heidelberg spiking data sets: their files, their layout, and their checksums."""

import gzip
import hashlib
import os
import shutil
import tempfile
import urllib.error
import urllib.request
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from snukeras import _arguments
from snukeras.datasets._fetch import VARIABLE, Source, cache_folder, fetch

if TYPE_CHECKING:
    import h5py

CHANNELS = 700
SUMS = "md5sums.txt"
_FOLDER = "https://zenkelab.org/datasets/"
_TIMEOUT_S = 60.0
_LAYOUT = "spikes/times, spikes/units and labels"


class Events(NamedTuple):
    """Spike trains of recordings.

    Attributes:
        times: When a channel spikes, in seconds; a float32 array `(spikes,)` for each recording.
        units: Which channel it is, 0 to 699; a uint16 array `(spikes,)` for each recording.
        labels: What is said, uint8 `(n,)`.
        speakers: Who says it, int32 `(n,)`; -1 where the file does not tell.
        words: What the labels are, in their order.
    """

    times: list[NDArray[np.float32]]
    units: list[NDArray[np.uint16]]
    labels: NDArray[np.uint8]
    speakers: NDArray[np.int32]
    words: list[str]

    def where(self, chosen: NDArray[np.bool_]) -> "Events":
        """Return the recordings for which `chosen`, bool `(n,)`, is true."""
        kept = np.flatnonzero(chosen)
        return Events(
            [self.times[index] for index in kept],
            [self.units[index] for index in kept],
            self.labels[chosen],
            self.speakers[chosen],
            self.words,
        )

    def raster(self, step: float = 0.01, steps: int = 100, group: int = 1) -> NDArray[np.float32]:
        """Return the spikes on a grid: 1 where a channel spikes within a step, else 0.

        Args:
            step: Length of a step in seconds.
            steps: Number of steps; spikes after the last one are left out.
            group: Channels that are joined to one, side by side; 5 makes 140 of the 700.

        Returns:
            float32 `(n, steps, ceil(700 / group))`.

        Raises:
            ValueError: A number out of its range.
        """
        step = _arguments.number("step", step, above=0.0)
        steps = _arguments.whole("steps", steps)
        if _arguments.whole("group", group) > CHANNELS:
            raise ValueError(
                f"Argument `group` must be at most {CHANNELS}, all channels. "
                f"Received: group={group!r}"
            )
        grid = np.zeros((len(self.times), steps, -(-CHANNELS // group)), np.float32)
        for row, times, units in zip(grid, self.times, self.units, strict=True):
            at = np.floor(times.astype(np.float64) / step)
            kept = at < steps
            row[at[kept].astype(np.int64), units[kept] // group] = 1
        return grid


class Splits(NamedTuple):
    """The splits of a data set."""

    train: Events
    valid: Events
    test: Events


def source(name: str) -> Source:
    """Describe one of the files."""

    def check(path: Path) -> None:
        if wrong := _wrong(path, name, _published(name)):
            raise ValueError(
                f"What {_FOLDER}{name} sent is not {name}: {wrong}. Try again, or put the right "
                f"file at {cache_folder() / name}."
            )

    return Source(name, _FOLDER + name, None, "", check, f"md5 as in {_FOLDER}{SUMS}")


def read(file: Source, path: str | os.PathLike[str] | None) -> Events:
    """Find, check and read one of the files.

    A file in a folder of the user's is compared with the md5sums.txt beside it, if there is one.

    Raises:
        FileNotFoundError, ValueError, ConnectionError: As `fetch`; also where the file does not
            have the data set's layout.
    """
    found = fetch(file, path)
    sums = found.parent / SUMS
    if sums.is_file() and (wrong := _wrong(found, file.name, sums.read_text("utf-8", "replace"))):
        raise ValueError(f"{found} is not {file.name}: {wrong}. Fetch it again from {file.url}.")
    try:
        # HDF5 jumps about in a file, and gzip cannot.
        with gzip.open(found) as packed, tempfile.TemporaryFile() as plain:
            shutil.copyfileobj(packed, plain, 1 << 20)
            return _events(plain)
    except (OSError, EOFError, zlib.error, KeyError, ValueError) as error:
        raise ValueError(
            f"{found} is not {file.name}: it cannot be read ({error}). It has to hold {_LAYOUT} "
            f"as HDF5, packed by gzip. Fetch it again from {file.url}."
        ) from error


def check_path(path: str | os.PathLike[str] | None, sources: tuple[Source, ...]) -> None:
    """Refuse a `path` that is no folder."""
    if path is not None and not Path(path).expanduser().is_dir():
        raise FileNotFoundError(
            f"Argument `path` must be a folder that holds {', '.join(s.name for s in sources)}. "
            f"Received: {path}"
        )


def _events(plain: IO[bytes]) -> Events:
    import h5py

    with h5py.File(plain, "r") as file:
        times = [np.asarray(one, np.float32) for one in _dataset(file, "spikes/times")]
        units = [np.asarray(one) for one in _dataset(file, "spikes/units")]
        extra = file.get("extra", {})
        words = _words(_dataset(file, "extra/keys")) if "keys" in extra else []
        labels = _row("labels", _dataset(file, "labels"))
        if not _are_whole(labels, count := len(words) or 256):
            raise ValueError(f"labels must be whole numbers from 0 to {count - 1}")
        speakers = np.full(len(labels), -1, np.int32)
        if "speaker" in extra:
            speakers = _row("extra/speaker", _dataset(file, "extra/speaker")).astype(np.int32)
    if len(labels) == 0:
        raise ValueError("it holds no recordings")
    if not len(times) == len(units) == len(labels) == len(speakers):
        raise ValueError(
            f"{len(times)} times, {len(units)} units, {len(labels)} labels and {len(speakers)} "
            "speakers do not belong together"
        )
    for index, (at, unit) in enumerate(zip(times, units, strict=True)):
        good = at.ndim == 1 and at.shape == unit.shape and _are_whole(unit, CHANNELS)
        if not good or not np.all(np.isfinite(at) & (at >= 0)):
            raise ValueError(f"recording {index} is not spikes of {CHANNELS} channels")
    units = [unit.astype(np.uint16) for unit in units]
    return Events(times, units, labels.astype(np.uint8), speakers, words)


def _dataset(file: "h5py.File", name: str) -> NDArray:
    found = file[name]
    if not getattr(found, "shape", None):
        raise ValueError(f"{name} must be an array (n, ...). Received: {found}")
    return np.asarray(found[()])


def _are_whole(values: NDArray, count: int) -> bool:
    """Return whether all values are whole numbers from 0 to below `count`."""
    if values.dtype.kind not in "uif":
        return False
    return bool(np.all((values >= 0) & (values < count) & (np.floor(values) == values)))


def _row(name: str, values: NDArray) -> NDArray:
    """Return an array that has a value for each recording."""
    if values.ndim != 1:
        raise ValueError(f"{name} must be an array (n,). Received: one of shape {values.shape}")
    return values


def _words(values: NDArray) -> list[str]:
    if values.ndim != 1 or not all(isinstance(value, bytes) for value in values):
        raise ValueError("extra/keys must be words")
    return [value.decode() for value in values]


def _wrong(path: Path, name: str, sums: str) -> str | None:
    """Say how a file differs from the published checksum, None where it is the one."""
    lines = [line.split() for line in sums.splitlines()]
    known = {parts[-1].lstrip("*"): parts[0].lower() for parts in lines if len(parts) == 2}
    if name not in known:
        return f"{SUMS} has no line for it, so fetch {_FOLDER}{SUMS} anew, or delete it"
    with open(path, "rb") as stream:
        # A checksum that the authors published, against damage; it need not resist an attack.
        md5 = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return None if md5 == known[name] else f"md5 {md5} instead of {known[name]}"


def _published(name: str) -> str:
    """Return the text of the published checksums, and keep it beside the downloads."""
    url = _FOLDER + SUMS
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as stream:
            text: str = stream.read(1 << 20).decode("utf-8", "replace")
    except (OSError, urllib.error.URLError) as error:
        raise ConnectionError(
            f"{name} could not be checked: {url} could not be downloaded ({error}). Fetch both on "
            f"another machine and put them into a folder that the environment variable {VARIABLE} "
            "names."
        ) from error
    folder = cache_folder()
    with tempfile.NamedTemporaryFile("w", dir=folder, delete=False, encoding="utf-8") as out:
        out.write(text)
    os.replace(out.name, folder / SUMS)
    return text
