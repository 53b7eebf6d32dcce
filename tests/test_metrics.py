"""Metrics against their definitions, on made-up data and on real songs."""

import json
import re
import subprocess
import sys

import keras
import numpy as np
import pytest

import snukeras
from snukeras.datasets import jsb_chorales, piano_roll
from snukeras.metrics import FrameNLL, Perplexity, SpikeRate


def reference(songs, probabilities):
    """Straight from the definition: sum over keys and steps of all songs, over all steps."""
    total = steps = 0.0
    for song, p in zip(songs, probabilities, strict=True):
        y = song[1:].astype(np.float64)
        p = np.asarray(p, np.float64)[: len(y)]
        total -= (y * np.log(p) + (1 - y) * np.log1p(-p)).sum()
        steps += len(y)
    return total / steps


@pytest.fixture(scope="module")
def songs():
    rng = np.random.default_rng(2)
    return [rng.integers(0, 2, (n, 88), np.uint8) for n in (30, 3, 12, 2, 7, 19, 5)]


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((None, 88)),
            keras.layers.SimpleRNN(5, return_sequences=True),
            keras.layers.Dense(88, activation="sigmoid"),
        ]
    )


@pytest.fixture(scope="module")
def expected(songs, model):
    return reference(songs, [model.predict(s[None, :-1] * 1.0, verbose=0)[0] for s in songs])


@pytest.mark.some_cases(1)
@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 100])
def test_evaluate_with_sample_weight(songs, model, expected, batch_size):
    x, y, mask = piano_roll.pad(songs)
    model.compile(loss="binary_crossentropy", weighted_metrics=[FrameNLL()])
    values = model.evaluate(
        x, y, sample_weight=mask * 1.0, batch_size=batch_size, verbose=0, return_dict=True
    )
    np.testing.assert_allclose(values["frame_nll"], expected, rtol=1e-6)


@pytest.mark.some_cases(2)
@pytest.mark.parametrize("where", ["metrics", "weighted_metrics"])
@pytest.mark.parametrize("batch_size", [2, 7])
def test_evaluate_with_masking_layer(songs, expected, model, where, batch_size):
    x, y, mask = piano_roll.pad(songs)
    x = np.where(mask[..., None], x, -1.0)
    masked = keras.Sequential([keras.Input((None, 88)), keras.layers.Masking(-1.0), *model.layers])
    masked.compile(loss="binary_crossentropy", **{where: [FrameNLL()]})
    values = masked.evaluate(x, y, batch_size=batch_size, verbose=0, return_dict=True)
    np.testing.assert_allclose(values["frame_nll"], expected, rtol=1e-6)


def test_batches_of_other_lengths_without_mask(songs, model, expected):
    metric = FrameNLL()
    for song in songs:
        metric.update_state(song[None, 1:], model(song[None, :-1] * 1.0))
    np.testing.assert_allclose(metric.result(), expected, rtol=1e-6)


def test_logits(songs):
    rng = np.random.default_rng(3)
    x, y, mask = piano_roll.pad(songs)
    logits = rng.normal(size=x.shape).astype(np.float32) * 4
    metric = FrameNLL(from_logits=True)
    metric.update_state(y, logits, mask)
    expected = reference(songs, 1 / (1 + np.exp(-logits.astype(np.float64))))
    np.testing.assert_allclose(metric.result(), expected, rtol=1e-6)


def test_weights_of_songs_and_of_steps():
    y = np.zeros((2, 3, 4), np.float32)
    p = np.stack([np.full((3, 4), 0.5), np.full((3, 4), 0.25)]).astype(np.float32)
    half, quarter = -4 * np.log(0.5), -4 * np.log(0.75)
    for weights, expected in (
        (np.array([3.0, 1.0]), (3 * half + quarter) / 4),
        (np.array([[1, 0, 0], [1, 1, 0]]), (half + 2 * quarter) / 3),
        (np.array([[1, 0, 0], [1, 1, 0]])[..., None], (half + 2 * quarter) / 3),
    ):
        metric = FrameNLL()
        metric.update_state(y, p, weights)
        np.testing.assert_allclose(metric.result(), expected, rtol=1e-6)


@pytest.mark.parametrize("shape", [(3,), (2, 4), (2, 5, 2), (4, 5), (2, 5, 1, 1)])
def test_weights_that_are_not_those_of_the_steps_are_refused(shape):
    """Some of them would broadcast without a word."""
    metric, ones = FrameNLL(), np.ones(shape, "float32")
    message = r"`sample_weight` must have .* \(2, 5\).* Received: " + re.escape(str(shape))
    with pytest.raises(ValueError, match=message):
        metric.update_state(np.ones((2, 5, 3)), np.full((2, 5, 3), 0.5), ones)
    with pytest.raises(ValueError, match=r"\(5,\).* Received: \(5, 5\)"):
        SpikeRate().update_state(None, np.ones((5, 3)), np.ones((5, 5)))


