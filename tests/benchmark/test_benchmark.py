"""The benchmark command, on miniature networks; no figure of these runs means anything."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmark import measure, report
from benchmark.__main__ import main
from benchmark.contestants import CONTESTANTS, choose, installed
from benchmark.networks import LARGE, NETWORKS, Network, tiny

CHECKOUT = str(Path(__file__).resolve().parents[2])


def command(*arguments):
    run = subprocess.run(
        [sys.executable, "-m", "benchmark", *arguments],
        env={**os.environ, "PYTHONPATH": CHECKOUT},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    path = folder / "results.json"
    shown = command(
        "--quick",
        *("--contestants", "snukeras SNU", "snukeras SSNU recurrent", "keras LSTM", "tensorflow *"),
        *("--networks", "88-150-88", "--threads", "one"),
        *("--optimizer", "adam"),
        *("--output", str(path)),
    )
    return {"shown": shown, "path": path, **json.loads(path.read_text())}


def test_contestants_are_timed_in_alternation_and_learn(results):
    speed = results["speed"]
    assert speed["failures"] == []
    found = {(row["contestant"], row["work"]): row for row in speed["rows"]}
    names = {"snukeras SNU", "snukeras SSNU recurrent", "keras LSTM"}
    assert set(found) == {(name, work) for name in names for work in ("train", "inference")}
    base = found["keras LSTM", "train"]
    assert base["ratio"] == 1.0
    for (_, work), row in found.items():
        assert 0 < row["fastest_milliseconds"] <= row["milliseconds"] <= row["slowest_milliseconds"]
        if work == "train":
            assert row["ratio"] == pytest.approx(row["milliseconds"] / base["milliseconds"])
            assert row["loss_after"] < row["loss_before"]


def test_floors_are_the_fastest_products(results):
    floors = results["speed"]["floors"]
    assert {(f["work"], f["recurrent"], f["precision"]) for f in floors} == {
        (work, recurrent, precision)
        for work in ("train", "inference")
        for recurrent in (False, True)
        for precision in ("float32", "mixed_bfloat16")
    }
    for floor in floors:
        assert floor["flops_per_second"] == pytest.approx(
            floor["flops"] / floor["milliseconds"] * 1e3
        )


def test_results_tell_where_they_come_from_and_nothing_more(results):
    speed = results["speed"]
    assert speed["processor"] and speed["processors"] >= 1
    assert {"snukeras", "keras", "tensorflow", "numpy"} <= set(speed["versions"])
    assert len(speed["date"]) == 10
    text = results["path"].read_text()
    assert os.uname().nodename not in text
    assert CHECKOUT not in text and str(Path.home()) not in text.replace('"/"', "")


def test_tables(results):
    assert "snukeras SSNU recurrent" in results["shown"] and "floor" in results["shown"]
    table = report.markdown(report.load(results["path"]))
    lines = table.splitlines()
    assert lines[0] == "|  | 88-150-88 train | 88-150-88 inference |"
    row = next(line for line in lines if line.startswith("| snukeras SNU |"))
    ratio = next(r["ratio"] for r in results["speed"]["rows"] if r["contestant"] == "snukeras SNU")
    assert f"({ratio:.2f})" in row
    assert sum(line.startswith("| *floor") for line in lines) == 2


def test_the_table_takes_the_faster_of_jit_on_and_off(results):
    speed = json.loads(json.dumps(results["speed"]))
    one = next(r for r in speed["rows"] if r["contestant"] == "snukeras SNU")
    speed["rows"].append({**one, "jit_compile": True, "milliseconds": one["milliseconds"] / 2})
    line = next(
        line
        for line in report.markdown({"speed": speed}).splitlines()
        if line.startswith("| snukeras SNU |")
    )
    assert "ʲ" in line


def test_plot(results, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "plot.png"
    assert main(["--table", str(results["path"]), "--plot", str(path)]) == 0
    assert path.read_bytes()[:4] == b"\x89PNG"


def test_parts_of_a_file_are_kept(results, tmp_path):
    path = tmp_path / "results.json"
    report.save(path, {"speed": {"rows": 1}})
    report.save(path, {"memory": {"rows": 2}})
    assert report.load(path) == {"format": 1, "speed": {"rows": 1}, "memory": {"rows": 2}}
    path.write_text("{}")
    with pytest.raises(ValueError, match="format 1"):
        report.load(path)


def test_cases_measured_one_by_one_join_in_one_file(results, tmp_path):
    speed = results["speed"]
    parts = []
    for work in ("inference", "train"):
        part = {
            name: [entry for entry in speed[name] if entry["work"] == work]
            for name in ("rows", "floors", "failures")
        }
        parts.append({**speed, **part, "date": f"of {work}"})
    path = tmp_path / "results.json"
    for part in (*parts, parts[1]):
        report.save(path, {"speed": part})
    joined = report.load(path)["speed"]
    assert joined["date"] == "of train"
    assert [row["work"] for row in joined["rows"]] == ["train"] * 3 + ["inference"] * 3
    assert len(joined["floors"]) == len(speed["floors"])
    report.save(path, {"speed": {**parts[0], "processor": "another"}})
    assert {row["work"] for row in report.load(path)["speed"]["rows"]} == {"inference"}


def test_the_floor_counts_every_product_once():
    network = Network("", (3, 4, 5, 2), batch=7, steps=11, labels=True)
    forward = 2 * 77 * (3 * 4 + 4 * 5 + 5 * 2)
    gradients = forward + 2 * 77 * (4 * 5 + 5 * 2)
    recurrent = 2 * 77 * (4 * 4 + 5 * 5)
    assert network.flops("inference", False) == forward
    assert network.flops("train", False) == forward + gradients
    assert network.flops("inference", True) == forward + recurrent
    assert network.flops("train", True) == forward + gradients + 3 * recurrent


@pytest.mark.parametrize("network", NETWORKS)
def test_data(network):
    for case in (network, tiny(network)):
        x, y = case.data()
        assert x.shape == (case.batch, case.steps, case.sizes[0]) and set(np.unique(x)) == {0, 1}
        if case.labels:
            assert y.shape == (case.batch,) and y.max() < case.sizes[-1]
        else:
            assert y.shape == (case.batch, case.steps, case.sizes[-1])
        np.testing.assert_array_equal(x, case.data()[0])
        assert Network.from_json(json.loads(json.dumps(case.to_json()))) == case


def test_choice_of_contestants():
    assert len({c.name for c in CONTESTANTS}) == len(CONTESTANTS)
    assert {c.name for c in choose(["keras LSTM*"]) if c.framework == "tensorflow"} == {
        f"keras LSTM{jit}{precision}" for jit in ("", ", jit") for precision in ("", ", bfloat16")
    }
    assert all(installed(c.library, c.framework) for c in choose())
    elsewhere = {c.name for c in CONTESTANTS if c.framework.startswith("keras-")}
    assert {"snukeras SNU on jax", "snukeras SNU on torch"} <= elsewhere
    with pytest.raises(ValueError, match="'nobody'"):
        choose(["nobody"])


def test_wrong_usage(capsys, tmp_path):
    for arguments, words in (
        (["--rounds", "0"], "--rounds"),
        (["--contestants", "nobody"], "nobody"),
        (["--table", str(tmp_path / "none.json")], "none.json"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        assert words in capsys.readouterr().err


class Seeing:
    """Workers, of which some see a GPU."""

    def __init__(self, **devices):
        self.devices = devices

    def __getitem__(self, framework):
        self.asked = framework
        return self

    def ask(self, request):
        assert request == "accelerator"
        return self.devices.get(self.asked)


def test_a_gpu_that_is_not_there_is_refused(capsys):
    workers = Seeing(torch="A100")
    assert measure._seen(workers, {"torch", "jax"}, anyway=False) == {"torch": "A100"}
    with pytest.raises(ValueError, match=r"no GPU that jax, tensorflow can use\. Leave"):
        measure._seen(workers, {"jax", "tensorflow"}, anyway=False)
    assert set(measure._seen(workers, {"jax", "tensorflow"}, anyway=True)) == {"jax", "tensorflow"}
    with pytest.raises(SystemExit):
        main(["--device", "gpu", "--scaling"])
    assert "leave --scaling, --memory" in capsys.readouterr().err


@pytest.mark.slow
def test_what_a_gpu_measures_runs_whole_in_miniature(tmp_path):
    path = tmp_path / "results.json"
    text = command("--device", "gpu", "--quick", "--output", str(path))
    speed = json.loads(path.read_text())["speed"]
    assert speed["failures"] == [] and "accelerator" in speed
    assert {row["network"] for row in speed["rows"]} == {n.name for n in (*NETWORKS, LARGE)}
    assert {row["threads"] for row in speed["rows"]} == {"gpu"}
    assert speed["accelerator"] in text + report.markdown({"speed": speed}, "gpu")


@pytest.mark.slow
def test_scaling_and_memory(tmp_path):
    path = tmp_path / "results.json"
    command("--quick", "--scaling", "--memory", "--output", str(path))
    content = json.loads(path.read_text())
    assert content["scaling"]["left_out"] == []
    assert len(content["scaling"]["rows"]) == 12
    rows = {row["contestant"]: row for row in content["memory"]["rows"]}
    assert {"snukeras SNU", "keras LSTM"} <= set(rows)
    assert all(peak > 0 for row in rows.values() for peak in row["peaks"].values())
    table = report.markdown(content)
    assert "10,000" not in table and "| keras LSTM |" in table


@pytest.mark.slow
def test_profile(tmp_path):
    path = tmp_path / "results.json"
    command("--quick", "--profile", "--networks", "88-150-88", "--output", str(path))
    content = json.loads(path.read_text())
    assert [row["jit_compile"] for row in content["profile"]["rows"]] == [False, True]
    assert all(row["whole"] > 0 < row["call"] for row in content["profile"]["rows"])
    assert "| 88-150-88, all threads | off |" in report.markdown(content, "profile")


@pytest.mark.slow
def test_ten_thousand_steps_train_within_four_gibibytes(tmp_path):
    row = measure.memory(steps=(5_000, 10_000))["rows"][0]
    assert row["contestant"] == "snukeras SNU"
    assert row["peaks"]["10000"] < 4 * 2**30
    assert row["least_per_step"] <= 1.05 * row["stored_per_step"]
