"""Scales of conductance on chips: a scale for each column uses more of the range."""

import json

import keras
import numpy as np
import pytest
from tiny_zoo import make_task

from experiments import scales
from snukeras.layers import SSNU


def test_figures_and_table(tmp_path, monkeypatch):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((None, 88)), SSNU(6, return_sequences=True),
         keras.layers.Dense(88, activation="sigmoid")]
    )  # fmt: skip
    kernel, *others = model.layers[1].get_weights()
    # One column as large as it gets: a scale of the matrix leaves little range to the others.
    model.layers[1].set_weights([np.where(np.arange(88) == 0, 100 * kernel, kernel), *others])
    found = {"files": {"model.weights.h5": {"sha256": "1" * 64}}, "unit": "nats per step",
             "test": 9.0, "task": "scales"}  # fmt: skip
    monkeypatch.setattr(scales.presets, "load", lambda *a, **k: model)
    monkeypatch.setattr(scales.presets, "info", lambda *a, **k: found)
    results = scales.experiment("tiny", 2, tasks={"scales": make_task()}, root=tmp_path)
    assert json.loads((tmp_path / "scales" / "tiny.json").read_text()) == results
    column, tensor = (results["cases"][scale]["25 s"] for scale in ("column", "tensor"))
    assert column["min"] <= column["mean"] < tensor["mean"] <= tensor["max"]
    table = scales.table(tmp_path)
    assert f"| `tiny` | 9.000 | 2 | tensor | {tensor['mean']:.3f}" in table


def test_other_tasks_are_refused(monkeypatch):
    found = {"task": "mnist", "files": {}}
    monkeypatch.setattr(scales.presets, "info", lambda *a, **k: found)
    with pytest.raises(ValueError, match=r"piano rolls\. Received: mnist"):
        scales.experiment("tiny")
