"""Fixtures for all tests."""

import os
from collections import defaultdict
from pathlib import Path

import keras
import pytest
import some_cases

_BESIDE_THE_CHECKOUT = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks as slow what `@pytest.mark.some_cases(n)` does not run by default."""
    families = defaultdict(list)
    for item in items:
        if item.get_closest_marker("some_cases"):
            families[item.nodeid.partition("[")[0]].append(item)
    for family in families.values():
        (keep,) = family[0].get_closest_marker("some_cases").args
        cases = [{k: repr(v) for k, v in item.callspec.params.items()} for item in family]
        kept = some_cases.chosen(cases, keep)
        for index, item in enumerate(family):
            if index not in kept:
                item.add_marker("slow")


@pytest.fixture(autouse=True)
def seeded():
    """Seeds Python, NumPy and the backend, so that a test gives the same alone and among others."""
    keras.utils.set_random_seed(0)


@pytest.fixture
def data_folder(monkeypatch):
    """Folder of the real data sets; the loaders use it too. Skips where there is none."""
    named = os.environ.get("SNUKERAS_DATA")
    folder = Path(named) if named else _BESIDE_THE_CHECKOUT
    if not folder.is_dir():
        pytest.skip("needs the data sets: name their folder in SNUKERAS_DATA")
    monkeypatch.setenv("SNUKERAS_DATA", str(folder))
    return folder
