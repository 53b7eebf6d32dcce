"""The command line: exit codes, messages, speed of --help, nothing written by accident."""

import argparse
import dataclasses
import json
import os
import signal
import subprocess
import sys

import keras
import numpy as np
import onnx
import pytest

import snukeras
from snukeras._units import energy_text, range_text
from snukeras.export import command
from snukeras.export.command import main
from snukeras.export.onnx.layers import snu_scan
from snukeras.export.verify.metric import measure
from snukeras.layers import SNU

START = "import sys; import _snukeras_command; from snukeras.export.command import main; "


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((None, 5)),
            SNU(6, threshold=0.2, name="snu"),
            keras.layers.Dense(2, name="out"),
        ],
        name="tiny",
    )
    path = tmp_path_factory.mktemp("models") / "tiny.keras"
    model.save(path)
    return str(path)


@pytest.fixture
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check_complaint(capsys, *words):
    error = capsys.readouterr().err
    lines = error.strip().splitlines()
    assert lines[0].startswith("snukeras-export: ") and len(lines) <= 2
    assert "Traceback" not in error
    for word in words:
        assert word in error
    return error


def test_help_is_fast_and_documents_exit_codes():
    code = START + (
        "code = main(['--help']); "
        "heavy = {'tensorflow', 'keras', 'onnx', 'numpy', 'rich'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    best = 9.0
    for _ in range(3):
        before = os.times()
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        after = os.times()
        # Seconds of the processor, which do not depend on what else it has to do.
        used = sum(after[2:4]) - sum(before[2:4])
        best = min(best, used)
        assert result.returncode == 0, result.stderr
    assert best < 0.5
    for text in ("--target", "--tile", "--overwrite", "3  the model has layers", "verify DIR"):
        assert text in result.stdout


def test_export_then_verify(inside, model_file, capsys):
    arguments = ["--target", "pcm", "--tile", "4x6", "--levels", "16", "--scale", "column", "--csv"]
    assert main([model_file, *arguments]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    energy = json.loads((inside / "tiny-pcm" / "report.json").read_text())["forecast"]["energy"]
    low, high = energy_text(energy["low_nJ"]), energy_text(energy["high_nJ"])
    figures = f"Energy per step {range_text(low, high)}, latency"
    expected = ("snu/kernel", "Verified.", "spikes differ", "crossbar.snumap", "report.html", "84")
    for text in (*expected, figures, "1 year", "not compensated"):
        assert text in captured.out, captured.out
    assert "\x1b" not in captured.out
    assert [path.name for path in inside.iterdir()] == ["tiny-pcm"]
    assert main(["verify", "tiny-pcm"]) == 0
    assert "Verified." in capsys.readouterr().out

    path = inside / "tiny-pcm" / "model.onnx"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    assert main(["verify", "tiny-pcm"]) == 1
    check_complaint(capsys, "model.onnx was changed", "hint:")


def test_json(inside, model_file, capsys):
    assert main([model_file, "--target", "onnx", "--json", "--output", "other"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["map"] is None and report["verification"]["ok"]
    assert main(["verify", "other", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"]


def test_existing_output(inside, model_file, capsys):
    (inside / "out").mkdir()
    (inside / "out" / "mine.txt").write_text("x")
    assert main([model_file, "--output", "out"]) == 4
    check_complaint(capsys, "out exists and is not an export", "--output")
    assert main([model_file, "--output", "out", "--overwrite"]) == 4
    check_complaint(capsys, "left alone")
    assert [path.name for path in (inside / "out").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "MODEL is missing"),
        (["missing.keras"], "no file missing.keras"),
        (["model.h5"], "not a .keras file"),
        (["{model}", "--target", "tpu"], "Known: pcm"),
        (["{model}", "--target", "missing.json"], "cannot be read"),
        (["{model}", "--tile", "256"], "ROWSxCOLUMNS"),
        (["{model}", "--tile", "0x256"], "at least 1 word line"),
        (["{model}", "--tile", "99999x99999"], "65536"),
        (["{model}", "--g-max", "-1"], "g_min < g_max"),
        (["{model}", "--g-max", "nan"], "g_min < g_max"),
        (["{model}", "--g-min", "30"], "g_min < g_max"),
        (["{model}", "--levels", "1"], "at least 2"),
        (["{model}", "--g-max", "1e-320"], "between 1e-06 and 1e+06 uS"),
        (["{model}", "--g-max", "1e308"], "between 1e-06 and 1e+06 uS"),
        (["{model}", "--g-min", "24.9999"], "must exceed g_min"),
        (["{model}", "--seed", "-1"], "from 0 to"),
        (["{model}", "--chips", "0"], "between 1 and 1000"),
        (["{model}", "--times", "9,8"], "ascending"),
        (["{model}", "--times", "soon"], "seconds such as"),
        (["{model}", "--target", "onnx", "--csv"], "--csv is for targets"),
        (["{model}", "--scale", "row"], "invalid choice"),
        (["{model}", "--frobnicate"], "unrecognized arguments"),
        (["{model}", "--faults", "missing.json"], "cannot be read"),
        (["{model}", "--samples", "missing.npz"], "cannot be read"),
        (["{model}", "--output", "a/b/c"], "no folder"),
        (["verify", "missing"], "not an export"),
        (["verify"], "required"),
        (["readback", "missing.snumap", "g.csv"], "cannot be read"),
        (["zoo:no_such_network"], "no_such_network"),
        (["zoo:../../etc"], "etc"),
    ],
)
def test_bad_input(inside, model_file, capsys, arguments, word):
    assert main([a.format(model=model_file) for a in arguments]) == 2
    check_complaint(capsys, word)
    assert list(inside.iterdir()) == []


def test_unsupported_layers(inside, capsys):
    inputs = keras.Input((None, 4))
    x = SNU(3, dtype="mixed_bfloat16", return_sequences=True, name="half")(inputs)
    x = keras.layers.LSTM(3, dtype="mixed_float16", name="lstm")(x)
    keras.Model(inputs, x).save("bad.keras")
    assert main(["bad.keras"]) == 3
    check_complaint(capsys, "2 layer(s)", "half (SNU", "lstm (LSTM", "--list-layers")
    assert [path.name for path in inside.iterdir()] == ["bad.keras"]


def test_a_failed_verification_has_its_own_code(inside, model_file, monkeypatch, capsys):
    honest = snu_scan.Unit.of.__func__

    def wrong(kind, cell, name):
        unit = honest(kind, cell, name)
        return dataclasses.replace(unit, kernel=1.5 * unit.kernel)

    monkeypatch.setattr(snu_scan.Unit, "of", classmethod(wrong))
    assert main([model_file, "--output", "out"]) == 1
    captured = capsys.readouterr()
    assert "NOT verified" in captured.out
    assert "The export is not verified" in captured.err and "snu" in captured.err
    assert not json.loads((inside / "out" / "report.json").read_text())["verification"]["ok"]


def test_lists_and_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == snukeras.__version__
    assert main(["--list-targets"]) == 0
    assert "pcm14nm-2: 14-nm core" in capsys.readouterr().out
    assert main(["--list-layers"]) == 0
    _, in_c = capsys.readouterr().out.split("Layers with a form in C (--target c):\n")
    layers, _, floats, integers = (line.strip() for line in in_c.splitlines()[:4])
    assert "SSNU" in layers.split(", ") and "LSTM" not in layers
    assert "gelu" in floats and integers == "linear, relu, sigmoid, tanh, softmax"


def test_faults_and_readback(inside, model_file, capsys):
    faults = {"format": "snukeras-faults", "version": 1}
    stuck = [{"tile": 0, "word_line": 1, "bit_line": 2, "conductance_uS": 3.0}]
    (inside / "f.json").write_text(json.dumps({**faults, "stuck": stuck}))
    arguments = [model_file, "--tile", "5x12", "--faults", "f.json", "--csv", "--output", "out"]
    assert main(arguments) == 0
    assert "1 stuck device(s)" in capsys.readouterr().out
    lines = (inside / "out" / "devices.csv").read_text().splitlines()
    measured = [lines[0] + ",measured_uS"] + [f"{x},{x.rsplit(',', 1)[1]}" for x in lines[1:]]
    (inside / "g.csv").write_text("\n".join(measured) + "\n")
    assert main(["readback", "out/crossbar.snumap", "g.csv", "--output", "back"]) == 0
    assert "84 cross-points measured" in capsys.readouterr().out
    rebuilt = keras.models.load_model("back/measured.keras")
    assert np.abs(rebuilt.get_weights()[0]).max() > 0
    assert main(["readback", "out/crossbar.snumap", "g.csv", "--output", "back"]) == 4
    check_complaint(capsys, "back exists")
    (inside / "f.json").write_text(json.dumps({**faults, "stuck": [{"tile": 0}]}))
    assert main([*arguments, "--overwrite"]) == 2
    check_complaint(capsys, "faults.schema.json")


@pytest.mark.slow
def test_targets_give_the_metric_over_time(inside, capsys):
    """Any classifier: accuracy in Keras, in ONNX, from the map, and on chips over a year."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((None, 5)), SNU(6, return_sequences=True)])
    model.add(keras.layers.GlobalAveragePooling1D())
    model.add(keras.layers.Dense(3, activation="softmax", name="out"))
    model.save("m.keras")
    x = np.random.default_rng(0).normal(size=(20, 9, 5)).astype("float32")
    np.savez("s.npz", x=x, targets=np.asarray(model(x)).argmax(-1))
    assert main(["m.keras", "--samples", "s.npz", "--output", "out"]) == 0
    assert "Accuracy, %: Keras 100.0000, ONNX 100.0000, map 100.0000" in capsys.readouterr().out
    report = json.loads((inside / "out" / "report.json").read_text())
    assert report["verification"]["metric"]["name"] == "accuracy"
    for found in report["forecast"]["metric"].values():
        assert all(0 <= value <= 100 for value in found["mean"])
    assert "higher is better" in (inside / "out" / "report.html").read_text()
    assert main(["verify", "out"]) == 0
    assert main(["m.keras", "--metric", "accuracy"]) == 2
    check_complaint(capsys, "--metric is for --samples")


@pytest.mark.slow
def test_termination_leaves_nothing(inside, model_file):
    """SIGTERM in the middle of the work, in a process of its own."""
    code = (
        "import os, signal, sys; from snukeras.export import exporter\n"
        "real = exporter.write_map\n"
        "def slow(*a, **k):\n"
        "    real(*a, **k)\n"
        "    assert any(n.startswith('.tiny') for n in os.listdir('.'))\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "exporter.write_map = slow\n"
        "from snukeras.export.command import main\n"
        f"sys.exit(main([{model_file!r}]))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert result.returncode == 130, result.stderr
    assert "Interrupted" in result.stderr and "Traceback" not in result.stderr
    assert list(inside.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.slow
def test_zoo_preset(inside, capsys):
    pytest.importorskip("snukeras.zoo")
    if "jsb_snu" not in snukeras.zoo.list():
        pytest.skip("the preset jsb_snu is not there")
    assert main(["zoo:jsb_snu", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["map"]["weights"] == 26_400 and report["map"]["devices"] == 52_800
    assert set(report["verification"]["metric"]["values"]) == {"keras", "onnx", "map"}
    proto = onnx.load("jsb_snu-pcm/model.onnx")
    texts = {entry.key: entry.value for entry in proto.metadata_props}
    known = snukeras.zoo.info("jsb_snu")
    assert json.loads(texts["snukeras.metrics"]) == report["metrics"]
    assert report["metrics"]["test"] == known["test"] and report["metrics"]["unit"] == known["unit"]
    assert "Known figures" in (inside / "jsb_snu-pcm" / "report.html").read_text()


def test_names_with_markup_and_control_characters_are_shown_as_they_are(inside, capsys):
    """What rich would take for markup must not change what is shown, nor end the command."""
    inputs = keras.Input((None, 3))
    x = SNU(4, return_sequences=True, name="snu[red]")(inputs)
    keras.Model(inputs, keras.layers.Dense(2, name="a[bold]b")(x)).save("m[green].keras")
    assert main(["m[green].keras", "--output", "[red]out", "--chips", "1", "--times", "25"]) == 0
    shown = capsys.readouterr().out
    for name in ("snu[red]/kernel", "snu[red]: 0 of", "a[bold]b/kernel", "m[green].keras: 26"):
        assert name in shown, shown
    assert main(["a[/b].keras"]) == 2
    check_complaint(capsys, "no file a[/b].keras")
    assert main(["\x1b[2Jhidden.keras"]) == 2
    assert r"\x1b[2Jhidden" in check_complaint(capsys)
    assert main(["verify", "x\nVerified."]) == 2
    assert "\n" not in check_complaint(capsys).split("hint")[0].strip()


def test_chips_and_times(inside, model_file, capsys):
    assert main([model_file, "--chips", "2", "--times", "60,7200", "--output", "out"]) == 0
    shown = capsys.readouterr().out
    assert "2 simulated chips" in shown and "1 min" in shown and "2 h" in shown
    report = json.loads((inside / "out" / "report.json").read_text())
    assert report["forecast"]["times_s"] == [60.0, 7200.0]


def test_read_back_into_another_model(inside, model_file, capsys):
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="out")]).save("other.keras")
    assert main([model_file, "--csv", "--output", "out", "--chips", "1", "--times", "25"]) == 0
    lines = (inside / "out" / "devices.csv").read_text().splitlines()
    measured = [lines[0] + ",measured_uS"] + [f"{x},{x.rsplit(',', 1)[1]}" for x in lines[1:]]
    (inside / "g.csv").write_text("\n".join(measured) + "\n")
    capsys.readouterr()
    assert main(["readback", "out/crossbar.snumap", "g.csv", "--model", "other.keras"]) == 2
    check_complaint(capsys, "is not that of the map")
    assert sorted(path.name for path in inside.iterdir()) == ["g.csv", "other.keras", "out"]


@pytest.mark.some_cases(1)
@pytest.mark.parametrize("name", ["jsb_snu", "mnist_snu", "ptb_ssnu", "nottingham_snu"])
def test_presets_are_compared_on_their_task_where_its_data_is_at_hand(name, data_folder):
    model = snukeras.zoo.load(name)
    options = argparse.Namespace(samples=None, metric=None, target="pcm")
    samples = command._samples(options, model, snukeras.zoo.info(name)["task"])
    assert " of the test split of " in samples.kind and samples.targets is not None
    outputs = [np.asarray(model(feeds[0])) for feeds in samples.batches]
    figure = measure(outputs, samples)
    shipped = snukeras.zoo.info(name)["test"]
    assert figure == pytest.approx(shipped, rel=0.2)


@pytest.mark.slow
def test_presets_without_their_data_say_what_chorales_are(inside, monkeypatch, capsys):
    monkeypatch.setattr("snukeras.zoo.tasks.task.Task.part", lambda task: None)
    assert main(["zoo:jsb_snu", "--target", "pcm", "--chips", "1", "--times", "25"]) == 0
    out = capsys.readouterr().out
    assert "Compared on sample chorales" in out
    assert "chorales are unlike the data set" in out
    assert "(allowed: 1e-5 plus 1e-4 of the value)" in out
    assert "Its figure on the test split is 8.459 nats per step." in out
