"""Other Keras layers, masks, nested models, several inputs: ONNX against Keras."""

import keras
import numpy as np
import pytest
from networks import LAYERS, difference, holes, sequences

from snukeras.export.errors import BadInputError, UnsupportedLayersError
from snukeras.export.onnx.build import to_onnx
from snukeras.layers import SNU, SSNU

SINGLE = {
    "lstm": lambda: LAYERS.LSTM(4, return_sequences=True),
    "gru": lambda: LAYERS.GRU(4),
    "simple_rnn": lambda: LAYERS.SimpleRNN(4, return_sequences=True),
    "bidirectional_lstm": lambda: LAYERS.Bidirectional(LAYERS.LSTM(3)),
    "conv1d": lambda: LAYERS.Conv1D(4, 3, padding="causal"),
    "pooling": lambda: LAYERS.MaxPooling1D(2),
    "batch_normalization": lambda: LAYERS.BatchNormalization(),
    "layer_normalization": lambda: LAYERS.LayerNormalization(),
    "time_distributed": lambda: LAYERS.TimeDistributed(LAYERS.Dense(3)),
    "average": lambda: LAYERS.GlobalAveragePooling1D(),
    "prelu": lambda: LAYERS.PReLU(shared_axes=[1], alpha_initializer="ones"),
    "relu6": lambda: LAYERS.ReLU(max_value=0.5),
    "leaky": lambda: LAYERS.LeakyReLU(0.3),
    "softmax": lambda: LAYERS.Softmax(),
    "gelu": lambda: LAYERS.Dense(4, activation="gelu"),
    "mish": lambda: LAYERS.Dense(4, activation="mish"),
    "no_bias": lambda: LAYERS.Dense(4, use_bias=False, activation="tanh"),
    "dropout": lambda: LAYERS.SpatialDropout1D(0.5),
}


@pytest.mark.parametrize("name", SINGLE)
def test_layer(name):
    inputs = keras.Input((None, 6))
    model = keras.Model(inputs, SINGLE[name]()(inputs))
    for weight in model.weights:  # moving averages and biases are not zeros and ones
        value = np.asarray(weight)
        noise = np.random.default_rng(value.size).random(value.shape)
        weight.assign(value + 0.3 * noise)
    assert difference(model, sequences())[0] < 2e-6


def test_time_distributed_convolution_of_any_length():
    inputs = keras.Input((None, 8, 8, 2))
    x = LAYERS.TimeDistributed(LAYERS.Conv2D(3, 3))(inputs)
    x = LAYERS.TimeDistributed(LAYERS.MaxPooling2D())(x)
    model = keras.Model(inputs, SNU(4)(LAYERS.TimeDistributed(LAYERS.Flatten())(x)))
    for time in (1, 5):
        x = np.random.default_rng(0).normal(size=(2, time, 8, 8, 2)).astype("float32")
        assert difference(model, x)[0] < 1e-5


@pytest.mark.parametrize("consumer", [lambda: SNU(4), lambda: LAYERS.LSTM(4)])
def test_embedding_with_mask(consumer):
    inputs = keras.Input((None,), dtype="int32")
    x = LAYERS.Embedding(7, 5, mask_zero=True, embeddings_initializer="normal")(inputs)
    model = keras.Model(inputs, LAYERS.Dense(2)(consumer()(x)))
    ids = np.random.default_rng(0).integers(0, 7, (4, 9)).astype("int32")
    assert difference(model, ids)[0] < 1e-6


def test_masks_pass_through_what_keras_lets_them_pass():
    inputs = keras.Input((None, 6))
    x = LAYERS.Masking(mask_value=0.0)(inputs)
    x = LAYERS.Dropout(0.1)(LAYERS.Dense(5)(x))
    x = SSNU(4, return_sequences=True)(x)
    model = keras.Model(inputs, SSNU(3, recurrent=True)(LAYERS.Activation("tanh")(x)))
    data = holes(sequences())
    assert difference(model, data)[0] < 1e-6


def test_mask_value_counts_only_where_all_features_have_it():
    inputs = keras.Input((None, 6))
    model = keras.Model(inputs, SSNU(3)(LAYERS.Masking(mask_value=2.0)(inputs)))
    x = sequences()
    x[:, 3] = 2.0
    x[:, 5, :3] = 2.0
    assert difference(model, x)[0] < 1e-6


