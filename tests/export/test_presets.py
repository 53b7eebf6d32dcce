"""Every preset of the zoo exports: ONNX equals Keras on its golden input, the map holds it."""

import keras
import pytest
from networks import TEXTS

import snukeras
from snukeras.export.crossbar.load import load_map
from snukeras.export.crossbar.targets import load_target
from snukeras.export.crossbar.writer import write_map
from snukeras.export.onnx.build import to_onnx
from snukeras.export.samples import Samples
from snukeras.export.verify.onnx import compare_onnx
from snukeras.export.verify.weights import compare_map
from snukeras.network.weights import collect
from snukeras.zoo import presets


@pytest.mark.parametrize("name", snukeras.zoo.list())
def test_it_exports(name, tmp_path):
    model = presets.load(name)
    given, _ = presets.golden(name)
    given = given.astype(keras.backend.standardize_dtype(model.inputs[0].dtype))
    proto = to_onnx(model)
    found = compare_onnx(model, proto.SerializeToString(), Samples("golden", [[given]]))
    assert found["ok"], found
    write_map(tmp_path / "m", collect(model), load_target("pcm"), **TEXTS)
    assert compare_map(model, load_map(tmp_path / "m"))["ok"]
