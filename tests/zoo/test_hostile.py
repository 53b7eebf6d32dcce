"""Hostile content and arguments of snukeras-zoo: no traceback, no hang, no file lost.

Each case is drawn from its kind and number, so that a failure can be repeated by its name. The
default run takes a part of each kind; `pytest -m slow` takes all.
"""

import json
import random
import shutil

import pytest
from hostile import WORDS, cases, limited, spoiled, spoiled_bytes
from tiny_zoo import make_recipe, make_task

from snukeras import _files
from snukeras.zoo import command, recipes, tasks

# How many cases of each kind the default run and the slow one have.
KINDS = {
    "arguments": (5, 120),
    "content": (6, 160),
    "binary": (2, 60),
    "recipe": (6, 200),
    "training": (0, 40),
    "tiles": (0, 16),
}
VERBS = ("list", "info", "card", "table", "compare", "verify", "evaluate", "measure", "picture")


@pytest.fixture(autouse=True)
def scales(monkeypatch):
    monkeypatch.setitem(tasks.TASKS, "scales", make_task())


def asked(verb, folder):
    """The arguments of a command on the preset tiny."""
    more = {
        "list": [],
        "table": [],
        "compare": ["tiny", "tiny"],
        "picture": ["tiny", "--output", str(folder / "p.png")],
    }
    return [verb, *more.get(verb, ["tiny"])]


def arguments(folder, zoo, draw):
    words = [draw.choice([*VERBS, "train", "search", "", *WORDS])]
    options = ["tiny", "--seeds", "--epochs", "--runs", "--vary", "--seed", "--output", "--test"]
    words += [draw.choice([*options, *WORDS]) for _ in range(draw.randint(0, 4))]
    # No folder holds a recipe that would be trained here.
    return [*words, "--content", str(draw.choice([folder, folder / "none", "/dev/null", "\0"]))]


def content(folder, zoo, draw):
    """One JSON file of the content is spoiled; of the config the checksum fits at times."""
    copied = shutil.copytree(zoo, folder / "zoo")
    path = draw.choice(sorted(copied.rglob("*.json")))
    odd = (b"", b"{", b"[" * 20_000, b"\xff\xfe{}", b'"x"', b"null", b'{"format": 1}')
    data = path.read_bytes()
    if draw.random() < 0.8:
        path.write_text(json.dumps(spoiled(json.loads(data), draw)))
    else:
        path.write_bytes(draw.choice([spoiled_bytes(data, draw), *odd]))
    if path.name == "config.json" and draw.random() < 0.7:
        pin(path)
    verbs = VERBS[:6] if draw.random() < 0.9 else VERBS
    return [*asked(draw.choice(verbs), folder), "--content", str(copied)]


def binary(folder, zoo, draw):
    """Weights, golden vectors or the config are spoiled, and their checksums fit."""
    copied = shutil.copytree(zoo, folder / "zoo")
    path = copied / "tiny" / draw.choice(["model.weights.h5", "golden.npz", "config.json"])
    if path.suffix == ".json":
        path.write_text(json.dumps(spoiled(json.loads(path.read_text()), draw)))
    else:
        path.write_bytes(spoiled_bytes(path.read_bytes(), draw))
    pin(path)
    return [*asked(draw.choice(["verify", "verify", "evaluate", "picture"]), folder),
            "--content", str(copied)]  # fmt: skip


def pin(path):
    """Let preset.json name the file as it is."""
    preset = path.with_name("preset.json")
    described = json.loads(preset.read_text())
    pinned = {"sha256": _files.sha256_of(path), "bytes": path.stat().st_size}
    described["files"][path.name] = pinned
    preset.write_text(json.dumps(described))


