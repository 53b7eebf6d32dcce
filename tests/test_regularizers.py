"""The cost of spike rates, of each unit by itself."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from snukeras.layers import PAPER, SNU, ConvSNU2D
from snukeras.regularizers import SpikeRate


def test_the_cost_is_that_of_the_formula_unit_by_unit():
    x = np.zeros((2, 5, 3), "float32")
    x[:, :1, 1] = 1  # a rate of 0.2
    x[:, :, 2] = 1
    assert float(SpikeRate(target=0.2)(x)) == pytest.approx((0.04 + 0 + 0.64) / 3)
    assert float(SpikeRate(low=0.1, high=0.9)(x)) == pytest.approx((0.01 + 0 + 0.01) / 3)
    assert float(SpikeRate(0.2, 0.1, 0.9, factor=2.0)(x)) == pytest.approx(2 * 0.7 / 3)
    maps = np.broadcast_to(x[:, :, None, None], (2, 5, 4, 4, 3))
    assert float(SpikeRate(target=0.2)(maps)) == pytest.approx(0.68 / 3)


@pytest.mark.slow
def test_it_brings_a_silent_layer_to_its_target():
    keras.utils.set_random_seed(1)
    layer = SNU(20, **PAPER, return_sequences=True, activity_regularizer=SpikeRate(target=0.3))
    model = keras.Sequential([keras.Input((10, 15)), layer])
    model.compile(
        keras.optimizers.Adam(0.02), lambda y, prediction: 0.0 * tf.reduce_sum(prediction)
    )
    x = (np.random.default_rng(0).random((32, 10, 15)) < 0.2).astype("float32")
    before = float(model.predict(x, verbose=0).mean())
    model.fit(x, np.zeros((32, 10, 20)), epochs=60, verbose=0)
    assert before < 0.2
    assert model.predict(x, verbose=0).mean() == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize("implementation", ["fused", "cell"])
def test_it_sees_the_outputs_of_all_steps_and_nothing_else(implementation):
    x = (np.random.default_rng(0).random((4, 10, 15)) < 0.5).astype("float32")
    losses = []
    for options in (
        {"return_sequences": True},
        {},
        {"return_state": True, "return_membrane": True},
    ):
        keras.utils.set_random_seed(1)
        layer = SNU(8, activity_regularizer=SpikeRate(target=0.5), threshold=0.2,
                    implementation=implementation, **options)  # fmt: skip
        layer(x)
        losses.append(float(layer.losses[0]))
    assert losses[0] > 0 and losses == pytest.approx([losses[0]] * 3)


def test_it_is_saved_with_its_layer(tmp_path):
    regularizer = SpikeRate(0.2, low=0.1, high=0.3, factor=0.5)
    for layer, shape in (
        (SNU(4, activity_regularizer=regularizer), (None, 3)),
        (ConvSNU2D(4, 3, activity_regularizer=regularizer), (5, 6, 6, 1)),
    ):
        model = keras.Sequential([keras.Input(shape), layer])
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras").layers[0]
        assert loaded.output_regularizer.get_config() == regularizer.get_config()


@pytest.mark.parametrize("arguments", [{"target": 1.2}, {"low": -0.1}, {"high": 2},
                                       {"factor": -1.0}, {"low": 0.5, "high": 0.4},
                                       {"high": None}, {"low": True},
                                       {"target": 0.9, "high": 0.5}])  # fmt: skip
def test_impossible_rates_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        SpikeRate(**arguments)


def test_rates_may_be_of_numpy():
    config = SpikeRate(np.float32(0.5), high=np.float64(0.75)).get_config()
    assert config == {"target": 0.5, "low": 0.0, "high": 0.75, "factor": 1.0}
    assert all(type(value) is float for value in config.values())


def test_one_that_charges_nothing_is_refused():
    with pytest.raises(ValueError, match=r"would charge nothing\. Give a `target`"):
        SpikeRate(factor=2.0)
