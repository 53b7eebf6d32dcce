"""The sample chorales."""

import json
import shutil

import numpy as np
import pytest

from snukeras.datasets import jsb_chorales, piano_roll
from snukeras.zoo import presets, samples


def test_read():
    names, rolls = samples.read()
    assert len(names) == len(set(names)) == len(rolls) == 8
    for name, roll in zip(names, rolls, strict=True):
        assert name.startswith("BWV ")
        assert roll.dtype == np.uint8 and roll.shape[1] == 88 and 30 <= len(roll) <= 50
        notes = roll.sum(axis=1)
        # Four voices, of which two may meet.
        assert notes.min() >= 3 and notes.max() == 4
    piano_roll.pad(rolls)


def test_known_beginning():
    """BWV 153.9 begins with a chord of C major and its bass on C3."""
    names, rolls = samples.read()
    first = np.nonzero(rolls[names.index("BWV 153.9")][0])[0] + piano_roll.LOWEST_MIDI
    assert set(first % 12) == {0, 4, 7}


def test_description():
    description = json.loads(
        (presets.content_folder() / "samples" / samples.DESCRIPTION).read_text("utf-8")
    )
    names, rolls = samples.read()
    assert [chorale["name"] for chorale in description["chorales"]] == names
    assert [chorale["steps"] for chorale in description["chorales"]] == [len(r) for r in rolls]
    assert all(chorale["title"] and chorale["key"] for chorale in description["chorales"])
    assert "public domain" in description["licence"]


def test_altered_file(tmp_path):
    folder = shutil.copytree(presets.content_folder() / "samples", tmp_path / "samples")
    content = bytearray((folder / samples.ROLLS).read_bytes())
    content[100] ^= 1
    (folder / samples.ROLLS).write_bytes(content)
    with pytest.raises(ValueError, match=r"chorales\.npz has sha256"):
        samples.read(folder)


def test_made_again_from_the_scores(tmp_path):
    pytest.importorskip("music21")
    samples.make(tmp_path)
    names, rolls = samples.read(tmp_path)
    shipped_names, shipped_rolls = samples.read()
    assert names == shipped_names
    for made, shipped in zip(rolls, shipped_rolls, strict=True):
        np.testing.assert_array_equal(made, shipped)


@pytest.mark.slow
def test_none_is_in_the_data_set(data_folder):
    """Compared in all keys and shifted by up to a measure, no two pieces agree in half a song."""
    _, rolls = samples.read()
    for song in [song for split in jsb_chorales.load_data() for song in split]:
        for key in range(-6, 7):
            moved = np.roll(song, key, axis=1)
            for roll in rolls:
                for shift in range(-4, 5):
                    a, b = roll[max(0, shift) :], moved[max(0, -shift) :]
                    steps = min(len(a), len(b))
                    assert (a[:steps] == b[:steps]).all(axis=1).sum() < 0.5 * len(roll)
