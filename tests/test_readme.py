"""README and docs say what is: code runs, tables are the generated ones, links lead somewhere."""

import re
import shutil
from pathlib import Path

import pytest

from experiments.__main__ import filled

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_tables_are_the_generated_ones(document):
    text = document.read_text("utf-8")
    assert text == filled(text), f"run: python -m experiments {document.name}"


@pytest.mark.parametrize("job", ["main job", "tests"])
def test_each_command_is_one_line(job):
    block = re.search(rf"<!-- {job} -->\n(?:<!--.*-->\n)*```console\n(.*?)```", README, re.DOTALL)[
        1
    ]
    assert block.startswith("$ python3 -m venv") and block.count("\n") == 1


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_pictures_exist(document):
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text("utf-8")):
        if not target.startswith("https://"):
            assert (document.parent / target).exists(), target


def test_the_readme_is_short():
    """What a guide says stands on a page of the site, and README leads there."""
    assert README.count("\n") <= 90


def test_the_commands_of_the_readme_exist():
    for name in set(re.findall(r"snukeras-(?:export|zoo)", README)):
        assert shutil.which(name) or (ROOT / "pyproject.toml").read_text().count(name)