def test_nan_in_padding_does_not_count():
    p = np.full((1, 2, 3), 0.5, np.float32)
    p[0, 1] = np.nan
    metric = FrameNLL()
    metric.update_state(np.zeros((1, 2, 3)), p, np.array([[1, 0]]))
    np.testing.assert_allclose(metric.result(), 3 * np.log(2), rtol=1e-6)
    metric.update_state(np.zeros((1, 2, 3)), p)
    assert np.isnan(metric.result())


def test_reset_and_saving():
    metric = FrameNLL(from_logits=True, name="nll")
    metric.update_state(np.zeros((1, 2, 3)), np.ones((1, 2, 3)))
    metric.reset_state()
    assert metric.result() == 0
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
    assert type(again) is FrameNLL and again.get_config() == metric.get_config()


SCRIPT = """
import json
import keras, numpy as np, tensorflow as tf
import snukeras.losses, snukeras.metrics

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
rng = np.random.default_rng(0)
y = rng.integers(0, 2, (6, 10, 4)).astype("float32")
p = rng.uniform(0.1, 0.9, (6, 10, 4)).astype("float32")
mask = (np.arange(10) < np.array([10, 1, 2, 3, 9, 4])[:, None]).astype("float32")
frames = -(y * np.log(p) + (1 - y) * np.log(1 - p)).sum(-1)
results = {"expected": float((frames * mask).sum() / mask.sum())}
for size in (2, 4, 6):
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = keras.Sequential([keras.Input((10, 4)), keras.layers.Identity()])
        model.compile(
            loss=snukeras.losses.FrameNLL(steps_per_sequence=mask.sum() / 6),
            weighted_metrics=[snukeras.metrics.FrameNLL()],
        )
    values = model.evaluate(
        p, y, sample_weight=mask, batch_size=size, verbose=0, return_dict=True
    )
    results[str(size)] = [values["frame_nll"], values["loss"]]
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        words = keras.Sequential([keras.Input((10, 4)), keras.layers.Identity()])
        words.compile(
            loss="sparse_categorical_crossentropy",
            weighted_metrics=[snukeras.metrics.Perplexity()],
        )
    values = words.evaluate(
        p, y.argmax(-1), sample_weight=mask, batch_size=size, verbose=0, return_dict=True
    )
    came = -np.log(np.take_along_axis(p, y.argmax(-1)[..., None], -1)[..., 0])
    relative = float(values["perplexity"] / np.exp((came * mask).sum() / mask.sum()))
    results[f"perplexity {size}"] = [relative * results["expected"]] * 2
print(json.dumps(results))
"""


@pytest.mark.slow
@pytest.mark.skipif(
    tuple(int(part) for part in keras.__version__.split(".")[:2]) < (3, 10),
    reason="Keras before 3.10 adds up every metric of replicas wrongly, its own ones too",
)
def test_two_replicas():
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 0, run.stderr
    results = json.loads(run.stdout.splitlines()[-1])
    expected = results.pop("expected")
    for metric, loss in results.values():
        np.testing.assert_allclose([metric, loss], expected, rtol=1e-5)


def test_order_0_model_on_the_chorales(data_folder):
    """Each key by its frequency in the training targets, on the test split.

    The mean over all steps is 11.09; no smoothing changes that. (11.04, a figure that is told as
    well, is the mean of the means of the songs, which is another definition.) No constant
    prediction can be below 11.07, what the frequencies of the test split itself give.
    """
    train, _, test = jsb_chorales.load_data()

    def score(frequencies):
        x, y, mask = piano_roll.pad(test)
        metric = FrameNLL()
        metric.update_state(y, np.broadcast_to(frequencies, x.shape), mask)
        return float(metric.result())

    targets = np.concatenate([song[1:] for song in train])
    order_0 = np.clip(targets.mean(axis=0), 1e-6, 1.0)
    assert round(score(order_0), 2) == 11.09
    for added in (0.1, 0.5, 1.0):
        smoothed = (targets.sum(axis=0) + added) / (len(targets) + 2 * added)
        assert round(score(smoothed), 2) == 11.09
    of_songs = [reference([song], [np.broadcast_to(order_0, song.shape)]) for song in test]
    assert round(float(np.mean(of_songs)), 2) == 11.04
    own = np.concatenate([song[1:] for song in test]).mean(axis=0)
    assert round(score(own), 2) == 11.07


