"""The experiment on level-tuned neurons: its inputs, its measure, and that it goes on."""

import numpy as np
import pytest

from experiments.level_tuned import experiment, learning, tasks


def test_noise_keeps_the_number_of_pixels():
    images = tasks.pattern_images().reshape(4, -1)
    assert images.sum(axis=1).tolist() == [20] * 4
    squares = tasks.square_images().reshape(3, -1)
    assert squares.sum(axis=1).tolist() == [9, 25, 49]
    assert (np.diff(squares, axis=0) >= 0).all()  # each inside the next
    many = tasks.noisy(np.repeat(images[:1], 2000, 0), 0.3, np.random.default_rng(0))
    np.testing.assert_allclose(many[:, images[0] > 0].mean(), 0.7, atol=0.01)
    np.testing.assert_allclose(many.sum(axis=1).mean(), 20, rtol=0.02)


def test_agreement_is_intersection_over_union_and_each_set_gets_its_neuron():
    sets = np.array([[1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0]])
    g = np.array([[9, 9, 9, 9, 0, 0], [9, 9, 0, 0, 0, 9]], float).T
    assert learning.agreement(g[:, 0], sets[0]) == 0.5
    assert learning.agreement(g[:, 1], sets[0]) == pytest.approx(2 / 3)
    assert learning.agreement(10 - g[:, 1], sets[0]) == 0.0
    neurons, agreements = learning.assign(g, sets)
    assert neurons.tolist() == [1, 0] and agreements.tolist() == [pytest.approx(2 / 3), 1.0]


def test_levels_ascend_between_sizes_and_are_one_for_equal_sizes():
    assert tasks.ascending(np.array([10.0, 10.0]), 0.5) == [5.0, 5.0]
    assert tasks.ascending(np.array([10.0, 30.0]), 0.25) == [2.5, 15.0]


def test_streams_of_unequal_groups_and_the_moments_that_test_them():
    task = tasks.Streams([3, 7], 0.49)
    assert task.sets.shape == (2, 20) and task.sets.sum(axis=1).tolist() == [3, 7]
    assert not task.sets[:, 10:].any() and (task.sets.sum(axis=0) <= 1).all()
    spikes = task.training(20000, 0).reshape(-1, 20)
    together = np.corrcoef(spikes.T)
    np.testing.assert_allclose(together[3:10, 3:10][~np.eye(7, dtype=bool)], 0.49, atol=0.06)
    np.testing.assert_allclose(together[:3, 3:], 0.0, atol=0.06)
    x, shown = task.test(0)
    for group, members in enumerate(task.sets > 0):
        rates = x[shown == group].mean(axis=(0, 1))
        np.testing.assert_allclose(rates[members], 0.05 + 0.7 * 0.95, atol=0.12)
        assert rates[~members].mean() < 0.06
    # The larger group's moments reach its level, those of the smaller one do not.
    low, high = task.levels(0.5, 1.0)
    sums = x[..., :10].sum(axis=-1)
    assert low < sums[shown == 0].mean() < high < sums[shown == 1].mean()


def test_it_runs_and_goes_on_where_it_stood(tmp_path, monkeypatch):
    task = {
        **tasks.TASKS["overlap"],
        "steps": 300,
        "conditions": [{"noise": 0.0}],
        "searched": [{"noise": 0.0}],
        "level": (0.4,),
        "depression": (1.0,),
    }
    monkeypatch.setitem(tasks.TASKS, "overlap", task)
    monkeypatch.setattr(experiment, "COUPLINGS", ("level-tuned",))
    monkeypatch.setattr(experiment, "SETTINGS_OF", {"level-tuned": "level-tuned"})
    monkeypatch.setattr(experiment, "SEARCH_SEEDS", [100])
    (searched,) = experiment.search("overlap", tmp_path)
    assert searched["chosen"] == {"level": 0.4, "depression": 1.0}
    experiment.experiment("overlap", tmp_path, seeds=[1])
    # A further seed is added to those that are there.
    (run,) = experiment.experiment("overlap", tmp_path, seeds=[0, 1])
    assert [seed["seed"] for seed in run["seeds"]] == [0, 1]
    assert run["seeds"][0]["agreement"] > 0.7
    monkeypatch.setattr(experiment, "runs", None)  # nothing is left to run
    assert experiment.search("overlap", tmp_path) == [searched]
    assert experiment.experiment("overlap", tmp_path, seeds=[1]) == [run]
