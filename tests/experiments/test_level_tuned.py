"""The experiment on level-tuned neurons: its inputs, its measure, and that it goes on."""

import numpy as np
import pytest

from snukeras.experiments import level_tuned
from snukeras.zoo import _files


def test_noise_keeps_the_number_of_pixels():
    images = level_tuned.pattern_images().reshape(4, -1)
    assert images.sum(axis=1).tolist() == [20] * 4
    squares = level_tuned.square_images().reshape(3, -1)
    assert squares.sum(axis=1).tolist() == [9, 25, 49]
    assert (np.diff(squares, axis=0) >= 0).all()  # each inside the next
    many = level_tuned.noisy(np.repeat(images[:1], 2000, 0), 0.3, np.random.default_rng(0))
    np.testing.assert_allclose(many[:, images[0] > 0].mean(), 0.7, atol=0.01)
    np.testing.assert_allclose(many.sum(axis=1).mean(), 20, rtol=0.02)


def test_agreement_is_intersection_over_union_and_each_set_gets_its_neuron():
    sets = np.array([[1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0]])
    g = np.array([[9, 9, 9, 9, 0, 0], [9, 9, 0, 0, 0, 9]], float).T
    assert level_tuned.agreement(g[:, 0], sets[0]) == 0.5
    assert level_tuned.agreement(g[:, 1], sets[0]) == pytest.approx(2 / 3)
    assert level_tuned.agreement(10 - g[:, 1], sets[0]) == 0.0
    neurons, agreements = level_tuned.assign(g, sets)
    assert neurons.tolist() == [1, 0] and agreements.tolist() == [pytest.approx(2 / 3), 1.0]


def test_it_runs_and_goes_on_where_it_stood(tmp_path, monkeypatch):
    task = {**level_tuned.TASKS["overlap"], "steps": 300, "conditions": [{"noise": 0.0}]}
    monkeypatch.setitem(level_tuned.TASKS, "overlap", task)
    monkeypatch.setattr(level_tuned, "COUPLINGS", ("level-tuned",))
    chosen = {"chosen": {"level": 0.4, "depression": 1.0}}
    _files.write_json(tmp_path / "search_overlap.json", {"level-tuned": chosen})
    results = level_tuned.experiment("overlap", tmp_path, seeds=[0, 1])
    (run,) = results["runs"]
    assert [seed["seed"] for seed in run["seeds"]] == [0, 1]
    assert run["seeds"][0]["agreement"] > 0.7
    monkeypatch.setattr(level_tuned, "runs", None)  # nothing is left to run
    assert level_tuned.experiment("overlap", tmp_path) == results
