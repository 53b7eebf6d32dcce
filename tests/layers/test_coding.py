"""Rate coding: rates, randomness, what is fixed at inference."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from snukeras.layers import SNU, RateCoding

RAMP = np.linspace(0, 1, 400, dtype="float32").reshape(1, 20, 20)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("max_spikes", [None, 6, 12.5])
def test_rates(training, max_spikes):
    steps = 500
    coded = RateCoding(steps, max_spikes and max_spikes * 25, seed=1)(RAMP, training=training)
    coded = np.asarray(coded)
    assert coded.shape == (1, steps, 20, 20) and set(np.unique(coded)) == {0.0, 1.0}
    p = RAMP[0] * (1.0 if max_spikes is None else max_spikes / 20)
    # Five standard deviations of a mean of Bernoulli trials.
    assert np.all(abs(coded[0].mean(axis=0) - p) <= 5 * np.sqrt(p * (1 - p) / steps) + 1e-6)
    if max_spikes is None:
        assert coded[0, :, -1, -1].min() == 1
    assert coded[0, :, 0, 0].max() == 0
    # Steps and places are independent.
    half = coded[0, :, 10] - coded[0, :, 10].mean(axis=0)
    assert abs((half[1:] * half[:-1]).mean()) < 0.02
    assert abs((half[:, 1:] * half[:, :-1]).mean()) < 0.02


def test_fixed_at_inference_and_new_in_training():
    layer = RateCoding(20, seed=3)
    images = np.concatenate([RAMP, RAMP])
    np.testing.assert_array_equal(layer(images), layer(images))
    np.testing.assert_array_equal(layer(images)[0], layer(images)[1])
    first, second = layer(images, training=True), layer(images, training=True)
    assert np.any(first != second) and np.any(first[0] != first[1])
    again = RateCoding(20, seed=3)
    np.testing.assert_array_equal(again(images), layer(images))
    np.testing.assert_array_equal(again(images, training=True), first)
    assert np.any(RateCoding(20, seed=4)(images) != layer(images))
    random = RateCoding(20, seed=3, inference="random")
    assert np.any(random(images) != random(images))


@pytest.mark.slow
def test_a_layer_without_seed_keeps_its_spikes_when_saved(tmp_path):
    model = keras.Sequential(
        [keras.Input((7,)), RateCoding(9, training_steps=4), SNU(3, return_sequences=True)]
    )
    assert model.output_shape == (None, None, 3)
    x = np.random.default_rng(0).random((2, 7)).astype("float32")
    assert model(x).shape == (2, 9, 3) and model(x, training=True).shape == (2, 4, 3)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(x), model(x))
    config = model.layers[0].get_config()
    assert RateCoding.from_config(config).get_config() == config
    model.compile("adam", "mse", jit_compile=True)
    model.fit(x, np.zeros((2, 4, 3)), verbose=0)


def test_half_precision_spikes_are_the_same():
    full, half = RateCoding(20, seed=3), RateCoding(20, seed=3, dtype="float16")
    images = np.round(RAMP * 255) / 256
    np.testing.assert_array_equal(np.float32(half(images)), full(images))


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(steps=0), ["steps", "at least 1", "0"]),
        (dict(steps=2.0), ["steps", "integer", "2.0"]),
        (dict(training_steps=-1), ["training_steps", "-1"]),
        (dict(max_spikes=0), ["max_spikes", "above 0"]),
        (dict(max_spikes=21), ["max_spikes", "at most 20", "21"]),
        (dict(inference="exact"), ["inference", "fixed", "'exact'"]),
    ],
)
def test_bad_arguments_are_named(arguments, words):
    with pytest.raises(ValueError) as raised:
        RateCoding(**{"steps": 20, **arguments})
    for word in words:
        assert word in str(raised.value)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="known shape"):
        RateCoding(3)(keras.Input((None,)))
    layer = RateCoding(3)
    layer(np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"expected shape=\(None, 4\), found shape=\(2, 5\)"):
        layer(np.zeros((2, 5)))


@pytest.mark.parametrize(
    "value, received",
    [(-0.1, "values from -0.1 to 1"), (255.0, "values from 0 to 255"), (np.nan, "1 NaN")],
)
@pytest.mark.parametrize("training", [False, True])
def test_values_that_are_no_rate_are_refused(value, received, training):
    layer = RateCoding(3, name="coding")
    inputs = np.array([[0.0, 1.0 + 1e-7, 0.5]], "float32")
    layer(inputs, training=training)
    inputs[0, 2] = value
    with pytest.raises(ValueError, match=rf"layer 'coding' must be in \[0, 1\].*{received}"):
        layer(inputs, training=training)
    # A compiled function cannot look; the values saturate as the docstring says.
    spikes = tf.function(layer)(inputs, training=training)
    assert float(tf.reduce_mean(spikes[0, :, 2])) == (1.0 if value > 1 else 0.0)
