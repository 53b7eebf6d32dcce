"""Piano rolls: the real files, what is refused in others, and padding."""

import numpy as np
import pytest
import scipy.io

from snukeras.datasets import jsb_chorales, nottingham, piano_roll


@pytest.mark.parametrize(
    ("dataset", "songs", "training_steps"),
    [(jsb_chorales, (229, 76, 77), 13_807), (nottingham, (694, 173, 170), 176_561)],
)
def test_real_files(data_folder, dataset, songs, training_steps):
    splits = dataset.load_data()
    assert tuple(len(split) for split in splits) == songs
    assert sum(len(song) for song in splits[0]) == training_steps
    for song in splits[0] + splits[1] + splits[2]:
        assert song.dtype == np.uint8 and song.shape[1] == 88 and song.max() == 1


def test_chorales_are_chorales(data_folder):
    train, valid, test = jsb_chorales.load_data()
    assert [sum(len(song) for song in split) for split in (valid, test)] == [4_602, 4_725]
    frames = np.concatenate(train)
    assert round(frames.sum() / len(frames), 2) == 3.90
    # Voices lie between G2 and C6 as MIDI notes, if key k is note k + 21.
    notes = np.nonzero(frames.any(axis=0))[0] + piano_roll.LOWEST_MIDI
    assert notes.min() == 43 and notes.max() == 96


def test_path_argument(data_folder, monkeypatch):
    monkeypatch.delenv("SNUKERAS_DATA")
    assert len(jsb_chorales.load_data(data_folder / "JSB_Chorales.mat")[0]) == 229
    assert len(jsb_chorales.load_data(data_folder)[0]) == 229


def test_altered_copy_is_refused(data_folder, tmp_path):
    content = bytearray((data_folder / "JSB_Chorales.mat").read_bytes())
    content[5000] ^= 1
    (tmp_path / "JSB_Chorales.mat").write_bytes(content)
    with pytest.raises(ValueError, match=r"JSB_Chorales\.mat is not .*: sha256"):
        jsb_chorales.load_data(tmp_path)
    (tmp_path / "JSB_Chorales.mat").write_bytes(content[:5000])
    with pytest.raises(ValueError, match=r"size 5000 bytes instead of 96095 \(truncated\)"):
        jsb_chorales.load_data(tmp_path)


def cells(*songs):
    array = np.empty((1, len(songs)), object)
    for index, song in enumerate(songs):
        array[0, index] = song
    return array


def song(steps=4, keys=88):
    roll = np.zeros((steps, keys), np.uint8)
    roll[:, 39] = 1
    return roll


def write(path, **content):
    scipy.io.savemat(path, content)
    return path


def test_read_own_file(tmp_path):
    path = write(
        tmp_path / "own.mat",
        traindata=cells(song(5), song(7).astype(float)),
        validdata=cells(song(3)),
        testdata=cells(song(2)),
    )
    train, valid, test = piano_roll.read(path)
    assert [len(roll) for roll in train + valid + test] == [5, 7, 3, 2]
    assert all(roll.dtype == np.uint8 and roll[0, 39] == 1 for roll in train)


def test_missing_key(tmp_path):
    path = write(tmp_path / "a.mat", traindata=cells(song()), testdata=cells(song()))
    with pytest.raises(ValueError, match=r"lacks the key validdata.*\['testdata', 'traindata'\]"):
        piano_roll.read(path)


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (song(keys=87), r"validdata\[1\] .*\(T, 88\).*\(4, 87\)"),
        (np.zeros(88), r"validdata\[1\] "),
        (song() * 3, r"validdata\[1\] may hold only 0 and 1. Received: 3"),
        (np.full((4, 88), np.nan), "Received: nan"),
        ("text", "dtype"),
    ],
)
def test_song_of_another_kind(tmp_path, odd, message):
    path = write(
        tmp_path / "a.mat",
        traindata=cells(song()),
        validdata=cells(song(), odd),
        testdata=cells(song()),
    )
    # MATLAB has no 1-D arrays: a vector comes back as one row.
    if isinstance(odd, np.ndarray) and odd.ndim == 1:
        assert len(piano_roll.read(path)[1][1]) == 1
        return
    with pytest.raises(ValueError, match=message):
        piano_roll.read(path)


def test_not_a_matlab_file(tmp_path):
    (tmp_path / "a.mat").write_bytes(b"certainly not" * 50)
    with pytest.raises(ValueError, match=r"a\.mat cannot be read as a MATLAB 5 file"):
        piano_roll.read(tmp_path / "a.mat")


def test_pad():
    rng = np.random.default_rng(0)
    songs = [rng.integers(0, 2, (steps, 88), np.uint8) for steps in (5, 2, 9)]
    x, y, mask = piano_roll.pad(songs)
    assert x.shape == y.shape == (3, 8, 88) and mask.shape == (3, 8)
    assert (x.dtype, y.dtype, mask.dtype) == (np.float32, np.float32, np.bool_)
    for index, roll in enumerate(songs):
        steps = len(roll) - 1
        np.testing.assert_array_equal(x[index, :steps], roll[:-1])
        np.testing.assert_array_equal(y[index, :steps], roll[1:])
        assert mask[index, :steps].all() and not mask[index, steps:].any()
        assert not x[index, steps:].any() and not y[index, steps:].any()


def test_pad_to_length():
    x, y, mask = piano_roll.pad([song(4)], length=10)
    assert x.shape == y.shape == (1, 10, 88) and mask.sum() == 3


@pytest.mark.parametrize(
    ("songs", "length", "message"),
    [
        ([], None, "at least one song"),
        ([song(), song(1)], None, r"at least two steps.*songs\[1\] with 1"),
        ([np.zeros((0, 88))], None, r"songs\[0\] with 0"),
        ([song(5), song(9)], 7, "`length` must be at least 8.*Received: 7"),
        ([song(keys=60)], None, r"songs\[0\].*\(4, 60\)"),
        ([song() * 0.5], None, "only 0 and 1"),
    ],
)
def test_pad_refuses(songs, length, message):
    with pytest.raises(ValueError, match=message):
        piano_roll.pad(songs, length)
