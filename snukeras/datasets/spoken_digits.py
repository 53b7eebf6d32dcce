"""Free Spoken Digit Dataset: 3,000 recordings of the digits 0 to 9 by six speakers."""

import errno
import hashlib
import io
import lzma
import os
import re
import wave
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from snukeras import _arguments
from snukeras.datasets._fetch import Source, fetch

RATE = 8000
"""Samples a second."""
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
# Over all recordings in the order of their names: name, a zero byte, sha256 digest of the file.
CONTENTS_SHA256 = "a2e8a660492f28d9eed6270b290d26cbc5c81d6077ce87d3c0ad5adf4d4ee696"

_COMMIT = "26eb9aaf76e81b692f806f9140c2d2777410d7a1"
_NAME = re.compile(r"(?P<digit>[0-9])_(?P<speaker>[A-Za-z]+)_(?P<index>[0-9]+)\.wav")
_LAYOUT = "recordings named {digit}_{speaker}_{index}.wav"
_LAST_INDEX = 2**31 - 1
# What the module zipfile raises for damaged files; RuntimeError for those with a password.
_DAMAGE = (
    zipfile.BadZipFile,
    EOFError,
    lzma.LZMAError,
    zlib.error,
    NotImplementedError,
    RuntimeError,
)
_TEST_INDICES, _VALID_INDICES = range(5), range(5, 10)

Wave = NDArray[np.float32]


class Recordings(NamedTuple):
    """Recordings in the order of their names.

    Attributes:
        waves: float32 arrays `(samples,)` in [-1, 1), 8,000 samples a second.
        digits: What is said, uint8 `(n,)`.
        speakers: Who says it, str `(n,)`.
        indices: Which of the speaker's recordings of the digit it is, int32 `(n,)`.
    """

    waves: list[Wave]
    digits: NDArray[np.uint8]
    speakers: NDArray[np.str_]
    indices: NDArray[np.int32]

    def where(self, chosen: NDArray[np.bool_]) -> "Recordings":
        """Return the recordings for which `chosen`, bool `(n,)`, is true."""
        waves = [wave for wave, keep in zip(self.waves, chosen, strict=True) if keep]
        return Recordings(waves, self.digits[chosen], self.speakers[chosen], self.indices[chosen])


class Splits(NamedTuple):
    """The splits of a protocol."""

    train: Recordings
    valid: Recordings
    test: Recordings


def load_data(path: str | os.PathLike[str] | None = None, held_out: str | None = None) -> Splits:
    """Load the recordings, split by one of two protocols.

    - Official (default): recordings 0 to 4 of each speaker and digit are the test, as the data
      set's authors have it, 5 to 9 the validation, the other 40 the training: 2,400, 300 and 300
      recordings. Every speaker is in every split.
    - Speaker held out (`held_out="theo"`): all 500 recordings of this speaker are the test, those
      of the next speaker of `SPEAKERS`, in a circle, the validation, and the 2,000 of the other
      four the training. The six folds together test every recording once, by a network that never
      heard its speaker.

    The first call downloads 17 MB (see `snukeras.datasets` for the cache, SNUKERAS_DATA and work
    without network). The data are under CC BY-SA 4.0 (Zohar Jackson and others). The sha256
    of the recordings is checked, whatever their packing.

    Args:
        path: The file free-spoken-digit-dataset.zip, or a folder that holds it. Default: see
            above.
        held_out: One of `SPEAKERS`, or None for the official split.

    Returns:
        `(train, valid, test)`, each `Recordings`.

    Raises:
        FileNotFoundError, ValueError, ConnectionError: The file is missing, does not hold these
            recordings, or cannot be downloaded; or there is no such speaker. The message says
            what to do.
    """
    if held_out is not None and held_out not in SPEAKERS:
        raise ValueError(
            f"Argument `held_out` must be None or one of {', '.join(SPEAKERS)}. "
            f"Received: held_out={held_out!r}"
        )
    recordings = _verified(fetch(SOURCE, path))
    if held_out is None:
        test = np.isin(recordings.indices, _TEST_INDICES)
        valid = np.isin(recordings.indices, _VALID_INDICES)
    else:
        following = SPEAKERS[(SPEAKERS.index(held_out) + 1) % len(SPEAKERS)]
        test = recordings.speakers == held_out
        valid = recordings.speakers == following
    return Splits(*(recordings.where(chosen) for chosen in (~(test | valid), valid, test)))


