"""Sound in ONNX: log-mel frames and level crossings, whole and frame by frame."""

import json

import keras
import numpy as np
import pytest
from networks import difference, ear, speech

from snukeras.export import export
from snukeras.export.errors import UnsupportedLayersError
from snukeras.export.onnx.build import to_onnx
from snukeras.export.onnx.layers.sound import FRAMES
from snukeras.export.samples import Samples
from snukeras.export.verify.onnx import compare_streaming, session
from snukeras.layers import SNU, LevelCrossing, LogMel

SOUND = 0.1 * np.random.default_rng(0).standard_normal((3, 1500), "float32")


@pytest.mark.parametrize("length", [128, 200])
def test_log_mel_is_that_of_keras(length):
    worst, proto = difference(ear(LogMel(20, frame_length=length, frame_step=60)), SOUND)
    assert worst < 2e-4  # of a band with next to no power
    assert [node.op_type for node in proto.graph.node].count("STFT") == 1


def test_level_crossings_are_the_same_spikes():
    x = np.random.default_rng(0).normal(size=(2, 30, 3)).astype("float32")
    model = keras.Sequential([keras.Input((None, 3)), LevelCrossing(0.7)])
    assert difference(model, x)[0] == 0


def test_a_frame_at_a_time_is_the_whole():
    model = speech()
    samples = Samples("sound", [[SOUND], [SOUND[:1, :200]]])
    step = to_onnx(model, streaming=True)
    assert json.loads({p.key: p.value for p in step.metadata_props}[FRAMES]) == {
        "sound": {"frame_length": 200, "frame_step": 100, "sampling_rate": 8000}
    }
    entries = {entry.name: entry.shape for entry in session(step.SerializeToString()).get_inputs()}
    assert entries["sound"] == ["batch", 200]
    assert entries["rate/total_in"] == ["batch", 12] and entries["rate/count_in"] == ["batch", 1]
    whole = to_onnx(model).SerializeToString()
    assert compare_streaming(whole, step.SerializeToString(), samples)["ok"]
    model.get_layer("digit").kernel.assign(model.get_layer("digit").kernel * 2)
    other = to_onnx(model, streaming=True).SerializeToString()
    assert not compare_streaming(whole, other, samples)["ok"]


def test_level_crossings_stream():
    model = ear(LogMel(20, frame_step=80), LevelCrossing(0.4), SNU(5, return_sequences=True))
    whole, step = to_onnx(model), to_onnx(model, streaming=True)
    found = compare_streaming(
        whole.SerializeToString(), step.SerializeToString(), Samples("sound", [[SOUND]])
    )
    assert found["ok"] and found["max_difference"] == 0


@pytest.mark.slow
def test_exports_with_random_sound(tmp_path):
    report = export(speech(), tmp_path / "out", streaming=True)
    assert report["verification"]["ok"] and report["verification"]["streaming"]["ok"]
    matrices = {m["name"] for m in report["verification"]["map"]["matrices"]}
    assert matrices == {"units/kernel", "digit/kernel"}
    fixed = Samples.random(speech(samples=700)).batches[0][0]
    assert fixed.shape == (4, 700)


def test_what_cannot_stream_is_named():
    model = ear(keras.layers.Rescaling(2.0), LogMel(20, name="frames"), SNU(3))
    with pytest.raises(UnsupportedLayersError, match="it has to come first"):
        to_onnx(model, streaming=True)
    model = speech()
    model.get_layer("rate").keepdims = True
    with pytest.raises(UnsupportedLayersError, match="keepdims=False"):
        to_onnx(model, streaming=True)
