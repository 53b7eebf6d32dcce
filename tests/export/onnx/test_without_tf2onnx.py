"""Networks of many kinds of layers export with tf2onnx hidden, equal to Keras to 1e-5.

So do all presets (slow). What has no form of its own says what to install.
"""

import sys

import keras
import numpy as np
import pytest
from networks import LAYERS, compared, holes, sequences
from onnx import TensorProto

from snukeras import zoo
from snukeras.export.errors import UnsupportedLayersError
from snukeras.export.onnx.build import to_onnx
from snukeras.export.samples import Samples
from snukeras.export.verify.onnx import run_onnx, session
from snukeras.layers import SNU, SSNU, ConvSNU2D


@pytest.fixture(autouse=True)
def hidden(monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)


def stirred(model):
    """Move weights away from zeros and ones; variances stay positive."""
    for weight in model.weights:
        if "float" in str(weight.dtype):
            noise = np.random.default_rng(sum(weight.shape)).random(weight.shape)
            weight.assign(np.asarray(weight) + 0.2 * noise)
    return model


def compare(model, *inputs):
    stirred(model)
    got = list(run_onnx(session(to_onnx(model).SerializeToString()), list(inputs)).values())
    expected = keras.tree.flatten(model(list(inputs) if len(inputs) > 1 else inputs[0]))
    for a, b in zip(got, expected, strict=True):
        b = keras.ops.convert_to_numpy(b)
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def sequential(*layers, shape=(None, 6)):
    return keras.Sequential([keras.Input(shape), *layers])


SERIES = {
    "conv1d_same": lambda: [LAYERS.Conv1D(4, 3, padding="same", strides=2)],
    "conv1d_causal": lambda: [LAYERS.Conv1D(4, 3, padding="causal", dilation_rate=2)],
    "conv1d_groups": lambda: [LAYERS.Conv1D(4, 3, groups=2, activation="mish")],
    "conv1d_dilated": lambda: [LAYERS.Conv1D(4, 3, padding="same", dilation_rate=3)],
    "depthwise1d": lambda: [LAYERS.DepthwiseConv1D(3, depth_multiplier=2)],
    "separable1d": lambda: [LAYERS.SeparableConv1D(4, 3, activation="relu6")],
    "transpose1d": lambda: [LAYERS.Conv1DTranspose(4, 3, strides=2)],
    "pool1d": lambda: [LAYERS.MaxPooling1D(2, padding="same"), LAYERS.AveragePooling1D(3, 1)],
    "global_max": lambda: [LAYERS.GlobalMaxPooling1D(keepdims=True)],
    "global_average": lambda: [LAYERS.GlobalAveragePooling1D()],
    "batch_norm": lambda: [LAYERS.BatchNormalization()],
    "batch_norm_bare": lambda: [LAYERS.BatchNormalization(scale=False, center=False)],
    "layer_norm": lambda: [LAYERS.LayerNormalization()],
    "group_norm": lambda: [LAYERS.GroupNormalization(3)],
    "unit_norm": lambda: [LAYERS.UnitNormalization()],
    "einsum": lambda: [LAYERS.EinsumDense("abc,cd->abd", (None, 4), bias_axes="d")],
    "einsum_relu": lambda: [LAYERS.EinsumDense("abc,cde->abde", (None, 4, 2), activation="relu"),
                            LAYERS.Reshape((-1, 8))],
    "prelu": lambda: [LAYERS.PReLU(shared_axes=[1])],
    "relu_all": lambda: [LAYERS.ReLU(max_value=1.5, negative_slope=0.2, threshold=0.3)],
    "softmax": lambda: [LAYERS.Softmax()],
    "softmax_time": lambda: [LAYERS.Softmax(axis=1)],
    "activations": lambda: [LAYERS.Dense(4, activation="hard_silu"),
                            LAYERS.Activation("log_sigmoid"), LAYERS.Activation("celu"),
                            LAYERS.Dense(4, activation="soft_shrink")],
    "shrinks": lambda: [LAYERS.Activation("hard_shrink"), LAYERS.Activation("tanh_shrink"),
                        LAYERS.Activation("hard_tanh")],
    "permute": lambda: [LAYERS.Conv1D(4, 3), LAYERS.Permute((2, 1))],
    "padding1d": lambda: [LAYERS.ZeroPadding1D((2, 1)), LAYERS.Cropping1D((1, 0))],
    "upsampling1d": lambda: [LAYERS.UpSampling1D(3)],
    "rescaling": lambda: [LAYERS.Rescaling(0.1, offset=-0.5)],
    "lstm": lambda: [LAYERS.LSTM(4, return_sequences=True), LAYERS.LSTM(3)],
    "gru": lambda: [LAYERS.GRU(4, return_sequences=True, reset_after=False)],
    "lstm_gelu": lambda: [LAYERS.LSTM(4, activation="gelu", go_backwards=True)],
    "gru_silu": lambda: [LAYERS.GRU(4, activation="silu", return_sequences=True)],
    "gru_before_silu": lambda: [LAYERS.GRU(4, activation="silu", reset_after=False)],
    "rnn_mish": lambda: [LAYERS.SimpleRNN(4, activation="mish", return_sequences=True)],
    "bidirectional": lambda: [LAYERS.Bidirectional(LAYERS.LSTM(3, return_sequences=True)),
                              LAYERS.Bidirectional(LAYERS.GRU(3), merge_mode="sum")],
    "time_distributed": lambda: [LAYERS.TimeDistributed(LAYERS.LayerNormalization())],
    "snu_between": lambda: [LAYERS.Conv1D(8, 3), LAYERS.BatchNormalization(),
                            SNU(6, return_sequences=True), LAYERS.AveragePooling1D(2),
                            SSNU(4, recurrent=True)],
}  # fmt: skip

