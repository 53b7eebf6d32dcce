"""README says what is: its code runs, its table is the generated one, its links lead somewhere."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import snukeras
from snukeras.zoo import cards

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def test_the_first_code_block_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    random = np.random.default_rng(0)
    rolls = (random.random((8, 12, 88)) < 0.05).astype("float32")
    exec(code, {"x": rolls[:, :-1], "y": rolls[:, 1:]})
    from snukeras.export.command import main

    assert main(["model.keras", "--target", "pcm"]) == 0
    assert snukeras.export.load_map("model-pcm/crossbar.snumap").weights()


def test_the_table_of_models_is_the_generated_one():
    shown = re.search(r"<!-- models -->\n(.*?)<!-- end -->", README, re.DOTALL)[1]
    assert shown == cards.table()
    shown = re.search(r"<!-- in the loop -->\n(.*?)<!-- end -->", README, re.DOTALL)[1]
    assert shown == cards.loop_table()


@pytest.mark.parametrize("job", ["main job", "tests"])
def test_each_command_is_one_line(job):
    block = re.search(rf"<!-- {job} -->\n```console\n(.*?)```", README, re.DOTALL)[1]
    assert block.startswith("$ python3 -m venv") and block.count("\n") == 1


def test_links_and_pictures_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("https://"):
            assert (ROOT / target).exists(), target


def test_the_commands_of_the_readme_exist():
    for name in set(re.findall(r"snukeras-(?:export|zoo)", README)):
        assert shutil.which(name) or (ROOT / "pyproject.toml").read_text().count(name)
