"""Presets in 8 bits: the figures hold the bars, and the command measures what the table shows."""

import json

import pytest

from experiments import int8, reporting
from snukeras.datasets import at_hand, jsb_chorales
from snukeras.export.c import compiler


@pytest.mark.skipif(compiler.find() is None, reason="there is no C compiler")
def test_a_part_is_measured_and_makes_a_table(tmp_path):
    try:
        with at_hand():
            jsb_chorales.load_data()
    except FileNotFoundError:
        pytest.skip("the chorales are not on this machine")
    results = int8.measure("jsb_snu", limit=3)
    assert results["samples"] == 3
    assert list(results["forms"]) == ["dynamic", "static", "c", "c_int8"]
    assert results["forms"]["c"]["value"] == pytest.approx(results["float"], rel=1e-4)
    for form in results["forms"].values():
        assert form["value"] == pytest.approx(results["float"], rel=0.02)
    (tmp_path / "int8").mkdir()
    (tmp_path / "int8" / "jsb_snu.json").write_text(json.dumps(results))
    lines = int8.table(tmp_path).splitlines()
    assert len(lines) == 3 and lines[2].startswith("| jsb_snu, negative log-likelihood, ")
    with pytest.raises(ValueError, match="'ptb' is not known here"):
        int8.test_split("ptb")


def test_the_shipped_figures_hold_the_bars():
    """jsb_snu within 0.1 %, mnist_snu within 0.1 points, a third of the size, no silent layer."""
    folder = reporting.folder(int8.RESULTS_FOLDER)
    for name, bound in (("jsb_snu", 1e-3), ("mnist_snu", 1e-3)):
        results = json.loads((folder / f"{name}.json").read_text())
        allowed = bound * (results["float"] if name == "jsb_snu" else 100.0)
        for mode in ("dynamic", "static", "c_int8"):
            form = results["forms"][mode]
            assert abs(form["value"] - results["float"]) <= allowed, (name, mode)
            assert form.get("share", 0.0) <= 1 / 3 and form.get("silent", []) == []
