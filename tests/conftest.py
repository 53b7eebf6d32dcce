"""Fixtures for all tests."""

import os
from pathlib import Path

import keras
import pytest

_BESIDE_THE_CHECKOUT = Path(__file__).resolve().parents[2] / "shared" / "data"


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