MASKED = {
    "lstm": lambda: [LAYERS.LSTM(4, return_sequences=True), LAYERS.LSTM(3)],
    "gru": lambda: [LAYERS.GRU(4, return_sequences=True), LAYERS.GRU(3, reset_after=False)],
    "rnn": lambda: [LAYERS.SimpleRNN(4, return_sequences=True, zero_output_for_mask=True)],
    "bidirectional": lambda: [LAYERS.Bidirectional(LAYERS.LSTM(3, return_sequences=True))],
    "average": lambda: [LAYERS.Dense(4), LAYERS.GlobalAveragePooling1D()],
    "snu": lambda: [LAYERS.LayerNormalization(), SNU(4, return_sequences=True), LAYERS.GRU(3)],
}
if hasattr(LAYERS, "RMSNormalization"):  # of Keras 3.9 and newer
    SERIES["rms_norm"] = lambda: [LAYERS.RMSNormalization()]

IMAGES = {
    "conv2d": lambda: [LAYERS.Conv2D(4, 3, padding="same", strides=2), LAYERS.Flatten()],
    "conv2d_groups": lambda: [LAYERS.Conv2D(4, (3, 2), groups=2, dilation_rate=2)],
    "depthwise2d": lambda: [LAYERS.DepthwiseConv2D(3, depth_multiplier=2, padding="same")],
    "separable2d": lambda: [LAYERS.SeparableConv2D(4, 3, depth_multiplier=2)],
    "transpose2d": lambda: [LAYERS.Conv2DTranspose(3, 3, strides=2, padding="same")],
    "transpose2d_small": lambda: [LAYERS.Conv2DTranspose(3, 2, strides=3)],
    "transpose2d_even": lambda: [LAYERS.Conv2DTranspose(3, 4, strides=2, padding="same")],
    "pool2d": lambda: [LAYERS.MaxPooling2D(3, 2, padding="same"), LAYERS.AveragePooling2D(2)],
    "pool2d_same": lambda: [LAYERS.AveragePooling2D(3, 2, padding="same")],
    "global2d": lambda: [LAYERS.GlobalAveragePooling2D()],
    "global_max2d": lambda: [LAYERS.GlobalMaxPooling2D(keepdims=True)],
    "padding2d": lambda: [LAYERS.ZeroPadding2D(((1, 2), (0, 1))), LAYERS.Cropping2D(1)],
    "upsampling2d": lambda: [LAYERS.UpSampling2D((2, 3))],
    "reshape": lambda: [LAYERS.Reshape((4, -1)), LAYERS.Permute((2, 1)), LAYERS.Dense(3)],
    "group_norm": lambda: [LAYERS.GroupNormalization(2), LAYERS.LayerNormalization(axis=[1, 2])],
    "batch_norm": lambda: [LAYERS.BatchNormalization(axis=1), LAYERS.PReLU()],
    "repeat": lambda: [LAYERS.Flatten(), LAYERS.RepeatVector(3), SNU(4)],
    "snu": lambda: [LAYERS.Reshape((2, 4, 8, 4)), ConvSNU2D(3, 3), LAYERS.Flatten()],
}

VOLUMES = {
    "conv3d": lambda: [LAYERS.Conv3D(3, 2, padding="same"), LAYERS.MaxPooling3D((1, 2, 2))],
    "transpose3d": lambda: [LAYERS.Conv3DTranspose(2, 2, strides=2)],
    "moved3d": lambda: [LAYERS.ZeroPadding3D(1), LAYERS.Cropping3D(1), LAYERS.UpSampling3D(2)],
    "pool3d": lambda: [LAYERS.AveragePooling3D(2), LAYERS.GlobalAveragePooling3D()],
}


@pytest.mark.parametrize("name", SERIES)
def test_series(name):
    compare(sequential(*SERIES[name]()), sequences())


@pytest.mark.parametrize("name", MASKED)
def test_masked(name):
    x = holes(sequences())
    x[1, 0] = 1.0  # a sample without any step has no mean
    compare(sequential(LAYERS.Masking(), *MASKED[name]()), x)


@pytest.mark.parametrize("name", IMAGES)
def test_images(name):
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype("float32")
    compare(sequential(*IMAGES[name](), shape=(8, 8, 4)), x)


@pytest.mark.parametrize("name", VOLUMES)
def test_volumes(name):
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 6, 2)).astype("float32")
    compare(sequential(*VOLUMES[name](), shape=(4, 6, 6, 2)), x)


