"""Sample input of the zoo: eight short chorales by Bach as piano rolls.

`read` returns them. `python -m snukeras.zoo.samples FOLDER` makes the files anew from the scores
in the package music21, which is needed for nothing else.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from numpy.typing import NDArray

from snukeras import _files
from snukeras.datasets import piano_roll
from snukeras.zoo import presets

if TYPE_CHECKING:
    from music21.stream import Score

FOLDER = "samples"
ROLLS = "chorales.npz"
DESCRIPTION = "chorales.json"

# (score in music21's corpus, BWV number, melody, key, semitones up to C). They are transposed as
# the data set is, and none of them is in it, in any key.
_CHORALES = (
    ("bach/bwv3.6.mxl", "BWV 3.6", "Ach Gott, wie manches Herzeleid", "A major", 3),
    ("bach/bwv6.6.mxl", "BWV 6.6", "Erhalt uns, Herr, bei deinem Wort", "G minor", 5),
    ("bach/bwv153.9.mxl", "BWV 153.9", "Ach Gott, wie manches Herzeleid", "C major", 0),
    ("bach/bwv165.6.mxl", "BWV 165.6", "Nun lasst uns Gott dem Herren", "G major", 5),
    ("bach/bwv244.3.mxl", "BWV 244.3", "Herzliebster Jesu, was hast du verbrochen", "B minor", 1),
    ("bach/bwv245.3.mxl", "BWV 245.3", "Herzliebster Jesu, was hast du verbrochen", "G minor", 5),
    ("bach/bwv274.mxl", "BWV 274", "Christe, der du bist Tag und Licht", "G minor", 5),
    ("bach/bwv332.mxl", "BWV 332", "Herr Jesu Christ, dich zu uns wend", "G major", 5),
)
_LICENCE = (
    "Johann Sebastian Bach's chorales are in the public domain. The piano rolls hold nothing but "
    "the pitches sounding on each quarter note, read from the scores of the corpus of music21 "
    "(BSD 3-clause); most of these were encoded by Margaret Greentree and are in the corpus by "
    "her permission."
)


class Chorale(TypedDict):
    """What is used of the description of a chorale."""

    name: str
    title: str


class Description(TypedDict):
    """What is used of chorales.json."""

    sha256: str
    chorales: list[Chorale]


def read(folder: Path | str | None = None) -> tuple[list[str], list[piano_roll.Roll]]:
    """Return the names of the sample chorales and their piano rolls.

    Args:
        folder: Where chorales.npz and chorales.json are. Default: those of the package.

    Returns:
        `(names, rolls)`: BWV numbers and uint8 arrays `(T, 88)`, a step a quarter note.

    Raises:
        ValueError: chorales.npz is not the one that chorales.json describes.
    """
    folder = presets.content_folder() / FOLDER if folder is None else Path(folder)
    description = _files.read_json(folder / DESCRIPTION)
    _files.check_type(description, Description, folder / DESCRIPTION)
    sha256 = _files.sha256_of(folder / ROLLS)
    if sha256 != description["sha256"]:
        raise ValueError(
            f"{folder / ROLLS} has sha256 {sha256} instead of {description['sha256']}. "
            "Install snukeras again."
        )
    names = [chorale["name"] for chorale in description["chorales"]]
    with np.load(folder / ROLLS, allow_pickle=False) as arrays:
        return names, [arrays[name] for name in names]


def titles() -> list[str]:
    """Return number and melody of each sample chorale: "BWV 153.9, Ach Gott, wie manches ..."."""
    path = presets.content_folder() / FOLDER / DESCRIPTION
    description = _files.read_json(path)
    _files.check_type(description, Description, path)
    return [f"{chorale['name']}, {chorale['title']}" for chorale in description["chorales"]]


def make(folder: Path | str) -> None:
    """Write chorales.npz and chorales.json from the scores in music21's corpus.

    Raises:
        ImportError: music21 is not installed.
    """
    try:
        import music21
    except ImportError as error:
        raise ImportError(
            "The sample chorales are made from scores in music21: pip install music21."
        ) from error

    rolls: dict[str, np.ndarray] = {}
    chorales = []
    for score, name, title, key, semitones in _CHORALES:
        rolls[name] = _roll(music21.corpus.parse(score), semitones)
        chorales.append(
            {
                "name": name,
                "title": title,
                "key": key,
                "transposed_by": semitones,
                "steps": len(rolls[name]),
                "score": score,
            }
        )
    folder = Path(folder)
    with _files.replacing(folder / ROLLS) as temporary:
        _files.write_arrays(temporary, rolls, compress=True)
    _files.write_json(
        folder / DESCRIPTION,
        {
            "description": "Chorales by J. S. Bach as piano rolls: uint8 (T, 88), key k is MIDI "
            "note k + 21, a step a quarter note, the notes sounding at its beginning. Transposed "
            "to C (transposed_by: semitones) as the JSB chorales data set is.",
            "licence": _LICENCE,
            "source": f"music21 {music21.__version__}",
            "made_by": "python -m snukeras.zoo.samples FOLDER",
            "sha256": _files.sha256_of(folder / ROLLS),
            "chorales": chorales,
        },
    )


def _roll(score: "Score", semitones: int) -> NDArray[np.uint8]:
    """Sample a music21 score at each quarter note."""
    sounding: set[tuple[int, int]] = set()
    for part in score.parts:
        for note in part.flatten().notes:
            start = float(note.offset)
            end = start + float(note.quarterLength)
            for step in range(int(np.ceil(start)), int(np.ceil(end))):
                for pitch in note.pitches:
                    sounding.add((step, pitch.midi + semitones - piano_roll.LOWEST_MIDI))
    roll = np.zeros((max(step for step, _ in sounding) + 1, piano_roll.KEYS), np.uint8)
    for step, key in sounding:
        roll[step, key] = 1
    return roll


if __name__ == "__main__":
    make(sys.argv[1] if len(sys.argv) > 1 else presets.content_folder() / FOLDER)
