"""Training on devices by recipe: results, going on after an end, and the command line."""

import json

import numpy as np
import pytest
from tiny_zoo import make_task, write_recipe

from experiments import in_the_loop


@pytest.fixture
def content(tmp_path):
    return write_recipe(tmp_path / "content", epochs=3, seeds=[0])


def experiment(content, runs, **arguments):
    arguments = {
        "runs": runs,
        "content": content,
        "progress": lambda event: None,
        "tasks": {"scales": make_task()},
        "arguments": {"refresh_every": 2},
        **arguments,
    }
    return in_the_loop.experiment("tiny", **arguments)


def test_results_hold_what_happened_to_the_devices(content, tmp_path):
    output = tmp_path / "deep" / "loop.json"
    results = experiment(content, tmp_path / "runs", output=output)
    assert json.loads(output.read_text()) == results
    assert results["hardware"]["refresh_every"] == 2 and results["recipe"]["averaging"] is None
    (seed,) = results["seeds"]
    devices = seed["devices"]
    assert devices["devices"] == 2 * (88 * 6 + 6 * 88)
    assert devices["seconds"] == 3 * 4  # steps
    assert devices["pulses_per_device"]["total"] > 0
    for matrix in devices["conductances"].values():
        assert sum(matrix["plus"]) == sum(matrix["minus"]) == 88 * 6
    assert np.isfinite(seed["test"]) and seed["test_end"]["deviation"] > 0
    # Finished seeds are not trained again.
    assert experiment(content, tmp_path / "runs") == results


def test_goes_on_where_it_was_stopped(content, tmp_path):
    whole = experiment(content, tmp_path / "whole")

    def stop(event):
        if event["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        experiment(content, tmp_path / "parts", progress=stop)
    seen = []
    parts = experiment(content, tmp_path / "parts", progress=seen.append)
    assert [event["epoch"] for event in seen] == [3]
    parts["seeds"][0]["seconds"] = whole["seeds"][0]["seconds"]
    assert parts == whole


def test_other_units_and_float_for_comparison(content, tmp_path):
    gru = experiment(content, tmp_path, unit="GRU", epochs=1)
    assert gru["variant"] == "tiny-gru"
    conductances = gru["seeds"][0]["devices"]["conductances"]
    assert list(conductances) == ["gru/kernel", "gru/recurrent_kernel", "dense/kernel"]
    assert gru["seeds"][0]["devices"]["devices"] == 2 * (88 * 18 + 6 * 18 + 6 * 88)
    plain = experiment(content, tmp_path, hardware=False, epochs=1)
    assert plain["hardware"] is None and "devices" not in plain["seeds"][0]


def test_errors(content, tmp_path, capsys):
    experiment(content, tmp_path, epochs=1)
    with pytest.raises(ValueError, match="--restart"):
        experiment(content, tmp_path, epochs=1, arguments={"w_max": 3.0})
    with pytest.raises(ValueError, match="LSTM"):
        experiment(content, tmp_path, unit="RNN")
    assert in_the_loop.main(["nothing", "--content", str(content)]) == 1
    assert "There is no recipe named 'nothing'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        in_the_loop.main([])


def test_table_and_picture(content, tmp_path):
    folder = tmp_path / "results" / "in_the_loop"
    for variant, hardware in (("tiny", True), ("tiny-float", False)):
        experiment(
            content, tmp_path, epochs=1, hardware=hardware, output=folder / f"{variant}.json"
        )
    lines = in_the_loop.table(root=folder.parent).splitlines()
    assert len(lines) == 3 and lines[2].startswith("| 88 - SNU 6 - Dense 88 | 2,112 | ")
    assert in_the_loop.main(["--plot", str(folder / "tiny.png")]) == 0
    assert 5_000 < (folder / "tiny.png").stat().st_size < 150_000
