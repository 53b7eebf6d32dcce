"""SNU and SSNU as ONNX against the Keras layers, in every combination of their arguments."""

import itertools

import keras
import numpy as np
import onnx
import pytest
from networks import difference, holes, sequences

from snukeras.export.errors import UnsupportedLayersError
from snukeras.export.onnx.activations import supported
from snukeras.export.onnx.build import to_onnx
from snukeras.export.verify.onnx import run_onnx, session
from snukeras.layers import SNU, SSNU, SNUCell, SSNUCell

UNITS = 7


def unit(cls, **options):
    normal = keras.initializers.RandomNormal
    defaults = {
        "decay": np.linspace(0, 1, UNITS),
        "threshold": np.linspace(-0.2, 0.9, UNITS),
        "kernel_initializer": normal(0, 1, seed=1),
        "implementation": "cell",  # no compilation for every one of the many layers here
    }
    if options.get("recurrent"):
        defaults["recurrent_initializer"] = normal(0, 0.5, seed=2)
    if options.get("use_bias"):
        defaults["bias_initializer"] = normal(0, 0.3, seed=3)
    return cls(UNITS, **{**defaults, **options})


@pytest.mark.some_cases(2)
@pytest.mark.parametrize("cls", [SNU, SSNU])
@pytest.mark.parametrize("mask", ["none", "hold", "zero"])
@pytest.mark.parametrize("return_sequences", [True, False])
def test_as_in_keras(cls, mask, return_sequences):
    switches = itertools.product([False, True], repeat=5)
    for recurrent, lateral, backwards, states, bias in switches:
        # A quarter of all, in which every pair of values of any two switches occurs.
        if (recurrent + lateral + states) % 2 or (recurrent + backwards + bias) % 2:
            continue
        inputs = keras.Input((None, 6))
        x = inputs if mask == "none" else keras.layers.Masking()(inputs)
        layer = unit(
            cls,
            recurrent=recurrent,
            lateral_inhibition=lateral,
            go_backwards=backwards,
            return_state=states,
            use_bias=bias,
            return_sequences=return_sequences,
            zero_output_for_mask=mask == "zero",
        )
        data = sequences() if mask == "none" else holes(sequences())
        worst, _ = difference(keras.Model(inputs, layer(x)), data)
        assert worst < (0.5 if cls is SNU else 1e-6), layer.get_config()


@pytest.mark.parametrize("return_sequences", [True, False])
@pytest.mark.parametrize("states", [True, False])
def test_membranes_as_in_keras(return_sequences, states):
    inputs = keras.Input((None, 6))
    layer = unit(
        SNU,
        return_membrane=True,
        return_state=states,
        return_sequences=return_sequences,
        go_backwards=True,
        recurrent=True,
    )
    worst, _ = difference(keras.Model(inputs, layer(inputs)), sequences())
    assert worst < 1e-5


def test_a_membrane_behind_a_mask_is_refused():
    inputs = keras.Input((None, 6))
    layer = unit(SNU, return_membrane=True, return_sequences=True)
    model = keras.Model(inputs, layer(keras.layers.Masking()(inputs))[1])
    with pytest.raises(UnsupportedLayersError, match="return_membrane with a mask"):
        to_onnx(model)


def test_spikes_are_equal_and_not_trivial():
    inputs = keras.Input((None, 6))
    model = keras.Model(inputs, unit(SNU, return_sequences=True, recurrent=True)(inputs))
    x = sequences()
    worst, _ = difference(model, x)
    rate = float(np.mean(model(x)))
    assert worst == 0.0 and 0.1 < rate < 0.9


@pytest.mark.some_cases(8)
@pytest.mark.parametrize("name", [name for name in supported() if "softmax" not in name])
def test_state_activations(name):
    inputs = keras.Input((None, 6))
    layer = unit(SSNU, state_activation=name, recurrent=True, return_sequences=True)
    worst, _ = difference(keras.Model(inputs, layer(inputs)), 0.3 * sequences())
    assert worst < 2e-6


