"""Level crossings: spikes up and down, silence where nothing changes."""

import keras
import numpy as np
import pytest

from snukeras.layers import SNU, LevelCrossing


def test_spikes_up_and_down():
    x = np.array([0.2, 0.6, 1.4, 1.4, 0.9, -0.1, 0.1], "float32")[None, :, None]
    spikes = np.asarray(LevelCrossing(0.5)(x))[0]
    #          levels: 0    1    2    2    1    -1    0
    assert spikes[:, 0].tolist() == [0, 1, 1, 0, 0, 0, 1]
    assert spikes[:, 1].tolist() == [0, 0, 0, 0, 1, 1, 0]


def test_features_stay_apart():
    x = np.random.default_rng(0).normal(size=(2, 30, 3)).astype("float32")
    both = np.asarray(LevelCrossing(0.7)(x))
    assert both.shape == (2, 30, 6) and set(np.unique(both)) == {0.0, 1.0}
    assert not (both[..., :3] * both[..., 3:]).any()
    np.testing.assert_array_equal(LevelCrossing(0.7)(x[..., 1:2])[..., 0], both[..., 1])
    constant = np.full((2, 9, 3), 3.2, "float32")
    assert np.asarray(LevelCrossing()(constant))[:, 1:].sum() == 0


def test_saving(tmp_path):
    model = keras.Sequential([keras.Input((None, 4)), LevelCrossing(0.25), SNU(3)])
    assert model.layers[0].output.shape == (None, None, 8)
    x = np.random.default_rng(0).normal(size=(2, 9, 4)).astype("float32")
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(x), model(x))


def test_bad_arguments_are_named():
    for spacing in (0, -1.0, float("nan"), True, "half"):
        with pytest.raises(ValueError, match=r"`spacing` must be a finite number above 0\."):
            LevelCrossing(spacing)
    with pytest.raises(ValueError, match=r"\(batch, steps, features\)"):
        LevelCrossing()(keras.Input((4,)))
