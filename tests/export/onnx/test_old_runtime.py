"""Files open in ONNX Runtime 1.16: by their versions, and in that runtime where there is one.

SNUKERAS_OLD_PYTHON names a Python 3.11 with onnxruntime 1.16 and NumPy below 2.
"""

import os
import subprocess

import keras
import numpy as np
import onnx
import pytest

from snukeras.export.onnx.build import to_onnx
from snukeras.export.onnx.int8 import calibrate, quantise
from snukeras.export.verify.onnx import run_onnx, session
from snukeras.zoo import presets

# The newest IR that onnxruntime 1.16 knows; its newest opset is 19.
IR = 9
RUN = """
import sys, numpy, onnxruntime
assert onnxruntime.__version__.startswith("1.16."), onnxruntime.__version__
for path in sys.argv[1:]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    arrays = numpy.load(path + ".npz")
    names = [end.name for end in session.get_inputs()]
    found = session.run(None, {name: arrays[f"given/{name}"] for name in names})
    for number, values in enumerate(found):
        numpy.testing.assert_allclose(values, arrays[f"wanted/{number}"], atol=1e-5)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files of two presets by form, each with an input and what the runtime of today gives."""
    place, found = tmp_path_factory.mktemp("files"), {}
    for name in ("jsb_snu", "speech_snu"):
        model, (x, _) = presets.load(name), presets.golden(name)
        x = x.astype(keras.backend.standardize_dtype(model.inputs[0].dtype))[:2]
        proto = to_onnx(model)
        seen = calibrate(proto, [[x]], lambda data, feeds: run_onnx(session(data), feeds))
        forms = {mode: quantise(proto, mode, seen) for mode in ("dynamic", "static")}
        forms |= {"float": proto, "streaming": to_onnx(model, streaming=True)}
        for form, made in forms.items():
            path = place / f"{name}-{form}.onnx"
            path.write_bytes(made.SerializeToString())
            runtime = session(path.read_bytes())
            entry, *states = runtime.get_inputs()
            given = {entry.name: x}
            if form == "streaming":  # of sound a frame is a step
                given = {entry.name: x[:, 0] if x.ndim == 3 else x[:, : entry.shape[1]]}
            given |= {end.name: np.zeros((len(x), end.shape[1]), "float32") for end in states}
            arrays = {f"given/{key}": values for key, values in given.items()}
            arrays |= {f"wanted/{i}": v for i, v in enumerate(runtime.run(None, given))}
            np.savez(f"{path}.npz", **arrays)
            found[path] = made
    return found


def nodes_of(graph):
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from nodes_of(attribute.g)


def test_versions_and_operators_are_those_of_the_old_runtime(files):
    for path, proto in files.items():
        assert proto.ir_version <= IR, path
        assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 17)], path
        for node in nodes_of(proto.graph):
            assert node.domain == "" and onnx.defs.has(node.op_type, 17), (path, node.op_type)


def test_the_old_runtime_computes_the_same(files):
    python = os.environ.get("SNUKERAS_OLD_PYTHON")
    if not python:
        pytest.skip("SNUKERAS_OLD_PYTHON names no Python with onnxruntime 1.16")
    done = subprocess.run(
        [python, "-c", RUN, *map(str, files)], capture_output=True, text=True,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
