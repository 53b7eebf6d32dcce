"""Ranges of converters and statistics of normalisation, from data."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import snukeras
from snukeras.pcm import (
    InputConverter,
    OutputConverter,
    Tile,
    analog,
    calibrate,
    recalibrate_normalization,
)

L = keras.layers
random = np.random.default_rng(5)
X = random.normal(size=(50, 10)).astype("float32")


def dense(tile, units=6):
    keras.utils.set_random_seed(1)
    return analog(keras.Sequential([keras.Input((10,)), L.Dense(units, name="d")]), tile)


def currents(net, x):
    w = np.asarray(net.get_layer("d").kernel)
    return x[:, :4] @ w[:4] / np.abs(w).max(axis=0), x[:, 4:8] @ w[4:8] / np.abs(w).max(axis=0)


def test_ranges_are_the_largest_values_of_each_tile():
    net = dense(Tile(4, 3))
    calibrate(net, X, batch_size=7)
    tiles = net.tiles[0]
    inputs = [np.abs(X[:, part]).max() for part in (slice(0, 4), slice(4, 8), slice(8, 10))]
    np.testing.assert_allclose(tiles.input_range, inputs, rtol=1e-6)
    for block, current in enumerate(currents(net, X)):
        for tile, columns in enumerate((slice(0, 3), slice(3, 6))):
            expected = np.abs(current[:, columns]).max() / inputs[block]
            assert float(tiles.output_range[block, tile]) == pytest.approx(expected, rel=1e-5)
    exact = X @ np.asarray(net.get_layer("d").kernel)
    assert np.abs(np.asarray(net(X)) - exact).max() < 0.05 * np.abs(exact).max()


def test_percentiles():
    net = dense(Tile(20, 20))
    calibrate(net, X, percentile=90.0)
    assert float(net.tiles[0].input_range[0]) == pytest.approx(np.percentile(np.abs(X), 90))
    # Zeros say nothing of the range.
    sparse = np.where(random.random(X.shape) < 0.02, 1.0, 0.0).astype("float32")
    calibrate(net, sparse, percentile=99.0)
    assert float(net.tiles[0].input_range[0]) == 1.0


def test_shares_of_output_ranges():
    net = dense(Tile(4, 3))
    calibrate(net, X)
    tiles = net.tiles[0]
    inputs, outputs = (np.asarray(part.numpy()) for part in (tiles.input_range, tiles.output_range))
    for share in (0.25, {"d/kernel": 0.25}):
        calibrate(net, X, output_share=share)
        np.testing.assert_allclose(tiles.output_range.numpy(), outputs * 0.25, rtol=1e-6)
        np.testing.assert_array_equal(tiles.input_range.numpy(), inputs)
    with pytest.raises(ValueError, match="`output_share` must be one of 'd/kernel'"):
        calibrate(net, X, output_share={"e": 0.5})
    with pytest.raises(ValueError, match="`output_share` must be a finite number above 0"):
        calibrate(net, X, output_share=0.0)


def test_one_range_for_a_layer_and_fixed_ones():
    net = dense(Tile(4, 3, InputConverter(8, per="layer"), OutputConverter(8, per="layer")))
    calibrate(net, X)
    tiles = net.tiles[0]
    assert tiles.input_range.shape == (1,) and tiles.output_range.shape == (1, 1)
    assert float(tiles.input_range[0]) == pytest.approx(np.abs(X).max())
    top = max(np.abs(current).max() for current in currents(net, X))
    assert float(tiles.output_range[0, 0]) >= top / np.abs(X).max() * (1 - 1e-5)
    net = dense(Tile(4, 3, InputConverter(8, 2.0)))
    calibrate(net, X)
    expected = np.abs(currents(net, X)[0][:, :3]).max() / 2.0
    assert float(net.tiles[0].output_range[0, 0]) == pytest.approx(expected, rel=1e-5)
    net = dense(Tile(10, 6, InputConverter(8, "vector")))
    calibrate(net, X)
    w = np.asarray(net.get_layer("d").kernel)
    scaled = X / np.abs(X).max(axis=1, keepdims=True) @ (w / np.abs(w).max(axis=0))
    top = float(net.tiles[0].output_range[0, 0])
    assert top == pytest.approx(np.abs(scaled).max(), rel=1e-5)


def test_dead_tiles_have_a_floor():
    x = X.copy()
    x[:, 4:8] = 0.0
    x[:, 8:] *= 1e-6
    net = dense(Tile(4, 6))
    calibrate(net, x, floor=0.05)
    top = np.abs(x[:, :4]).max()
    np.testing.assert_allclose(net.tiles[0].input_range, [top, top, 0.05 * top], rtol=1e-6)
    calibrate(net, np.zeros_like(x))
    np.testing.assert_array_equal(net.tiles[0].input_range, np.ones(3))
    assert np.all(np.isfinite(net(X)))


def test_batches_lists_and_dicts():
    first, second = dense("generic8"), dense("generic8")
    calibrate(first, X)
    labelled = tf.data.Dataset.from_tensor_slices((X, X[:, 0])).batch(8)
    calibrate(second, labelled)
    np.testing.assert_allclose(first.tiles[0].output_range, second.tiles[0].output_range, rtol=1e-6)
    calibrate(second, X.tolist())
    np.testing.assert_allclose(first.tiles[0].input_range, second.tiles[0].input_range, rtol=1e-6)


def test_networks_of_recurrent_layers():
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((6, 5)),
            snukeras.layers.SSNU(7, recurrent=True, return_sequences=True, name="ssnu"),
            L.GRU(4),
        ]
    )
    net = analog(model, "generic8")
    x = random.random((4, 6, 5)).astype("float32")
    calibrate(net, x)
    np.testing.assert_allclose(net(x), model(x), atol=0.05)
    # What is fed back is the output of sigmoids.
    (fed,) = (p for name, p in net.products().items() if name.endswith("ssnu/recurrent_kernel"))
    assert 0.0 < float(fed.input_range[0]) <= 1.0


def test_bad_input():
    net = dense("generic8")
    with pytest.raises(TypeError, match="must be an analog network"):
        calibrate(net.digital(), X)
    bad = X.copy()
    bad[3, 2] = np.nan
    for x in (bad, tf.data.Dataset.from_tensor_slices(bad).batch(8)):
        with pytest.raises(ValueError, match=r"1 of .* values are NaN"):
            calibrate(net, x)
    with pytest.raises(ValueError, match="no ranges yet"):
        net(X)
    with pytest.raises(ValueError, match="at least one sample"):
        calibrate(net, X[:0])
    with pytest.raises(ValueError, match="one number of samples"):
        calibrate(net, {"a": X, "b": X[:3]})
    for arguments in ({"percentile": 0}, {"percentile": 101}, {"floor": 0}, {"floor": 2}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            calibrate(net, X, **arguments)
    net.get_layer("d").kernel.assign(np.full((10, 6), np.inf))
    with pytest.raises(ValueError, match="products of d/kernel must be finite"):
        calibrate(net, X)


def test_statistics_of_normalisation():
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((10,)),
            L.Dense(6, name="first"),
            L.BatchNormalization(name="n1", momentum=0.9),
            L.Dropout(0.5),
            L.Dense(4, activation="relu"),
            L.BatchNormalization(name="n2"),
        ]
    )
    model.get_layer("first").kernel.assign(3.0 * model.get_layer("first").kernel)
    net = analog(model, "ideal")
    recalibrate_normalization(net, X, batch_size=8)
    y = X @ np.asarray(net.get_layer("first").kernel)
    norm = net.get_layer("n1")
    np.testing.assert_allclose(norm.moving_mean, y.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(norm.moving_variance, y.var(axis=0), rtol=1e-4)
    z = np.asarray(net(X))
    np.testing.assert_allclose(z.mean(axis=0), 0.0, atol=1e-3)
    with pytest.raises(ValueError, match="BatchNormalization"):
        recalibrate_normalization(dense("ideal"), X)
    with pytest.raises(ValueError, match="at least one sample"):
        recalibrate_normalization(net, X[:0])
