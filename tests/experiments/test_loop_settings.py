"""The search for settings of the loop: what is tried is written down, with validation figures."""

import json

import pytest
from tiny_zoo import make_task, write_recipe

from experiments import loop_settings


def test_settings_and_table(tmp_path):
    content = write_recipe(tmp_path / "zoo", epochs=1)
    output = tmp_path / "results" / "loop_settings" / "tiny.json"
    settings = [{"w_max": 0.5}, {"w_max": 0.5, "refresh_every": 50}]
    results = loop_settings.experiment(
        "tiny",
        settings,
        epochs=1,
        output=output,
        runs=tmp_path / "runs",
        content=content,
        progress=lambda event: None,
        tasks={"scales": make_task()},
    )
    assert json.loads(output.read_text()) == results
    assert [tried["arguments"] for tried in results["settings"]] == settings
    lines = loop_settings.table(output.parents[1]).splitlines()
    assert lines[-1].startswith("| `tiny` | its own | `w_max` 0.5, `refresh_every` 50 | 1 | ")


def test_errors(tmp_path, capsys):
    assert loop_settings.main(["nothing", "--runs", str(tmp_path)]) == 1
    assert "no recipe named 'nothing'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        loop_settings.main([])
