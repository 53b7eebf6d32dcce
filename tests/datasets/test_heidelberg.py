"""SHD and SSC: small files of the same layout, checksums beside them, validation by speaker."""

import gzip
import hashlib
import io
import math
import urllib.error
import urllib.request

import h5py
import numpy as np
import pytest

from snukeras.datasets import _fetch, _heidelberg, shd, ssc


def pack(path, speakers, seed=0, **changes):
    """Write a file of the data sets' layout, one recording a speaker given."""
    random = np.random.default_rng(seed)
    plain = io.BytesIO()
    counts = random.integers(1, 30, len(speakers))
    with h5py.File(plain, "w") as file:
        for name, kind in (("times", np.float16), ("units", np.uint16)):
            made = file.create_dataset(
                f"spikes/{name}", (len(speakers),), h5py.vlen_dtype(np.dtype(kind))
            )
            for index, count in enumerate(counts):
                values = {"times": random.random(count), "units": random.integers(0, 700, count)}
                made[index] = np.asarray(changes.get(name, values[name])).astype(kind)
        file["labels"] = np.arange(len(speakers), dtype=np.uint16) % 3
        file["extra/speaker"] = np.asarray(speakers, np.uint16)
        file["extra/keys"] = np.array([b"zero", b"one", b"null"])
    path.write_bytes(gzip.compress(plain.getvalue()))


@pytest.fixture
def folder(tmp_path):
    pack(tmp_path / "shd_train.h5.gz", [0, 1, 2, 2, 11, 11, 0])
    pack(tmp_path / "shd_test.h5.gz", [4, 5], 1)
    for seed, split in enumerate(("train", "valid", "test")):
        pack(tmp_path / f"ssc_{split}.h5.gz", [seed] * (3 + seed), seed)
    return tmp_path


def write_sums(folder):
    lines = [
        f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.name}"
        for path in sorted(folder.glob("*.gz"))
    ]
    (folder / "md5sums.txt").write_text("\n".join(lines) + "\n")


def test_validation_is_by_speaker(folder):
    train, valid, test = shd.load_data(folder)
    assert set(valid.speakers) == {11} and set(train.speakers) == {0, 1, 2}
    assert set(test.speakers) == {4, 5} and len(valid.times) == len(valid.units) == 2
    train, valid, _ = shd.load_data(folder, valid_speakers=[0, 2])
    assert set(valid.speakers) == {0, 2} and set(train.speakers) == {1, 11}
    assert valid.words == ["zero", "one", "null"]
    assert valid.times[0].dtype == np.float32 and valid.units[0].dtype == np.uint16
    for wrong in ([], [3], [0, 1, 2, 11]):
        with pytest.raises(ValueError, match=r"`valid_speakers` must name some .*\[0, 1, 2, 11\]"):
            shd.load_data(folder, valid_speakers=wrong)


def test_files_of_ssc_are_the_splits(folder, monkeypatch):
    monkeypatch.setenv("SNUKERAS_DATA", str(folder))
    assert [len(split.labels) for split in ssc.load_data()] == [3, 4, 5]


def test_checksums_beside_the_files(folder):
    write_sums(folder)
    assert len(shd.load_data(folder).test.labels) == 2
    pack(folder / "shd_test.h5.gz", [4, 5], 7)
    with pytest.raises(
        ValueError, match=r"shd_test\.h5\.gz is not .*md5 \w+ instead of \w+\. Fetch"
    ):
        shd.load_data(folder)
    for text in (b"", b"\xff\xfe of another kind"):
        (folder / "md5sums.txt").write_bytes(text)
        with pytest.raises(ValueError, match=r"md5sums\.txt has no line for it, .*delete it"):
            shd.load_data(folder)


@pytest.fixture
def public(folder, tmp_path, monkeypatch):
    """The public address is a folder, and the cache is empty."""
    monkeypatch.setattr(_heidelberg, "_FOLDER", folder.as_uri() + "/")
    sources = tuple(_heidelberg.source(source.name) for source in shd.SOURCES)
    monkeypatch.setattr(shd, "SOURCES", sources)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.delenv("SNUKERAS_DATA", raising=False)
    write_sums(folder)
    return folder


def test_downloads_are_compared_with_the_published_checksums(public, monkeypatch):
    assert len(shd.load_data().train.labels) == 5
    monkeypatch.setattr(urllib.request, "urlopen", lambda *a, **k: pytest.fail("asked again"))
    assert len(shd.load_data().train.labels) == 5
    cached = _fetch.cache_folder()
    assert {file.name for file in cached.iterdir()} == {
        "md5sums.txt",
        "shd_train.h5.gz",
        "shd_test.h5.gz",
    }
    pack(cached / "shd_train.h5.gz", [1, 2], 9)
    with pytest.raises(ValueError, match="md5"):
        shd.load_data()


def test_another_download_is_not_kept(public):
    pack(public / "shd_train.h5.gz", [1, 2], 9)
    with pytest.raises(ValueError, match=r"sent is not shd_train\.h5\.gz: md5 .*Try again"):
        shd.load_data()
    assert {file.name for file in _fetch.cache_folder().iterdir()} == {"md5sums.txt"}


