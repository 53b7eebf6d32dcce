"""What each error of a chip costs: cases, and the table."""

import keras
import pytest
from tiny_zoo import make_task

from experiments import chip_errors
from snukeras.layers import SNU


@pytest.mark.slow
def test_figures_and_table(tmp_path, monkeypatch):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((None, 88)), SNU(6, return_sequences=True, threshold=0.1),
         keras.layers.Dense(88, activation="sigmoid")]
    )  # fmt: skip
    found = {"files": {"model.weights.h5": {"sha256": "1" * 64}}, "task": "scales"}
    monkeypatch.setattr(chip_errors.presets, "load", lambda *a, **k: model)
    monkeypatch.setattr(chip_errors.presets, "info", lambda *a, **k: found)
    monkeypatch.setattr(chip_errors.presets, "list", lambda content: ["jsb_snu"])
    given = {"chips": 2, "tasks": {"scales": make_task()}, "root": tmp_path}
    runs = chip_errors.experiment(**given)
    assert [run["case"] for run in runs] == list(chip_errors.CASES)
    year = {run["case"]: run["1 year"]["mean"] for run in runs}
    assert len(set(year.values())) == len(year)
    assert year["no compensation"] != year["all errors"]
    assert chip_errors.experiment(**given) == runs
    table = chip_errors.table(tmp_path)
    assert f"| no drift | {year['no drift']:.3f} |" in table
