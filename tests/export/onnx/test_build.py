"""What every ONNX file has: a guard against empty input, and the places of its units."""

import json

import keras
import numpy as np
import pytest
from networks import LAYERS, sequences

from snukeras.export.errors import VerificationError
from snukeras.export.onnx.build import to_onnx
from snukeras.export.onnx.graph import described
from snukeras.export.onnx.trace import add_traces
from snukeras.export.verify.onnx import run_onnx, session
from snukeras.layers import SNU, SSNU

RECURRENT = {
    "snu": lambda: SNU(3, return_sequences=True, recurrent=True),
    "both": lambda: LAYERS.Bidirectional(SSNU(3, return_sequences=True)),
    "lstm": lambda: LAYERS.LSTM(3, return_sequences=True),
    "gru": lambda: LAYERS.GRU(3),
}


@pytest.mark.parametrize("kind", RECURRENT)
@pytest.mark.parametrize("shape", [(0, 4, 6), (3, 0, 6), (0, 0, 6)])
def test_empty_input_is_an_error_and_not_the_end_of_the_process(kind, shape):
    model = keras.Sequential([keras.Input((None, 6), name="x"), RECURRENT[kind]()])
    runtime = session(to_onnx(model).SerializeToString())
    with pytest.raises(Exception, match="x/needs_a_sample_and_a_step"):
        run_onnx(runtime, [np.zeros(shape, "float32")])
    assert run_onnx(runtime, [sequences(1, 1)])


def test_networks_without_loops_and_streaming_forms_have_no_guard():
    plain = keras.Sequential([keras.Input((None, 6), name="x"), LAYERS.Dense(2)])
    loop = keras.Sequential([keras.Input((None, 6), name="x"), SNU(3, return_sequences=True)])
    for proto in (to_onnx(plain), to_onnx(loop, streaming=True)):
        assert not any("needs_a_sample" in node.name for node in proto.graph.node)


def test_the_file_says_where_its_units_are():
    model = keras.Sequential(
        [keras.Input((None, 6)), LAYERS.Masking(), SSNU(3, return_sequences=True, name="unit")]
    )
    proto = to_onnx(model)
    scan = json.loads(described(proto)["snukeras.units"])["unit"]["scan"]
    (node,) = (node for node in proto.graph.node if node.name == scan["node"])
    (body,) = (a.g for a in node.attribute if a.name == "body")
    made = {name for inner in body.node for name in inner.output}
    assert {scan["s"], scan["y"]} <= made and scan["mask"]
    before = len(proto.graph.output)
    traced = add_traces(proto)["unit"]
    assert len(proto.graph.output) == before + 4 and traced.mask
    assert traced.s in run_onnx(session(proto.SerializeToString()), [sequences()])


def test_a_file_that_does_not_say_so_is_refused():
    proto = to_onnx(keras.Sequential([keras.Input((None, 6)), SNU(3, name="unit")]))
    for entry in proto.metadata_props:
        if entry.key == "snukeras.units":
            entry.value = json.dumps({"unit": {"scan": {"node": "unit", "s": "x", "y": "y"}}})
    with pytest.raises(VerificationError, match="does not name the loops"):
        add_traces(proto)