def read(path: str | os.PathLike[str]) -> Recordings:
    """Read recordings `{digit}_{speaker}_{index}.wav` from a zip file or a folder.

    Recordings of your own in this layout can be read as well; folders inside are searched too, but
    for files whose names begin with a dot.

    Args:
        path: The zip file or folder.

    Raises:
        FileNotFoundError: Nothing is at `path`.
        ValueError: There are no such recordings, or other wav files among them, or two of one name;
            or one of them is not mono of 16 bits and 8,000 samples a second, or has no samples. The
            message names it and says what to do.
    """
    return _parse(list(_files(Path(path).expanduser())))


def read_wave(file: str | os.PathLike[str] | BinaryIO, name: str | None = None) -> Wave:
    """Read one wav file: mono, 16 bits, 8,000 samples a second.

    Args:
        file: Its path, or the open file.
        name: What messages call it. Default: its path.

    Returns:
        float32 array `(samples,)` in [-1, 1).

    Raises:
        FileNotFoundError: Nothing is at the path.
        ValueError: The file is not such a wav file, is cut short, or has no samples; the message
            says what to do.
    """
    name = name or str(file)
    if isinstance(file, str | os.PathLike) and Path(file).is_dir():
        raise ValueError(
            f"{name} is a folder. Give one wav file, or read the folder by spoken_digits.read."
        )
    try:
        with wave.open(os.fspath(file) if isinstance(file, str | os.PathLike) else file) as opened:
            found = (opened.getframerate(), opened.getnchannels(), 8 * opened.getsampwidth())
            announced = opened.getnframes()
            content = opened.readframes(announced)
    except (wave.Error, EOFError, RuntimeError) as error:
        # RuntimeError is what wave raises for parts that reach beyond the file.
        ends = isinstance(error, EOFError)
        why = str(error) or ("it ends too early" if ends else "it is damaged")
        raise ValueError(
            f"{name} cannot be read as a wav file ({why}). Convert it to mono PCM of 16 bits at "
            f"{RATE} Hz: sox INPUT -r {RATE} -c 1 -b 16 OUTPUT.wav"
        ) from error
    if found != (RATE, 1, 16):
        rate, channels, bits = found
        raise ValueError(
            f"{name} must have {RATE} samples a second, one channel and 16 bits. Received: "
            f"{rate} Hz, {channels} channel{'s' if channels != 1 else ''}, {bits} bits. "
            f"Convert it: sox INPUT -r {RATE} -c 1 -b 16 OUTPUT.wav"
        )
    if not content:
        raise ValueError(
            f"{name} has no samples. Record it again, or leave it out: a network needs at least "
            "one frame of sound."
        )
    if len(content) != 2 * announced:
        raise ValueError(
            f"{name} is cut short: it announces {announced:,} samples and holds "
            f"{len(content) // 2:,}. Fetch or record it again; to keep what there is: "
            "sox --ignore-length INPUT OUTPUT.wav"
        )
    return np.frombuffer(content, "<i2").astype(np.float32) / np.float32(32768)


