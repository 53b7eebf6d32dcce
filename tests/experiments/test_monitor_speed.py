"""What watching spikes costs: the measurement runs, and the table shows it."""

import json

import pytest

from experiments import monitor_speed


def test_measures_both_and_prints_a_table(tmp_path, capsys):
    path = tmp_path / monitor_speed.RESULTS
    assert monitor_speed.main(["--quick", "--turns", "3", "--output", str(path)]) == 0
    assert "times without" in capsys.readouterr().out
    results = json.loads(path.read_text())
    for part in ("monitor", "trace"):
        found = results[part]
        assert len(found["ratios"]) == 3
        assert found["ratio"] == pytest.approx(sorted(found["ratios"])[1])
        assert found["plain"] > 0 and found["watched"] > 0
        assert f"| {found['ratio']:.3f} |" in monitor_speed.table(tmp_path)
