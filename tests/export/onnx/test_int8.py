"""The int8 file: smaller, close to the float file, in ONNX Runtime and ONNX's reference."""

import dataclasses

import keras
import numpy as np
import onnx
import pytest
from networks import LAYERS, sequences
from onnx.reference import ReferenceEvaluator

from snukeras import zoo
from snukeras.export import export, verify_folder
from snukeras.export.command import main
from snukeras.export.errors import BadInputError
from snukeras.export.network import Network
from snukeras.export.onnx.build import to_onnx
from snukeras.export.onnx.int8 import calibrate, products, quantise, rounded
from snukeras.export.samples import Samples
from snukeras.export.verify.int8 import compare_int8
from snukeras.export.verify.onnx import run_onnx, session
from snukeras.layers import SNU, SSNU

KNOWS_SCANS = tuple(map(int, onnx.__version__.split(".")[:2])) >= (1, 22)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(5)
    return keras.Sequential(
        [
            keras.Input((None, 24)),
            SNU(32, threshold=0.3, use_bias=True, return_sequences=True, name="spiking"),
            SSNU(24, recurrent=True, return_sequences=True, name="soft"),
            LAYERS.Conv1D(16, 3, name="convolution"),
            LAYERS.LSTM(16, return_sequences=True, name="gated"),
            LAYERS.Dense(8, name="small"),
            LAYERS.Dense(64, name="large"),
        ]
    )


def quantised(model, mode, x):
    proto = to_onnx(model)
    seen = None
    if mode == "static":
        seen = calibrate(proto, [[x]], lambda data, feeds: run_onnx(session(data), feeds))
        assert set(seen) == set(products(proto))
    return proto, quantise(proto, mode, seen)


def test_rounding_for_an_input_changes_its_products_less():
    r = np.random.default_rng(0)
    x = r.random((200, 30)) + 3 * r.random((200, 1))
    weight = 20 * r.normal(size=(30, 8))
    near, made = rounded(weight, None), rounded(weight, x.T @ x)
    assert np.abs(near - weight).max() <= 0.5
    off = [np.abs(x @ (each - weight)).mean() for each in (near, made)]
    assert off[1] < 0.5 * off[0]


@pytest.mark.parametrize("mode", ["dynamic", "static"])
def test_close_to_the_float_file_in_both_runtimes(model, mode):
    x = np.abs(sequences(2, 9, 24))
    proto, small = quantised(model, mode, x)
    data = small.SerializeToString()
    assert len(data) < 0.65 * len(proto.SerializeToString())  # of weights that are few
    kinds = {tensor.data_type for tensor in small.graph.initializer}
    assert {onnx.TensorProto.INT8, onnx.TensorProto.UINT8} <= kinds
    operators = [node.op_type for node in small.graph.node]
    assert operators.count("MatMulInteger") == 3
    (want,) = run_onnx(session(proto.SerializeToString()), [x]).values()
    (got,) = run_onnx(session(data), [x]).values()
    assert np.abs(got - want).mean() < 0.05 * np.abs(want).max()
    if not KNOWS_SCANS:
        pytest.skip("onnx before 1.22 runs no Scan that takes constants from around it")
    (same,) = ReferenceEvaluator(small).run(None, {small.graph.input[0].name: x})
    np.testing.assert_allclose(same, got, atol=1e-5)


@pytest.mark.parametrize("mode", ["dynamic", "static"])
def test_sums_of_many_spikes_are_not_cut_off(mode):
    """Two products of 255 and 127 exceed 16 bits, in which some processors add int8 weights."""
    model = keras.Sequential([keras.Input((64,)), LAYERS.Dense(8, use_bias=False)])
    model.layers[0].kernel.assign(np.full((64, 8), 0.5, "float32"))
    x = np.ones((1, 64), "float32")
    _, small = quantised(model, mode, x)
    (got,) = run_onnx(session(small.SerializeToString()), [x]).values()
    np.testing.assert_allclose(got, np.full((1, 8), 32.0), rtol=1e-5)


@pytest.mark.skipif(not KNOWS_SCANS, reason="onnx before 1.22 runs no Scan that takes constants")
def test_the_float_file_runs_in_the_reference_too():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((None, 6)),
            LAYERS.Masking(),
            SNU(5, go_backwards=True, return_sequences=True),
            LAYERS.Bidirectional(SSNU(4, return_sequences=True)),
            SNU(3, recurrent=True, return_sequences=True, return_membrane=False),
        ]
    )
    x = sequences()
    proto = to_onnx(model)
    (got,) = ReferenceEvaluator(proto).run(None, {proto.graph.input[0].name: x})
    np.testing.assert_allclose(got, model.predict(x, verbose=0), atol=1e-5)


def test_exported_verified_and_shown(tmp_path, model, capsys):
    keras.utils.set_random_seed(5)
    small = keras.Sequential([keras.Input((None, 24)), SNU(32, name="spiking"), LAYERS.Dense(64)])
    small.save(tmp_path / "small.keras")
    assert main([
        str(tmp_path / "small.keras"), "--target", "onnx", "--int8", "--output",
        str(tmp_path / "out"),
    ]) == 0  # fmt: skip
    shown = capsys.readouterr().out
    assert "int8 file (dynamic)" in shown and "int8 mean output of spiking" in shown
    found = verify_folder(tmp_path / "out").int8
    assert found is not None and found.ok and found.mode == "dynamic"
    assert 0 < found.share < 0.6 and found.rates[0].before > 0
    assert "int8" in (tmp_path / "out" / "report.html").read_text("utf-8")
    report = export(small, tmp_path / "static", target="onnx", int8="static")
    assert report.verification.int8.mode == "static"


def test_a_layer_that_falls_silent_is_named(tmp_path):
    keras.utils.set_random_seed(5)
    model = keras.Sequential([keras.Input((None, 24)), SNU(32, name="spiking"), LAYERS.Dense(64)])
    x = np.abs(sequences(2, 9, 24))
    proto, small = quantised(model, "dynamic", x)
    mute = next(t for t in small.graph.initializer if t.name == "spiking/kernel/uint8")
    zeros = onnx.numpy_helper.from_array(np.full(tuple(mute.dims), 128, "uint8"), mute.name)
    mute.CopyFrom(zeros)
    (tmp_path / "a.onnx").write_bytes(proto.SerializeToString())
    (tmp_path / "b.onnx").write_bytes(small.SerializeToString())
    samples = Samples.random(Network.read(model), 0)
    samples = dataclasses.replace(samples, batches=[[x]])
    found, _ = compare_int8(tmp_path / "a.onnx", tmp_path / "b.onnx", samples)
    assert not found.ok and found.silent == ("spiking",)


def test_nothing_is_written_for_bad_input(tmp_path):
    tiny = keras.Sequential([keras.Input((None, 3)), SNU(2)])
    with pytest.raises(BadInputError, match="no matrix of 256 weights"):
        export(tiny, tmp_path / "out", target="onnx", int8="dynamic")
    with pytest.raises(BadInputError, match="int8 must be one of"):
        export(tiny, tmp_path / "out", target="onnx", int8="int4")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["jsb_snu", "mnist_snu"])
def test_presets(tmp_path, name):
    """Their figures on whole test splits are in tests/experiments/test_int8.py."""
    report = export(zoo.load(name), tmp_path / "out", target="onnx", int8="dynamic")
    assert report.verification.int8.share < 1 / 3 and report.verification.int8.ok
