"""Products on tiles against an oracle of plain loops, their noise, wires and gradients."""

import analog_oracle
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from snukeras.network.matrices import Unrolling
from snukeras.pcm import GenericPCM, InputConverter, OutputConverter, Tile, with_ir_drop
from snukeras.pcm.converters import converted
from snukeras.pcm.tiled_product import TiledProduct

random = np.random.default_rng(1)
W = random.normal(size=(11, 7)).astype("float32")
X = random.normal(size=(5, 11)).astype("float32")


def tiled(tile, shape=W.shape, unrolling=None, **arguments):
    return TiledProduct(shape, unrolling or Unrolling(), tile, seed=3, **arguments)


TILES = {
    "fixed": Tile(4, 3, InputConverter(4, 1.5), OutputConverter(5, 2.5)),
    "vector": Tile(4, 3, InputConverter(3, "vector"), OutputConverter(6, 3.0)),
    "vector_of_layer": Tile(4, 3, InputConverter(3, "vector", "layer"), None),
    "calibrated": Tile(5, 4),
    "layer": Tile(5, 4, InputConverter(6, per="layer"), OutputConverter(6, per="layer")),
    "learned": Tile(4, 9, InputConverter(4, "learned"), OutputConverter(4, "learned")),
    "bent": Tile(6, 3, None, OutputConverter(7, 4.0, gain=0.1, offset=0.05, nonlinearity=0.2)),
    "clipped": Tile(20, 20, InputConverter(None, 0.7), OutputConverter(None, 1.0)),
}


@pytest.mark.parametrize("name", TILES)
def test_the_oracle_agrees(name):
    tile = TILES[name]
    product = tiled(tile)
    blocks, across = len(product.blocks), product.across
    inputs = np.full(blocks, 1.5 if tile.input is None else getattr(tile.input, "range", 1.0))
    if product.input_range is not None:
        inputs = np.resize(random.uniform(1, 2, product.input_range.shape), blocks)
        product.input_range.assign(inputs[: product.input_range.shape[0]])
    outputs = None
    if product.output_range is not None:
        values = random.uniform(1, 4, product.output_range.shape).astype("float32")
        product.output_range.assign(values)
        outputs = np.broadcast_to(values, (blocks, across))
    elif tile.output is not None:
        outputs = np.full((blocks, across), tile.output.range)
    errors = {
        part: None if getattr(product, part) is None else np.asarray(getattr(product, part))
        for part in ("gain", "offset")
    }
    if name == "bent":
        assert np.std(errors["gain"]) > 0.03
    expected = [
        analog_oracle.product(x, W, tile, inputs, outputs, **errors) for x in X.astype("float64")
    ]
    got = keras.ops.convert_to_numpy(product.multiply(X, W))
    # A number that lies between two steps may be rounded either way.
    assert np.mean(np.abs(got - expected) > 1e-4) < 0.03
    if name == "fixed":
        assert np.abs(got - X @ W).max() > 0.1


def test_chips_have_factors_and_units():
    product = tiled(TILES["fixed"], programmed=True)
    factor = random.uniform(1, 2, product.factor.shape)
    product.factor.assign(factor)
    product.unit.assign(np.abs(W).max(axis=0))
    expected = [
        analog_oracle.product(x, W, TILES["fixed"], np.full(3, 1.5), np.full((3, 3), 2.5),
                              factor=factor)
        for x in X.astype("float64")
    ]  # fmt: skip
    got = keras.ops.convert_to_numpy(product.multiply(X, W))
    assert np.mean(np.abs(got - expected) > 1e-4) < 0.03


def test_groups_and_other_layouts_of_weights():
    kernel = random.normal(size=(3, 2, 5)).astype("float32")  # places, channels, multiplier
    unrolling = Unrolling((0,), (1, 2), "output", 2)
    tile = Tile(2, 4, InputConverter(5, "vector"), OutputConverter(7, 3.0))
    product = tiled(tile, (3, 10), unrolling)
    x = random.normal(size=(4, 2, 3)).astype("float32")
    got = keras.ops.convert_to_numpy(product.multiply(x, kernel, 2))
    matrix = unrolling.matrix(kernel)
    for group, columns in enumerate((slice(0, 5), slice(5, 10))):
        expected = [
            analog_oracle.product(
                v, matrix, tile, output_ranges=np.full((2, 3), 3.0)
            )[columns]
            for v in x[:, group].astype("float64")
        ]  # fmt: skip
        assert np.mean(np.abs(got[:, columns] - expected) > 1e-4) < 0.05


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 12), st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=20))
def test_properties_of_a_converter(bits, values):
    v = np.array(values, "float32")
    codes = keras.ops.convert_to_numpy(converted(keras.ops.convert_to_tensor(v), bits))
    steps = 2 ** (bits - 1) - 1
    whole = codes * steps
    np.testing.assert_allclose(whole, np.round(whole), atol=1e-3)
    assert np.abs(codes).max() <= 1.0
    inside = np.abs(v) <= 1
    assert np.all(np.abs(codes - v)[inside] <= 0.5 / steps + 1e-6)
    np.testing.assert_array_equal(codes[~inside], np.sign(v[~inside]))
    again = keras.ops.convert_to_numpy(converted(keras.ops.convert_to_tensor(codes), bits))
    np.testing.assert_allclose(again, codes, atol=1e-6)
    mirrored = keras.ops.convert_to_numpy(converted(keras.ops.convert_to_tensor(-v), bits))
    np.testing.assert_array_equal(mirrored, -codes)
    order = np.argsort(v)
    assert np.all(np.diff(codes[order]) >= 0)


