"""The notebooks of the site: clean, in the navigation, run, and showing what their code shows."""

import ast
import base64
import importlib.util
import io
import json
import os
import re
from pathlib import Path

import numpy as np
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
            assert cell["execution_count"] is None
            for output in cell["outputs"]:
                assert output["output_type"] in ("stream", "display_data")
                # Who cannot see a picture reads what it shows.
                assert "image/png" not in output.get("data", {}) or cell["metadata"]["alt"]
            ast.parse("".join(cell["source"]))
            # Lines that a telephone shows without a second look.
            assert max(len(line.rstrip("\n")) for line in cell["source"]) <= 100
    assert f"notebooks/{path.stem}.md" in (ROOT / "mkdocs.yml").read_text("utf-8")


def test_what_is_stored_is_small():
    assert sum(path.stat().st_size for path in NOTEBOOKS) < 300_000


def shown(cells):
    """The stored outputs: kinds, words and numbers, pictures, in order."""
    return [output for cell in cells if cell["cell_type"] == "code" for output in cell["outputs"]]


def words_and_numbers(text):
    """Split a text into words, which have to be equal, and numbers, which have to be near."""
    number = r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?"
    numbers = [float(found.replace(",", "")) for found in re.findall(number, text)]
    return re.sub(number, "0", text), numbers


def assert_same(stored, fresh):
    """Compare two outputs: words are equal, numbers within a fifth, pictures alike."""
    assert stored.get("data", {}).keys() == fresh.get("data", {}).keys()
    if "image/png" in stored.get("data", {}):
        from PIL import Image

        first, second = (
            Image.open(io.BytesIO(base64.b64decode(output["data"]["image/png"]))).convert("L")
            for output in (stored, fresh)
        )
        # A label of another width may change the margins by a few pixels.
        np.testing.assert_allclose(first.size, second.size, atol=20)
        second = second.resize(first.size)
        difference = np.abs(np.asarray(first, "float64") - np.asarray(second, "float64"))
        assert difference.mean() < 25
        return
    first, second = (
        "".join(next(iter(output["data"].values())) if "data" in output else output["text"])
        for output in (stored, fresh)
    )
    (words, numbers), (fresh_words, fresh_numbers) = map(words_and_numbers, (first, second))
    assert words == fresh_words
    np.testing.assert_allclose(fresh_numbers, numbers, rtol=0.2, atol=0.05)


def test_another_output_is_noticed():
    one = {"output_type": "stream", "name": "stdout", "text": "loss 9.1 of 1,200\n"}
    assert_same(one, {**one, "text": ["loss 9.0 of 1,200\n"]})
    for text in ("loss 3.0 of 1,200\n", "rate 9.1 of 1,200\n", "loss 9.1 of 1,200, then 3\n"):
        with pytest.raises(AssertionError):
            assert_same(one, {**one, "text": text})


def test_the_lists_of_the_zoo_are_of_today():
    import snukeras

    seen = 0
    for path in NOTEBOOKS:
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            last = "".join(cell["source"]).rsplit("\n", 1)[-1]
            if cell["cell_type"] != "code" or not last.startswith("snukeras.zoo.list("):
                continue
            table = eval(last, {"snukeras": snukeras})._repr_html_()
            (stored,) = (out["data"] for out in cell["outputs"] if "data" in out)
            assert "".join(stored["text/html"]) == table, (
                f"run docs/examples/notebooks.py {path.stem}"
            )
            seen += 1
    assert seen


@pytest.mark.slow
@names
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    found = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), found])))
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    spec = importlib.util.spec_from_file_location("notebooks", ROOT / "docs/examples/notebooks.py")
    notebooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(notebooks)
    book = notebooks.executed(path, tmp_path)
    outputs = [out for cell in book.cells if cell.cell_type == "code" for out in cell.outputs]
    assert not [out for out in outputs if out.output_type == "error"]
    kinds = {kind for out in outputs for kind in out.get("data", {})}
    assert "image/png" in kinds and "text/html" in kinds
    for cell in book.cells:
        # A table shows itself once, and prints nothing on its way.
        assert sum("text/html" in out.get("data", {}) for out in cell.get("outputs", [])) <= 1
    stored = shown(json.loads(path.read_text("utf-8"))["cells"])
    fresh = [out for cell in book.cells if cell.cell_type == "code" for out in notebooks.kept(cell)]
    assert len(stored) == len(fresh)
    for before, now in zip(stored, fresh, strict=True):
        assert_same(before, now)
