"""The example that labels a wav as it comes: the same label as the whole network."""

import importlib.util
import re
import wave
from pathlib import Path

import keras
import numpy as np
import pytest
from networks import speech

from snukeras.datasets import spoken_digits
from snukeras.export.onnx.build import to_onnx
from snukeras.zoo import load

FILE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "label_wav.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("label_wav", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def network():
    return speech()


@pytest.fixture(scope="module")
def model(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "model-streaming.onnx"
    path.write_bytes(to_onnx(network, streaming=True).SerializeToString())
    return path


def write(path, samples, rate=8000, channels=1):
    with wave.open(str(path), "wb") as file:
        file.setframerate(rate)
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.writeframes(np.asarray(samples, "<i2").tobytes())
    return path


def test_the_last_line_is_the_label_of_the_whole(example, network, model, tmp_path, capsys):
    samples = np.random.default_rng(0).integers(-4000, 4000, 2150)
    assert example.main([str(model), str(write(tmp_path / "a.wav", samples))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and lines[0].startswith(" 0.05 s: ")
    expected = np.asarray(network(np.float32(samples[None] / 32768)))[0]
    label, chance = re.match(r" 0\.27 s: (\d) \((\d+) %\)", lines[-1]).groups()
    assert int(label) == expected.argmax() and abs(int(chance) - 100 * expected.max()) <= 1


@pytest.mark.slow
def test_the_model_that_ships_labels_real_recordings(example, data_folder, tmp_path, capsys):
    model = tmp_path / "model-streaming.onnx"
    model.write_bytes(to_onnx(load("speech_snu"), streaming=True).SerializeToString())
    test = spoken_digits.load_data(data_folder)[2]
    for sound, digit in zip(test.waves[::25], test.digits[::25], strict=True):
        path = write(tmp_path / "a.wav", np.round(32768 * sound))
        assert example.main([str(model), str(path)]) == 0
        assert f" s: {digit} (" in capsys.readouterr().out.splitlines()[-1]


def test_pieces_of_any_length_are_alike(example, model):
    sound = np.random.default_rng(1).normal(size=1300).astype("float32") * 0.1
    whole = [*example.Listener(model).hear(sound)]
    listener = example.Listener(model)
    parts = [
        found for piece in np.split(sound, [7, 150, 900, 901]) for found in listener.hear(piece)
    ]
    assert len(whole) == 1 + (1300 - 200) // 100
    np.testing.assert_array_equal(whole, parts)


@pytest.mark.parametrize(
    ("samples", "arguments", "message"),
    [
        ([1] * 500, {"rate": 16000}, "16000 Hz, .*Convert it"),
        ([1] * 500, {"channels": 2}, "2 channel.*converted.wav"),
        ([], {}, "has no samples"),
        ([1] * 150, {}, "has 150 samples, and a frame takes 200. Add silence"),
    ],
)
def test_bad_wav_files(example, model, tmp_path, capsys, samples, arguments, message):
    path = write(tmp_path / "a.wav", samples, **arguments)
    assert example.main([str(model), str(path)]) == 1
    assert re.search(message, capsys.readouterr().err)


def test_other_files(example, tmp_path, capsys):
    (tmp_path / "model.onnx").write_bytes(
        to_onnx(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])).SerializeToString()
    )
    assert example.main([str(tmp_path / "model.onnx"), "absent.wav"]) == 1
    assert "does not take frames of sound" in capsys.readouterr().err
    assert example.main([str(tmp_path / "absent.onnx"), "absent.wav"]) == 1
    assert "absent.onnx cannot be read as an ONNX file" in capsys.readouterr().err


def test_damaged_wav_files(example, model, tmp_path, capsys):
    path = write(tmp_path / "a.wav", np.arange(500))
    content = path.read_bytes()
    path.write_bytes(content[:-101])
    assert example.main([str(model), str(path)]) == 1
    found = capsys.readouterr()
    assert "0.06 s" in found.out and "cut short: 51 of its samples are missing" in found.err
    path.write_bytes(content[:20])
    assert example.main([str(model), str(path)]) == 1
    assert "a.wav cannot be read as a wav file (it ends too early)" in capsys.readouterr().err
