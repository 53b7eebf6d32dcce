"""Samples survive a file, and their metric is that of the package."""

import numpy as np
import pytest

from snukeras.export.likelihood import frame_nll
from snukeras.export.samples import Samples
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
