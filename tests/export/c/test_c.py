"""--target c: C99 that equals Keras, int8 that equals its integer reference, sizes, errors."""

import json
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest

import snukeras
from snukeras.export.c import compiler
from snukeras.export.c.files import make
from snukeras.export.c.plan import identifier
from snukeras.export.c.quantise import SOFT_BITS, TABLE_BITS
from snukeras.export.c.reference import _sigmoid
from snukeras.export.command import main
from snukeras.export.network import Network
from snukeras.export.samples import Samples
from snukeras.export.verify.c import compare_c
from snukeras.layers import LIF, SNU, SSNU, ConvSNU1D, ConvSNU2D, ConvSSNU2D, RateCoding

LAYERS = keras.layers
pytestmark = pytest.mark.skipif(compiler.find() is None, reason="there is no C compiler")


def sequential(*layers):
    keras.utils.set_random_seed(1)
    return keras.Sequential(list(layers))


def decays(units):
    return np.linspace(0, 1, units).tolist()


def dense():
    return sequential(
        keras.Input((None, 6), name="double"),
        SNU(9, recurrent=True, decay=decays(9), use_bias=True, return_sequences=True),
        LAYERS.Dropout(0.5),
        SNU(7, state_activation="relu", lateral_inhibition=True, return_sequences=True),
        LAYERS.Dense(4, activation="sigmoid"),
    )


def maps():
    same = {"padding": "same", "return_sequences": True}
    return sequential(
        keras.Input((None, 9, 7, 3)),
        ConvSNU2D(4, (3, 2), strides=(2, 1), recurrent=True, use_bias=True, **same),
        ConvSNU2D(3, 3, lateral_inhibition=True, **same),
        ConvSSNU2D(5, 2, dilation_rate=2, lateral_inhibition=True, return_sequences=True),
        LAYERS.TimeDistributed(LAYERS.Flatten()),
        SSNU(6, recurrent=True, lateral_inhibition=True, return_sequences=True),
        SNU(11, recurrent=True),
        LAYERS.Dense(4, activation="softmax"),
    )


def lines():
    return sequential(
        keras.Input((12, 8)),
        SNU(8, decay=1.0, return_sequences=True),
        LAYERS.Reshape((12, 4, 2)),
        ConvSNU1D(3, 3, padding="same", strides=2, return_sequences=True),
        LAYERS.Dense(3, activation="relu"),
        LAYERS.TimeDistributed(LAYERS.Flatten()),
        LAYERS.Dense(5, activation="tanh"),
        LAYERS.GlobalAveragePooling1D(),
    )


def images():
    return sequential(
        keras.Input((5, 4)),
        LAYERS.Flatten(),
        RateCoding(7, max_spikes=4, seed=1),
        SNU(6, return_sequences=True),
        LAYERS.GlobalAveragePooling1D(),
    )


def neurons():
    """Every form of LIF: resets, currents, loops, counts, spikes a step late, read-outs."""
    forms = [
        {"reset_by": [0.1, 0.2, 0.3], "gain": [1.0, 0.5, -2.0], "initial_potential": 0.3},
        {"reset": "zero", "recurrent": True, "bias": [0.1, 0.0, -0.1]},
        {"reset": "silence", "synaptic_decay": 0.5, "output_delay": True},
        {"several": True, "threshold": 0.2, "recurrent": True, "synaptic_decay": [0.1, 0.2, 0.9]},
        {"several": True, "threshold": [0.2, 0.3, 0.4], "reset": None, "output_delay": True},
        {"decay": 1.0, "recurrent": True, "synaptic_decay": 0.2},
    ]
    wide = keras.initializers.RandomNormal(stddev=2.0)
    layers = [LIF(3, return_sequences=True, **{"threshold": 0.4, **form}) for form in forms]
    hidden = [part for lif in layers for part in (LAYERS.Dense(3, kernel_initializer=wide), lif)]
    readout = LIF(3, threshold=None, reset=None, synaptic_decay=0.4, bias=0.1)
    behind = LIF(3, threshold=0.9, recurrent=True, return_sequences=True, name="lif_2_next")
    return sequential(keras.Input((None, 4)), *hidden, behind, LAYERS.Dense(3), readout)


def soft():
    return sequential(
        keras.Input((None, 3)),
        SSNU(5, state_activation="tanh", return_sequences=True),
        LAYERS.Dense(4, activation="gelu"),
        LAYERS.Activation("log_softmax"),
    )