def merged():
    a, b = keras.Input((None, 6)), keras.Input((None, 6))
    x = LAYERS.Concatenate()([LAYERS.Add()([a, b]), LAYERS.Multiply()([a, b])])
    y = LAYERS.Average()([LAYERS.Maximum()([a, b]), LAYERS.Minimum()([a, b]), a])
    return keras.Model([a, b], [x, LAYERS.Subtract()([y, b])])


def transformer(**options):
    a = keras.Input((None, 6))
    x = LAYERS.MultiHeadAttention(2, 3)(a, a, **options)
    x = LAYERS.LayerNormalization()(LAYERS.Add()([a, x]))
    return keras.Model(a, LAYERS.Dense(6, activation="gelu")(x))


def language(mask):
    words = keras.Input((None,), dtype="int32")
    x = LAYERS.Embedding(9, 6, mask_zero=mask)(words)
    x = LAYERS.MultiHeadAttention(2, 3)(x, x, use_causal_mask=True)
    return keras.Model(words, LAYERS.GRU(3)(x))


def attended(layer, **options):
    a, b = keras.Input((None, 6)), keras.Input((None, 6))
    return keras.Model([a, b], layer([a, b], **options))


def operated():
    a = keras.Input((None, 6))
    x = (a * 2.0 - 1.0) / 3.0 + keras.ops.tanh(a)
    x = keras.ops.concatenate([x, keras.ops.square(a[..., 1:4])], axis=-1)
    x = keras.ops.maximum(x, 0.1) + keras.ops.mean(x, axis=-1, keepdims=True)
    return keras.Model(a, [keras.ops.max(x, axis=1), keras.ops.sum(x, axis=(1, 2)), x[:, -1]])


def test_networks_of_several_branches():
    x, y = sequences(), sequences(seed=1)
    compare(merged(), x, y)
    compare(transformer(), x)
    compare(transformer(use_causal_mask=True), x)
    compare(attended(LAYERS.Attention(use_scale=True)), x, y)
    compare(attended(LAYERS.Attention(score_mode="concat"), use_causal_mask=True), x, y)
    compare(attended(LAYERS.AdditiveAttention()), x, y)
    compare(operated(), x)


@pytest.mark.parametrize("mask", [False, True])
def test_words(mask):
    ids = np.random.default_rng(0).integers(0, 9, (4, 7)).astype("int32")
    ids[:, 0] = 1
    compare(language(mask), ids)


def test_bins():
    a = keras.Input((5,))
    bins = LAYERS.Discretization([-0.5, 0.0, 0.7])(a)
    compare(keras.Model(a, LAYERS.Embedding(4, 3)(bins)), sequences()[:, 0, :5])


def test_no_sequence_layer_streams_that_looks_at_other_steps():
    model = sequential(LAYERS.Conv1D(4, 3), SNU(3, return_sequences=True))
    with pytest.raises(UnsupportedLayersError, match="it may mix steps, so it cannot stream"):
        to_onnx(model, streaming=True)
    model = sequential(
        SNU(3, return_sequences=True),
        LAYERS.LayerNormalization(),
        LAYERS.GlobalAveragePooling1D(),
        LAYERS.Reshape((3,)),
        LAYERS.Flatten(),
    )
    assert to_onnx(model, streaming=True).graph.input[0].type.tensor_type.elem_type == (
        TensorProto.FLOAT
    )


def mixed(seed):
    """A network of several drawn kinds of layers, with units between them."""
    r = np.random.default_rng(seed)
    keras.utils.set_random_seed(seed)
    given = keras.Input((None, 6))
    x, names = given, []
    while len(names) < 4:
        name = str(r.choice(sorted(SERIES)))
        try:
            y = x
            for layer in SERIES[name]():
                y = layer(y)
        except ValueError:  # groups that do not divide the channels, and the like
            continue
        if len(y.shape) == 3 and y.shape[-1] is not None:
            x = y
            names.append(name)
            if r.random() < 0.6:
                kind = SNU if r.random() < 0.5 else SSNU
                recurrent = bool(r.integers(2))
                units = kind(
                    int(r.integers(2, 9)),
                    recurrent=recurrent,
                    implementation="cell",
                    return_sequences=True,
                )
                x = units(x)
    return keras.Model(given, LAYERS.Dense(3)(x)), names


@pytest.mark.slow
def test_sixty_mixed_networks():
    for seed in range(60):
        keras.utils.clear_session()
        model, names = mixed(seed)
        stirred(model)
        found = compared(model, Samples("random", [[sequences(time=40, seed=seed)]]))
        assert found.ok, (seed, names, found)


def test_what_has_no_form_says_what_to_install():
    a, b = keras.Input((3, 4)), keras.Input((3, 4))
    model = keras.Model([a, b], LAYERS.Dot(axes=2)([a, b]))
    with pytest.raises(UnsupportedLayersError, match=r"pip install 'snukeras\[tf2onnx\]'"):
        to_onnx(model)


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.list())
def test_presets(name):
    to_onnx(zoo.load(name))
