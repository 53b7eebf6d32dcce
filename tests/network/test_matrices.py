"""Matrices of layers: their products are those of the layers, and every part agrees on them."""

import keras
import numpy as np
import pytest

import snukeras
from snukeras.network.matrices import (
    Unrolling,
    chip_variables,
    digital_kernels,
    is_kernel,
    matrices,
)
from snukeras.network.weights import collect


def built(layer, *shape):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input(shape), layer])


def unrolled(layer, role="kernel"):
    """The matrix of a layer as the register unrolls it."""
    (found,) = (m for m in matrices(layer) if m.role == role)
    values = keras.ops.convert_to_numpy(found.variable)
    matrix = found.unrolling.matrix(values)
    assert matrix.shape == found.shape
    np.testing.assert_array_equal(found.unrolling.weight(matrix, values.shape), values)
    return matrix


def random(*shape):
    return np.random.default_rng(1).normal(size=shape).astype("float32")


@pytest.mark.parametrize(
    ("equation", "output_shape", "inputs"),
    [
        ("abc,cde->abde", (5, 2, 4), (3, 5, 8)),  # a query of attention
        ("abcd,cde->abe", (5, 8), (3, 5, 2, 4)),  # its output
        ("...x,xy->...y", (5, 7), (3, 5, 6)),
        ("ab,bc->ac", (7,), (3, 6)),
    ],
)
def test_the_matrix_of_an_einsum_computes_its_product(equation, output_shape, inputs):
    layer = keras.layers.EinsumDense(equation, output_shape)
    x = random(*inputs)
    expected = keras.ops.convert_to_numpy(layer(x))
    matrix = unrolled(layer)
    np.testing.assert_allclose(
        (x.reshape(-1, len(matrix)) @ matrix).reshape(expected.shape), expected, atol=1e-5
    )


def test_the_matrix_of_a_transposed_convolution_computes_its_product():
    layer = keras.layers.Conv2DTranspose(4, 2, strides=2)
    x = random(1, 1, 1, 3)  # one place of the input makes one patch of the output
    expected = keras.ops.convert_to_numpy(layer(x))
    np.testing.assert_allclose((x.reshape(1, 3) @ unrolled(layer)).reshape(2, 2, 4),
                               expected[0], atol=1e-5)  # fmt: skip


def test_the_matrix_of_a_convolution_computes_its_product():
    layer = keras.layers.Conv2D(4, 3)
    x = random(1, 3, 3, 2)
    expected = keras.ops.convert_to_numpy(layer(x))
    np.testing.assert_allclose(x.reshape(1, -1) @ unrolled(layer), expected[0, 0], atol=1e-5)


def test_each_channel_of_a_depthwise_convolution_has_columns_of_its_own():
    layer = keras.layers.DepthwiseConv2D(3, depth_multiplier=2)
    x = random(1, 3, 3, 3)
    expected = keras.ops.convert_to_numpy(layer(x))[0, 0, 0].reshape(3, 2)
    matrix = unrolled(layer).reshape(9, 3, 2)
    for channel in range(3):
        product = x[0, :, :, channel].reshape(9) @ matrix[:, channel]
        np.testing.assert_allclose(product, expected[channel], atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (keras.layers.Dense(4), (6,), {"kernel": 1}),
        (keras.layers.Dense(4), (5, 6), {"kernel": 5}),
        (keras.layers.Conv2D(4, 3), (8, 8, 2), {"kernel": 36}),
        (keras.layers.Conv2D(4, 3, groups=2), (8, 8, 2), {"kernel": 72}),
        (keras.layers.DepthwiseConv2D(3), (8, 8, 2), {"kernel": 72}),
        (keras.layers.Conv2DTranspose(4, 3), (8, 8, 2), {"kernel": 64}),
        (keras.layers.SeparableConv1D(4, 3), (8, 2),
         {"depthwise_kernel": 12, "pointwise_kernel": 6}),
        (keras.layers.LSTM(4, return_sequences=True), (7, 2),
         {"kernel": 7, "recurrent_kernel": 7}),
        (keras.layers.ConvLSTM1D(4, 3, return_sequences=True), (7, 8, 2),
         {"kernel": 42, "recurrent_kernel": 42}),
        (snukeras.layers.SNU(4, recurrent=True, return_sequences=True), (7, 2),
         {"kernel": 7, "recurrent_kernel": 7}),
        (snukeras.layers.ConvSNU1D(4, 3, return_sequences=True), (7, 8, 2), {"kernel": 42}),
    ],
)  # fmt: skip
def test_products_of_one_sample(layer, shape, expected):
    model = built(layer, *shape)
    inputs, outputs = np.prod(model.input_shape[1:]), np.prod(model.output_shape[1:])
    counts = {m.role: m.products(inputs, outputs, steps=7) for m in matrices(layer)}
    assert counts == expected