def test_read_noise_of_each_product():
    device = GenericPCM()
    product = tiled(Tile(6, 4, None, None), device=device)
    many = np.repeat(X[:1], 4000, axis=0)
    y = keras.ops.convert_to_numpy(product.multiply(many, W))
    largest = np.abs(W).max(axis=0)
    g = np.stack([np.maximum(W, 0), np.maximum(-W, 0)]) / largest * 25.0
    variance = np.square(device.read_noise_std(g) * g).sum(axis=0) / 25.0**2 * largest**2
    np.testing.assert_allclose(y.std(axis=0), np.sqrt(X[0] ** 2 @ variance), rtol=0.05)
    np.testing.assert_allclose(y.mean(axis=0), X[0] @ W, atol=0.02)
    # Fresh for each sample, and for each call.
    assert len(np.unique(y[:, 0])) > 3990
    assert not np.array_equal(y, keras.ops.convert_to_numpy(product.multiply(many, W)))


def test_noise_of_the_output_converter():
    product = tiled(Tile(20, 20, InputConverter(None, 2.0), OutputConverter(None, None, noise=0.3)))
    many = np.repeat(X[:1] * 0.2, 4000, axis=0)
    y = keras.ops.convert_to_numpy(product.multiply(many, W))
    expected = 0.3 * 2.0 * np.abs(W).max(axis=0)
    np.testing.assert_allclose(y.std(axis=0), expected, rtol=0.05)


def test_wires():
    product = tiled(Tile(6, 4, None, None, wire_resistance=50.0))
    got = keras.ops.convert_to_numpy(product.multiply(X, W))
    largest = np.abs(W).max(axis=0)
    g = np.stack([np.maximum(W, 0), np.maximum(-W, 0)]) / largest * 25.0
    held = np.empty_like(g)
    for rows in (slice(0, 6), slice(6, 11)):
        for columns in (slice(0, 4), slice(4, 7)):
            held[:, rows, columns] = with_ir_drop(g[:, rows, columns], 50.0)
    expected = X @ ((held[0] - held[1]) / 25.0 * largest)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(expected - X @ W).max() > 1e-3


def test_gradients_pass_straight_through():
    tile = Tile(4, 9, InputConverter(6, "learned"), OutputConverter(6, "learned", noise=0.1))
    product = tiled(tile)
    product.input_range.assign(np.full(3, 4.0))
    product.output_range.assign(np.full((3, 1), 50.0))
    x, w = tf.Variable(X), tf.Variable(W)
    upstream = random.normal(size=(5, 7))
    with tf.GradientTape() as tape:
        y = product.multiply(tf.convert_to_tensor(x), tf.convert_to_tensor(w))
        loss = tf.reduce_sum(y * tf.constant(upstream, "float32"))
    ranges = [product.input_range.value, product.output_range.value]
    to_x, to_w, *to_ranges = tape.gradient(loss, [x, w, *ranges])
    # Nothing is clipped, so the gradients are those of the plain product.
    np.testing.assert_allclose(to_x, upstream @ W.T, rtol=1e-4, atol=1e-4)
    # The weights' gradient is taken at the inputs as converted.
    v = np.round(np.clip(X / 4.0, -1, 1) * 31) / 31 * 4.0
    np.testing.assert_allclose(to_w, v.T @ upstream, rtol=1e-4, atol=1e-3)
    assert all(np.all(np.isfinite(g)) and np.any(g) for g in map(np.asarray, to_ranges))


def test_a_learned_range_grows_where_it_clips():
    product = tiled(Tile(20, 20, InputConverter(None, "learned"), None))
    product.input_range.assign([0.5])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(product.multiply(tf.ones((1, 11)), tf.ones((11, 7))))
    assert float(tape.gradient(loss, product.input_range.value)[0]) == pytest.approx(77.0)
    assert product.input_range.trainable


def test_half_precision():
    product = tiled(Tile(4, 3, InputConverter(8, 4.0), OutputConverter(8, 8.0)))
    y = product.multiply(keras.ops.cast(X, "bfloat16"), W)
    assert y.dtype == "bfloat16"
    full = keras.ops.convert_to_numpy(product.multiply(X, W))
    assert np.abs(keras.ops.convert_to_numpy(keras.ops.cast(y, "float32")) - full).max() < 0.3


def test_config():
    product = tiled(TILES["bent"], device=GenericPCM(read_noise=0.5), programmed=True)
    again = TiledProduct.from_config(product.get_config())
    assert again.get_config() == product.get_config()
    np.testing.assert_array_equal(again.gain, product.gain)
