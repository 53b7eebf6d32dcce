"""The first example of each page of docs runs, and is short."""

import re
from pathlib import Path

import numpy as np
import pytest

PAGES = Path(__file__).resolve().parent.parent / "docs"


def example(page):
    return re.search(r"<!-- example -->\n```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["level_tuned", "spatial"])
def test_the_example_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = example(PAGES / f"{name}.md")[1]
    assert code.count("\n") <= 30
    found: dict = {}
    exec(code, found)
    if name == "level_tuned":
        np.testing.assert_allclose(found["learned"].sum(axis=1), [9, 25, 49], atol=2)