@pytest.mark.parametrize(
    "activation",
    [keras.layers.LeakyReLU(negative_slope=0.1), keras.layers.ELU(alpha=0.5), keras.layers.ReLU()],
)
def test_state_activations_as_objects(activation):
    inputs = keras.Input((None, 6))
    layer = unit(SSNU, state_activation=activation, return_sequences=True)
    worst, _ = difference(keras.Model(inputs, layer(inputs)), sequences())
    assert worst < 1e-6


def test_unknown_state_activation_says_what_is_known():
    inputs = keras.Input((None, 6))
    outputs = unit(SNU, state_activation=keras.ops.sin, name="odd")(inputs)
    with pytest.raises(UnsupportedLayersError, match=r"odd .*'sin' has no ONNX form.*leaky_relu"):
        to_onnx(keras.Model(inputs, outputs))


@pytest.mark.parametrize("cls", [SNU, SSNU])
@pytest.mark.parametrize("masked", [False, True])
def test_initial_state(cls, masked):
    inputs, y, s = keras.Input((None, 6)), keras.Input((UNITS,)), keras.Input((UNITS,))
    x = keras.layers.Masking()(inputs) if masked else inputs
    layer = unit(cls, return_state=True, return_sequences=True, lateral_inhibition=True)
    model = keras.Model([inputs, y, s], layer(x, initial_state=[y, s]))
    start = np.random.default_rng(5).random((2, 3, UNITS)).astype("float32")
    data = holes(sequences()) if masked else sequences()
    assert difference(model, data, start[0], start[1])[0] < 1e-6


@pytest.mark.parametrize("cell", [SNUCell(4), SSNUCell(4, recurrent=True)])
def test_bare_rnn(cell):
    inputs = keras.Input((None, 6))
    worst, proto = difference(keras.Model(inputs, keras.layers.RNN(cell)(inputs)), sequences())
    assert worst < 1e-6
    assert [n.op_type for n in proto.graph.node].count("Scan") == 1


@pytest.mark.some_cases(5)
@pytest.mark.parametrize("mode", ["concat", "sum", "mul", "ave", None])
@pytest.mark.parametrize("return_sequences", [True, False])
def test_bidirectional(mode, return_sequences):
    inputs = keras.Input((None, 6))
    layer = unit(SSNU, recurrent=True, return_sequences=return_sequences)
    outputs = keras.layers.Bidirectional(layer, merge_mode=mode)(keras.layers.Masking()(inputs))
    worst, proto = difference(keras.Model(inputs, outputs), holes(sequences()))
    assert worst < 1e-6
    assert [n.op_type for n in proto.graph.node].count("Scan") == 2


def test_stateful_layers_hand_their_states_in_and_out():
    inputs = keras.Input(batch_shape=(3, None, 6))
    layer = unit(SNU, stateful=True, return_sequences=True, recurrent=True, name="snu")
    model = keras.Model(inputs, layer(inputs))
    runtime = session(to_onnx(model).SerializeToString())
    names = [entry.name for entry in runtime.get_inputs()][1:]
    assert names == ["snu/s_in", "snu/y_in"]
    assert [out.name for out in runtime.get_outputs()] == ["snu", "snu/s_out", "snu/y_out"]
    state = {name: np.zeros((3, UNITS), "float32") for name in names}
    for part in range(3):
        x = sequences(seed=part)
        y, s_out, y_out = runtime.run(None, {runtime.get_inputs()[0].name: x, **state})
        np.testing.assert_array_equal(y, model(x))
        state = {"snu/s_in": s_out, "snu/y_in": y_out}


