"""Spoken digits: two protocols, contents checked however they were packed, bad wav files."""

import hashlib
import io
import urllib.request
import wave
import zipfile

import numpy as np
import pytest

from snukeras.datasets import _fetch, spoken_digits

FILE = spoken_digits.SOURCE.name


def wav(samples, rate=8000, channels=1, width=2):
    """A wav file with these samples, as bytes."""
    content = io.BytesIO()
    with wave.open(content, "wb") as out:
        out.setframerate(rate)
        out.setnchannels(channels)
        out.setsampwidth(width)
        out.writeframes(np.asarray(samples, "<i2").tobytes())
    return content.getvalue()


def pack(path, files, folder="anything/recordings/"):
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("anything/README.md", "Read me")
        for name, content in files.items():
            out.writestr(folder + name, content)
    return path


@pytest.fixture
def small(monkeypatch):
    """A few recordings of which the loader believes that they are the data set."""
    random = np.random.default_rng(0)
    files = {
        f"{digit}_{speaker}_{index}.wav": wav(random.integers(-9000, 9000, 30 + index))
        for digit in (0, 7)
        for speaker in spoken_digits.SPEAKERS
        for index in (0, 4, 5, 10, 41)
    }
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(name.encode() + b"\0" + hashlib.sha256(files[name]).digest())
    monkeypatch.setattr(spoken_digits, "CONTENTS_SHA256", digest.hexdigest())
    return files


def test_real_file(data_folder):
    splits = spoken_digits.load_data()
    assert [len(split.waves) for split in splits] == [2400, 300, 300]
    for split, count in zip(splits, (240, 30, 30), strict=True):
        assert np.bincount(split.digits).tolist() == [count] * 10
        assert sorted(set(split.speakers)) == list(spoken_digits.SPEAKERS)
    train, valid, test = splits
    assert set(test.indices) == set(range(5)) and set(valid.indices) == set(range(5, 10))
    assert set(train.indices) == set(range(10, 50))
    everything = [wave for split in splits for wave in split.waves]
    assert all(wave.dtype == np.float32 for wave in everything)
    seconds = np.array([len(wave) for wave in everything]) / spoken_digits.RATE
    assert round(seconds.min(), 2) == 0.14 and round(seconds.max(), 2) == 2.28
    assert max(np.abs(wave).max() for wave in everything) <= 1


def test_speaker_is_held_out(small, tmp_path):
    path = pack(tmp_path / FILE, small)
    tested = []
    for speaker in spoken_digits.SPEAKERS:
        train, valid, test = spoken_digits.load_data(path, held_out=speaker)
        assert set(test.speakers) == {speaker}
        assert len(set(valid.speakers)) == 1 and set(valid.speakers) != {speaker}
        assert len(set(train.speakers)) == 4
        assert not set(train.speakers) & (set(valid.speakers) | {speaker})
        tested += [*valid.speakers]
    assert sorted(set(tested)) == list(spoken_digits.SPEAKERS)  # each validates once as well


def test_unknown_speaker(tmp_path):
    with pytest.raises(ValueError, match=r"`held_out` must be None or one of george.*'anna'"):
        spoken_digits.load_data(tmp_path, held_out="anna")


def test_official_split_by_index(small, tmp_path):
    train, valid, test = spoken_digits.load_data(pack(tmp_path / FILE, small))
    assert set(test.indices) == {0, 4} and set(valid.indices) == {5}
    assert set(train.indices) == {10, 41}
    assert [len(wave) for wave in valid.waves] == [35] * 12


def test_packing_does_not_matter(small, tmp_path, monkeypatch):
    public = pack(tmp_path / "public.zip", small, folder="")
    source = _fetch.Source(
        FILE, public.as_uri(), public.stat().st_size, "", spoken_digits._check, "of the contents"
    )
    monkeypatch.setattr(spoken_digits, "SOURCE", source)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.delenv("SNUKERAS_DATA", raising=False)
    assert len(spoken_digits.load_data().train.waves) == 24
    monkeypatch.setattr(urllib.request, "urlopen", lambda *a, **k: pytest.fail("asked again"))
    assert len(spoken_digits.load_data().train.waves) == 24


def test_other_recordings_are_not_kept(small, tmp_path, monkeypatch):
    small["0_theo_0.wav"] = wav(range(40))
    public = pack(tmp_path / "public.zip", small)
    source = _fetch.Source(FILE, public.as_uri(), 10**5, "", spoken_digits._check, "-")
    monkeypatch.setattr(spoken_digits, "SOURCE", source)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.delenv("SNUKERAS_DATA", raising=False)
    with pytest.raises(ValueError, match=r"its 60 recordings have sha256 .* Fetch it again"):
        spoken_digits.load_data()
    assert list(_fetch.cache_folder().iterdir()) == []


