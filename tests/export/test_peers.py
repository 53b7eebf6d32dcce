"""What the documentation says of other simulators runs, where they are installed."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest

from snukeras.export import export, load_map
from snukeras.layers import SNU

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "export.md"


def test_aihwkit_takes_the_weights_of_a_map(tmp_path, monkeypatch):
    pytest.importorskip("aihwkit.nn", reason="needs aihwkit")
    monkeypatch.chdir(tmp_path)
    model = keras.Sequential([keras.Input((None, 5)), SNU(7, return_sequences=True, name="snu")])
    export(model, "exported", target="pcm")
    code = re.search(r"```python\n(import torch\n.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)[1]
    found: dict = {}
    exec(code.replace("keys/kernel", "snu/kernel"), found)
    held = found["layer"].get_weights()[0].numpy().T
    np.testing.assert_allclose(held, load_map("exported/crossbar.snumap").weights()["snu/kernel"])