def pooled():
    """Convolutions and pooling of Keras, of images and between units, windows cut at the edge."""

    def over(layer):
        return LAYERS.TimeDistributed(layer)

    wide = keras.initializers.RandomNormal(stddev=1.0)
    same = {"padding": "same", "return_sequences": True, "kernel_initializer": wide}
    return sequential(
        keras.Input((13, 11, 2)),
        LAYERS.Conv2D(3, (3, 2), strides=(2, 1), padding="same", activation="sigmoid"),
        LAYERS.AveragePooling2D((1, 2), padding="same"),
        RateCoding(6, seed=1),
        ConvSNU2D(4, 3, **same),
        over(LAYERS.MaxPooling2D(2, strides=1, padding="same")),
        over(LAYERS.Conv2D(3, 2, dilation_rate=2, activation="relu", kernel_initializer=wide)),
        ConvSNU2D(4, 2, **same),
        over(LAYERS.AveragePooling2D((3, 2), strides=(2, 1), padding="same")),
        ConvSSNU2D(3, 2, **same),
        over(LAYERS.Reshape((-1, 3))),
        over(LAYERS.Conv1D(4, 3, padding="same", activation="tanh")),
        over(LAYERS.MaxPooling1D(2)),
        over(LAYERS.GlobalAveragePooling1D()),
        SNU(5, return_sequences=True),
        LAYERS.GlobalAveragePooling1D(),
    )


@pytest.mark.some_cases(1)
@pytest.mark.parametrize(
    "build", [dense, maps, lines, images, pooled, neurons, soft], ids=lambda f: f.__name__
)
def test_c_equals_keras_and_int8_its_reference(build, tmp_path):
    report = snukeras.export.export(build(), tmp_path / "out", target="c", name="a net")
    found = report.verification.c
    assert report.verification.ok and found.ok and found.checked
    assert found.max_difference < 1e-5
    if build is soft:
        assert found.integers is None and "state_activation tanh" in report.c.int8_left_out
        assert not (tmp_path / "out" / "model_int8.c").exists()
    else:
        assert found.integers is True and report.c.int8.code > 0
    assert report.c.name == "a_net" and report.c.float32.code > 0
    for word in ("malloc", "calloc", "free("):
        assert word not in (tmp_path / "out" / "model.c").read_text()


def test_networks_of_other_libraries_become_c_with_the_same_spikes(tmp_path):
    with np.load(Path(__file__).parent.parent / "nir/files/snntorch_recurrent_zero.npz") as file:
        (tmp_path / "net.nir").write_bytes(file["nir"].tobytes())
        samples = Samples("a run of its writer", [[file["x"]]])
    network = Network.read(snukeras.export.read_nir(tmp_path / "net.nir", reset="zero"))
    for name, text in make(network, samples, "peer").files.items():
        (tmp_path / name).write_text(text)
    found = compare_c(network, tmp_path, samples, "peer")[0]
    assert found.ok and found.integers and found.flips == 0 and found.outputs == 2 * 30 * (6 + 3)


@pytest.mark.slow
def test_metric_of_every_form_beside_streaming_and_nir(tmp_path, capsys, monkeypatch):
    """With targets the folder tells what each form does to the task; other files stand beside."""
    pytest.importorskip("nir")
    monkeypatch.chdir(tmp_path)
    model = sequential(
        keras.Input((None, 24)),
        SNU(32, decay=0.8, return_sequences=True),
        LAYERS.Dense(16),
    )
    model.save("net.keras")
    x = np.random.default_rng(0).normal(size=(4, 9, 24)).astype("float32")
    y = model.predict(x, verbose=0)
    np.savez("samples.npz", x=x, targets=y.argmax(-1))
    command = ["net.keras", "--target", "c", "--samples", "samples.npz", "--metric", "perplexity"]
    assert main([*command, "--int8", "--streaming", "--nir", "--dt", "1e-3"]) == 0
    shown = capsys.readouterr().out
    for word in ("Perplexity", ", ONNX int8 ", ", C ", ", C int8 ", "Streaming", "NIR"):
        assert word in shown, shown
    files = {path.name for path in Path("net-c").iterdir()}
    assert {
        "model.c",
        "model_int8.c",
        "model-streaming.onnx",
        "model-int8.onnx",
        "model.nir",
    } <= files
    report = json.loads(Path("net-c/report.json").read_text("utf-8"))
    found = report["verification"]["metric"]["values"]
    assert list(found) == ["keras", "onnx", "int8", "c", "c_int8"]
    assert found["c"] == pytest.approx(found["keras"], rel=1e-5)
    assert found["c_int8"] == pytest.approx(found["keras"], rel=0.02)
    assert found["c_int8"] != found["keras"]
    page = (tmp_path / "net-c" / "report.html").read_text("utf-8")
    assert "C, int8: perplexity" in page and "ONNX Runtime, int8: perplexity" in page