def test_zip_without_recordings(tmp_path):
    path = pack(tmp_path / FILE, {"notes.wav": wav([1]), "0_theo.wav": wav([1])})
    for call in (spoken_digits.load_data, spoken_digits.read):
        with pytest.raises(ValueError, match=r"holds no recordings named .*Take .*https://github"):
            call(path)
    with pytest.raises(ValueError, match="holds no recordings"):
        spoken_digits.read(tmp_path)
    with pytest.raises(FileNotFoundError, match="neither a zip file nor a folder"):
        spoken_digits.read(tmp_path / "absent")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (wav([1, 2], rate=16000), r"16000 Hz, 1 channel, 16 bits\. Convert it: sox"),
        (wav([1, 2], channels=2), r"8000 Hz, 2 channels, 16 bits\. Convert it: sox"),
        (wav([1, 2], width=1), r"8 bits\. Convert it: sox"),
        (wav([]), r"has no samples\. Record it again"),
        (wav([1, 2, 3], width=3), r"8000 Hz, 1 channel, 24 bits\. Convert it: sox"),
        (b"RIFF", r"cannot be read as a wav file \(it ends too early\).*sox"),
        (wav([1, 2])[:16] + b"\xff" * 4 + wav([1, 2])[20:], r"\(it is damaged\)\. Convert .*sox"),
        (wav([1, 2])[:20] + b"\3" + wav([1, 2])[21:], r"\(unknown format: 3\)\. Convert .*sox"),
        (wav([1, 2, 3])[:-1], r"cut short: it announces 3 samples and holds 2\. Fetch .*sox"),
        (wav([1, 2, 3])[:-2], r"cut short: it announces 3 samples and holds 2\. Fetch .*sox"),
    ],
)
def test_bad_wav_files(tmp_path, content, message):
    (tmp_path / "3_anna_0.wav").write_bytes(content)
    with pytest.raises(ValueError, match=rf"3_anna_0\.wav .*{message}"):
        spoken_digits.read_wave(tmp_path / "3_anna_0.wav")
    with pytest.raises(ValueError, match=rf"3_anna_0\.wav .*{message}"):
        spoken_digits.read(tmp_path)


def test_recordings_of_your_own(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "3_anna_12.wav").write_bytes(wav([-32768, 16384]))
    found = spoken_digits.read(tmp_path)
    assert found.digits.tolist() == [3] and found.speakers.tolist() == ["anna"]
    assert found.indices.tolist() == [12] and found.waves[0].tolist() == [-1.0, 0.5]


def test_pad():
    batch = spoken_digits.pad([np.ones(2, "float32"), np.ones(5, "float32")], 4)
    assert batch.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]] and batch.dtype == np.float32
    assert spoken_digits.pad([np.ones(2), np.ones(5)]).shape == (2, 5)
    with pytest.raises(ValueError, match="at least one recording"):
        spoken_digits.pad([])
    with pytest.raises(ValueError, match=r"waves\[1\] of shape \(2, 2\)"):
        spoken_digits.pad([np.ones(2), np.ones((2, 2))])
    for samples in (0, 2.5, "8"):
        with pytest.raises(ValueError, match="`samples` must be an integer of at least 1"):
            spoken_digits.pad([np.ones(2)], samples)
    with pytest.raises(ValueError, match="recordings of length 0"):
        spoken_digits.pad([np.ones(0), np.ones(0)])


def test_a_folder_is_no_wav_file(tmp_path):
    with pytest.raises(ValueError, match=r"is a folder\. .*spoken_digits\.read"):
        spoken_digits.read_wave(tmp_path)


def test_a_zip_with_a_password_or_another_compression_is_refused(tmp_path):
    whole = pack(tmp_path / FILE, {"3_anna_0.wav": wav([1, 2])}).read_bytes()
    at = whole.rindex(b"PK\x01\x02")  # the last file in the directory of the zip
    for offset, value in ((8, 1), (10, 99)):
        damaged = bytearray(whole)
        damaged[at + offset] = value
        (tmp_path / FILE).write_bytes(damaged)
        with pytest.raises(ValueError, match=r"not a zip file that can be read .*Fetch it again"):
            spoken_digits.read(tmp_path / FILE)


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_that_is_damaged_inside_is_refused(tmp_path, compression):
    path = tmp_path / FILE
    with zipfile.ZipFile(path, "w", compression) as out:
        out.writestr("3_anna_0.wav", wav(range(100)))
    damaged = bytearray(path.read_bytes())
    damaged[60] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"not a zip file that can be read .*Fetch it again"):
        spoken_digits.read(path)
    # A folder of the zip that would begin before the file.
    at = damaged.rindex(b"PK\x05\x06") + 16
    damaged[at : at + 4] = b"\xff\xff\xff\x7f"
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="not a zip file that can be read"):
        spoken_digits.read(path)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("others", "message"),
    [
        (("10_anna_0.wav",), r"10_anna_0\.wav.* must be named .*Rename .*7_anna_0\.wav"),
        (("7_änna_0.wav", "7_anna_1.WAV"), r"7_anna_1\.WAV, .*7_änna_0\.wav.* must be named"),
        (("b/7_anna_0.wav",), r"two recordings named 7_anna_0\.wav.* Rename one"),
        (("7_anna_4000000000.wav",), r"index of at most 2,147,483,647.*7_anna_4000000000\.wav"),
    ],
)
def test_no_recording_is_left_out_without_a_word(tmp_path, packed, others, message):
    files = {f"a/{name}" if "/" not in name else name: wav([1]) for name in others}
    files["a/7_anna_0.wav"] = wav([1, 2])
    path = tmp_path / "mine"
    if packed:
        pack(path, files)
    else:
        for name, content in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        spoken_digits.read(path)


def test_what_a_system_adds_to_a_zip_or_folder_is_no_recording(tmp_path):
    (tmp_path / "8_anna_0.wav").mkdir()
    (tmp_path / "7_anna_0.wav").write_bytes(wav([1]))
    (tmp_path / "._7_anna_0.wav").write_bytes(b"of another system")
    assert spoken_digits.read(tmp_path).digits.tolist() == [7]
