"""Every product of every kind of layer goes through what was installed for it, and nothing else."""

import keras
import numpy as np
import pytest

import snukeras
from snukeras.network import products
from snukeras.network.matrices import matrices

L, S = keras.layers, snukeras.layers

# Input shape, layer.
LAYERS = {
    "dense": ((5, 6), lambda: L.Dense(4, activation="relu")),
    "einsum": ((5, 6), lambda: L.EinsumDense("abc,cde->abde", (5, 2, 3), bias_axes="de")),
    "einsum_dots": ((5, 6), lambda: L.EinsumDense("...x,xy->...y", 3)),
    "einsum_two": ((5, 2, 3), lambda: L.EinsumDense("abcd,cde->abe", (5, 4), bias_axes="e")),
    "einsum_group": ((5, 2, 3), lambda: L.EinsumDense("abcd,cde->aceb", (2, 4, 5))),
    "conv1d": ((9, 4), lambda: L.Conv1D(6, 3, padding="causal", dilation_rate=2)),
    "conv1d_stride": ((9, 4), lambda: L.Conv1D(6, 4, strides=2, padding="same", groups=2)),
    "conv2d": ((9, 8, 3), lambda: L.Conv2D(4, (3, 2), strides=(2, 3), padding="same")),
    "conv2d_dilated": ((9, 8, 4), lambda: L.Conv2D(6, 3, dilation_rate=(2, 1), groups=2)),
    "conv2d_one": ((9, 8, 4), lambda: L.Conv2D(6, 1)),
    "conv3d": ((5, 6, 7, 2), lambda: L.Conv3D(3, 2, strides=2)),
    "transpose1d": ((5, 3), lambda: L.Conv1DTranspose(4, 3, strides=2)),
    "transpose2d": (
        (5, 4, 3),
        lambda: L.Conv2DTranspose(4, 3, strides=2, padding="same", output_padding=1),
    ),
    "transpose3d": ((3, 4, 3, 2), lambda: L.Conv3DTranspose(2, 2)),
    "depthwise1d": ((9, 3), lambda: L.DepthwiseConv1D(3, depth_multiplier=2)),
    "depthwise2d": ((9, 8, 3), lambda: L.DepthwiseConv2D(3, strides=2, depth_multiplier=2)),
    "depthwise_one": ((9, 8, 1), lambda: L.DepthwiseConv2D(3, padding="same")),
    "separable1d": ((9, 3), lambda: L.SeparableConv1D(4, 3, padding="same")),
    "separable2d": ((9, 8, 3), lambda: L.SeparableConv2D(4, 3, strides=2)),
    "rnn": ((5, 3), lambda: L.SimpleRNN(4, return_sequences=True)),
    "lstm": ((5, 3), lambda: L.LSTM(4, return_sequences=True)),
    "gru": ((5, 3), lambda: L.GRU(4, return_sequences=True)),
    "gru_before": ((5, 3), lambda: L.GRU(4, reset_after=False)),
    "stacked": ((5, 3), lambda: L.RNN([L.LSTMCell(4), L.GRUCell(3, use_bias=False)])),
    "bidirectional": ((5, 3), lambda: L.Bidirectional(L.LSTM(4, return_sequences=True))),
    "distributed": ((5, 4, 3), lambda: L.TimeDistributed(L.Dense(2))),
    "conv_lstm": ((4, 6, 5, 2), lambda: L.ConvLSTM2D(3, 3, padding="same")),
    "snu": ((7, 3), lambda: S.SNU(4, return_sequences=True, use_bias=True)),
    "snu_recurrent": ((7, 3), lambda: S.SSNU(4, recurrent=True, return_sequences=True)),
    "snu_cell": ((7, 3), lambda: L.RNN(S.SSNUCell(4, recurrent=True))),
    "conv_snu1d": ((4, 9, 2), lambda: S.ConvSSNU1D(3, 3, strides=2, return_sequences=True)),
    "conv_snu2d": (
        (4, 6, 5, 2),
        lambda: S.ConvSSNU2D(3, 3, padding="same", recurrent=True, return_sequences=True),
    ),
}


class Seen:
    """The plain product, and a count of its uses."""

    def __init__(self, matrix):
        self.matrix, self.calls, self.factor = matrix, 0, 1.0

    def __call__(self, x, weight, groups=1):
        self.calls += 1
        rows, columns = self.matrix.shape
        held = self.matrix.unrolling.matrix(keras.ops.convert_to_numpy(weight))
        assert held.shape == (rows, columns) and x.shape[-1] == rows
        x = keras.ops.convert_to_numpy(x)
        if groups == 1:
            return keras.ops.convert_to_tensor(x @ held * self.factor)
        assert x.shape[-2] == groups
        parts = np.split(held, groups, axis=1)
        found = [x[..., group, :] @ part for group, part in enumerate(parts)]
        return keras.ops.convert_to_tensor(np.concatenate(found, axis=-1) * self.factor)


