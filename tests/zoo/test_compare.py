"""Differences of two models, with their intervals."""

import numpy as np
import pytest
from tiny_zoo import make_task

from snukeras.zoo import presets
from snukeras.zoo.publishing import compare
from snukeras.zoo.tasks import TASKS


@pytest.mark.slow
def test_a_bootstrap_interval_covers_as_often_as_it_says():
    random = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        gap = 0.5 + random.standard_normal(60)
        found = compare.bootstrap(gap, np.zeros(60), np.ones(60))
        covered += found.low <= 0.5 <= found.high
        assert found.value == pytest.approx(gap.mean())
    assert 178 <= covered <= 199


def test_samples_count_by_their_weights():
    sums, weights = np.array([3.0, 30.0]), np.array([1.0, 10.0])
    found = compare.bootstrap(sums, np.zeros(2), weights)
    assert found.value == pytest.approx(3.0) and found.low == pytest.approx(3.0)
    assert found.significant and "significant" in str(found)


def test_seeds_by_welch():
    found = compare.welch([8.21, 8.22, 8.24], [8.18, 8.19, 8.17, 8.19, 8.18])
    # As scipy.stats.ttest_ind(..., equal_var=False).confidence_interval() gives.
    np.testing.assert_allclose(
        [found.value, found.low, found.high], [0.041333, 0.009144, 0.073522], atol=1e-5
    )
    equal = compare.welch([1.0, 2.0], [1.2, 2.2])
    assert not equal.significant and "not significant" in str(equal)


def test_two_presets(small_zoo):
    tasks = {"scales": make_task()}
    bootstrap, seeds = compare.compare("tiny", "tiny", small_zoo[0], tasks)
    assert bootstrap.value == bootstrap.low == bootstrap.high == 0.0
    assert "5 samples" in bootstrap.of and "2 and 2 seeds" in seeds.of
    with pytest.raises(ValueError, match=r"one task. Received: jsb_chorales, mnist"):
        compare.compare("jsb_snu", "mnist_snu")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["jsb_rnn", "mnist_snu"])
def test_scores_add_up_to_the_figure(name, data_folder):
    preset = presets.info(name)
    task = TASKS[preset["task"]]
    model = presets.load(name)
    model.compile(loss=task.loss({}), weighted_metrics=task.metrics())
    sums, weights = task.scores(model, "test")
    assert sums.sum() / weights.sum() == pytest.approx(preset["test"], abs=task.tolerance)
