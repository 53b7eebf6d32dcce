"""The proof of an export finds what is wrong, and explains what is not."""

import dataclasses

import keras
import numpy as np
import pytest
from networks import holes, sequences
from oracle import Unit as Oracle
from oracle import forward

from snukeras.export import onnx_units, verify
from snukeras.export.crossbar import load_map, write_map
from snukeras.export.onnx_model import to_onnx
from snukeras.export.targets import load_target
from snukeras.export.weights import assign, collect, digest
from snukeras.layers import SNU, SSNU
from snukeras.metrics import FrameNLL

TEXTS = {
    "source": {"name": "x", "sha256": None, "weights_sha256": "0" * 64},
    "onnx": {"file": "model.onnx", "sha256": "1" * 64},
}


def network(cls=SNU, **options):
    inputs = keras.Input((None, 6))
    options = {"threshold": 0.1, "recurrent": True, "return_sequences": True, **options}
    x = cls(8, name="unit", **options)(keras.layers.Masking()(inputs))
    return keras.Model(inputs, keras.layers.Dense(3, activation="sigmoid", name="out")(x))


def samples():
    return verify.Samples("test", [[sequences()], [holes(sequences(seed=4))]])


def test_a_good_export_holds():
    model = network()
    found = verify.compare_onnx(model, to_onnx(model).SerializeToString(), samples())
    assert found["ok"] and found["outputs"]["out"]["max_difference"] < 1e-6
    (unit,) = found["units"]
    assert unit["name"] == "unit" and unit["outputs"] == 2 * 3 * 13 * 8
    assert unit["flips"] == unit["contradictions"] == 0


def test_every_kind_of_layer_is_traced():
    inputs = keras.Input((None, 6))
    unit = SNU(4, return_sequences=True, threshold=0.1, name="unit")
    x = keras.layers.Bidirectional(unit, name="both")(inputs)
    x = SSNU(5, go_backwards=True, return_sequences=True, name="back")(x)
    y, s = keras.Input((3,)), keras.Input((3,))
    x = SNU(3, threshold=0.1, name="last")(x, initial_state=[y, s])
    model = keras.Model([inputs, y, s], x)
    found = verify.compare_onnx(
        model, to_onnx(model).SerializeToString(), verify.Samples.random(model, 1)
    )
    names = [unit["name"] for unit in found["units"]]
    assert names == ["both/forward_unit", "both/backward_unit", "back", "last"]
    assert found["ok"], found
    for unit in found["units"]:
        assert unit["max_potential_difference"] < 1e-5


@pytest.mark.parametrize("cls", [SNU, SSNU])
def test_a_wrong_lowering_is_found(monkeypatch, cls):
    model = network(cls)
    honest = onnx_units.Unit.of.__func__

    def wrong(kind, cell, name):
        unit = honest(kind, cell, name)
        return dataclasses.replace(unit, decay=unit.decay * 0.9)

    monkeypatch.setattr(onnx_units.Unit, "of", classmethod(wrong))
    found = verify.compare_onnx(model, to_onnx(model).SerializeToString(), samples())
    assert not found["ok"]
    (unit,) = found["units"]
    assert not unit["ok"] and unit["max_potential_difference"] > 1e-3
    assert cls is SNU or unit["max_difference"] > 1e-3


def test_wrong_decisions_are_found(monkeypatch):
    model = network()
    honest = onnx_units.Unit.of.__func__

    def wrong(kind, cell, name):
        unit = honest(kind, cell, name)
        return dataclasses.replace(unit, threshold=unit.threshold + 0.1)

    monkeypatch.setattr(onnx_units.Unit, "of", classmethod(wrong))
    found = verify.compare_onnx(model, to_onnx(model).SerializeToString(), samples())
    (unit,) = found["units"]
    assert unit["flips"] > 0 and unit["contradictions"] > 0 and not found["ok"]


def test_another_models_file_is_found():
    model, other = network(SSNU), network(SSNU)
    found = verify.compare_onnx(model, to_onnx(other).SerializeToString(), samples())
    assert not found["ok"] and not found["outputs"]["out"]["ok"]


@pytest.mark.parametrize("masked", [False, True])
def test_potentials_are_those_of_the_oracle(masked):
    layer = SNU(5, threshold=0.2, recurrent=True, lateral_inhibition=True, use_bias=True, decay=0.9)
    x = sequences()
    layer.build(x.shape)
    unit = Oracle(
        *(np.asarray(v, "float64") for v in (layer.cell.kernel, np.full(5, 0.9), np.full(5, 0.2))),
        recurrent_kernel=np.asarray(layer.cell.recurrent_kernel, "float64"),
        bias=np.zeros(5),
        lateral_inhibition=True,
    )
    mask = np.random.default_rng(0).random(x.shape[:2]) < 0.7 if masked else None
    trace = forward(unit, x.astype("float64"), mask)
    y = np.stack([step["y"] for step in trace], axis=1)
    s, bound = verify.potentials_of(layer.cell, x, y, mask)
    np.testing.assert_allclose(s, np.stack([step["s"] for step in trace], axis=1), atol=1e-7)
    assert np.all(bound >= 0) and bound.max() < 1e-4


