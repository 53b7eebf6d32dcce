"""What the compiled scan cannot compute takes the plain path, and is the same."""

import keras
import numpy as np
import pytest

from snukeras.layers import SNU, ConvSNU1D

BATCH, STEPS, FEATURES, UNITS = 3, 6, 4, 5


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(BATCH, STEPS, FEATURES)).astype("float32")


def test_a_layer_with_weights_as_activation_trains(x, tmp_path):
    model = keras.Sequential(
        [
            keras.Input((None, FEATURES)),
            SNU(
                UNITS,
                state_activation=keras.layers.PReLU(
                    alpha_initializer=keras.initializers.Constant(0.3)
                ),
                return_sequences=True,
            ),
        ]
    )
    model.compile(keras.optimizers.SGD(0.1), "mse")
    alpha = model.layers[0].state_activation.alpha
    assert alpha is model.trainable_variables[-1]
    model.fit(x, np.ones((BATCH, STEPS, UNITS)), verbose=0)
    assert np.ptp(alpha.numpy()) > 0
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(x), model(x))


def test_such_a_layer_is_named_where_the_scan_was_asked_for(x):
    layer = SNU(UNITS, state_activation=keras.layers.PReLU(), implementation="fused")
    with pytest.raises(ValueError, match="its state_activation is a layer with weights"):
        layer(x)


def test_an_activation_of_maps_has_weights_for_each_place(x):
    layer = ConvSNU1D(2, 3, state_activation=keras.layers.PReLU())
    layer(x[..., None])
    assert layer.state_activation.alpha.shape == (2, 2)
