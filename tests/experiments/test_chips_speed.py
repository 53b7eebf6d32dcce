"""Chips on the whole split and on parts of it: both are measured, and the table shows it."""

import json

import keras
import numpy as np
import pytest

from experiments import chips_speed


def small(name, side):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, activation="softmax")])
    model.compile(
        loss="sparse_categorical_crossentropy",
        weighted_metrics=[keras.metrics.SparseCategoricalAccuracy("accuracy")],
    )
    x = np.random.default_rng(0).normal(size=(60, 6)).astype("float32")
    return model, (x, model.predict(x, verbose=0).argmax(axis=1))


def test_both_ways_are_measured_and_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(chips_speed, "network", small)
    path = tmp_path / chips_speed.RESULTS
    given = ["--chips", "6", "--whole", "2", "--parts", "3", "--sides", "weights"]
    assert chips_speed.main([*given, "--output", str(path)]) == 0
    assert "weights: {'metric': 'accuracy'" in capsys.readouterr().out
    (case,) = json.loads(path.read_text())["sides"].values()
    assert case["chips"] == 6 and case["measured"] == 2 and case["parts"] == 3
    # Of so small a network, one chip takes as long as two.
    assert case["split"]["seconds"] > 0 and case["whole"]["seconds"] == pytest.approx(0, abs=60)
    assert list(case["split"]["times"]) == ["25.0", "3600.0", "86400.0", "31536000.0"]
    assert all(0 < found["mean"] <= 100 for found in case["split"]["times"].values())
    share = case["split"]["seconds"] / case["whole"]["seconds"]
    assert f"| {share:.2f} |" in chips_speed.table(tmp_path)
