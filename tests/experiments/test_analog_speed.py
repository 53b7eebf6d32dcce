"""What computing on tiles costs: the measurement runs, and the table shows it."""

import json

from experiments import analog_speed


def test_measures_all_sides_and_prints_a_table(tmp_path, capsys):
    path = tmp_path / analog_speed.RESULTS
    given = ["--networks", "jsb_snu", "--steps", "1", "--turns", "2", "--output", str(path)]
    assert analog_speed.main(given) == 0
    assert "jsb_snu" in capsys.readouterr().out
    (seconds,) = json.loads(path.read_text())["networks"].values()
    assert set(seconds) == {"plain", "converters", "noise"} and min(seconds.values()) > 0
    ratio = seconds["converters"] / seconds["plain"]
    assert f"({ratio:.1f} times)" in analog_speed.table(tmp_path)