def everything():
    """Layers of all kinds, in one functional model."""
    image = keras.Input((8, 8, 3))
    x = keras.layers.SeparableConv2D(4, 3)(keras.layers.DepthwiseConv2D(3)(image))
    x = keras.layers.Conv2DTranspose(4, 3)(keras.layers.Conv2D(4, 3, groups=2)(x))
    x = keras.layers.Reshape((-1, 4))(keras.layers.BatchNormalization()(x))
    x = keras.layers.MultiHeadAttention(2, 4)(x, x)
    x = keras.layers.GroupQueryAttention(4, 2, 1)(x, x)
    x = keras.layers.Bidirectional(keras.layers.GRU(3, return_sequences=True))(x)
    x = keras.layers.TimeDistributed(keras.layers.Dense(4))(x)
    x = keras.layers.RNN(
        [keras.layers.LSTMCell(3), snukeras.layers.SNUCell(3)], return_sequences=True
    )(x)
    x = keras.layers.EinsumDense("abc,cd->abd", (None, 5))(x)
    x = snukeras.layers.SSNU(4, recurrent=True)(x)
    shared = keras.layers.Dense(4)
    x = shared(shared(x))
    return keras.Model(image, keras.Sequential([keras.layers.Dense(2), keras.layers.Dense(1)])(x))


def test_every_part_agrees_on_what_a_matrix_is():
    model = everything()
    known = {id(v) for v in chip_variables(model).values()}
    assert known == {id(v) for v in model.weights if is_kernel(v)}
    assert known == {id(w.variable) for w in collect(model) if w.matrix}
    assert not digital_kernels(model)
    assert len({m.name for m in matrices(model)}) == len(known)


@keras.saving.register_keras_serializable(package="tests")
class Own(keras.layers.Layer):
    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], 3), name="kernel")

    def call(self, inputs):
        return inputs @ self.kernel


def test_a_layer_says_it_of_itself(monkeypatch):
    model = built(Own(name="own"), 4)
    (left,) = digital_kernels(model)
    assert left.endswith("own/kernel") and not chip_variables(model)
    with (
        pytest.warns(UserWarning, match="stay digital: .*own/kernel"),
        pytest.raises(ValueError, match="at least one kernel"),
    ):
        snukeras.pcm.Chip(model)
    monkeypatch.setattr(Own, "tile_matrices", ("kernel",), raising=False)
    assert [m.name for m in matrices(model)] == ["own/kernel"]
    assert snukeras.pcm.Chip(model).devices == 24


def test_layers_inside_a_layer_are_found():
    class Block(keras.layers.Layer):
        def __init__(self):
            super().__init__(name="block")
            self.parts = {"a": keras.layers.Dense(3, name="a")}
            self.others = [keras.layers.Dense(2, name="b")]

        def call(self, inputs):
            return self.others[0](self.parts["a"](inputs))

    model = built(Block(), 4)
    assert {m.name for m in matrices(model)} == {"block/a/kernel", "block/b/kernel"}


def test_a_kernel_of_other_numbers_is_refused():
    model = built(keras.layers.Dense(4, name="out"), 6)
    model.layers[0].quantize("int8")
    with pytest.raises(ValueError, match="out/kernel is not one variable of floating-point"):
        matrices(model)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 3, 4, 5)])
def test_natural_unrolling_is_a_reshape(shape):
    values = random(*shape)
    how = Unrolling()
    assert how.natural(len(shape))
    np.testing.assert_array_equal(how.matrix(values), values.reshape(-1, shape[-1]))
    assert not Unrolling((-1,), tuple(range(len(shape) - 1))).natural(len(shape))
