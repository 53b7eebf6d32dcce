"""Converters: range, resolution, noise, calibration, and a gradient straight through."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from snukeras.pcm import Converter


def test_converter():
    fixed = Converter(bits=3, bound=1.0)
    np.testing.assert_allclose(
        fixed(np.array([-9, -0.4, 0.1, 0.2, 0.9])), [-1, -1 / 3, 0, 1 / 3, 1]
    )
    own = Converter(bits=2)
    np.testing.assert_allclose(own(np.array([[1.0, 5.0], [-2.0, 0.0]])), [[0, 5], [-2, 0]])
    assert np.all(own(np.zeros((2, 3))) == 0)
    noisy = Converter(noise=0.1)(np.zeros((100, 100)), seed=1)
    assert noisy.std() == pytest.approx(0.1, rel=0.05)
    for arguments in ({"bits": 1}, {"bits": 2.5}, {"bound": 0}, {"noise": -1}):
        with pytest.raises(ValueError, match="`" + next(iter(arguments)) + "`"):
            Converter(**arguments)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(fixed))
    assert copy.get_config() == fixed.get_config()


def test_gradient_of_a_converter():
    x = tf.Variable([0.1, 0.6, 1.4, -2.0])
    with tf.GradientTape() as tape:
        y = Converter(4, bound=1.0)(tf.convert_to_tensor(x))
    np.testing.assert_allclose(tape.gradient(y, x), [1.0, 1.0, 0.0, 0.0])


def test_noise_needs_a_seed_and_a_range_needs_values():
    with pytest.raises(ValueError, match="`seed` must be given"):
        Converter(noise=0.1)(np.zeros(3))
    with pytest.raises(ValueError, match="must not all be 0"):
        Converter(8).calibrated(np.zeros(3))
    assert Converter(8, noise=0.5).calibrated([1.0, -3.0]).get_config() == {
        "bits": 8,
        "bound": 3.0,
        "noise": 0.5,
    }
