"""What the commands share in a terminal, and how they start."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

import snukeras
from snukeras import _terminal
from snukeras.layers import SNU

CHECKOUT = str(Path(snukeras.__file__).parents[1])


def python(*arguments, **options):
    environment = {**os.environ, "PYTHONPATH": CHECKOUT}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, **options
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["snukeras-zoo.py", "snukeras-export.py"])
def test_a_script_loads_saved_models_whatever_its_name(tmp_path, name):
    keras.Sequential([keras.Input((None, 3)), SNU(2)]).save(tmp_path / "model.keras")
    (tmp_path / name).write_text(
        "import keras, snukeras\nprint(keras.models.load_model('model.keras').count_params())\n"
    )
    done = python(name, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "8\n"


@pytest.mark.slow
def test_only_a_command_imports_the_modules_late():
    code = "import sys, {}snukeras; print('keras' in sys.modules)"
    assert python("-c", code.format("")).stdout == "True\n"
    assert python("-c", code.format("_snukeras_command, ")).stdout == "False\n"


def test_piped_output_is_plain_and_not_folded(capsys):
    _terminal.console().print("[bold]x[/]" + "y" * 150)
    assert capsys.readouterr().out == "[bold]x[/]" + "y" * 150 + "\n"


def test_control_characters_are_shown():
    assert _terminal.plain("ü \N{MINUS SIGN}\n\t") == "ü \N{MINUS SIGN}\n\t"
    assert _terminal.plain("\x1b[2J\r\ud800") == "\\x1b[2J\\r\\ud800"


def test_stderr_is_quiet_while_keras_starts_and_not_after(capfd):
    with _terminal.quiet_stderr():
        os.write(2, b"a notice")
    os.write(2, b"an error")
    assert capfd.readouterr().err == "an error"


@pytest.mark.slow
def test_keras_starts_without_stderr():
    code = "from snukeras import _terminal; _terminal.start_keras(); print('started')"
    done = python("-c", f"import os; os.close(2); {code}")
    assert done.returncode == 0 and done.stdout == "started\n"


@pytest.mark.parametrize("silent", [True, False])
def test_the_status_says_nothing_where_nobody_watches(silent, capfd):
    with _terminal.status(silent) as say:
        say("[/b] loading")
    assert capfd.readouterr() == ("", "")


def test_the_status_takes_names_with_markup(monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with _terminal.status() as say:
        say("loading a[/b].keras")


@pytest.mark.parametrize("watching", [True, False])
def test_the_bar_counts_where_somebody_watches(watching, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: watching, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with _terminal.bar("chips", 2) as advance:
        advance()
        advance()
    shown = capsys.readouterr().err
    assert ("2/2" in shown) is watching and bool(shown) is watching
    with _terminal.bar("chips", 2, show=False) as advance:
        advance()
    assert capsys.readouterr().err == ""
