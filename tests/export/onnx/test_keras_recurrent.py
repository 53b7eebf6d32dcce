"""LSTM, GRU and SimpleRNN in ONNX against Keras: sequence, step by step, stateful."""

import itertools

import keras
import numpy as np
import pytest
from networks import LAYERS, difference, holes, sequences

from snukeras.export.errors import UnsupportedLayersError
from snukeras.export.network import Network
from snukeras.export.onnx.build import to_onnx
from snukeras.export.samples import Samples
from snukeras.export.verify.onnx import compare_onnx, compare_streaming, session
from snukeras.layers import SNU, SSNU

KINDS = {LAYERS.LSTM: ("LSTM", "hc"), LAYERS.GRU: ("GRU", "h"), LAYERS.SimpleRNN: ("RNN", "h")}
GRUS = ((LAYERS.GRU, {"reset_after": False}), (LAYERS.GRU, {"reset_after": True}))
ALL = ((LAYERS.LSTM, {}), *GRUS, (LAYERS.SimpleRNN, {}))
IDS = ["lstm", "gru-before", "gru-after", "simple_rnn"]


def layer(kind, options, **more):
    initial = {"bias_initializer": keras.initializers.RandomNormal(0, 0.5, seed=1)}
    if kind is LAYERS.LSTM:
        initial["unit_forget_bias"] = False
    return kind(4, **{**initial, **options, **more})


def operators(proto):
    return [node.op_type for node in proto.graph.node]


@pytest.mark.some_cases(1)
@pytest.mark.parametrize(("kind", "options"), ALL, ids=IDS)
def test_as_in_keras_and_as_one_operator(kind, options):
    for sequence, states, backwards, bias in itertools.product([False, True], repeat=4):
        made = layer(
            kind,
            options,
            return_sequences=sequence,
            return_state=states,
            go_backwards=backwards,
            use_bias=bias,
        )
        inputs = keras.Input((None, 6))
        worst, proto = difference(keras.Model(inputs, made(inputs)), sequences())
        assert worst < 1e-6, made.get_config()
        assert operators(proto).count(KINDS[kind][0]) == 1
        assert not {"Loop", "Scan"} & set(operators(proto))


@pytest.mark.some_cases(8)
@pytest.mark.parametrize(
    "name",
    ["sigmoid", "relu", "softsign", "softplus", "hard_sigmoid", "leaky_relu", "elu", "linear"],
)
@pytest.mark.parametrize(("kind", "options"), [ALL[0], ALL[2], ALL[3]], ids=["lstm", "gru", "rnn"])
def test_activations(kind, options, name):
    gates = {} if kind is LAYERS.SimpleRNN else {"recurrent_activation": "hard_sigmoid"}
    made = layer(kind, options, activation=name, return_sequences=True, **gates)
    inputs = keras.Input((None, 6))
    worst, proto = difference(keras.Model(inputs, made(inputs)), 0.5 * sequences(time=7))
    assert worst < 2e-6
    assert KINDS[kind][0] in operators(proto)


@pytest.mark.parametrize(("kind", "options"), ALL, ids=IDS)
def test_initial_state(kind, options):
    count = len(KINDS[kind][1])
    inputs, states = keras.Input((None, 6)), [keras.Input((4,)) for _ in range(count)]
    made = layer(kind, options, return_state=True, return_sequences=True)
    model = keras.Model([inputs, *states], made(inputs, initial_state=states))
    start = np.random.default_rng(5).normal(size=(count, 3, 4)).astype("float32")
    assert difference(model, sequences(), *start)[0] < 1e-6


@pytest.mark.parametrize(("kind", "options"), ALL, ids=IDS)
def test_masks_go_through_a_loop(kind, options):
    inputs = keras.Input((None, 6))
    x = layer(kind, options, return_sequences=True)(LAYERS.Masking()(inputs))
    worst, proto = difference(keras.Model(inputs, x), holes(sequences()))
    assert worst < 1e-6 and "Scan" in operators(proto)


