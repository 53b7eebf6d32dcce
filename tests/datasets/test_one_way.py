"""All data sets in one way: the same places, checks and errors."""

import urllib.error
import urllib.request

import pytest

from snukeras import datasets
from snukeras.datasets import _fetch

LOADERS = [
    module for name in datasets.__all__ if hasattr(module := getattr(datasets, name), "load_data")
]
each = pytest.mark.parametrize("dataset", LOADERS, ids=lambda m: m.__name__.rsplit(".", 1)[1])


def first_source(dataset):
    return dataset.SOURCE if hasattr(dataset, "SOURCE") else dataset.SOURCES[0]


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """No network, no variable, and an empty cache."""

    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.delenv("SNUKERAS_DATA", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path


def test_there_are_eight():
    assert len(LOADERS) >= 8


@each
def test_without_network(dataset, alone):
    source = first_source(dataset)
    with pytest.raises(ConnectionError) as error:
        dataset.load_data()
    for part in (source.url, source.checksum, str(_fetch.cache_folder()), "SNUKERAS_DATA"):
        assert part in str(error.value)


@each
def test_folder_without_the_file(dataset, alone, monkeypatch):
    monkeypatch.setenv("SNUKERAS_DATA", str(alone))
    with pytest.raises(FileNotFoundError, match=f"SNUKERAS_DATA.*{first_source(dataset).name}"):
        dataset.load_data()
    with pytest.raises(FileNotFoundError, match="`path`"):
        dataset.load_data(alone / "absent")


@each
@pytest.mark.parametrize("place", ["argument", "variable", "cache"])
def test_another_file_is_refused(dataset, alone, monkeypatch, place):
    source = first_source(dataset)
    folder = alone if place != "cache" else _fetch.cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / source.name).write_bytes(b"another file")
    if place == "variable":
        monkeypatch.setenv("SNUKERAS_DATA", str(alone))
    with pytest.raises(ValueError, match=f"{source.name} is not"):
        dataset.load_data(alone if place == "argument" else None)


@each
def test_docstring_says_where_it_is_from(dataset):
    text = dataset.load_data.__doc__
    for part in ("SNUKERAS_DATA", "without network", "Returns:", "ConnectionError"):
        assert part in " ".join(text.split()), part
    assert "licence" in text or "copyright" in text or "LDC" in text or "CC BY" in text
