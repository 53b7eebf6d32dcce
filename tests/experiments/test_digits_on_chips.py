"""MNIST models on chips: figures, what a drifted chip loses, and the table."""

import json

import keras
import numpy as np
import pytest
from tiny_zoo import make_task

from experiments import digits_on_chips
from snukeras.layers import SSNU, RateCoding
from snukeras.zoo.tasks import Digits
from snukeras.zoo.tasks.images import draw


class Drawn(Digits):
    def _load(self):
        y = np.arange(60, dtype=np.uint8) % 10
        x = np.stack([255 * draw(digit)[..., 0] for digit in y]).astype("uint8")
        return (x, y), (x, y)


@pytest.fixture
def preset(monkeypatch):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Flatten(),
            RateCoding(3, seed=0),
            SSNU(10, state_activation="linear", return_sequences=True),
            keras.layers.GlobalAveragePooling1D(),
        ]
    )
    found = {"files": {"model.weights.h5": {"sha256": "1" * 64}}, "unit": "% correct",
             "test": 50.0, "task": "mnist"}  # fmt: skip
    monkeypatch.setattr(digits_on_chips.presets, "load", lambda *a, **k: model)
    monkeypatch.setattr(digits_on_chips.presets, "info", lambda *a, **k: found)
    return found


def test_figures_and_table(preset, tmp_path, monkeypatch):
    tasks = {"mnist": Drawn()}
    results = digits_on_chips.experiment(
        "tiny", 2, ["column"], tmp_path / "runs", tasks=tasks, root=tmp_path
    )
    path = tmp_path / "digits_on_chips" / "tiny.json"
    assert json.loads(path.read_text()) == results
    case = results["cases"]["column"]["1 year"]
    assert case["min"] <= case["mean"] <= case["max"]
    assert case["loss"] == pytest.approx(50.0 - case["mean"])
    more = digits_on_chips.experiment(
        "tiny", 2, ["none"], tmp_path / "runs", tasks=tasks, root=tmp_path
    )
    assert more["cases"]["column"] == results["cases"]["column"] and "none" in more["cases"]
    kept = []
    monkeypatch.setattr(digits_on_chips.publish, "keep_chips", lambda *a: kept.append(a[:2]))
    digits_on_chips.to_card("tiny", root=tmp_path)
    name, found = kept[0]
    assert name == "tiny" and found["weights_sha256"] == "1" * 64 and found["chips"] == 2
    assert found["times"]["1 year"]["mean"] == case["mean"]
    table = digits_on_chips.table(root=tmp_path)
    assert (
        f"| `tiny` | 50.00 | 2 | column | {results['cases']['column']['25 s']['mean']:.2f}" in table
    )
    assert table.count("`tiny`") == 2
    assert digits_on_chips.table("ti", tmp_path) == table
    assert "tiny" not in digits_on_chips.table("speech", tmp_path)


def test_other_tasks_are_refused(preset, tmp_path):
    with pytest.raises(ValueError, match="a task of digits"):
        digits_on_chips.experiment("tiny", root=tmp_path, tasks={"mnist": make_task()})
