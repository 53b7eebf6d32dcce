"""Images, codings and convolutional units: ONNX, its proof, and the map."""

import json

import keras
import numpy as np
import pytest
from networks import difference

from snukeras.export import export
from snukeras.export.errors import UnsupportedLayersError
from snukeras.export.onnx_model import to_onnx
from snukeras.export.onnx_proof import compare_onnx, compare_streaming
from snukeras.export.samples import Samples
from snukeras.layers import (
    SNU,
    ConvSNU1D,
    ConvSNU2D,
    ConvSSNU1D,
    ConvSSNU2D,
    ElasticDistortion,
    RateCoding,
)


def unit(cls, filters=3, kernel_size=3, **options):
    defaults = {
        "decay": np.linspace(0.2, 0.9, filters),
        "threshold": np.linspace(-0.1, 0.3, filters),
        "implementation": "cell",
        "return_sequences": True,
    }
    return cls(filters, kernel_size, **{**defaults, **options})


CASES = [
    {},
    {"padding": "same", "use_bias": True},
    {"strides": 2, "return_state": True},
    {"strides": 2, "padding": "same", "return_sequences": False},
    {"dilation_rate": 2, "padding": "same", "go_backwards": True},
]


@pytest.mark.parametrize("options", CASES)
@pytest.mark.parametrize("cls", [ConvSNU1D, ConvSSNU2D, ConvSNU2D, ConvSSNU1D])
def test_as_in_keras_and_proven(cls, options):
    keras.utils.set_random_seed(1)
    sizes = (9,) if "1D" in cls.__name__ else (7, 6)
    inputs = keras.Input((None, *sizes, 2))
    model = keras.Model(inputs, unit(cls, name="unit", **options)(inputs))
    x = np.random.default_rng(0).normal(size=(2, 5, *sizes, 2)).astype("float32")
    worst, proto = difference(model, x)
    assert worst < 1e-5
    found = compare_onnx(model, proto.SerializeToString(), Samples("test", [[x]]))
    assert found["ok"] and found["units"][0]["contradictions"] == 0
    assert found["units"][0]["max_potential_difference"] < 1e-5


def test_states_given_and_carried():
    inputs, y, s = keras.Input((None, 6, 2)), keras.Input((4, 3)), keras.Input((4, 3))
    given = keras.Model([inputs, y, s], unit(ConvSNU1D)(inputs, initial_state=[y, s]))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, 6, 2)).astype("float32")
    feeds = [x, *rng.random((2, 2, 4, 3)).astype("float32")]
    worst, proto = difference(given, *feeds)
    assert worst < 1e-5
    found = compare_onnx(given, proto.SerializeToString(), Samples("test", [feeds]))
    assert found["ok"]


def images(inference="fixed", lateral=False, recurrent=False):
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((9, 9, 1), name="image"),
            ElasticDistortion(),
            RateCoding(6, max_spikes=5, training_steps=3, inference=inference, seed=1),
            unit(ConvSNU2D, threshold=0.3, strides=2, name="maps", lateral_inhibition=lateral,
                 recurrent=recurrent),
            keras.layers.MaxPooling3D((1, 2, 2)),
            keras.layers.Reshape((-1, 12)),
            SNU(5, threshold=0.2, return_sequences=True, name="digits"),
            keras.layers.GlobalAveragePooling1D(name="rate"),
        ]
    )  # fmt: skip


def test_an_image_network_takes_images_and_codes_them_alike(tmp_path):
    model = images()
    x = np.random.default_rng(0).random((8, 9, 9, 1)).astype("float32")
    worst, _ = difference(model, x)
    assert worst == 0 and np.ptp(model(x)) > 0
    report = export(model, tmp_path / "out", samples=Samples("images", [[x]]))
    assert report["verification"]["ok"]
    units = {u["name"]: u for u in report["verification"]["onnx"]["units"]}
    assert units["maps"]["outputs"] == 8 * 6 * 4 * 4 * 3
    matrices = {m["name"]: m for m in report["verification"]["map"]["matrices"]}
    assert matrices["maps/kernel"]["shape"] == [3, 3, 1, 3]
    assert matrices["maps/kernel"]["devices"] == 2 * 27
    assert json.loads((tmp_path / "out" / "report.json").read_text())["verification"]["ok"]


def test_a_wrong_kernel_is_found():
    model = images()
    proto = to_onnx(model)
    other = images()
    kernel = other.get_layer("maps").cell.kernel
    kernel.assign(kernel.numpy() * 1.5)
    x = np.random.default_rng(0).random((4, 9, 9, 1)).astype("float32")
    assert not compare_onnx(other, proto.SerializeToString(), Samples("images", [[x]]))["ok"]


def test_streaming_behind_the_coding():
    inputs = keras.Input((None, 8, 8, 1))
    model = keras.Model(inputs, unit(ConvSNU2D, strides=2)(inputs))
    whole, step = to_onnx(model), to_onnx(model, streaming=True)
    x = np.random.default_rng(0).random((2, 5, 8, 8, 1)).astype("float32")
    found = compare_streaming(
        whole.SerializeToString(), step.SerializeToString(), Samples("maps", [[x]])
    )
    assert found["ok"], found
    with pytest.raises(UnsupportedLayersError, match="the layers behind it"):
        to_onnx(images(), streaming=True)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(inference="random"), "inference='fixed'"),
        (dict(lateral=True), "lateral inhibition"),
        (dict(recurrent=True), "recurrent convolution"),
    ],
)
def test_what_has_no_form_is_named(arguments, words):
    with pytest.raises(UnsupportedLayersError, match=words):
        to_onnx(images(**arguments))
