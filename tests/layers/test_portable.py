"""Keras's own `export`: the file of each format computes what Keras does, with batch and time free.

LiteRT runs with its builtin operators alone.
"""

import keras
import numpy as np
import pytest

from snukeras import _strategy, zoo
from snukeras.layers import (
    LIF,
    SNU,
    SSNU,
    AllMemristive,
    ConvSNU1D,
    ConvSNU2D,
    ConvSSNU2D,
    RateCoding,
    SNUCell,
    WinnerTakesAll,
)

FORMATS = ("onnx", "tf_saved_model", "litert", "openvino")
ENDINGS = {"onnx": ".onnx", "litert": ".tflite", "openvino": ".xml"}
LAYERS = keras.layers


def network(*layers, shape=(None, 5)):
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input(shape), *layers])


def exported(model, folder, form, **options):
    """Export a model, with default arguments by default; return what runs the file."""
    path = str(folder / f"model{ENDINGS.get(form, '')}")
    if form == "openvino":
        pytest.importorskip("openvino", reason="needs openvino")
    if form == "litert":
        pytest.importorskip("ai_edge_litert", reason="needs ai-edge-litert")
    model.export(path, format=form, verbose=False, **options)
    return {"onnx": _onnx, "tf_saved_model": _tf, "litert": _litert, "openvino": _openvino}[form](
        path
    )


