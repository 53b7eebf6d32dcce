"""The notebooks of the site: clean, in the navigation, and run from top to bottom."""

import ast
import json
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
names = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_there_are_six():
    assert len(NOTEBOOKS) == 6


@names
def test_a_notebook_is_clean_and_in_the_navigation(path):
    book = json.loads(path.read_text("utf-8"))
    assert (book["nbformat"], book["metadata"]["kernelspec"]["name"]) == (4, "python3")
    first, *rest = book["cells"]
    assert first["cell_type"] == "markdown" and first["source"][0].startswith("# ")
    assert "After this notebook you can" in "".join(first["source"])
    assert len({cell["id"] for cell in book["cells"]}) == len(book["cells"])
    for cell in rest:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            ast.parse("".join(cell["source"]))
            # Lines that a telephone shows without a second look.
            assert max(len(line.rstrip("\n")) for line in cell["source"]) <= 100
    assert f"notebooks/{path.stem}.md" in (ROOT / "mkdocs.yml").read_text("utf-8")


@pytest.mark.slow
@names
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    found = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), found])))
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    book = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        book, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    outputs = [out for cell in book.cells if cell.cell_type == "code" for out in cell.outputs]
    assert not [out for out in outputs if out.output_type == "error"]
    shown = {kind for out in outputs for kind in out.get("data", {})}
    assert "image/png" in shown and "text/html" in shown
    for cell in book.cells:
        # A table shows itself once, and prints nothing on its way.
        assert sum("text/html" in out.get("data", {}) for out in cell.get("outputs", [])) <= 1
