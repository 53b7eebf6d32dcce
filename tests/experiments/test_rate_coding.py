"""Other spikes for a trained network: rates stay, figures are kept, and a stop is no loss."""

import json

import keras
import numpy as np
import pytest

from experiments import rate_coding
from snukeras.layers import SNU, ElasticDistortion, RateCoding
from snukeras.zoo.tasks import Digits
from snukeras.zoo.tasks.images import draw


def network(max_spikes=None):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            ElasticDistortion(seed=0),
            keras.layers.Flatten(),
            RateCoding(6, max_spikes=max_spikes, training_steps=3, seed=0),
            SNU(10, return_sequences=True),
            keras.layers.GlobalAveragePooling1D(),
        ]
    )


@pytest.mark.parametrize("max_spikes", [None, 3.0])
def test_rates_and_weights_stay(max_spikes):
    model = network(max_spikes)
    twin = rate_coding.recoded(model, 15, 4)
    coding = twin.layers[2]
    assert coding.steps == 15 and coding.seed == 4
    assert coding.probability == model.layers[2].probability
    for one, other in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    x = draw(3)[None]
    assert twin(x).shape == (1, 10)
    same = rate_coding.recoded(model, 6, 0)
    np.testing.assert_array_equal(same(x), model(x))


class Drawn(Digits):
    def _load(self):
        y = np.arange(60, dtype=np.uint8) % 10
        x = np.stack([255 * draw(digit)[..., 0] for digit in y]).astype("uint8")
        return (x, y), (x, y)


def test_results_table_and_going_on(tmp_path, monkeypatch, capsys):
    model = network()
    monkeypatch.setattr(rate_coding.presets, "load", lambda *a, **k: model)
    preset = {"files": {"model.weights.h5": {"sha256": "1" * 64}}, "unit": "% correct",
              "test": 50.0, "task": "mnist"}  # fmt: skip
    monkeypatch.setattr(rate_coding.presets, "info", lambda *a, **k: preset)
    tasks = {"mnist": Drawn()}
    results = rate_coding.experiment("tiny", (2, 4), (1,), tasks=tasks, root=tmp_path)
    path = tmp_path / "rate_coding" / "tiny.json"
    assert json.loads(path.read_text()) == results
    capsys.readouterr()
    more = rate_coding.experiment("tiny", (2, 4), (1, 2), tasks=tasks, root=tmp_path)
    assert capsys.readouterr().out.count("coding 2") == 2
    assert more["figures"]["4"]["1"] == results["figures"]["4"]["1"]
    assert "coding 1" not in capsys.readouterr().out
    table = rate_coding.table(tmp_path)
    mean = np.mean([*more["figures"]["4"].values()])
    assert "| model | as shipped | 2 steps | 4 steps |" in table
    assert table.splitlines()[2].startswith("| `tiny` | 50.000 |") and f"{mean:.3f}" in table
    # Other weights are another model.
    preset["files"]["model.weights.h5"]["sha256"] = "2" * 64
    assert rate_coding.experiment("tiny", (2,), (1,), tasks=tasks, root=tmp_path)[
        "figures"
    ].keys() == {"2"}
