"""docs/architecture.md and CONTRIBUTING.md name files and functions that exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "docs" / "architecture.md", ROOT / "CONTRIBUTING.md"]
ARCHITECTURE = PAGES[0].read_text("utf-8")


def names_of(path):
    """The names that a module defines, with those inside its classes as CLASS.NAME."""
    found = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        for name in _bound(node):
            found.add(name)
            if isinstance(node, ast.ClassDef):
                found |= {f"{name}.{inner}" for part in node.body for inner in _bound(part)}
    return found


def _bound(node):
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_path_exists(page):
    text = page.read_text("utf-8")
    paths = re.findall(r"`((?:[\w.]+/)+[\w.]*|_?\w+\.py)`", text)
    assert len(paths) > 10
    for path in (path for path in paths if "NAME" not in path):
        assert (ROOT / path).exists(), path


def test_every_folder_of_the_package_is_in_the_plan():
    plan = ARCHITECTURE.split("## Which way imports run")[0]
    for path in sorted((ROOT / "snukeras").rglob("__init__.py")):
        folder = path.parent.relative_to(ROOT).as_posix()
        assert folder == "snukeras" or f"`{folder}/`" in plan, folder


def test_every_name_is_in_the_file_before_it():
    walks = re.findall(r"`(snukeras/[\w/]+\.py)`\s+\((`[\w.]+`(?:,\s+`[\w.]+`)*)\)", ARCHITECTURE)
    assert len(walks) > 25
    for path, names in walks:
        for name in re.findall(r"`([\w.]+)`", names):
            assert name in names_of(ROOT / path), f"{name} is not in {path}"
