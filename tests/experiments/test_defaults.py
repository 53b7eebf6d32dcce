"""The study of defaults: networks, rows that are kept, and the table."""

import numpy as np
import pytest

from experiments import defaults
from snukeras import _files


@pytest.fixture
def small(monkeypatch):
    """Data of the right shapes, a few samples."""
    random = np.random.default_rng(0)

    def data(task):
        if task == "jsb":
            x = (random.random((8, 6, 88)) < 0.1).astype("float32")
            return ((x, x, np.ones((8, 6), bool)),) * 2
        if task.startswith("speech"):
            x = (random.random((8, 50, 80)) < 0.1).astype("float32")
            return ((x, np.arange(8) % 10),) * 2
        shape = (784,) if task == "mnist" else (28, 28, 1)
        return (
            (random.random((8, *shape)).astype("float32"), np.eye(10, dtype="float32")[:8]),
        ) * 2

    monkeypatch.setattr(defaults, "data", data)
    monkeypatch.setattr(defaults, "EPOCHS", dict.fromkeys(defaults.TASKS, 1))


@pytest.mark.parametrize("task", defaults.TASKS)
def test_every_task_gives_a_figure_and_rates(small, task):
    found = defaults.measure(task, 2, "defaults", seed=0)
    layers = 3 if task in ("mnist", "conv") else 2
    assert len(found["before"]) == len(found["after"]) == layers
    assert min(found["before"]) > 0
    assert np.isfinite(found["valid"]) and np.isfinite(found["loss"])


@pytest.mark.parametrize("setting", defaults.SETTINGS)
def test_every_setting_makes_a_network(setting):
    arguments, _ = defaults.SETTINGS[setting]
    assert defaults.network("jsb", 1, arguments).count_params() == 88 * 150 + 150 + 151 * 88


def test_a_trial_that_fails_is_a_row(small, monkeypatch):
    def broken(*_):
        raise ValueError("cannot reach the rate")

    monkeypatch.setattr(defaults, "calibrate", broken)
    found = defaults.measure("jsb", 1, "paper, calibrated", seed=0)
    assert found["error"] == "cannot reach the rate" and "valid" not in found


def test_rows_are_kept_and_the_table_tells_them(tmp_path, capsys):
    figures = {"defaults": 10.0, "paper": 52.0, "paper, threshold 0.2": 10.4}

    def trial(task, depth, setting, seed):
        if (setting, seed) == ("paper", 1):
            return {"error": "diverged"}
        return {"valid": figures[setting] + 0.1 * seed}

    def run():
        return defaults.experiment(tmp_path, ["jsb"], [4], list(figures), [0, 1], trial)

    assert len(run()) == 6
    assert run() == _files.read_json(tmp_path / "jsb.json")["runs"]
    lines = defaults.table("jsb", tmp_path).splitlines()
    assert defaults.table(root=tmp_path).splitlines() == lines
    assert lines[0] == "| setting | jsb x4, nats per step |"
    assert lines[2:] == [
        "| defaults | **10.05 ± 0.07** |",
        "| paper | 52.00 |",
        "| paper, threshold 0.2 | 10.45 ± 0.07 * |",
    ]
    assert defaults.main(["table", "--results", str(tmp_path)]) == 0
    assert "**10.05" in capsys.readouterr().out
    defaults.experiment(tmp_path, ["jsb"], [8], ["defaults"], [0], trial)
    alone = defaults.table("jsb", tmp_path).splitlines()[2]
    assert alone == "| defaults | **10.05 ± 0.07** | 10.00 |"  # nothing to compare with
