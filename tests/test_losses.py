"""The frame negative log-likelihood as a loss."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from snukeras import metrics
from snukeras.losses import FrameNLL, frame_nll


def reference(y, p):
    """Each frame's negative log-likelihood, in float64."""
    y, p = np.asarray(y, np.float64), np.asarray(p, np.float64)
    return -(y * np.log(p) + (1 - y) * np.log1p(-p)).sum(axis=-1)


@pytest.fixture
def batch():
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, (6, 9, 88)).astype(np.float32)
    logits = rng.normal(size=(6, 9, 88)).astype(np.float32) * 3
    mask = np.arange(9) < np.array([9, 2, 5, 7, 1, 9])[:, None]
    return y, logits, mask


def probabilities(logits):
    return 1 / (1 + np.exp(-np.asarray(logits, np.float64)))


@pytest.mark.parametrize("from_logits", [False, True])
def test_each_frame(batch, from_logits):
    y, logits, _ = batch
    given = logits if from_logits else probabilities(logits)
    values = frame_nll(y, given, from_logits)
    assert values.shape == (6, 9)
    np.testing.assert_allclose(values, reference(y, probabilities(logits)), rtol=1e-5)


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_mean_over_predicted_steps(batch, from_logits, masked):
    y, logits, mask = batch
    p = probabilities(logits)
    weights = mask if masked else None
    loss = FrameNLL(from_logits)(y, logits if from_logits else p, sample_weight=weights)
    expected = reference(y, p)[mask if masked else np.ones_like(mask)].mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_padding_does_not_matter(batch):
    y, logits, mask = batch
    p = probabilities(logits)
    longer = np.pad(p, ((0, 0), (0, 30), (0, 0)), constant_values=0.9)
    padded = FrameNLL()(
        np.pad(y, ((0, 0), (0, 30), (0, 0))), longer, np.pad(mask, ((0, 0), (0, 30)))
    )
    np.testing.assert_allclose(padded, FrameNLL()(y, p, mask), rtol=1e-6)


def test_extreme_predictions_stay_finite_and_teach():
    y = np.array([[1.0, 0.0, 1.0, 0.0]], np.float32)
    logits = tf.Variable([[-80.0, 200.0, 200.0, -200.0]])
    with tf.GradientTape() as tape:
        value = frame_nll(y, logits, from_logits=True)
    np.testing.assert_allclose(value, [280.0], rtol=1e-6)
    np.testing.assert_allclose(tape.gradient(value, logits), [[-1.0, 1.0, 0.0, 0.0]])
    with tf.GradientTape() as tape:
        value = frame_nll(y, tf.sigmoid(logits))
    gradient = tape.gradient(value, logits)
    assert np.isfinite(value).all() and np.isfinite(gradient).all()
    # A limit at 1e-7 would give 16 and no gradient for the first.
    np.testing.assert_allclose(gradient[0, 0], -1.0, rtol=1e-5)
    assert value[0] > 80


def test_gradient_at_zero_logit():
    z = tf.Variable([[0.0, 0.0]])
    with tf.GradientTape() as tape:
        value = frame_nll(np.array([[1.0, 0.0]], np.float32), z, from_logits=True)
    np.testing.assert_allclose(tape.gradient(value, z), [[-0.5, 0.5]])


def test_label_smoothing(batch):
    y, logits, mask = batch
    p = probabilities(logits)
    expected = reference(y * 0.8 + 0.1, p)[mask].mean()
    loss = FrameNLL(label_smoothing=0.2)(y, p, mask)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 4, 6])
def test_steps_per_sequence_makes_evaluate_exact(batch, batch_size):
    y, logits, mask = batch
    expected = reference(y, probabilities(logits))[mask].mean()
    model = keras.Sequential([keras.Input((9, 88)), keras.layers.Identity()])
    model.compile(loss=FrameNLL(from_logits=True, steps_per_sequence=mask.sum() / len(mask)))
    loss = model.evaluate(
        logits, y, sample_weight=mask.astype(np.float32), batch_size=batch_size, verbose=0
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_keras_mask(batch):
    """The mask of a Masking layer is used, alone and together with weights."""
    y, logits, mask = batch
    p = probabilities(logits).astype(np.float32)
    inputs = np.where(mask[..., None], p, -1.0).astype(np.float32)
    model = keras.Sequential([keras.Input((9, 88)), keras.layers.Masking(-1.0)])
    weights = np.random.default_rng(0).uniform(0.5, 2.0, mask.shape).astype(np.float32)
    frames = reference(y, p)
    for steps in (None, mask.sum() / len(mask)):
        model.compile(loss=FrameNLL(steps_per_sequence=steps))
        loss = model.evaluate(inputs, y, batch_size=6, verbose=0)
        np.testing.assert_allclose(loss, frames[mask].mean(), rtol=1e-5)
    model.compile(loss=FrameNLL())
    loss = model.evaluate(inputs, y, sample_weight=weights, batch_size=6, verbose=0)
    expected = (frames * weights)[mask].sum() / weights[mask].sum()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_half_precision_predictions(batch):
    y, logits, mask = batch
    half = tf.cast(probabilities(logits), tf.float16)
    assert FrameNLL()(y, half, mask).dtype == tf.float32
    saturated = tf.constant([[[1.0, 0.0]]], tf.float16)
    assert np.isfinite(FrameNLL()(np.array([[[0.0, 1.0]]]), saturated))


def test_survives_saving():
    loss = FrameNLL(from_logits=True, label_smoothing=0.1, steps_per_sequence=5.0, name="nll")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert type(again) is FrameNLL
    assert again.get_config() == loss.get_config()


def test_loss_and_metric_in_one_saved_model(tmp_path):
    """They have one class name, and must not be taken for each other."""
    model = keras.Sequential([keras.Input((None, 88)), keras.layers.Dense(88, "sigmoid")])
    model.compile("sgd", FrameNLL(label_smoothing=0.1), weighted_metrics=[metrics.FrameNLL()])
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again.loss) is FrameNLL and again.loss.label_smoothing == 0.1
    frames = np.zeros((1, 3, 88), np.float32)
    values = again.evaluate(frames, frames, verbose=0, return_dict=True)
    np.testing.assert_allclose(values["frame_nll"], 88 * np.log(2), rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label_smoothing": 1.5}, "`label_smoothing`.*Received: .*1.5"),
        ({"steps_per_sequence": 0.0}, "`steps_per_sequence`.*Received: .*0.0"),
        ({"steps_per_sequence": float("nan")}, "`steps_per_sequence`"),
        ({"steps_per_sequence": 3.0, "reduction": "sum"}, "`reduction`.*'sum'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        FrameNLL(**arguments)


def test_shapes_have_to_agree():
    with pytest.raises(ValueError, match=r"\(2, 3, 88\).*\(2, 3, 1\)"):
        FrameNLL()(np.zeros((2, 3, 88)), np.full((2, 3, 1), 0.5))
