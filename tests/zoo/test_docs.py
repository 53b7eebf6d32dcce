"""docs/fine_tune.md: its examples run, and are short."""

import re
from pathlib import Path

import keras
import pytest

DOCUMENT = (Path(__file__).parents[2] / "docs" / "fine_tune.md").read_text("utf-8")


def run(title):
    """Run an example; returns its names."""
    found = re.search(rf"<!-- example: {title} -->\n```python\n(.*?)```", DOCUMENT, re.DOTALL)
    assert found[1].count("\n") <= 30
    keras.utils.set_random_seed(0)
    names = {}
    exec(found[1], names)
    return names


@pytest.mark.slow
def test_another_head(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run("another head")
    head, whole = (names[name].history["loss"] for name in ("head", "whole"))
    assert head[-1] < 0.7 * head[0] and whole[-1] < head[-1]
    assert keras.models.load_model("bass.keras").output_shape == (None, None, 88)


@pytest.mark.slow
def test_a_language_model():
    names = run("a language model")
    assert names["losses"][-1] < 0.5 * names["losses"][0]
    # Row r of a batch goes on where row r of the batch before ended.
    rows, x, text = names["rows"], names["x"], names["text"]
    assert (x[:rows][1][0], x[rows : 2 * rows][1][0]) == (text[48], text[56])