def _onnx(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    return lambda *x: session.run(None, dict(zip(names, x, strict=True)))


def _tf(path):
    import tensorflow as tf

    served = tf.saved_model.load(path)

    def run(*x):
        found = served.serve(list(x) if len(x) > 1 else x[0])
        return [each.numpy() for each in keras.tree.flatten(found)]

    return run


def _litert(path):
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    runtime = Interpreter(
        path, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )

    def run(*x):
        entries = runtime.get_input_details()
        if any(tuple(e["shape"]) != v.shape for e, v in zip(entries, x, strict=True)):
            for entry, value in zip(entries, x, strict=True):
                runtime.resize_tensor_input(entry["index"], value.shape)
        runtime.allocate_tensors()
        for entry, value in zip(entries, x, strict=True):
            runtime.set_tensor(entry["index"], value)
        runtime.invoke()
        return [runtime.get_tensor(entry["index"]) for entry in runtime.get_output_details()]

    return run


def _openvino(path):
    import openvino

    # Without the hint it computes in bfloat16 where the processor has it.
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(path, "CPU", exact)
    return lambda *x: [compiled(list(x))[0]]  # OpenVINO lists more outputs of masked ones


def check(model, folder, form, *shapes, prepare=lambda x: x, **options):
    samples = [
        prepare(np.random.default_rng(seed).normal(size=shape).astype("float32") * 2)
        for seed, shape in enumerate(shapes)
    ]
    # Keras exports ONNX of models alone that have been called.
    found = [keras.tree.flatten(model(x)) for x in samples]
    run = exported(model, folder, form, **options)
    for x, expected in zip(samples, found, strict=True):
        for got, want in zip(run(x), expected, strict=True):
            want = keras.ops.convert_to_numpy(want)
            assert got.shape == want.shape
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


SEQUENCES = ((2, 7, 5), (3, 4, 5))


@pytest.mark.some_cases(1)
@pytest.mark.parametrize("form", FORMATS)
def test_recurrent_and_feed_forward_of_dynamic_batch_and_time(tmp_path, form):
    model = network(
        SNU(8, return_sequences=True, use_bias=True, go_backwards=True),
        SSNU(6, recurrent=True, lateral_inhibition=True),
    )
    check(model, tmp_path, form, *SEQUENCES)


def holes(x):
    x[0, 2:4], x[1, :2] = 0, 0
    return x


@pytest.mark.parametrize(
    "options", [{"recurrent": True, "synaptic_decay": 0.6}, {"output_delay": True}]
)
def test_neurons_with_masks_need_builtin_operators_alone(tmp_path, options):
    model = network(
        LAYERS.Masking(),
        LIF(5, return_sequences=True, initial_potential=0.1, **options),
        LAYERS.Bidirectional(LIF(5, zero_output_for_mask=True, return_sequences=True)),
        LAYERS.Dense(2),
    )
    check(model, tmp_path, "litert", *SEQUENCES, prepare=holes)


def test_neurons_are_refused_where_their_loop_has_no_form(monkeypatch):
    monkeypatch.setattr(_strategy, "exporting", lambda: "openvino")
    with pytest.raises(ValueError, match="cannot be exported by Keras as openvino"):
        LIF(5)(np.zeros((1, 3, 5), "float32"))


@pytest.mark.slow
@pytest.mark.parametrize("loop", [LAYERS.LSTM, LAYERS.GRU, LAYERS.SimpleRNN, None])
def test_a_fixed_shape_frees_the_loops_of_keras_from_operators_of_tensorflow(tmp_path, loop):
    layer = LAYERS.RNN(SNUCell(4), return_sequences=True) if loop is None else loop(4)
    model = network(LAYERS.TimeDistributed(LAYERS.Dense(5)), layer)
    signature = [keras.InputSpec(shape=(2, 7, 5), dtype="float32")]
    check(model, tmp_path, "litert", (2, 7, 5), input_signature=signature)


@pytest.mark.slow
def test_a_fixed_time_is_enough_for_layers_over_time(tmp_path):
    model = network(
        LAYERS.TimeDistributed(LAYERS.Conv2D(2, 3)),
        LAYERS.TimeDistributed(LAYERS.Flatten()),
        SNU(4),
        shape=(None, 6, 6, 1),
    )
    signature = [keras.InputSpec(shape=(None, 7, 6, 6, 1), dtype="float32")]
    check(model, tmp_path, "litert", (2, 7, 6, 6, 1), input_signature=signature)


@pytest.mark.slow
@pytest.mark.some_cases(1)
@pytest.mark.parametrize("form", FORMATS)
def test_masks(tmp_path, form):
    model = network(
        LAYERS.Masking(),
        SNU(5, return_sequences=True, zero_output_for_mask=True),
        SSNU(4),
    )
    check(model, tmp_path, form, *SEQUENCES, prepare=holes)


@pytest.mark.some_cases(1)
@pytest.mark.parametrize("form", FORMATS)
def test_convolutions(tmp_path, form):
    model = network(
        ConvSNU2D(3, 2, strides=2, lateral_inhibition=True, return_sequences=True),
        ConvSSNU2D(2, 2, padding="same", recurrent=True),
        shape=(None, 6, 6, 2),
    )
    check(model, tmp_path, form, (2, 5, 6, 6, 2), (1, 3, 6, 6, 2))


def test_states_and_membranes_in_and_out(tmp_path):
    steps, y, s = keras.Input((None, 5)), keras.Input((6,)), keras.Input((6,))
    unit = SNU(6, recurrent=True, return_sequences=True, return_state=True, return_membrane=True)
    model = keras.Model([steps, y, s], unit(steps, initial_state=[y, s]))
    r = np.random.default_rng(0)
    x = [r.normal(size=size).astype("float32") for size in ((2, 4, 5), (2, 6), (2, 6))]
    expected = model.predict(x, verbose=0)
    run = exported(model, tmp_path, "onnx")
    for got, want in zip(run(*x), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.some_cases(1)
@pytest.mark.parametrize("form", ["tf_saved_model", "litert"])
def test_a_stateful_step_streams(tmp_path, form):
    model = network(
        SNU(6, recurrent=True, return_sequences=True),
        LIF(6, initial_potential=0.5, return_sequences=True),
        LAYERS.Dense(2),
    )
    stream = keras.Sequential(
        [
            keras.Input(batch_shape=(1, 1, 5)),
            SNU(6, recurrent=True, return_sequences=True, stateful=True),
            LIF(6, initial_potential=0.5, return_sequences=True, stateful=True),
            LAYERS.Dense(2),
        ]
    )
    stream.set_weights(model.get_weights())
    x = np.random.default_rng(0).normal(size=(1, 6, 5)).astype("float32")
    run = exported(stream, tmp_path, form)
    got = np.concatenate([run(x[:, t : t + 1])[0] for t in range(6)], axis=1)
    np.testing.assert_allclose(got, model.predict(x, verbose=0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layer", [SNU(6, stateful=True, unroll=True), LIF(5, stateful=True)])
def test_what_would_lose_states_is_refused_and_nothing_written(tmp_path, layer):
    model = keras.Sequential([keras.Input(batch_shape=(1, 1, 5)), layer])
    model(np.zeros((1, 1, 5), "float32"))
    with pytest.raises(ValueError, match=r"stateful=True cannot be exported by Keras as onnx"):
        model.export(str(tmp_path / "m.onnx"), format="onnx", verbose=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "form, layer",
    [
        ("litert", AllMemristive(3, coupling=WinnerTakesAll(), seed=1)),
        ("onnx", AllMemristive(3, coupling=WinnerTakesAll(), seed=1)),
        ("onnx", RateCoding(4, inference="random")),
    ],
)
def test_random_numbers_without_a_form_are_refused_and_nothing_written(tmp_path, form, layer):
    model = network(layer, shape=(6, 5))
    model(np.zeros((1, 6, 5), "float32"))
    with pytest.raises(ValueError, match=f"cannot be exported by Keras as {form}"):
        model.export(str(tmp_path / f"m{ENDINGS[form]}"), format=form, verbose=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"implementation": "cell"}, {"unroll": True}])
def test_other_implementations(tmp_path, options):
    model = network(SSNU(6, return_sequences=True, **options), LAYERS.Dense(2), shape=(4, 5))
    check(model, tmp_path, "litert", (2, 4, 5))


@pytest.mark.slow
def test_a_bare_loop_of_keras_and_maps_of_one_dimension(tmp_path):
    maps, steps = keras.Input((None, 9, 2)), keras.Input((None, 5))
    found = [ConvSNU1D(4, 3)(maps), LAYERS.RNN(SNUCell(6))(steps)]
    model = keras.Model([maps, steps], [*found, LAYERS.Bidirectional(SSNU(4))(steps)])
    r = np.random.default_rng(0)
    x = [r.normal(size=size).astype("float32") for size in ((2, 5, 9, 2), (2, 4, 5))]
    expected = model(x)
    for got, want in zip(exported(model, tmp_path, "onnx")(*x), expected, strict=True):
        np.testing.assert_allclose(got, keras.ops.convert_to_numpy(want), atol=1e-5)


@pytest.mark.slow
def test_the_compiled_scan_stays_where_it_is_asked_for_by_name(tmp_path):
    for implementation in ("fused", "auto"):
        folder = tmp_path / implementation
        folder.mkdir()
        model = network(SNU(6, implementation=implementation))
        check(model, folder, "tf_saved_model", (2, 7, 5))
        graph = (folder / "model" / "saved_model.pb").read_bytes()
        assert (b"_XlaMustCompile" in graph) == (implementation == "fused")


def test_nothing_exports_while_a_model_trains_and_predicts():
    import tensorflow as tf

    found = []

    @tf.function
    def traced():
        found.append(_strategy.exporting())
        return tf.zeros(())

    traced()
    assert found == [None] and _strategy.exporting() is None


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.list())
@pytest.mark.parametrize("form", ("onnx", "tf_saved_model", "litert"))
def test_presets(tmp_path, form, name):
    model = zoo.load(name)
    loops = (keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN)
    if form == "litert" and any(isinstance(layer, loops) for layer in model.layers):
        pytest.skip("the loops of Keras's own recurrent layers need operators of TensorFlow")
    # A frame of sound has 256 samples.
    any_length = 800 if model.inputs[0].name == "sound" else 6
    shape = tuple(size or any_length for size in model.inputs[0].shape[1:])
    r = np.random.default_rng(0)
    whole = "int" in str(model.inputs[0].dtype)
    x = r.integers(0, 50, (2, *shape)).astype("int32") if whole else r.random((2, *shape))
    x = x if whole else x.astype("float32")
    want = model.predict(x, verbose=0)
    got = exported(model, tmp_path, form)(x)[0]
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
