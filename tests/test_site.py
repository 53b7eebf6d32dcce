"""The site knows every page and every public name, and needs nothing from another host."""

import ast
import re
from pathlib import Path

import pytest

import snukeras

ROOT = Path(__file__).resolve().parent.parent
SITE = (ROOT / "mkdocs.yml").read_text("utf-8")
DOCS = ROOT / "docs"
MODULES = [name for name in snukeras.__all__ if name not in ("fold", "summary", "trace")]


def public(module):
    """Names that a module hands on, or defines where it has no `__all__`."""
    path = ROOT / "snukeras" / module / "__init__.py"
    body = ast.parse((path if path.exists() else path.parent.with_suffix(".py")).read_text()).body
    for node in body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return set(ast.literal_eval(node.value))
    kinds = (ast.ClassDef, ast.FunctionDef)
    return {n.name for n in body if isinstance(n, kinds) and not n.name.startswith("_")}


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_in_the_reference(module):
    text = (DOCS / "reference" / f"{module}.md").read_text("utf-8")
    shown = set(re.findall(rf"^::: snukeras\.{module}\.(\w+)", text, re.MULTILINE))
    assert shown == public(module)


@pytest.mark.parametrize("command", ["export", "zoo"])
def test_every_option_of_the_commands_is_in_the_reference(command):
    page = (DOCS / "reference" / "commands.md").read_text("utf-8")
    code = (ROOT / "snukeras" / command / "command.py").read_text("utf-8")
    for option in set(re.findall(r'"(--[a-z][a-z0-9-]*)"', code)):
        assert re.search(rf"{option}\b(?!-)", page), option


def test_every_page_is_in_the_navigation():
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert pages <= set(re.findall(r": ([\w/-]+\.md)$", SITE, re.MULTILINE))


def test_nothing_comes_from_another_host():
    assert "font: false" in SITE and not re.search(r"https?://", SITE)
    for path in (*DOCS.rglob("*.css"), *DOCS.rglob("*.svg")):
        text = path.read_text("utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert "http" not in text, path


def test_there_are_twenty_errors_and_their_words_are_those_of_the_code():
    text = (DOCS / "errors.md").read_text("utf-8")
    assert re.findall(r"^\*\*(\d+)\.\*\*", text, re.MULTILINE) == [str(n) for n in range(1, 21)]
    modules = (ROOT / "snukeras").rglob("*.py")
    code = " ".join(re.sub(r'"\s*\n\s*f?["\']', "", path.read_text("utf-8")) for path in modules)
    said = [
        "must keep its default where", "must not both be given", "numbers, one per unit",
        "must be an integer of at least", "Such units carry no information",
        "gets nothing but zeros on the data", "cannot reach the rate", "must hold finite numbers",
        "needs one replica and the backend", "must be created inside strategy.scope()",
        "needs the TensorFlow backend. Received: the backend",
        "PCMNoise found no trainable kernels", "must not have been used before",
        "Received: one without weights; call it or", "These weights stay digital",
        "has wires too resistive for the first order of IR drop", "Add --overwrite",
        "layer(s) cannot be exported", "Keras cannot load", "could not be downloaded",
    ]  # fmt: skip
    page = " ".join(text.split())
    for words in said:
        assert words in page and words in code, words
