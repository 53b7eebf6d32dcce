"""Images and their coding in ONNX, before units of all kinds: the proof, and the map."""

import json

import keras
import numpy as np
import pytest
from networks import compared, difference, unit

from snukeras.export import export
from snukeras.export.errors import UnsupportedLayersError
from snukeras.export.onnx.build import to_onnx
from snukeras.export.samples import Samples
from snukeras.layers import SNU, ConvSNU2D, ElasticDistortion, RateCoding


def images(inference="fixed"):
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((9, 9, 1), name="image"),
            ElasticDistortion(),
            RateCoding(6, max_spikes=5, training_steps=3, inference=inference, seed=1),
            unit(ConvSNU2D, threshold=0.3, strides=2, name="maps"),
            keras.layers.MaxPooling3D((1, 2, 2)),
            keras.layers.Reshape((-1, 12)),
            SNU(5, threshold=0.2, return_sequences=True, name="digits"),
            keras.layers.GlobalAveragePooling1D(name="rate"),
        ]
    )


@pytest.mark.slow
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
    assert matrices["maps/kernel"]["shape"] == (3, 3, 1, 3)
    assert matrices["maps/kernel"]["devices"] == 2 * 27
    assert json.loads((tmp_path / "out" / "report.json").read_text())["verification"]["ok"]


def test_a_wrong_kernel_is_found():
    model = images()
    proto = to_onnx(model)
    other = images()
    kernel = other.get_layer("maps").cell.kernel
    kernel.assign(kernel.numpy() * 1.5)
    x = np.random.default_rng(0).random((4, 9, 9, 1)).astype("float32")
    assert not compared(other, Samples("images", [[x]]), proto)["ok"]


def test_images_do_not_stream_and_random_codes_are_refused():
    with pytest.raises(UnsupportedLayersError, match="the layers behind it"):
        to_onnx(images(), streaming=True)
    with pytest.raises(UnsupportedLayersError, match="inference='fixed'"):
        to_onnx(images(inference="random"))