def test_a_mixed_network_streams_with_the_same_numbers():
    inputs = keras.Input((None, 6), name="x")
    x = LAYERS.LSTM(5, return_sequences=True, name="lstm")(inputs)
    x = SNU(6, threshold=0.1, return_sequences=True, recurrent=True, name="snu")(x)
    x = LAYERS.GRU(4, return_sequences=True, name="gru")(LAYERS.BatchNormalization()(x))
    x = LAYERS.SimpleRNN(3, return_sequences=True, name="rnn")(x)
    x = LAYERS.TimeDistributed(LAYERS.Dense(4, activation="gelu"))(x)
    x = SSNU(3, return_sequences=True, name="ssnu")(x)
    model = keras.Model(inputs, LAYERS.Dense(2, activation="softmax", name="out")(x))
    step = to_onnx(model, streaming=True)
    names = ["lstm/h", "lstm/c", "snu/s", "snu/y", "gru/h", "rnn/h", "ssnu/s", "ssnu/y"]
    assert [v.name for v in step.graph.input] == ["x", *(f"{name}_in" for name in names)]
    assert [v.name for v in step.graph.output] == ["out", *(f"{name}_out" for name in names)]
    whole = to_onnx(model).SerializeToString()
    samples = Samples.random(model, 3)
    found = compare_streaming(whole, step.SerializeToString(), samples)
    assert found["ok"] and found["max_difference"] < 1e-6
    assert compare_onnx(Network.read(model), whole, samples).result.ok


def test_a_picture_a_step_streams():
    """TimeDistributed layers and models see one step, whatever its shape."""
    picture = keras.Input((8, 8, 2))
    y = LAYERS.MaxPooling2D()(LAYERS.Conv2D(3, 3, activation="relu")(picture))
    eye = keras.Model(picture, LAYERS.Flatten()(y), name="eye")
    inputs = keras.Input((None, 8, 8, 2))
    x = LAYERS.TimeDistributed(LAYERS.Conv2D(2, 1))(inputs)
    x = LAYERS.TimeDistributed(eye)(x)
    model = keras.Model(inputs, SSNU(4, return_sequences=True)(x))
    assert difference(model, sequences(2, 3, 128).reshape(2, 3, 8, 8, 2))[0] < 1e-5
    found = compare_streaming(
        to_onnx(model).SerializeToString(),
        to_onnx(model, streaming=True).SerializeToString(),
        Samples.random(model, 0, steps=5),
    )
    assert found["ok"]


@pytest.mark.some_cases(3)
@pytest.mark.parametrize(("kind", "options"), ALL, ids=IDS)
@pytest.mark.parametrize("streaming", [False, True])
def test_stateful_layers_hand_their_states_in_and_out(kind, options, streaming):
    inputs = keras.Input(batch_shape=(3, None, 6))
    made = layer(kind, options, stateful=True, return_sequences=True, name="unit")
    model = keras.Model(inputs, made(inputs))
    runtime = session(to_onnx(model, streaming=streaming).SerializeToString())
    names = [entry.name for entry in runtime.get_inputs()][1:]
    assert names == [f"unit/{label}_in" for label in KINDS[kind][1]]
    state = {name: np.zeros((3, 4), "float32") for name in names}
    for part in range(3):
        x, got = sequences(seed=part), []
        for piece in x.swapaxes(0, 1) if streaming else [x]:
            y, *after = runtime.run(None, {runtime.get_inputs()[0].name: piece, **state})
            state = dict(zip(names, after, strict=True))
            got.append(y)
        got = np.stack(got, axis=1) if streaming else got[0]
        np.testing.assert_allclose(got, model(x), atol=1e-6)


def test_what_cannot_stream_or_keep_its_state_says_why():
    inputs = keras.Input((None, 6))
    x = LAYERS.Bidirectional(LAYERS.GRU(3, return_sequences=True), name="both")(inputs)
    x = LAYERS.LSTM(3, return_sequences=True, go_backwards=True, name="back")(x)
    x = LAYERS.LSTM(3, return_sequences=True, activation="gelu", name="odd")(x)
    x = LAYERS.RNN(LAYERS.GRUCell(3), return_sequences=True, name="bare")(x)
    model = keras.Model(inputs, LAYERS.SimpleRNN(3, name="last")(x))
    with pytest.raises(UnsupportedLayersError) as caught:
        to_onnx(model, streaming=True)
    found = caught.value.problems
    assert set(found) == {"both", "back", "odd", "bare", "last"}
    assert "Bidirectional needs the whole sequence" in found["both"]
    assert "go_backwards needs the whole sequence" in found["back"]
    assert "use elu, hard_sigmoid" in found["odd"]
    assert "may mix steps" in found["bare"]
    assert "return_sequences=True" in found["last"]

    inputs = keras.Input(batch_shape=(2, None, 6))
    x = LAYERS.GRU(3, stateful=True, name="masked")(LAYERS.Masking()(inputs))
    with pytest.raises(UnsupportedLayersError, match=r"masked .*stateful and masked"):
        to_onnx(keras.Model(inputs, x))
