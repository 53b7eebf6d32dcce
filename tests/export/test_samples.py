"""Samples survive a file, and their metric is that of the package."""

import keras
import numpy as np
import pytest

from snukeras.export.errors import BadInputError
from snukeras.export.samples import Samples, samples_from_file
from snukeras.export.verify.figures import accuracy, cross_entropy, frame_nll
from snukeras.metrics import FrameNLL


def test_nll_is_the_metric():
    r = np.random.default_rng(0)
    p = [r.random((1, t, 88)).astype("float32") for t in (3, 8)]
    y = [(r.random((1, t, 88)) < 0.1).astype("float32") for t in (3, 8)]
    metric = FrameNLL()
    for a, b in zip(y, p, strict=True):
        metric.update_state(a, b)
    assert frame_nll(p, y) == pytest.approx(float(metric.result()), rel=1e-5)


def test_samples_survive_a_file(tmp_path):
    songs = Samples.songs([np.eye(4, 88), np.ones((2, 88))], "songs")
    songs.save(tmp_path / "s.npz")
    again = Samples.load(tmp_path / "s.npz")
    assert again.kind == "songs" and len(again.batches) == 2
    np.testing.assert_array_equal(again.targets[0], songs.targets[0])
    assert again.batches[1][0].shape == (1, 1, 88)
    assert again.metric == "frame_nll"
    Samples("digits", [[np.ones((2, 3))]], [np.array([1, 0])], "accuracy").save(tmp_path / "d.npz")
    assert Samples.load(tmp_path / "d.npz").metric == "accuracy"


def test_metrics_of_classes_are_those_of_keras():
    r = np.random.default_rng(0)
    p = [r.dirichlet(np.ones(5), size).astype("float32") for size in ((4,), (2, 3))]
    y = [r.integers(0, 5, (4,)), r.integers(0, 5, (2, 3))]
    flat = np.concatenate([part.reshape(-1, 5) for part in p])
    right = np.concatenate([part.ravel() for part in y])
    expected = keras.metrics.sparse_categorical_crossentropy(right, flat)
    assert cross_entropy(p, y) == pytest.approx(float(np.mean(expected)), rel=1e-5)
    expected = keras.metrics.sparse_categorical_accuracy(right, flat)
    assert accuracy(p, y) == pytest.approx(100 * float(np.mean(expected)))


def test_targets_of_the_users_file(tmp_path):
    model = keras.Sequential([keras.Input((3,), name="x"), keras.layers.Dense(2)])
    path = tmp_path / "s.npz"
    x = np.ones((4, 3), "float32")
    np.savez(path, x=x, targets=np.array([0, 1, 1, 0]))
    found = samples_from_file(path, model)
    assert found.metric == "accuracy" and found.targets[0].shape == (4,)
    assert samples_from_file(path, model, "cross_entropy").metric == "cross_entropy"
    np.savez(path, x=x, targets=np.ones((4, 2)))
    assert samples_from_file(path, model).metric == "frame_nll"
    np.savez(path, x=x)
    assert samples_from_file(path, model).targets is None
    with pytest.raises(BadInputError, match="no array 'targets'"):
        samples_from_file(path, model, "accuracy")


def test_a_user_learns_what_is_wrong_with_targets(tmp_path):
    model = keras.Sequential([keras.Input((3,), name="x"), keras.layers.Dense(2)])
    path, x = tmp_path / "s.npz", np.ones((4, 3), "float32")
    for targets, word in (
        (np.zeros(3, int), r"shape \(4\)"),
        (np.full(4, 2), "classes from 0 to 1"),
        (np.full(4, -1), "classes from 0 to 1"),
        (np.ones((4, 3)), r"shape \(4, 2\)"),
        (np.full((4, 2), 1.5), r"lie in \[0, 1\]"),
    ):
        np.savez(path, x=x, targets=targets)
        with pytest.raises(BadInputError, match=word):
            samples_from_file(path, model)


def test_files_that_are_no_samples(tmp_path):
    path = tmp_path / "s.npz"
    np.savez(path, **{"99999999.input.0": np.ones((1, 2))})
    with pytest.raises(BadInputError, match="unknown array"):
        Samples.load(path)
    np.savez(path, **{"0.input.0": np.ones((1, 2)), "2.input.0": np.ones((1, 2))})
    with pytest.raises(BadInputError, match="lacks arrays"):
        Samples.load(path)
    np.savez(path, metric=np.asarray("f1"), **{"0.input.0": np.ones((1, 2))})
    with pytest.raises(BadInputError, match="metric 'f1'; known: frame_nll"):
        Samples.load(path)
    model = keras.Sequential([keras.Input((None, 3), name="x"), keras.layers.LSTM(2)])
    np.savez(path, x=np.ones((4, 0, 3)))
    with pytest.raises(BadInputError, match="at least one step"):
        samples_from_file(path, model)
