"""The command snukeras-zoo."""

import json
import os
import random
import shutil
import subprocess
import sys

import pytest
import rich.console
from tiny_zoo import make_task, write_recipe

import snukeras
from snukeras import _files
from snukeras.zoo import command, presets, tasks
from snukeras.zoo.publishing import cards


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


@pytest.mark.parametrize(
    ("arguments", "heavy", "words"),
    [
        (
            ["--help"],
            {"keras", "tensorflow", "scipy", "rich"},
            ["list", "info", "train", "evaluate", "verify", "exit codes", "SNUKERAS_DATA"],
        ),
        (["list"], {"keras", "tensorflow"}, ["jsb_snu", "published"]),
        (["info", "jsb_snu"], {"keras", "tensorflow"}, ["sha256", "recipe:"]),
    ],
    ids=["help", "list", "info"],
)
def test_what_needs_no_keras_starts_none(arguments, heavy, words):
    script = (
        f"import sys; sys.argv = ['snukeras-zoo', *{arguments}]\n"
        "import _snukeras_command\n"
        "try:\n"
        "    assert _snukeras_command.zoo() == 0\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0\n"
        f"loaded = {heavy} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    for word in words:
        assert word in done.stdout


def test_list_shows_presets_and_recipes(small_zoo, run, tmp_path):
    content = shutil.copytree(small_zoo[0], tmp_path / "zoo")
    write_recipe(content, name="plan")
    code, out, _ = run("list", content=content)
    assert code == 0 and "scales: nats per step, lower is better" in out
    (shown,) = [line.split() for line in out.splitlines() if line.strip().startswith("tiny")]
    results = json.loads((content / "results" / "tiny.json").read_text())
    assert "1,156" in shown and cards.interval(results, "test") in " ".join(shown)
    assert "plan" in out and "recipe only" in out


def listed(out):
    names = {*presets.list(), *presets.recipes()}
    return [
        line.split()[0]
        for line in out.splitlines()
        if line.split()[:1] and line.split()[0] in names
    ]


@pytest.mark.parametrize(
    ("options", "python"),
    [
        (["jsb_snu*"], {"filter": "jsb_snu*"}),
        (["--task", "penn_treebank", "--unit", "lstm"], {"task": "penn_treebank", "unit": "LSTM"}),
        (["*_pcm", "--unit", "SSNU"], {"filter": "*_pcm", "unit": "ssnu"}),
    ],
)
def test_list_takes_what_the_list_of_python_takes(options, python, capsys):
    assert command.main(["list", *options]) == 0
    assert listed(capsys.readouterr().out) == snukeras.zoo.list(**python)


def test_list_knows_the_kind_of_a_recipe_without_weights(small_zoo, run, tmp_path):
    content = shutil.copytree(small_zoo[0], tmp_path / "zoo")
    write_recipe(content, name="plan")
    code, out, _ = run("list", "p*", "--unit", "snu", content=content)
    assert code == 0 and "plan" in out.split() and "tiny" not in out.split()


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["mnist"], 2, ["whole name fits 'mnist'", "'*mnist*' fits "]),
        (["nothing"], 2, ["'nothing'", "shows all of them"]),
        (["*chip", "--task", "penn_treebank"], 2, ["'*chip'", "of this kind"]),
        (["--task", "penn_treebank", "--unit", "ConvSNU2D"], 2, ["both this task and this unit"]),
        (["--unit", "SNUU"], 1, ["no unit of models named 'SNUU'", "SNU", "LSTM"]),
        (["--task", "jsb"], 1, ["jsb_chorales"]),
    ],
)
def test_list_says_why_nothing_fits(options, code, says, capsys):
    assert command.main(["list", *options]) == code
    out, err = capsys.readouterr()
    assert not out and all(words in err for words in says), err


@pytest.mark.parametrize("width", [80, 40])
def test_list_cuts_nothing_on_a_narrow_terminal(width, capsys, monkeypatch):
    monkeypatch.setattr(command, "console", lambda: rich.console.Console(width=width))
    assert command.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width and not any("…" in line for line in lines)
    if width == 80:
        names = {line.split()[0] for line in lines if line.strip()}
        assert names >= set(presets.list()) and any("8.453 ± 0.012" in line for line in lines)


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        command.main(["--version"])
    assert end.value.code == 0 and capsys.readouterr().out == f"{snukeras.__version__}\n"


def test_names_and_texts_are_neither_markup_nor_escape_sequences(small_zoo, run, tmp_path):
    content = shutil.copytree(small_zoo[0], tmp_path / "zoo")
    path = content / "tiny" / "preset.json"
    odd = {"network": "[/b]\x1b[2J[red]", "title": "[/bold] \x1b]0;t\x07"}
    path.write_text(json.dumps({**json.loads(path.read_text()), **odd}))
    for verb in (["list"], ["info", "tiny"]):
        code, out, err = run(*verb, content=content)
        assert code == 0 and not err and "[/b]\\x1b[2J[red]" in out and "\x1b" not in out


def _mutated(value, draw):
    """Return JSON in which something at a drawn place is gone, or is something else."""
    if isinstance(value, dict | list) and value and draw.random() < 0.8:
        copy = value.copy()
        key = draw.choice([*value] if isinstance(value, dict) else range(len(value)))
        if draw.random() < 0.3:
            del copy[key]
        else:
            copy[key] = _mutated(value[key], draw)
        return copy
    odd = (None, True, -1, 1e308, float("nan"), "", "[/b]", "\x1b[2J", "../..", "\ud800", [], {})
    return draw.choice(odd)


