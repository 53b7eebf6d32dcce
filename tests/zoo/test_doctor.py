"""`snukeras-zoo doctor`: what it finds, also where parts are broken."""

import importlib
import json
from importlib import metadata

import pytest

from snukeras.zoo import command, doctor, presets


@pytest.fixture
def run(capsys):
    def run(*arguments):
        code = command.main(["doctor", *arguments])
        return code, capsys.readouterr().out

    return run


def line_of(text, what):
    return next(line for line in text.splitlines() if line.split()[1:2] == what.split()[:1])


def test_it_says_what_is_in_use(run, tmp_path, monkeypatch):
    monkeypatch.setenv("SNUKERAS_DATA", str(tmp_path))
    (tmp_path / "mnist.npz").write_bytes(b"")
    (tmp_path / "wikitext2.npz").write_bytes(b"")
    code, text = run()
    assert code == 0 and text.endswith("All is well.\n")
    assert "backend tensorflow" in text and "one compiled scan" in text
    assert f"{len(presets.list())}, all their files of the right size" in text
    assert "ok" in line_of(text, "MNIST") and "ok" in line_of(text, "WikiText-2")
    assert "not found" in line_of(text, "JSB") and "Put there: JSB_Chorales.mat" in text
    assert metadata.version("keras") in line_of(text, "keras")
    assert str(tmp_path) in line_of(text, "folder")


def test_it_goes_on_where_parts_are_broken(run, monkeypatch):
    def broken(name, *rest):
        if name in ("matplotlib", "nir"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if name == "tf2onnx":
            raise RuntimeError("built for another\nPython")
        return importlib.__import__(name) if not rest else real(name, *rest)

    real = importlib.import_module
    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    monkeypatch.setattr(doctor, "start_keras", lambda: 1 / 0)
    monkeypatch.setattr(doctor, "_NEEDED", (("numpy", "99", ""), ("no-such-package", "1", "")))
    monkeypatch.setenv("SNUKERAS_DATA", "/no/such/folder")
    code, text = run()
    assert code == 1 and "Something that is needed is broken" in text
    for words in (
        "does not start: ZeroDivisionError",
        "is older than 99",
        "pip install 'no-such-package>=1'",
        "which is no folder",
        "not installed; for pictures",
        "-> pip install 'snukeras[plot]'",
        "RuntimeError: built for another",
        "all their files of the right size",
    ):
        assert words in text, words


def test_damaged_presets_are_named(run, tmp_path):
    code, text = run("--content", str(tmp_path))
    assert code == 1 and f"none in {tmp_path}" in text
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "preset.json").write_text(json.dumps({"format": 1}))
    code, text = run("--content", str(tmp_path))
    assert code == 1 and "ValueError" in text and "preset.json" in text


def test_it_judges_the_backend_in_use(run, monkeypatch):
    there = doctor._is_there
    left_out = ("tensorflow", "onnx", "torch")
    monkeypatch.setattr(doctor, "_is_there", lambda name: name not in left_out and there(name))
    monkeypatch.setattr(doctor, "_chosen", lambda: "jax")
    _, text = run()
    assert "needed for snukeras-zoo train" in line_of(text, "tensorflow")
    assert "needed for snukeras-export" in line_of(text, "onnx")
    assert "BROKEN" not in line_of(text, "tensorflow") + line_of(text, "onnx")

    monkeypatch.setattr(doctor, "_chosen", lambda: "torch")
    code, text = run()
    assert code == 1 and "BROKEN torch" in text and "-> pip install torch" in text

    monkeypatch.setattr(doctor, "_chosen", lambda: "tensorflow")
    code, text = run()
    assert code == 1 and "BROKEN tensorflow" in text and "BROKEN onnx" in text


def test_it_names_a_backend_that_is_there(monkeypatch):
    monkeypatch.setattr(doctor, "_installed_backends", lambda: ["jax"])
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    assert doctor._other_backend() == (
        "pip install tensorflow, or KERAS_BACKEND=jax, which is installed"
    )
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert doctor._other_backend() == "pip install --force-reinstall keras jax"
