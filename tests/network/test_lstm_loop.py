"""The quicker loop of LSTM layers gives what Keras's own does, for the same masks."""

import keras
import numpy as np
import pytest

from snukeras.network.lstm_loop import quick_lstm


def trained(quick, steps=3, **arguments):
    """Weights and losses of a small network after some steps of training."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((None, 5)),
            keras.layers.LSTM(7, return_sequences=True, recurrent_dropout=0.3, **arguments),
            keras.layers.Dropout(0.2),
            keras.layers.LSTM(6, recurrent_dropout=0.4),
            keras.layers.Dense(2),
        ]
    )
    model.compile(keras.optimizers.SGD(0.5), "mse")
    random = np.random.default_rng(0)
    x, y = random.normal(size=(8, 9, 5)), random.normal(size=(8, 2))
    if quick:
        with quick_lstm(model) as names:
            losses = [model.train_on_batch(x, y) for _ in range(steps)]
        assert names == [layer.name for layer in model.layers if "lstm" in layer.name]
    else:
        losses = [model.train_on_batch(x, y) for _ in range(steps)]
    return model, losses


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        pytest.param({"dropout": 0.5}, marks=pytest.mark.slow),
        pytest.param({"go_backwards": True}, marks=pytest.mark.slow),
        pytest.param({"use_bias": False}, marks=pytest.mark.slow),
    ],
)
def test_training_is_that_of_the_layer(arguments):
    (model, losses), (reference, expected) = trained(True, **arguments), trained(False, **arguments)
    assert len({round(float(loss), 4) for loss in expected}) == 3  # it moves, with new masks
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    for ours, theirs in zip(model.get_weights(), reference.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)


@pytest.mark.slow
def test_the_model_stays_an_ordinary_one():
    model, _ = trained(True, steps=1)
    assert "inner_loop" not in vars(model.layers[0])
    x = np.random.default_rng(1).normal(size=(2, 4, 5))
    again = keras.Sequential.from_config(model.get_config())
    again.set_weights(model.get_weights())
    with quick_lstm(model):
        during = model.predict(x, verbose=0)
    np.testing.assert_array_equal(during, again.predict(x, verbose=0))


def test_a_mask_takes_the_loop_of_keras():
    keras.utils.set_random_seed(0)
    layer = keras.layers.LSTM(3, recurrent_dropout=0.5, seed=4)
    model = keras.Sequential([keras.Input((4, 2)), keras.layers.Masking(), layer])
    x = np.concatenate([np.ones((1, 2, 2)), np.zeros((1, 2, 2))], axis=1)
    state = layer.cell.seed_generator.state.numpy()
    expected = model(x, training=True)
    layer.cell.seed_generator.state.assign(state)
    with quick_lstm(model):
        np.testing.assert_array_equal(model(x, training=True), expected)
