"""The command snukeras-zoo."""

import json
import shutil
import subprocess
import sys

import pytest
from tiny_zoo import make_task, write_recipe

from snukeras.zoo import command, tasks


@pytest.fixture(autouse=True)
def scales(monkeypatch):
    monkeypatch.setitem(tasks.TASKS, "scales", make_task())


@pytest.fixture
def run(small_zoo, capfd):
    """Run the command on the small zoo; returns exit code, stdout, stderr."""

    def run(*arguments, content=small_zoo[0]):
        code = command.main([*arguments, "--content", str(content)])
        out, err = capfd.readouterr()
        return code, out, err

    return run


def test_help_starts_no_keras():
    script = (
        "import sys; sys.argv = ['snukeras-zoo', '--help']\n"
        "from snukeras.zoo.command import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0\n"
        "loaded = {'keras', 'tensorflow', 'scipy', 'rich'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    for word in ("list", "info", "train", "evaluate", "verify", "exit codes", "SNUKERAS_DATA"):
        assert word in done.stdout


def test_list_shows_presets_and_recipes(small_zoo, run, tmp_path):
    content = shutil.copytree(small_zoo[0], tmp_path / "zoo")
    write_recipe(content, name="plan")
    code, out, _ = run("list", content=content)
    assert code == 0 and "tiny" in out and "1,156" in out
    assert "plan" in out and "recipe only" in out


def test_info(run):
    code, out, _ = run("info", "tiny")
    assert code == 0
    for part in ("A tiny network", "Apache-2.0", "nats per step", "sha256", '"batch_size": 4'):
        assert part in out


def test_info_of_a_recipe_without_weights(run, tmp_path):
    write_recipe(tmp_path, name="plan")
    code, out, _ = run("info", "plan", content=tmp_path)
    assert code == 0 and "plan is a recipe without weights" in out and '"batch_size": 4' in out


def test_train_and_resume(tmp_path, run):
    write_recipe(tmp_path, epochs=2)
    runs = tmp_path / "runs"
    code, out, _ = run("train", "tiny", "--runs", str(runs), "--seeds", "3", content=tmp_path)
    assert code == 0 and "seed 3 epoch 2/2" in out and str(runs / "tiny" / "results.json") in out
    code, again, _ = run("train", "tiny", "--runs", str(runs), "--seeds", "3", content=tmp_path)
    assert code == 0 and "epoch 2/2" not in again
    assert again.splitlines()[-3:] == out.splitlines()[-3:]


def test_evaluate(run, small_zoo, tmp_path):
    code, out, _ = run("evaluate", "tiny")
    assert code == 0 and out.count("nats per step (shipped with") == 2
    content = shutil.copytree(small_zoo[0], tmp_path / "zoo")
    preset = content / "tiny" / "preset.json"
    preset.write_text(preset.read_text().replace('"test": ', '"test": 1'))
    code, _, err = run("evaluate", "tiny", content=content)
    assert code == 1 and "differ from the shipped ones" in err


def test_verify(run, small_zoo, tmp_path):
    code, out, _ = run("verify")
    assert code == 0 and "1 of 1 presets are right" in out
    content = shutil.copytree(small_zoo[0], tmp_path / "zoo")
    weights = content / "tiny" / "model.weights.h5"
    weights.write_bytes(weights.read_bytes()[:-1])
    code, out, err = run("verify", "tiny", content=content)
    assert code == 1 and "0 of 1" in out
    assert err.count("\n") == 1 and "model.weights.h5" in err


def test_verify_of_nothing_is_a_failure(run, tmp_path):
    code, _, err = run("verify", content=tmp_path)
    assert code == 1 and "there is no preset" in err


def test_measure_counts_what_was_not_counted(run, small_zoo, tmp_path):
    content = shutil.copytree(small_zoo[0], tmp_path / "zoo")
    card = (content / "tiny" / "README.md").read_text()
    path = content / "results" / "tiny.json"
    results = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in results.items() if k != "costs"}))
    (content / "tiny" / "README.md").write_text("old")
    code, out, _ = run("measure", content=content)
    assert code == 0 and "tiny: 1,056 MACs a step, 5 samples" in out and "Cards: tiny" in out
    assert json.loads(path.read_text()) == results
    assert (content / "tiny" / "README.md").read_text() == card
    assert "MACs" not in run("measure", content=content)[1]
    assert "MACs" in run("measure", "tiny", content=content)[1]


def test_card_and_table(run):
    assert run("card", "tiny")[1].startswith("# A tiny network")
    assert "| `tiny` |" in run("table")[1]


@pytest.mark.parametrize("verb", ["info", "train", "evaluate", "verify", "measure", "card"])
def test_unknown_name(run, verb):
    code, out, err = run(verb, "tini")
    assert code == 2 and out == ""
    assert err.startswith("snukeras-zoo: error: ") and "'tini'. Did you mean tiny?" in err
    assert err.splitlines()[1].startswith("hint: ") and len(err.splitlines()) == 2


def test_errors_are_one_line(run, tmp_path, monkeypatch):
    write_recipe(tmp_path, task="jsb_chorales")
    monkeypatch.setitem(tasks.TASKS["jsb_chorales"].__dict__, "songs", None)
    monkeypatch.delitem(tasks.TASKS["jsb_chorales"].__dict__, "songs")
    monkeypatch.setenv("SNUKERAS_DATA", str(tmp_path))
    code, _, err = run("train", "tiny", "--runs", str(tmp_path / "runs"), content=tmp_path)
    assert code == 1 and "Traceback" not in err
    assert err.count("\n") == 1 and "SNUKERAS_DATA leads to" in err


def test_interrupt(run, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("snukeras.zoo.presets.list", stop)
    code, _, err = run("list")
    assert code == 130 and err == "snukeras-zoo: interrupted\n"


def test_wrong_usage(capsys):
    with pytest.raises(SystemExit) as end:
        command.main(["paint"])
    assert end.value.code == 2 and "paint" in capsys.readouterr().err


def test_refuses_to_publish_what_the_recipe_does_not_say(tmp_path, capsys):
    write_recipe(tmp_path)
    runs = tmp_path / "runs"
    arguments = ["train", "tiny", "--content", str(tmp_path), "--runs", str(runs), "--publish"]
    for change in (["--epochs", "1"], ["--seeds", "1"]):
        assert command.main([*arguments, *change]) != 0
        assert "cannot be published with other seeds or epochs" in capsys.readouterr().err
    assert not runs.exists()
