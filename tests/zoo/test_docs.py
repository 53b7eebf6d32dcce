"""docs/zoo.md: its example runs, and is short."""

import re
from pathlib import Path

import keras

DOCUMENT = (Path(__file__).parents[2] / "docs" / "zoo.md").read_text("utf-8")


def test_another_head(tmp_path, monkeypatch):
    found = re.search(r"<!-- example: another head -->\n```python\n(.*?)```", DOCUMENT, re.DOTALL)
    assert found[1].count("\n") <= 30
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    names = {}
    exec(found[1], names)
    head, whole = (names[name].history["loss"] for name in ("head", "whole"))
    assert head[-1] < 0.7 * head[0] and whole[-1] < head[-1]
    assert keras.models.load_model("bass.keras").output_shape == (None, None, 88)