def test_decisions_beyond_rounding_are_contradictions_others_are_not():
    x = sequences()
    layer = SNU(4, threshold=0.2, return_sequences=True)
    y = np.array(layer(x))
    s, bound = verify.potentials_of(layer.cell, x, y)
    assert verify.contradictions(layer.cell, s, bound, y) == 0
    at = np.unravel_index(np.argmin(np.abs(s - 0.2)), s.shape)
    y[at] = 1 - y[at]
    assert verify.contradictions(layer.cell, s, bound, y) == 1
    s[at] = np.float32(0.2) + (0.9 if y[at] < 0.5 else -0.9) * bound[at]
    assert verify.contradictions(layer.cell, s, bound, y) == 0


def test_nll_is_the_metric():
    r = np.random.default_rng(0)
    p = [r.random((1, t, 88)).astype("float32") for t in (3, 8)]
    y = [(r.random((1, t, 88)) < 0.1).astype("float32") for t in (3, 8)]
    metric = FrameNLL()
    for a, b in zip(y, p, strict=True):
        metric.update_state(a, b)
    assert verify.frame_nll(p, y) == pytest.approx(float(metric.result()), rel=1e-5)


@pytest.mark.parametrize("levels", [None, 9])
def test_map_against_model(tmp_path, levels):
    model = network()
    weights = collect(model)
    write_map(tmp_path / "m", weights, load_target("pcm").replace(levels=levels), **TEXTS)
    found = verify.compare_map(model, load_map(tmp_path / "m"))
    assert found["ok"]
    for matrix in found["matrices"]:
        assert matrix["max_error"] <= matrix["half_level"] + 1e-6
        assert levels is None or matrix["max_error"] > 0.1 * matrix["half_level"]
    model.get_layer("out").kernel.assign_add(np.full((8, 3), 0.5))
    assert not verify.compare_map(model, load_map(tmp_path / "m"))["ok"]


def test_map_without_a_parameter_is_found(tmp_path):
    model = network()
    weights = [weight for weight in collect(model) if weight.role != "threshold"]
    write_map(tmp_path / "m", weights, load_target("pcm"), **TEXTS)
    found = verify.compare_map(model, load_map(tmp_path / "m"))
    assert not found["ok"] and not found["complete"]


def test_the_map_alone_rebuilds_the_network(tmp_path):
    model = network()
    write_map(tmp_path / "m", collect(model), load_target("pcm"), **TEXTS)
    rebuilt = load_map(tmp_path / "m").weights()
    blank = network()
    assign(blank, rebuilt)
    for a, b in zip(model.get_weights(), blank.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_weights_cover_every_variable_once():
    inputs = keras.Input((None, 6))
    unit = SNU(4, return_sequences=True, recurrent=True, name="unit")
    x = keras.layers.Bidirectional(unit, name="both")(inputs)
    x = keras.layers.TimeDistributed(keras.layers.Dense(4), name="td")(x)
    x = keras.layers.LSTM(3, return_sequences=True)(keras.layers.BatchNormalization()(x))
    x = keras.layers.RNN(keras.layers.StackedRNNCells([keras.layers.GRUCell(2, name="g")]))(x)
    inner = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="d")], name="inner")
    model = keras.Model(inputs, inner(inner(x)))
    weights = collect(model)
    variables = [id(w.variable) for w in weights if w.variable is not None]
    assert sorted(variables) == sorted(id(v) for v in model.weights)
    matrices = [w.name for w in weights if w.matrix]
    assert {"both/backward_unit/recurrent_kernel", "td/kernel", "inner/d/kernel"} <= set(matrices)
    assert len(matrices) == 10
    assert len(digest(weights)) == 64


def test_conv_and_embedding_matrices():
    inputs = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(9, 4, name="e")(inputs)
    model = keras.Model(inputs, keras.layers.Conv1D(5, 3, name="c")(x))
    assert [w.name for w in collect(model) if w.matrix] == ["c/kernel"]
    assert [w.name for w in collect(model, embedding=True) if w.matrix] == [
        "e/embeddings",
        "c/kernel",
    ]


def test_samples_survive_a_file(tmp_path):
    songs = verify.Samples.songs([np.eye(4, 88), np.ones((2, 88))], "songs")
    songs.save(tmp_path / "s.npz")
    again = verify.Samples.load(tmp_path / "s.npz")
    assert again.kind == "songs" and len(again.batches) == 2
    np.testing.assert_array_equal(again.targets[0], songs.targets[0])
    assert again.batches[1][0].shape == (1, 1, 88)
