"""Elastic distortion against a slow sampler, and its randomness."""

import keras
import numpy as np
import pytest

from snukeras.layers import ElasticDistortion


def images(count=3, channels=1):
    rng = np.random.default_rng(0)
    return rng.random((count, 12, 10, channels)).astype("float32")


def sample(image, row, column):
    """Bilinear interpolation, zero outside, a pixel at a time."""
    height, width, _ = image.shape

    def pixel(r, c):
        return image[r, c] if 0 <= r < height and 0 <= c < width else np.zeros(image.shape[2])

    result = np.zeros_like(image)
    for r, c in np.ndindex(height, width):
        top, left = int(np.floor(row[r, c])), int(np.floor(column[r, c]))
        down, right = row[r, c] - top, column[r, c] - left
        for i, j in np.ndindex(2, 2):
            weight = (down if i else 1 - down) * (right if j else 1 - right)
            result[r, c] += weight * pixel(top + i, left + j)
    return result


@pytest.mark.parametrize("channels", [1, 2])
def test_interpolation(channels):
    x = images(channels=channels)
    rng = np.random.default_rng(1)
    row, column = rng.uniform(-3, 14, (2, 3, 12, 10)).astype("float32")
    layer = ElasticDistortion()
    layer.build(x.shape)
    found = layer._sample(keras.ops.convert_to_tensor(x), row, column)
    expected = [sample(*each) for each in zip(x, row, column, strict=True)]
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_displacements_have_the_size_that_is_said():
    layer = ElasticDistortion(alpha=34, sigma=4, seed=0)
    x = np.zeros((400, 29, 29, 1), "float32")
    row, column = (np.asarray(place) for place in layer._places(x))
    down = row - np.arange(29)[:, None]
    right = column - np.arange(29)
    for moved in (down, right):
        middle = moved[:, 8:21, 8:21]
        assert abs(middle.std() - 0.16 * 34 / 4) < 0.1
        # Neighbours move together: the field is as smooth as a Gaussian of that width.
        assert np.corrcoef(middle[:, 1:].ravel(), middle[:, :-1].ravel())[0, 1] > 0.97
    assert abs(np.corrcoef(down[:, 14, 14], right[:, 14, 14])[0, 1]) < 0.15


def test_affine_parts():
    x = np.zeros((500, 21, 21, 1), "float32")
    row, column = ElasticDistortion(alpha=0, shift=2, seed=0)._places(x)
    moved = np.asarray(row) - np.arange(21)[:, None]
    assert np.ptp(moved, axis=(1, 2)).max() < 1e-4 and 1.9 < abs(moved).max() <= 2
    row, column = ElasticDistortion(alpha=0, rotation=30, seed=0)._places(x)
    y, z = np.asarray(row) - 10, np.asarray(column) - 10
    np.testing.assert_allclose(np.hypot(y, z), np.broadcast_to(
        np.hypot(*np.mgrid[-10:11, -10:11]), y.shape), atol=1e-4)  # fmt: skip
    angles = np.degrees(np.arctan2(y[:, 10, 20], z[:, 10, 20]))
    assert 29 < abs(angles).max() <= 30.01
    row, _ = ElasticDistortion(alpha=0, zoom=0.2, seed=0)._places(x)
    assert 1.19 < (np.asarray(row)[:, 20, 0] - 10).max() / 10 <= 1.2001


def test_only_in_training_and_by_the_seed():
    x = images()
    layer = ElasticDistortion(seed=5, rotation=10, zoom=0.1, shift=1)
    np.testing.assert_array_equal(layer(x), x)
    first, second = layer(x, training=True), layer(x, training=True)
    assert first.shape == x.shape and np.any(first != second)
    same = np.concatenate([x[:1], x[:1]])
    assert np.any(np.diff(layer(same, training=True), axis=0) != 0)
    again = ElasticDistortion.from_config(layer.get_config())
    np.testing.assert_array_equal(again(x, training=True), first)
    still = ElasticDistortion(alpha=0)
    np.testing.assert_allclose(still(x, training=True), x, atol=1e-3)


@pytest.mark.slow
def test_in_a_compiled_model():
    model = keras.Sequential([keras.Input((12, 10, 1)), ElasticDistortion(), keras.layers.Flatten(),
                              keras.layers.Dense(2)])  # fmt: skip
    model.compile("sgd", "mse", jit_compile=True)
    model.fit(images(4), np.zeros((4, 2)), batch_size=2, verbose=0)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(alpha=-1), ["alpha", "-1"]),
        (dict(sigma=0), ["sigma", "above 0"]),
        (dict(zoom=1), ["zoom", "below 1"]),
        (dict(rotation="far"), ["rotation", "'far'"]),
    ],
)
def test_bad_arguments_are_named(arguments, words):
    with pytest.raises(ValueError) as raised:
        ElasticDistortion(**arguments)
    for word in words:
        assert word in str(raised.value)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="batch, height, width, channels"):
        ElasticDistortion()(np.zeros((2, 28, 28), "float32"))
