"""snukeras.fold: batch normalisation taken up by the weights beside it."""

import keras
import numpy as np
import pytest

import snukeras
from snukeras.constraints import PCMConstraint
from snukeras.layers import SNU, SSNU, ConvSNU2D
from snukeras.network.errors import BadInputError

LAYERS = keras.layers


def shaken(model):
    """The model with weights and statistics that say something."""
    random = np.random.default_rng(0)
    for layer in model.layers:
        for variable in layer.weights:
            if "kernel" not in variable.name and "decay" not in variable.name:
                noise = 0.3 * random.normal(size=variable.shape)
                variable.assign(np.abs(noise) + 0.2 if "var" in variable.name else noise)
    return model


def stack(*layers, shape=(6, 5)):
    keras.utils.set_random_seed(1)
    return shaken(keras.Sequential([keras.Input(shape), *layers]))


@pytest.mark.parametrize("network", [
    lambda: stack(LAYERS.BatchNormalization(), SSNU(4, return_sequences=True)),
    lambda: stack(LAYERS.BatchNormalization(center=False, scale=False),
                  SSNU(4, recurrent=True, use_bias=True, trainable_decay=True)),
    lambda: stack(LAYERS.Dense(7, use_bias=False), LAYERS.BatchNormalization(), SSNU(4)),
    lambda: stack(LAYERS.Dense(7, "relu"), LAYERS.BatchNormalization(), SSNU(4)),
    lambda: stack(snukeras.layers.ConvSSNU2D(3, 2, strides=2, return_sequences=True),
                  LAYERS.BatchNormalization(), snukeras.layers.ConvSSNU2D(4, 2),
                  shape=(5, 7, 7, 2)),
    lambda: stack(LAYERS.Conv2D(3, 2, padding="same"), LAYERS.BatchNormalization(),
                  LAYERS.Reshape((7, 21)), SSNU(3), shape=(7, 7, 2)),
    lambda: stack(LAYERS.BatchNormalization(), LAYERS.Dense(3, "tanh")),
])  # fmt: skip
@pytest.mark.some_cases(2)
def test_a_folded_model_computes_the_same_without_normalisation(network):
    model = network()
    folded = snukeras.fold(model)
    assert not any(isinstance(each, LAYERS.BatchNormalization) for each in folded.layers)
    x = np.random.default_rng(1).normal(size=(4, *model.input_shape[1:])).astype("float32")
    expected = model.predict(x, verbose=0)
    assert expected.std() > 0.01
    np.testing.assert_allclose(folded.predict(x, verbose=0), expected, atol=2e-5)


def test_spikes_are_those_of_the_model():
    model = stack(LAYERS.BatchNormalization(), SNU(30, return_sequences=True))
    x = np.random.default_rng(1).normal(size=(4, 6, 5)).astype("float32")
    expected, got = (each.predict(x, verbose=0) for each in (model, snukeras.fold(model)))
    assert 0.1 < expected.mean() < 0.9 and (expected != got).mean() < 0.01
    chip = snukeras.pcm.Chip(snukeras.fold(model))
    assert chip is not None


def shared():
    x = keras.Input((6, 5))
    y = LAYERS.BatchNormalization()(x)
    return shaken(keras.Model(x, LAYERS.Add()([LAYERS.Dense(5)(y), y])))


@pytest.mark.parametrize("network", [
    shared,
    lambda: stack(LAYERS.BatchNormalization(), SNU(4, kernel_constraint=PCMConstraint())),
    lambda: stack(LAYERS.BatchNormalization(), ConvSNU2D(4, 3, padding="same"), shape=(5, 7, 7, 2)),
    lambda: stack(LAYERS.BatchNormalization(), LAYERS.LSTM(4)),
    lambda: stack(LAYERS.BatchNormalization(axis=1), LAYERS.Dense(4)),
])  # fmt: skip
@pytest.mark.some_cases(2)
def test_what_no_neighbour_can_take_up_stays(network):
    model = network()
    folded = snukeras.fold(model)
    assert sum(isinstance(each, LAYERS.BatchNormalization) for each in folded.layers) == 1
    x = np.random.default_rng(1).normal(size=(4, *model.input_shape[1:])).astype("float32")
    np.testing.assert_allclose(folded.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5)


def test_a_model_without_a_topology_is_refused():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(BadInputError):
        snukeras.fold(Own())


def test_what_is_no_model_is_refused():
    with pytest.raises(BadInputError, match="must be a built Sequential or functional model"):
        snukeras.fold(3)
