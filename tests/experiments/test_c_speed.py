"""The speed of the C: the forms compute the same, and the figures make a table."""

import json

import numpy as np
import pytest

from experiments import c_speed, reporting
from snukeras.export.c import compiler


@pytest.mark.skipif(compiler.find() is None, reason="there is no C compiler")
def test_all_forms_play_the_same_and_make_a_table(tmp_path, monkeypatch):
    played = {}

    def turns(forms, sequences, rounds):
        x = sequences[0]
        played.update({form: run(x)[0] for form, run in forms.items()}, x=x)
        again = forms["onnx"](x)[0]  # from a reset
        np.testing.assert_array_equal(again, played["onnx"])
        return real(forms, sequences, rounds)

    real = c_speed._turns
    monkeypatch.setattr(c_speed, "_turns", turns)
    results = c_speed.measure(songs=1, rounds=c_speed.PARTS)
    np.testing.assert_allclose(played["c"], played["onnx"], atol=1e-5)
    assert np.abs(played["c_int8"] - played["onnx"]).mean() < 0.01
    np.testing.assert_array_equal(played["call"], played["x"])
    assert results["difference"] < 1e-5 and min(results["us"].values()) > 0
    middle, low, high = results["ratios"]["c"]
    assert 0 < low <= middle <= high
    place = tmp_path / c_speed.RESULTS_FOLDER
    place.mkdir()
    (place / "jsb_snu.json").write_text(json.dumps(results))
    lines = c_speed.table(tmp_path).splitlines()
    assert len(lines) == 6 and lines[2].startswith("| C, float32 | ")


def test_the_shipped_figures_hold_the_bar():
    """A step of the C takes at most 0.3 of ONNX Runtime's, in every part of the run."""
    path = reporting.folder(c_speed.RESULTS_FOLDER) / f"{c_speed.PRESET}.json"
    if not path.is_file():
        pytest.skip("not measured yet")
    results = json.loads(path.read_text())
    assert results["ratios"]["c"][2] <= 0.3 and results["difference"] < 1e-5