def test_two_inputs_two_outputs():
    left, right = keras.Input((None, 4), name="left"), keras.Input((None, 2), name="right")
    x = LAYERS.Concatenate(name="both")([left, right * 2.0])
    spikes = SNU(5, return_sequences=True, name="snu", threshold=0.2)(x)
    model = keras.Model([left, right], [LAYERS.Dense(3, name="out")(spikes), spikes])
    worst, proto = difference(model, sequences(features=4), sequences(features=2, seed=1))
    assert worst < 1e-6
    assert [value.name for value in proto.graph.input] == ["left", "right"]
    assert [value.name for value in proto.graph.output] == ["out", "snu"]
    # ONNX Runtime 1.19 to 1.31 crash on a Cast from float to float here.
    (last,) = (node for node in proto.graph.node if "snu" in node.output)
    assert last.op_type == "Identity"


def test_shared_and_nested_layers():
    inputs = keras.Input((None, 6))
    shared = LAYERS.Dense(6, name="shared")
    inner = keras.Sequential(
        [keras.Input((None, 6)), SSNU(5, return_sequences=True), LAYERS.Dense(6)], name="inner"
    )
    hidden = keras.Input((None, 6))
    outer = keras.Model(hidden, [hidden * 2.0, inner(hidden)], name="outer")
    x = inner(shared(inner(shared(inputs))))
    twice, once = outer(x), outer(inputs)
    model = keras.Model(inputs, [LAYERS.Add()([x, inputs, twice[0]]), once[1], twice[1]])
    assert difference(model, sequences())[0] < 1e-5


def test_masks_inside_nested_models():
    hidden = keras.Input((None, 6))
    inner = keras.Model(hidden, SSNU(4)(LAYERS.Dense(5)(hidden)), name="inner")
    inputs = keras.Input((None, 6))
    model = keras.Model(inputs, inner(LAYERS.Masking()(inputs)))
    assert difference(model, holes(sequences()))[0] < 1e-6


def test_output_that_is_an_input_and_the_same_output_twice():
    inputs = keras.Input((None, 6), name="x")
    y = LAYERS.Dense(2, name="y")(inputs)
    worst, proto = difference(keras.Model(inputs, [y, inputs, y]), sequences())
    assert worst < 1e-6
    assert [value.name for value in proto.graph.output] == ["y", "x_1", "y_1"]


def test_integers_feed_a_dense_layer():
    inputs = keras.Input((None, 6), dtype="int32")
    model = keras.Model(inputs, SNU(3)(inputs))
    ids = np.random.default_rng(0).integers(0, 3, (2, 5, 6)).astype("int32")
    assert difference(model, ids)[0] == 0.0


class Odd(LAYERS.Layer):
    def call(self, x):
        return keras.ops.erfinv(x)


def test_all_unsupported_layers_are_named_at_once():
    inputs = keras.Input((None, 6))
    x = Odd(name="first")(inputs)
    x = LAYERS.Dense(4, name="fine")(x)
    x = LAYERS.Dense(4, name="half", dtype="mixed_float16")(x)
    x = LAYERS.LSTM(4, return_sequences=True, name="kept")(x)
    outputs = Odd(name="second")(x)
    with pytest.raises(UnsupportedLayersError) as caught:
        to_onnx(keras.Model(inputs, outputs))
    assert set(caught.value.problems) == {"first", "half", "second"}
    assert "set_dtype_policy('float32')" in caught.value.problems["half"]
    assert "3 layer(s)" in str(caught.value) and "second (Odd" in str(caught.value)


def test_other_stateful_layers_are_refused_not_exported_as_stateless():
    inputs = keras.Input(batch_shape=(2, None, 6))
    x = LAYERS.RNN(LAYERS.LSTMCell(4), stateful=True, name="bare")(inputs)
    with pytest.raises(UnsupportedLayersError, match="stateful"):
        to_onnx(keras.Model(inputs, x))


def test_dropout_at_inference_is_refused():
    inputs = keras.Input((None, 6))
    model = keras.Model(inputs, LAYERS.Dropout(0.5)(inputs, training=True))
    with pytest.raises(UnsupportedLayersError, match="training=True"):
        to_onnx(model)


def test_models_without_topology():
    class Own(keras.Model):
        def call(self, x):
            return x

    for model in (Own(), keras.Sequential([LAYERS.Dense(3)])):
        with pytest.raises(BadInputError, match="no topology"):
            to_onnx(model)