@pytest.mark.slow
def test_example_reads_the_sequence_and_the_struct_has_the_size_that_is_told(tmp_path):
    report = snukeras.export.export(dense(), tmp_path / "out", target="c")
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O2"]
    expected = np.loadtxt(tmp_path / "out" / "expected.csv", delimiter=",")
    for define, model, bound in (([], "model.c", 1e-5), (["-DINT8"], "model_int8.c", 0.2)):
        binary = tmp_path / model.replace(".c", "")
        command = [compiler.find(), *flags, *define, "main.c", model, "-lm", "-o", str(binary)]
        subprocess.run(command, cwd=tmp_path / "out", check=True)
        with open(tmp_path / "out" / "sequence.csv") as given:
            text = subprocess.run([binary], stdin=given, capture_output=True, text=True, check=True)
        got = np.loadtxt(text.stdout.splitlines(), delimiter=",")
        assert np.abs(got - expected).max() < bound
    wrong = subprocess.run([binary], input="1,2\n", capture_output=True, text=True)
    assert wrong.returncode == 1 and "line 1 does not hold 6 numbers" in wrong.stderr
    network = Network.read(dense())
    made = make(network, Samples.random(network), "sequential")
    assert (made.float32.ram, made.int8.ram) == (report.c.float32.ram, report.c.int8.ram)


def test_command_verifies_refuses_by_name_and_runs_no_foreign_code(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dense().save("net.keras")
    assert main(["net.keras", "--target", "c"]) == 0
    shown = capsys.readouterr().out
    for word in ("of RAM", "of code", "int8 equals its integer reference", "Verified."):
        assert word in shown, shown
    assert main(["verify", "net-c"]) == 0
    path = tmp_path / "net-c" / "model.c"
    path.write_text(path.read_text().replace("net_reset", "foreign"))
    from snukeras.export.folder import sha256_of

    sums = tmp_path / "net-c" / "checksums.sha256"
    sums.write_text(
        "".join(f"{sha256_of(path.parent / line[66:])}  {line[66:]}\n"
                for line in sums.read_text().splitlines())
    )  # fmt: skip
    capsys.readouterr()
    assert main(["verify", "net-c"]) == 1
    assert "model.c is not what this version of snukeras writes" in capsys.readouterr().err
    sequential(
        keras.Input((None, 3)),
        LAYERS.Masking(),
        LAYERS.LSTM(4, return_sequences=True),
        LAYERS.LayerNormalization(),
        LAYERS.BatchNormalization(),
        LAYERS.MaxPooling1D(2),
    ).save("other.keras")
    assert main(["other.keras", "--target", "c"]) == 3
    error = capsys.readouterr().err
    assert "LSTM" in error and "LayerNormalization" in error and "has no form in C" in error
    assert "do not call the step at masked steps" in error
    assert "snukeras.fold(model) puts it into the layer beside it" in error
    flat = [keras.Input((None, 3)), SNU(4, return_sequences=True), LAYERS.MaxPooling1D(2)]
    sequential(*flat).save("other.keras")
    assert main(["other.keras", "--target", "c"]) == 3
    assert "put it into TimeDistributed" in capsys.readouterr().err
    assert not (tmp_path / "other-c").exists()
    assert main(["net.keras", "--target", "c", "--csv"]) == 2


def test_sigmoid_in_integers_is_that_of_floats_far_from_zero_too():
    z = np.linspace(-15, 15, 601)
    found = _sigmoid(np.round(z * 2**TABLE_BITS).astype("int64")) / 2**SOFT_BITS
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-z)), atol=1e-4)


def test_names_are_ones_that_c_can_bear():
    assert [identifier(name) for name in ("int", "7 up", "a/b.c", "")] == [
        "int_net",
        "n7_up",
        "a_b_c",
        "n",
    ]