def test_perplexity_against_the_definition():
    rng = np.random.default_rng(5)
    logits = rng.normal(size=(7, 9, 13)) * 3
    words = rng.integers(13, size=(7, 9))
    weights = rng.uniform(0, 2, (7, 9)) * (rng.random((7, 9)) < 0.7)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    nll = -np.log(np.take_along_axis(p, words[..., None], -1)[..., 0])
    for given, from_logits in ((logits, True), (p, False)):
        for weight in (None, weights):
            w = np.ones_like(nll) if weight is None else weight
            metric = Perplexity(from_logits=from_logits)
            for part in np.array_split(np.arange(7), 3):
                rows = None if weight is None else weight[part]
                metric.update_state(words[part], given[part].astype(np.float32), rows)
            np.testing.assert_allclose(
                metric.result(), np.exp((nll * w).sum() / w.sum()), rtol=1e-5
            )
    metric = Perplexity()
    metric.update_state(words[:, 0], p[:, 0].astype(np.float32))
    np.testing.assert_allclose(metric.result(), np.exp(nll[:, 0].mean()), rtol=1e-5)


def test_perplexity_in_evaluate_and_saving():
    rng = np.random.default_rng(6)
    x, words = rng.normal(size=(5, 4, 3)), rng.integers(6, size=(5, 4))
    model = keras.Sequential([keras.Input((None, 3)), keras.layers.Dense(6)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss, weighted_metrics=[Perplexity(from_logits=True)])
    seen = np.arange(4) < np.array([4, 1, 2, 3, 4])[:, None]
    logits = model.predict(x, verbose=0).astype(np.float64)
    nll = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, words[..., None], -1)[..., 0]
    for size in (2, 5):
        values = model.evaluate(
            x, words, sample_weight=seen * 1.0, batch_size=size, verbose=0, return_dict=True
        )
        np.testing.assert_allclose(values["perplexity"], np.exp(nll[seen].mean()), rtol=1e-5)
    metric = Perplexity(from_logits=True, name="words")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
    assert type(again) is Perplexity and again.get_config() == metric.get_config()


def test_word_of_probability_0_is_dear_and_finite():
    metric = Perplexity()
    metric.update_state(np.array([0]), np.array([[0.0, 1.0]], np.float32))
    assert 1e37 < float(metric.result()) < np.inf


def test_the_spike_rate_is_the_mean_over_the_steps_that_count():
    random = np.random.default_rng(0)
    spikes = (random.random((6, 5, 4)) < 0.3).astype("float32")
    weights = (random.random((6, 5)) < 0.7).astype("float32")
    metric = SpikeRate()
    for rows in (slice(0, 4), slice(4, 6)):
        metric.update_state(None, spikes[rows], weights[rows])
    assert float(metric.result()) == pytest.approx(spikes[weights > 0].mean())
    metric.reset_state()
    metric.update_state(None, spikes[:, :, None, None])
    assert float(metric.result()) == pytest.approx(spikes.mean())
    again = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert isinstance(again, SpikeRate)


def test_the_spike_rate_of_an_output_is_among_the_metrics_of_a_model():
    x = keras.Input((5, 3))
    spikes = snukeras.layers.SNU(4, threshold=0.1, return_sequences=True, name="hidden")(x)
    model = keras.Model(x, {"sum": keras.layers.Dense(1)(spikes), "hidden": spikes})
    model.compile(loss={"sum": "mse"}, metrics={"hidden": SpikeRate()})
    data = np.random.default_rng(0).random((8, 5, 3)).astype("float32")
    targets = {"sum": np.zeros((8, 5, 1)), "hidden": np.zeros((8, 5, 4))}
    found = model.evaluate(data, targets, verbose=0, return_dict=True)
    rate = float(model.predict(data, verbose=0)["hidden"].mean())
    assert found["hidden_spike_rate"] == pytest.approx(rate)


def test_a_spike_rate_needs_an_array_of_spikes():
    with pytest.raises(ValueError, match=r"`y_pred` must hold spikes, an array.*y_pred=1\.0"):
        SpikeRate().update_state(None, 1.0)


@pytest.mark.parametrize("name", ["SpikeRate", "FrameNLL", "Perplexity"])
def test_what_is_missing_is_named(name):
    metric = getattr(snukeras.metrics, name)()
    with pytest.raises(ValueError, match=rf"`y_pred` must be an array .* {name} names"):
        metric.update_state(np.zeros((2, 3)), None)
    if name != "SpikeRate":
        with pytest.raises(ValueError, match="Received: y_true=None"):
            metric.update_state(None, np.zeros((2, 3)))