def training(folder, zoo, draw):
    made = folder / "zoo" / "tiny"
    made.mkdir(parents=True)
    shutil.copy(zoo / "published.json", folder / "zoo")
    recipe = make_recipe(epochs=1, seeds=[0], constraint={"levels": 8}, noise={"noise": 0.05})
    (made / "recipe.json").write_text(json.dumps(spoiled(recipe, draw)))
    given = ["train", "tiny", "--epochs", "1"]
    if draw.random() < 0.3:
        place = draw.choice(["optimizer.learning_rate", "network.layers.0.units", "x", "", "a..b"])
        values = draw.choice([[1], [-1], ["x"], [None], [], 3, [1e308], [[]]])
        given = ["search", "tiny", "--epochs", "1", "--vary", json.dumps({place: values})]
    runs = str(folder / "runs")
    return [*given, "--content", str(folder / "zoo"), "--runs", runs]


def tiles(folder, zoo, draw):
    """A recipe whose entry for tiles is spoiled."""
    copied = shutil.copytree(zoo, folder / "zoo")
    whole = {
        "tile": {"rows": 64, "columns": 64, "output": {"bits": 8, "noise": 0.04}},
        "device": {"class": "GenericPCM"},
        "modifiers": [{"kind": "pcm", "strength": 1.0, "time": 60.0}],
        "clip": 2.5,
        "samples": 4,
        "percentile": 100.0,
        "output_share": 1.0,
        "chips": 1,
        "time": 60.0,
        "compensation": "column",
    }
    entry = spoiled(whole, draw)
    # Many chips are what a user may ask for; they take their time.
    if entry.get("chips", 3) == 2**31 - 1:
        entry["chips"] = 1
    recipe = make_recipe(name="other", epochs=1, seeds=[0], start={"model": "tiny"}, analog=entry)
    (copied / "other").mkdir()
    (copied / "other" / "recipe.json").write_text(json.dumps(recipe))
    return ["train", "other", "--epochs", "1", "--content", str(copied),
            "--runs", str(folder / "runs")]  # fmt: skip


PREPARE = {
    "arguments": arguments,
    "content": content,
    "binary": binary,
    "training": training,
    "tiles": tiles,
}


def check(kind, number, tmp_path, zoo, capsys):
    draw = random.Random(f"{kind} {number}")
    if kind == "recipe":
        check_recipe(draw)
        return
    (tmp_path / "mine.txt").write_text("years of work")
    given = PREPARE[kind](tmp_path, zoo, draw)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    capsys.readouterr()
    with limited(120):
        try:
            code = command.main(given)
        except SystemExit as ended:  # of argparse
            code = ended.code
    printed = capsys.readouterr()
    assert code in (0, 1, 2), given
    assert "Traceback" not in printed.err and "please report" not in printed.err, printed.err
    if code == 1:
        said = [line for line in printed.err.splitlines() if "Warning" not in line]
        assert said[-1].startswith("snukeras-zoo: error: ") or said[-1].startswith("hint: ")
    assert all(c in "\n\t" or c.isprintable() for c in printed.out + printed.err), printed
    for path, data in before.items():
        # `measure` writes cards, `search` the file of its trials.
        if given[0] not in ("measure", "search"):
            assert path.read_bytes() == data, path
    assert (tmp_path / "mine.txt").read_text() == "years of work"


def check_recipe(draw):
    """A spoiled recipe makes what training needs, or is refused by a ValueError."""
    whole = make_recipe(
        constraint={"levels": 8, "w_max": 0.6},
        noise={"noise": {"class": "GenericPCM"}, "time": 60.0, "ramp_epochs": 2},
    )
    try:
        recipe = recipes.check(spoiled(whole, draw))
        recipes.network(recipe, seed=0)
        recipes.optimizer(recipe, steps_per_epoch=3, seed=0)
        recipes.noise(recipe, seed=0)
    except ValueError as error:
        assert str(error)


@pytest.mark.parametrize(("kind", "number"), cases(KINDS, slow=False))
def test_hostile(kind, number, tmp_path, small_zoo, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check(kind, number, tmp_path, small_zoo[0], capsys)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "number"), cases(KINDS, slow=True))
def test_more_hostile(kind, number, tmp_path, small_zoo, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check(kind, number, tmp_path, small_zoo[0], capsys)