def pad(waves: Sequence[Wave], samples: int | None = None) -> NDArray[np.float32]:
    """Put recordings into one batch: silence after the short ones, long ones cut.

    Args:
        waves: Arrays `(samples,)`.
        samples: Length of the batch. Default: that of the longest recording.

    Returns:
        float32 `(n, samples)`.

    Raises:
        ValueError: No recordings, or one of another shape, or none that has a sample, or `samples`
            is no integer of at least 1.
    """
    if len(waves) == 0:
        raise ValueError("Argument `waves` must hold at least one recording. Received: none")
    for index, one in enumerate(waves):
        if np.ndim(one) != 1:
            raise ValueError(
                "Argument `waves` must hold arrays (samples,). "
                f"Received: waves[{index}] of shape {np.shape(one)}"
            )
    longest = max(len(one) for one in waves)
    if longest == 0:
        raise ValueError("Argument `waves` must hold sound. Received: recordings of length 0")
    samples = longest if samples is None else _arguments.whole("samples", samples)
    batch = np.zeros((len(waves), samples), np.float32)
    for row, one in zip(batch, waves, strict=True):
        row[: len(one)] = one[:samples]
    return batch


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each recording, in the order of the names."""
    if path.is_dir():
        inside = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
        for name, whole in _recordings(inside, path):
            yield name, (path / whole).read_bytes()
        return
    if not path.is_file():
        raise FileNotFoundError(f"{path} is neither a zip file nor a folder of {_LAYOUT}.")
    try:
        with zipfile.ZipFile(path) as opened:
            for name, whole in _recordings(opened.namelist(), path):
                yield name, opened.read(whole)
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # of the disk, not of the zip file
        raise ValueError(
            f"{path} is not a zip file that can be read ({error}). Fetch it again from "
            f"{SOURCE.url}, or give a folder of {_LAYOUT}."
        ) from error


def _recordings(files: Sequence[str], path: Path) -> list[tuple[str, str]]:
    """Return name and place of the recordings among the files of a zip or folder, by name."""
    places: dict[str, list[str]] = {}
    for whole in sorted(files):
        name = whole.rsplit("/", 1)[-1]
        if name.lower().endswith(".wav") and not name.startswith("."):
            places.setdefault(name, []).append(whole)
    odd = [name for name in sorted(places) if not _NAME.fullmatch(name)]
    if len(odd) == len(places):
        raise ValueError(
            f"{path} holds no {_LAYOUT}. Take {SOURCE.name} from {SOURCE.url}, or name your own "
            "recordings so, such as 7_anna_0.wav."
        )
    if odd:
        more = f" and {len(odd) - 3} more" if len(odd) > 3 else ""
        raise ValueError(
            f"{', '.join(odd[:3])}{more} in {path} must be named "
            "{digit}_{speaker}_{index}.wav, the speaker in letters from a to z. Rename them, such "
            "as 7_anna_0.wav, or move them elsewhere."
        )
    for name, same in places.items():
        if len(same) > 1:
            raise ValueError(
                f"{path} holds two recordings named {name}: {same[0]} and {same[1]}. Rename one, "
                "or read their folders one by one."
            )
        if int(name[:-4].rsplit("_", 1)[-1]) > _LAST_INDEX:
            raise ValueError(
                f"Recordings must have an index of at most {_LAST_INDEX:,}. Received: {name} in "
                f"{path}; rename it."
            )
    return [(name, same[0]) for name, same in sorted(places.items())]


def _parse(files: Sequence[tuple[str, bytes]]) -> Recordings:
    parts = [match.groupdict() for name, _ in files if (match := _NAME.fullmatch(name))]
    return Recordings(
        [read_wave(io.BytesIO(content), name) for name, content in files],
        np.array([part["digit"] for part in parts]).astype(np.uint8),
        np.array([part["speaker"] for part in parts]),
        np.array([part["index"] for part in parts]).astype(np.int32),
    )


def _verified(path: Path) -> Recordings:
    """Read the data set itself; refuse other recordings."""
    try:
        files = list(_files(path))
        recordings = _parse(files)
    except ValueError as error:
        raise ValueError(f"{path} is not {SOURCE.name}: {error}") from error
    digest = hashlib.sha256()
    for name, content in files:
        digest.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    if digest.hexdigest() != CONTENTS_SHA256:
        raise ValueError(
            f"{path} is not {SOURCE.name}: its {len(files):,} recordings have sha256 "
            f"{digest.hexdigest()} instead of {CONTENTS_SHA256}. Fetch it again from "
            f"{SOURCE.url}, or read recordings of your own by spoken_digits.read."
        )
    return recordings


def _check(path: Path) -> None:
    _verified(path)


SOURCE = Source(
    name="free-spoken-digit-dataset.zip",
    url=f"https://github.com/Jakobovski/free-spoken-digit-dataset/archive/{_COMMIT}.zip",
    size=16_620_507,
    sha256=CONTENTS_SHA256,
    check=_check,
    checksum=f"sha256 of its recordings {CONTENTS_SHA256}",
)
