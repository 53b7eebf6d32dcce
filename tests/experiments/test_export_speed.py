"""The speed of exports: the figures are there, hold together, and make tables."""

import json

import pytest

from experiments import export_speed, reporting
from snukeras.zoo import presets


@pytest.fixture
def folder(tmp_path):
    found = tmp_path / "export_speed"
    found.mkdir(parents=True)
    return found


def test_latency(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(export_speed, "STEPS", 6)
    monkeypatch.setattr(export_speed, "UNITS", 9)
    results = export_speed.latency(rounds=3, steps=5)
    assert [entry["network"] for entry in results["networks"]] == list(export_speed.NETWORKS)
    for entry in results["networks"]:
        assert entry["difference"] < 1e-5  # both forms are the same network
        assert min(entry["exported"], entry["tf2onnx"], entry["step"]) > 0
    (folder / "latency.json").write_text(json.dumps(results))
    lines = export_speed.table("latency", tmp_path).splitlines()
    assert len(lines) == 6 and lines[2].startswith("| SNU | ")


def test_scale(tmp_path, folder):
    results = export_speed.scale((7, 6), features=5)
    assert results["verified"] and results["weights"] == 35 + 49 + 42 + 6 * 2000 + 2000 * 5
    assert results["peak_bytes"] > 2**26 and results["seconds"] >= sum(results["stages"].values())
    (folder / "scale.json").write_text(json.dumps(results))
    assert f"| {results['weights']:,} |" in export_speed.table("scale", tmp_path)


def test_the_shipped_figures_hold_the_bars():
    """Half the time of tf2onnx alone, a step under 40 us; 60 million weights in 5 min and 8 GiB."""
    folder = reporting.folder(export_speed.RESULTS_FOLDER)
    latency = json.loads((folder / "latency.json").read_text())
    for entry in latency["networks"]:
        assert entry["exported"] <= 0.5 * entry["tf2onnx"] and entry["step"] < 40
    scale = json.loads((folder / "scale.json").read_text())
    assert scale["verified"] and scale["weights"] >= 60_000_000
    assert scale["seconds"] < 300 and scale["peak_bytes"] < 8 * 2**30


def test_presets(tmp_path, folder):
    known = {"presets": [{"preset": "zebra", "weights": 5, "processor_seconds": 1.0,
                          "energy_nJ": [0.5, 20_000.0]}]}  # fmt: skip
    results = export_speed.presets(["jsb_snu"], known, idle=True)
    row = results["presets"][0]
    assert row["weights"] == 26_400 and row["verified"] and row["processor_seconds"] > 1
    (folder / "presets.json").write_text(json.dumps(results))
    lines = export_speed.table("presets", tmp_path).splitlines()
    assert lines[2].startswith(f"| jsb_snu | 26,400 | {row['seconds']:.0f} s |")
    assert lines[3] == "| zebra | 5 | - | 1 s | 500 pJ to 20 uJ |"


def test_the_export_of_every_preset_was_timed_and_takes_half_a_minute_at_most():
    folder = reporting.folder(export_speed.RESULTS_FOLDER)
    rows = json.loads((folder / "presets.json").read_text())["presets"]
    assert {row["preset"] for row in rows} == set(presets.list())
    assert all(row["verified"] and row["idle"] for row in rows)
    assert all(row["seconds"] <= 30 for row in rows)