def test_damaged_content_gives_a_line_and_loses_nothing(small_zoo, run, tmp_path):
    content = shutil.copytree(small_zoo[0], tmp_path / "zoo")
    paths = [content / file for file in ("tiny/preset.json", "tiny/recipe.json",
             "results/tiny.json", "published.json")]  # fmt: skip
    draw = random.Random(0)
    seen = set()
    for number in range(120):
        path = paths[number % len(paths)]
        whole = path.read_text()
        raw = ("", "{", "[]", "[" * 5000, "\0")
        damaged = (
            raw[number // 4]
            if number < 20
            else json.dumps(_mutated(_mutated(json.loads(whole), draw), draw))
        )
        path.write_text(damaged)
        verb = (["list"], ["info", "tiny"], ["card", "tiny"], ["table"])[number // 4 % 4]
        code, _, err = run(*verb, content=content)
        seen.add(code)
        assert code in (0, 1, 2) and "Traceback" not in err and "\x1b" not in err
        assert bool(err) == bool(code) and err.count("\n") <= 2, (damaged, err)
        assert path.read_text() == damaged
        path.write_text(whole)
    assert seen == {0, 1}


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("golden.npz", "is not an .npz file"),
        ("model.weights.h5", "OSError: "),
        ("config.json", "is not the config of a Keras model"),
    ],
)
def test_verify_names_a_file_that_cannot_be_read(small_zoo, run, tmp_path, file, says):
    content = shutil.copytree(small_zoo[0], tmp_path / "zoo")
    (content / "tiny" / file).write_bytes(b"nothing of the kind")
    path = content / "tiny" / "preset.json"
    preset = json.loads(path.read_text())
    preset["files"][file] = {"bytes": 19, "sha256": _files.sha256_of(content / "tiny" / file)}
    path.write_text(json.dumps(preset))
    code, out, err = run("verify", content=content)
    assert code == 1 and "0 of 1" in out and "error: tiny: " in err and says in err


def test_a_folder_is_no_file_and_a_file_no_folder(small_zoo, run, tmp_path):
    content = shutil.copytree(small_zoo[0], tmp_path / "zoo")
    os.mkfifo(content / "results" / "pipe")  # reading it would wait for ever
    os.replace(content / "results" / "pipe", content / "tiny" / "preset.json")
    code, _, err = run("info", "tiny", content=content)
    assert code == 1 and "preset.json is not a file" in err
    for nowhere in (tmp_path / "nothing", content / "published.json"):
        code, _, err = run("list", content=nowhere)
        assert code == 2 and "--content must be a folder" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "tiny", "--seeds", "-1"],
        ["train", "tiny", "--seeds", "4294967296"],
        ["train", "tiny", "--seeds", "9" * 5000],
        ["train", "tiny", "--epochs", "0"],
        ["train", "tiny", "--epochs", "1e3"],
        ["search", "tiny", "--vary", "{"],
        ["search", "tiny", "--vary", "[" * 100_000],
        ["search", "tiny"],
        ["picture", "tiny"],
        ["picture", "tiny", "--output", "p.png", "--chorale", "x"],
        [],
        [""],
    ],
    ids=lambda arguments: " ".join(arguments)[:30] or "nothing",
)
def test_wrong_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        command.main(arguments)
    error = capsys.readouterr().err
    assert end.value.code == 2 and "Traceback" not in error and len(error) < 3000


def test_a_picture_replaces_no_file_unasked(run, tmp_path):
    mine = tmp_path / "mine.png"
    mine.write_text("precious")
    code, _, err = run("picture", "tiny", "--output", str(mine))
    assert code == 1 and "exists" in err and "--overwrite" in err
    assert mine.read_text() == "precious"
    code, _, err = run("picture", "tiny", "--output", str(tmp_path / "picture.docx"))
    assert code == 1 and ".png" in err
    assert run("picture", "tiny", "--output", str(mine), "--overwrite")[0] == 0
    assert mine.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.png"]


def test_a_reader_that_goes_away_is_no_error():
    """As in `snukeras-zoo list | head -1`."""
    script = (
        "import sys, _snukeras_command; sys.argv[1:] = ['table']; sys.exit(_snukeras_command.zoo())"
    )
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", script], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert done.returncode == 1 and done.stderr == b""


@pytest.mark.slow
def test_search_is_a_subcommand(tmp_path, run):
    write_recipe(tmp_path, epochs=2)
    arguments = ["search", "tiny", "--runs", str(tmp_path / "runs"), "--vary"]
    code, out, _ = run(*arguments, '{"batch_size": [13]}', content=tmp_path)
    assert code == 0 and "| batch size | epochs |" in out and "seed 0 epoch 2/2" in out
    assert (tmp_path / "results" / "search" / "tiny.json").is_file()
    code, _, err = run(*arguments, '{"colour": [3]}', content=tmp_path)
    assert code == 1 and "unknown entries colour" in err


def test_info(run):
    code, out, _ = run("info", "tiny")
    assert code == 0
    for part in ("A tiny network", "Apache-2.0", "nats per step", "sha256", '"batch_size": 4'):
        assert part in out


def test_info_of_a_recipe_without_weights(run, tmp_path):
    write_recipe(tmp_path, name="plan")
    code, out, _ = run("info", "plan", content=tmp_path)
    assert code == 0 and "plan is a recipe without weights" in out and '"batch_size": 4' in out


@pytest.mark.slow
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
    card = run("card", "tiny")[1]
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
    card = run("card", "tiny")[1]
    assert card.startswith("---\nlicense: ") and "# A tiny network" in card
    assert "| `tiny` |" in run("table")[1]


@pytest.mark.parametrize(
    "verb", ["info", "train", "search", "evaluate", "verify", "measure", "card"]
)
def test_unknown_name(run, verb):
    code, out, err = run(verb, "tini", *(["--vary", "{}"] if verb == "search" else []))
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