def test_batch_and_time_are_dynamic_and_names_are_kept():
    model = keras.Sequential(
        [
            keras.Input((None, 6), name="keys"),
            unit(SNU, state_activation="relu", return_sequences=True, name="hidden"),
            keras.layers.Dense(2, name="chords"),
        ]
    )
    proto = to_onnx(model, metadata={"snukeras.version": "9"})
    runtime = session(proto.SerializeToString())
    assert runtime.get_inputs()[0].name == "keys"
    assert runtime.get_outputs()[0].name == "chords"
    assert runtime.get_inputs()[0].shape == ["batch", "time", 6]
    assert runtime.get_outputs()[0].shape == ["batch", "time", 2]
    for batch, time in ((1, 1), (5, 2), (2, 30)):
        x = sequences(batch, time)
        np.testing.assert_allclose(run_onnx(runtime, [x])["chords"], model(x), atol=1e-5)
    scan = next(node for node in proto.graph.node if node.op_type == "Scan")
    assert scan.name == "hidden"
    assert scan.doc_string == (
        "s[t] = relu(x[t] W + decay * s[t-1] * (1 - y[t-1])); y[t] = step(s[t] - threshold); "
        "step(z) = 1 if z > 0 else 0"
    )
    assert proto.ir_version == 8 and proto.opset_import[0].version == 17
    texts = {entry.key: entry.value for entry in proto.metadata_props}
    assert texts["snukeras.version"] == "9" and '"decay"' in texts["snukeras.units"]
    onnx.checker.check_model(proto, full_check=True)


def test_the_loop_is_small():
    """A feed-forward spiking step is five nodes; every one costs at batch 1."""
    inputs = keras.Input((None, 6))
    proto = to_onnx(
        keras.Model(inputs, unit(SNU, state_activation="relu", return_sequences=True)(inputs))
    )
    scan = next(node for node in proto.graph.node if node.op_type == "Scan")
    body = next(a.g for a in scan.attribute if a.name == "body")
    assert [node.op_type for node in body.node] == ["Add", "Relu", "Greater", "Mul", "Where"]
    assert "MatMul" in [node.op_type for node in proto.graph.node]


@pytest.mark.some_cases(4)
@pytest.mark.parametrize("cls", [SNU, SSNU])
@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("lateral", [False, True])
def test_streaming_gives_the_same_numbers(cls, recurrent, lateral):
    inputs = keras.Input((None, 6))
    x = unit(cls, recurrent=recurrent, lateral_inhibition=lateral, return_sequences=True)(inputs)
    x = keras.layers.LayerNormalization()(keras.layers.Dropout(0.5)(x))
    x = unit(cls, return_sequences=True)(x)
    model = keras.Model(inputs, keras.layers.Dense(2, activation="sigmoid", name="out")(x))
    runtime = session(to_onnx(model, streaming=True).SerializeToString())
    assert runtime.get_inputs()[0].shape == ["batch", 6]
    states = [entry.name for entry in runtime.get_inputs()[1:]]
    assert [name.replace("_in", "_out") for name in states] == [
        out.name for out in runtime.get_outputs()[1:]
    ]
    data, state = sequences(), {name: np.zeros((3, UNITS), "float32") for name in states}
    got = []
    for t in range(data.shape[1]):
        out, *after = runtime.run(None, {runtime.get_inputs()[0].name: data[:, t], **state})
        got.append(out)
        state = dict(zip(states, after, strict=True))
    np.testing.assert_allclose(np.stack(got, axis=1), model(data), atol=2e-6)


def test_what_cannot_stream_is_named_at_once():
    inputs = keras.Input((None, 6))
    x = unit(SNU, go_backwards=True, return_sequences=True, name="back")(inputs)
    x = keras.layers.Conv1D(3, 2, name="conv")(x)
    outputs = unit(SNU, name="last")(x)
    with pytest.raises(UnsupportedLayersError) as caught:
        to_onnx(keras.Model(inputs, outputs), streaming=True)
    assert set(caught.value.problems) == {"back", "conv", "last"}
