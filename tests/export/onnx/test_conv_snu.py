"""Convolutional units in ONNX against Keras: all arguments, states, streaming, map."""

import keras
import numpy as np
import pytest
from networks import LAYERS, compared, difference, unit

from snukeras.export import export, load_map
from snukeras.export.errors import UnsupportedLayersError
from snukeras.export.onnx.build import to_onnx
from snukeras.export.samples import Samples
from snukeras.export.verify.onnx import compare_streaming, session
from snukeras.export.verify.spikes import potentials_of
from snukeras.layers import ConvSNU1D, ConvSNU2D, ConvSSNU1D, ConvSSNU2D, RateCoding


def films(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


@pytest.mark.some_cases(3)
@pytest.mark.parametrize("cls", [ConvSNU2D, ConvSSNU2D])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": "same", "strides": 2},
        {"padding": "same", "strides": (2, 1), "use_bias": True},
        {"dilation_rate": 2, "padding": "same"},
        {"recurrent": True},
        {"recurrent": True, "lateral_inhibition": True, "window": (4, 2), "padding": "same"},
        {"return_sequences": False, "return_state": True},
        {"go_backwards": True, "lateral_inhibition": True},
    ],
    ids=str,
)
def test_as_in_keras_and_proven(cls, options):
    inputs = keras.Input((None, 7, 6, 2))
    model = keras.Model(inputs, unit(cls, **options)(inputs))
    x = films(2, 5, 7, 6, 2)
    worst, proto = difference(model, x)
    assert worst < 2e-6
    found = compared(model, Samples("films", [[x]]), proto)
    assert found["ok"], found
    (known,) = found["units"]
    assert known["outputs"] == 2 * 5 * np.prod(model.layers[-1].cell.map_shape) * 3
    assert known["flips"] == 0 and known["max_potential_difference"] < 1e-5


@pytest.mark.parametrize("cls", [ConvSNU1D, ConvSSNU1D])
def test_one_dimension_with_masks_and_initial_state(cls):
    inputs, y, s = keras.Input((None, 9, 2)), keras.Input((7, 3)), keras.Input((7, 3))
    mask = keras.Input((None,), dtype="bool")
    model = keras.Model(
        [inputs, y, s, mask],
        unit(cls, recurrent=True, return_state=True)(inputs, initial_state=[y, s], mask=mask),
    )
    kept = np.random.default_rng(0).random((2, 6)) < 0.7
    x, start = films(2, 6, 9, 2), np.abs(films(2, 2, 7, 3, seed=3))
    worst, proto = difference(model, x, start[0], start[1], kept)
    assert worst < 2e-6
    samples = Samples("films", [[x, *start, kept]])
    assert compared(model, samples, proto)["ok"]


def test_potentials_are_those_of_the_cell_stepped_in_float64():
    layer = unit(ConvSNU2D, recurrent=True, lateral_inhibition=True, use_bias=True)
    x = films(2, 4, 6, 5, 2)
    y = np.array(layer(x))
    cell = layer.cell
    s, bound = potentials_of(cell, x, y.reshape(2, 4, -1))
    held = [np.zeros((2, *cell.map_shape, 3), "float32")] * 2
    for t in range(4):
        _, held = cell(x[:, t], held)
        np.testing.assert_allclose(s[:, t], np.reshape(held[1], (2, -1)), atol=1e-5)
    assert 0 < bound.max() < 1e-3


@pytest.mark.slow
def test_a_network_for_images_exports_with_its_map(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            RateCoding(6, seed=1),
            ConvSNU2D(4, 3, return_sequences=True, name="eye"),
            LAYERS.MaxPooling3D((1, 2, 2)),
            LAYERS.Reshape((-1, 100)),
            LAYERS.Dense(10, activation="softmax", name="out"),
            LAYERS.GlobalAveragePooling1D(),
        ]
    )
    report = export(model, tmp_path / "out")
    assert report["verification"]["ok"]
    (known,) = report["verification"]["onnx"]["units"]
    assert known["name"] == "eye" and known["flips"] == 0
    crossbar = load_map(tmp_path / "out" / "crossbar.snumap")
    assert crossbar.matrices == ["eye/kernel", "out/kernel"]
    assert crossbar.weights()["eye/kernel"].shape == (3, 3, 1, 4)
    with pytest.raises(UnsupportedLayersError, match="rate_coding"):
        to_onnx(model, streaming=True)


def test_streaming_and_stateful():
    inputs = keras.Input(batch_shape=(2, None, 6, 5, 1))
    x = unit(ConvSNU2D, recurrent=True, stateful=True, name="eye")(inputs)
    model = keras.Model(inputs, unit(ConvSSNU2D, window=2, stateful=True, name="next")(x))
    step, whole = (to_onnx(model, streaming=streaming) for streaming in (True, False))
    names = ["eye/s_in", "eye/y_in", "next/s_in", "next/y_in"]
    for proto in (step, whole):
        assert [value.name for value in proto.graph.input][1:] == names
    runtime = session(whole.SerializeToString())
    assert [entry.shape[1] for entry in runtime.get_inputs()[1:]] == [36, 36, 18, 18]
    samples = Samples("films", [[films(2, 5, 6, 5, 1)]])
    found = compare_streaming(whole.SerializeToString(), step.SerializeToString(), samples)
    assert found["ok"] and found["max_difference"] < 1e-6


def test_a_wrong_lowering_is_found(monkeypatch):
    from snukeras.export.onnx.layers import conv_snu_scan

    inputs = keras.Input((None, 7, 6, 2))
    model = keras.Model(inputs, unit(ConvSNU2D, padding="same", strides=2)(inputs))
    monkeypatch.setattr(conv_snu_scan, "_same", lambda *a: [1, 1, 1, 0])  # padded at the wrong end
    proto = to_onnx(model)
    found = compared(model, Samples("films", [[films(2, 5, 7, 6, 2)]]), proto)
    assert not found["ok"]