def installed(model):
    """Install counting products in all layers of a model."""
    seen, by_layer = [], {}
    for matrix in matrices(model):
        assert matrix.role in products.replaceable(matrix.layer), matrix.name
        seen.append(Seen(matrix))
        by_layer.setdefault(id(matrix.layer), (matrix.layer, {}))[1][matrix.role] = seen[-1]
    for layer, roles in by_layer.values():
        products.install(layer, roles)
    return seen


def drawn(model):
    """Random weights in every variable but thresholds and decays: no zero hides a lost one."""
    random = np.random.default_rng(1)
    for variable in model.trainable_variables:
        if variable.name not in ("threshold", "decay"):
            variable.assign(random.normal(0, 0.5, variable.shape))


@pytest.mark.some_cases(16)
@pytest.mark.parametrize("name", LAYERS)
def test_the_products_of(name):
    shape, make = LAYERS[name]
    model = keras.Sequential([keras.Input(shape), make()])
    drawn(model)
    x = np.random.default_rng(2).normal(size=(2, *shape)).astype("float32")
    expected = keras.ops.convert_to_numpy(model(x))
    seen = installed(model)
    np.testing.assert_allclose(model(x), expected, atol=2e-5)
    assert seen and all(product.calls for product in seen)
    for product in seen:
        product.factor = 0.0
    # Without its products a layer sees nothing of its input.
    one, other = (keras.ops.convert_to_numpy(model(value * x)) for value in (1.0, 3.0))
    np.testing.assert_array_equal(one, other)


def test_attention():
    query, value = keras.Input((5, 6)), keras.Input((4, 6))
    attended = L.MultiHeadAttention(2, 3)(query, value)
    attended = L.GroupQueryAttention(2, 4, 2)(attended, value)
    model = keras.Model([query, value], attended)
    drawn(model)
    random = np.random.default_rng(2)
    x = [random.normal(size=(2, n, 6)).astype("float32") for n in (5, 4)]
    expected = keras.ops.convert_to_numpy(model(x))
    seen = installed(model)
    assert len(seen) == 8
    np.testing.assert_allclose(model(x), expected, atol=2e-5)
    assert all(product.calls == 1 for product in seen)


@pytest.mark.parametrize("cell", ["SimpleRNN", "LSTM", "GRU"])
def test_dropout_of_recurrent_layers_stays(cell):
    x = np.ones((3, 4, 5), "float32")
    outputs = []
    for replace in (False, True):
        keras.utils.set_random_seed(3)
        layer = getattr(L, cell)(4, dropout=0.5, recurrent_dropout=0.5, seed=1)
        model = keras.Sequential([keras.Input((4, 5)), layer])
        if replace:
            installed(model)
        outputs.append(keras.ops.convert_to_numpy(model(x, training=True)))
    np.testing.assert_allclose(*outputs, atol=1e-5)


def test_sizes_that_vary():
    for padding, strides in (("same", 1), ("same", 2), ("valid", 2)):
        layer = L.Conv2D(3, 3, padding=padding, strides=strides)
        model = keras.Sequential([keras.Input((None, None, 2)), layer])
        x = np.random.default_rng(1).normal(size=(1, 7, 6, 2)).astype("float32")
        expected = keras.ops.convert_to_numpy(model(x))
        matrix = matrices(model)[0]

        def plain(x, weight, groups=1, matrix=matrix):
            return keras.ops.matmul(x, keras.ops.reshape(weight, matrix.shape))

        products.install(layer, {"kernel": plain})
        np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-5)


def test_what_cannot_be_replaced():
    class Own(L.Dense):
        def call(self, inputs):
            return 2 * super().call(inputs)

    own = Own(3)
    own.build((None, 2))
    assert products.replaceable(own) == set()
    # Sums over an axis that the kernel does not have.
    summed = L.EinsumDense("abc,cd->ad", (4,))
    summed.build((None, 5, 3))
    assert products.replaceable(summed) == set()
    assert products.replaceable(L.Embedding(3, 2)) == set()


def test_data_with_channels_first():
    layer = L.Conv2D(3, 3, data_format="channels_first")
    layer.build((None, 2, 6, 5))
    x = np.random.default_rng(1).normal(size=(2, 2, 6, 5)).astype("float32")
    (seen,) = installed(layer)
    last = keras.ops.conv(
        np.moveaxis(x, 1, -1), layer.kernel, padding="valid", data_format="channels_last"
    )
    np.testing.assert_allclose(layer(x), np.moveaxis(np.asarray(last), -1, 1), atol=1e-5)
    assert seen.calls == 1
