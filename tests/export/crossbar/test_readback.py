"""Measured conductances back into weights."""

import csv

import numpy as np
import pytest
from maps import jsb, written

from snukeras.export.crossbar.device_list import write_device_list
from snukeras.export.crossbar.readback import read_back
from snukeras.export.crossbar.targets import load_target
from snukeras.export.errors import BadInputError


def measure(crossbar, path, change=lambda g, row: g, keep=lambda row: True):
    """The list of devices with a column of measurements."""
    write_device_list(crossbar, path.with_suffix(".targets"))
    with open(path.with_suffix(".targets"), newline="") as file:
        rows = list(csv.DictReader(file))
    with open(path, "w", newline="") as file:
        out = csv.DictWriter(file, [*rows[0], "measured_uS"])
        out.writeheader()
        for row in filter(keep, rows):
            out.writerow({**row, "measured_uS": change(float(row["target_uS"]), row)})
    return path


@pytest.mark.some_cases(1)
@pytest.mark.parametrize("target", ["pcm", "pcm14nm-2"])
def test_perfect_devices_give_the_weights_back(tmp_path, target):
    crossbar = written(tmp_path / "m", jsb()[:3], load_target(target))
    result = read_back(crossbar, measure(crossbar, tmp_path / "g.csv"))
    np.testing.assert_allclose(
        result.weights["snu/kernel"], crossbar.weights()["snu/kernel"], atol=1e-6
    )
    assert result.report["measured"] == 26_400 and result.report["matrices"][0]["missing"] == 0
    assert all(tile["rms_error_uS"] < 1e-6 for tile in result.report["tiles"])
    assert set(result.weights) == {"snu/kernel", "snu/threshold", "snu/decay"}


def test_scale_and_offset_of_columns_are_found(tmp_path):
    crossbar = written(tmp_path / "m", jsb()[:1])

    def drifted(g, row):
        return 0.8 * g + (0.5 if row["polarity"] == "+" and row["column"] == "7" else 0.0)

    result = read_back(crossbar, measure(crossbar, tmp_path / "g.csv", drifted))
    matrix = result.report["matrices"][0]
    np.testing.assert_allclose(matrix["column_slope"], 0.8, atol=1e-5)
    offsets = np.array(matrix["column_offset"])
    assert offsets[7] == pytest.approx(0.5 / crossbar.scales("snu/kernel")[7], rel=1e-3)
    assert np.abs(np.delete(offsets, 7)).max() < 1e-6
    assert matrix["rms_error"] > 0.05
    assert {tile["tile"] for tile in result.report["tiles"]} == {0, 1}


def test_devices_not_measured_keep_their_targets(tmp_path):
    crossbar = written(tmp_path / "m", jsb()[:1])
    path = measure(crossbar, tmp_path / "g.csv", keep=lambda row: row["row"] == "0")
    result = read_back(crossbar, path)
    assert result.report["matrices"][0]["missing"] == 26_400 - 300
    np.testing.assert_allclose(
        result.weights["snu/kernel"], crossbar.weights()["snu/kernel"], atol=1e-6
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tile,word_line,bit_line\n0,0,0\n", "lacks the column"),
        ("tile,word_line,bit_line,measured_uS\n", "no measurement"),
        ("tile,word_line,bit_line,measured_uS\n0,0,x,1\n", "line 2"),
        ("tile,word_line,bit_line,measured_uS\n0,0,0,nan\n", "line 2"),
        ("tile,word_line,bit_line,measured_uS\n0,0\n", "line 2"),
        ("tile,word_line,bit_line,measured_uS\n9,0,0,1\n", "no such address"),
        ("tile,word_line,bit_line,measured_uS\n-1,0,0,1\n", "no such address"),
        (f"tile,word_line,bit_line,measured_uS\n{10**30},0,0,1\n", "address"),
        ("tile,word_line,bit_line,measured_uS\n0,200,0,1\n", "does not use"),
        ("tile,word_line,bit_line,measured_uS\n0,0,0,1\n0,0,0,2\n", "2 times"),
        ("", "lacks the column"),
        ("tile,word_line,bit_line,measured_uS\n0,0,0,1e39\n", "line 2.*between 0 and 25000 uS"),
        ("tile,word_line,bit_line,measured_uS\n0,0,0,inf\n", "line 2.*between 0 and"),
        ("tile,word_line,bit_line,measured_uS\n0,0,0,-3\n", "line 2.*between 0 and"),
        ("tile,word_line,bit_line,measured_uS\n0,0,0,0\n0,0,1,0\n", "conductance is 0"),
        ("tile,word_line,bit_line,measured_uS\n0,0,0,2.1e-5\n0,0,1,0\n", "siemens by 1e6"),
        ("tile,word_line,bit_line,measured_uS\n0,0,0,1\x00\n", "cannot be read|line 2"),
    ],
)
def test_bad_measurements(tmp_path, text, message):
    crossbar = written(tmp_path / "m", jsb()[:1])
    (tmp_path / "g.csv").write_text(text)
    with pytest.raises(BadInputError, match=message):
        read_back(crossbar, tmp_path / "g.csv")


def test_parallel_devices_must_be_complete(tmp_path):
    crossbar = written(tmp_path / "m", jsb()[:1], load_target("pcm14nm-2"))
    path = measure(crossbar, tmp_path / "g.csv", keep=lambda row: row["parallel"] == "0")
    with pytest.raises(BadInputError, match="lacks parallel devices"):
        read_back(crossbar, path)