def test_download_without_checksums(public):
    (public / "md5sums.txt").unlink()
    with pytest.raises(ConnectionError, match=r"shd_train\.h5\.gz could not be checked: .*md5sums"):
        shd.load_data()
    assert list(_fetch.cache_folder().iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"units": [1, 700], "times": [0.1, 0.2]}, "recording 0 is not spikes of 700 channels"),
        ({"units": [1, 2], "times": [-0.1, 0.2]}, "recording 0 is not spikes"),
        ({"units": [1, 2, 3], "times": [0.1, 0.2]}, "recording 0 is not spikes"),
        ({"units": [1, 2], "times": [0.1, math.nan]}, "recording 0 is not spikes"),
        ({"units": [1, 2], "times": [0.1, math.inf]}, "recording 0 is not spikes"),
    ],
)
def test_other_layouts(folder, changes, message):
    pack(folder / "shd_train.h5.gz", [1, 2], **changes)
    with pytest.raises(ValueError, match=message):
        shd.load_data(folder)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("labels", np.uint16([0, 300]), "labels must be whole numbers from 0 to 2"),
        ("labels", np.int16([0, -1]), "labels must be whole numbers from 0 to 2"),
        ("labels", np.float32([0, 0.5]), "labels must be whole numbers"),
        ("labels", np.float32([0, np.nan]), "labels must be whole numbers"),
        ("labels", np.zeros((2, 2), "u2"), r"labels must be .* \(n,\)\. Received: .*\(2, 2\)"),
        ("labels", np.uint16(3), "labels must be an array"),
        ("labels", None, "labels must be an array"),
        ("extra/speaker", np.zeros((2, 2), "u2"), r"extra/speaker must be .*\(n,\)"),
        ("extra/keys", np.uint16([1, 2, 3]), "extra/keys must be words"),
        ("spikes/times", np.float32(1.0), "spikes/times must be an array"),
        ("spikes/times", None, "spikes/times must be an array"),
        ("spikes/units", np.zeros((2, 3, 3), "u2"), "recording 0 is not spikes"),
    ],
)
def test_parts_of_another_kind(folder, name, value, message):
    file = folder / "shd_train.h5.gz"
    pack(file, [1, 2])
    plain = io.BytesIO(gzip.decompress(file.read_bytes()))
    with h5py.File(plain, "r+") as opened:
        del opened[name]
        if value is None:
            opened.create_group(name)
        else:
            opened[name] = value
    file.write_bytes(gzip.compress(plain.getvalue()))
    with pytest.raises(ValueError, match=rf"shd_train\.h5\.gz .*{message}.* Fetch it again"):
        shd.load_data(folder)


def test_a_file_that_does_not_tell_who_speaks_is_not_split(folder):
    plain = io.BytesIO(gzip.decompress((folder / "shd_train.h5.gz").read_bytes()))
    with h5py.File(plain, "r+") as opened:
        del opened["extra"]
    (folder / "shd_train.h5.gz").write_bytes(gzip.compress(plain.getvalue()))
    with pytest.raises(ValueError, match=r"shd_train\.h5\.gz must tell who speaks \(extra/speaker"):
        shd.load_data(folder)


def test_files_that_cannot_be_read(folder):
    file = folder / "shd_train.h5.gz"
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"cannot be read .*spikes/times, spikes/units and labels"):
        shd.load_data(folder)
    pack(file, [])
    with pytest.raises(ValueError, match="it holds no recordings"):
        shd.load_data(folder)
    plain = io.BytesIO()
    with h5py.File(plain, "w") as empty:
        empty["labels"] = [1]
    file.write_bytes(gzip.compress(plain.getvalue()))
    with pytest.raises(ValueError, match="cannot be read"):
        shd.load_data(folder)


def test_raster():
    events = _heidelberg.Events(
        [np.float32([0.0, 0.019, 0.021, 0.3]), np.float32([])],
        [np.uint16([3, 699, 699, 0]), np.uint16([])],
        np.uint8([0, 1]),
        np.int32([1, 1]),
        [],
    )
    grid = events.raster(step=0.01, steps=4)
    assert grid.shape == (2, 4, 700) and grid.sum() == 3
    assert grid[0, 0, 3] == grid[0, 1, 699] == grid[0, 2, 699] == 1
    assert events.raster(0.01, 4, group=5)[0, 0].nonzero()[0].tolist() == [0]
    assert events.raster(0.01, 4, group=3).shape == (2, 4, 234)
    late = events._replace(times=[np.float32([0.0, 0.019, 1e30, np.inf]), np.float32([])])
    assert late.raster(0.01, 4).sum() == 2
    for name, value in [("step", 0.0), ("step", "1 ms"), ("step", math.inf), ("steps", 0),
                        ("steps", 2.5), ("group", 701), ("group", 1.5)]:  # fmt: skip
        with pytest.raises(ValueError, match=rf"`{name}` must be .*Received: {name}={value!r}"):
            events.raster(**{name: value})


def test_path_is_a_folder(folder):
    with pytest.raises(FileNotFoundError, match=r"`path` must be a folder .*shd_test"):
        shd.load_data(folder / "shd_train.h5.gz")
