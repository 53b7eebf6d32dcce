"""Every model of the zoo exports: ONNX meets the golden output, the map holds the weights."""

import numpy as np
import pytest

import snukeras
from snukeras.export.crossbar import load_map
from snukeras.export.map_proof import compare_map
from snukeras.export.map_writer import write_map
from snukeras.export.onnx_model import to_onnx
from snukeras.export.onnx_proof import run_onnx, session
from snukeras.export.targets import load_target
from snukeras.export.weights import collect
from snukeras.zoo import presets


@pytest.mark.parametrize("name", snukeras.zoo.list())
def test_preset_exports(name, tmp_path):
    model = snukeras.zoo.load(name)
    given, expected = presets.golden(name)
    runtime = session(to_onnx(model).SerializeToString())
    (output, *_) = run_onnx(runtime, [given]).values()
    np.testing.assert_allclose(output, expected, atol=presets.GOLDEN_TOLERANCE)
    write_map(
        tmp_path / "map",
        collect(model),
        load_target("pcm"),
        source={"name": name, "sha256": None, "weights_sha256": "0" * 64},
        onnx={"file": "model.onnx", "sha256": "0" * 64},
    )
    found = compare_map(model, load_map(tmp_path / "map"))
    assert found["ok"]
    assert sum(matrix["devices"] for matrix in found["matrices"]) > 0
