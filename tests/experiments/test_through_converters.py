"""Models on chips with converters: cases, choice of the percentile, and the table."""

import json

import keras
import pytest
from tiny_zoo import make_task

from experiments import through_converters
from snukeras.layers import SNU


@pytest.mark.slow
def test_figures_and_table(tmp_path, monkeypatch):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((None, 88)), SNU(6, return_sequences=True, threshold=0.1),
         keras.layers.Dense(88, activation="sigmoid")]
    )  # fmt: skip
    found = {"files": {"model.weights.h5": {"sha256": "1" * 64}}, "unit": "nats per step",
             "test": 9.0, "task": "scales"}  # fmt: skip
    module = through_converters
    monkeypatch.setattr(module.presets, "load", lambda *a, **k: model)
    monkeypatch.setattr(module.presets, "info", lambda *a, **k: found)
    monkeypatch.setattr(module.presets, "list", lambda content: ["jsb_snu", "jsb_snu_chip"])
    monkeypatch.setattr(module, "PERCENTILES", (100.0, 50.0))
    monkeypatch.setattr(module, "SHARES", (0.5, 0.1))
    given = {"chips": 2, "runs": tmp_path / "runs", "tasks": {"scales": make_task()}}
    runs = module.experiment("jsb", bits=[3], root=tmp_path, **given)
    assert json.loads((tmp_path / "through_converters" / "jsb.json").read_text()) == {"runs": runs}
    assert [run["name"] for run in runs] == ["jsb_snu", "jsb_snu_chip"]
    tried = runs[0]["valid_by_percentile"]
    assert min(tried, key=tried.get) == f"{runs[0]['percentile']:g}" and len(tried) == 2
    by_share = runs[0]["valid_by_share"]
    assert [name.split("_")[0].split("/")[0] for name in by_share] == ["dense", "snu"]
    best = min(tried.values())
    for name, figures in by_share.items():
        lower = min(figures.values()) < best
        assert (name in runs[0]["shares"]) == lower
        best = min(best, *figures.values())
    case = runs[0]["1 year"]
    assert case["min"] <= case["mean"] <= case["max"] and case["mean"] != runs[0]["25 s"]["mean"]
    # What is done is not done again.
    assert module.experiment("jsb", bits=[3], root=tmp_path, **given) == runs
    table = module.table("jsb", tmp_path)
    assert f"| plainly (`jsb_snu`) | 9.000 | 3 | {runs[0]['percentile']:g}" in table
    assert f"| {case['mean'] - 9.0:+.3f} |" in table
