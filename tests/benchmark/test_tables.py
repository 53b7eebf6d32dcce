"""The tables of speeds, from a results file made up for the test."""

import pytest

from benchmark import report, tables


def row(case, threads, library, unit, milliseconds, jit_compile=None, precision="float32"):
    return {
        "network": case[0],
        "work": case[1],
        "threads": threads,
        "contestant": f"{library} {unit}",
        "framework": "tensorflow",
        "library": library,
        "unit": unit,
        "jit_compile": jit_compile,
        "precision": precision,
        "milliseconds": milliseconds,
        "base": "torch LSTM",
        "ratio": milliseconds / 100.0,
    }


@pytest.fixture
def content(tmp_path):
    rows, floors = [], []
    for case in tables.BARS:
        for threads in ("one", "all"):
            slow = 2.0 if threads == "all" else 1.0
            rows += [
                row(case, threads, "torch", "LSTM", 100.0),
                row(case, threads, "snukeras", "SNU", 16.0 * slow, False),
                row(case, threads, "snukeras", "SNU", 12.0 * slow, True),
                row(case, threads, "snukeras", "SNU", 1.0, True, "mixed_bfloat16"),
                row(case, threads, "snukeras", "SNU recurrent", 30.0, False),
                row(case, threads, "keras", "LSTM", 89.0, False),
                row(case, threads, "spyx", "LIF", 20.0),
                row(case, threads, "norse", "LIFBoxCell", 50.0),
            ]
            floors.append(
                {
                    "network": case[0],
                    "work": case[1],
                    "threads": threads,
                    "precision": "float32",
                    "recurrent": False,
                    "milliseconds": 10.0,
                    "ratio": 0.1,
                }
            )
    path = tmp_path / tables.FILE.name
    report.save(path, {"speed": {"rows": rows, "floors": floors, "failures": []}})
    return path


def test_short(content):
    lines = tables.table("short", content).splitlines()
    assert "| `SNU`, as `compile` sets it | 0.16 | 0.16 | 0.16 | 0.16 |" in lines
    assert "| `SNU`, `jit_compile=True` | 0.12 | 0.12 | 0.12 | 0.12 |" in lines
    assert lines[5].count("0.20 (spyx)") == 4


def test_bars_say_what_was_not_reached(content):
    found = dict(
        line.strip("| ").split(" | ", 1) for line in tables.table("bars", content).splitlines()[2:]
    )
    aim = "784-256-256-10 train: at most 0.15 of torch LSTM"
    assert found[aim] == "0.16 / 0.12 | 0.32 / 0.24 | with one thread"
    peers = "88-150-88 train: fastest peer takes as long or longer"
    assert found[peers] == "1.25 / 1.67 | 0.62 / 0.83 | with one thread"
    assert found["784-256-256-10 train: at most 2 floors"].startswith("1.60 / 1.20 | 3.20 / 2.40")
    lstm = "88-150-88 train, recurrent: keras LSTM takes 3 times as long"
    assert found[lstm] == "2.97 /  | 2.97 /  | no"


def test_unknown_part(content):
    with pytest.raises(ValueError, match="'nothing'"):
        tables.table("nothing", content)


def test_backends_say_what_was_not_reached(content):
    results = report.load(content)
    for case in tables.BARS:
        others = [("spyx", "LIF", "jax", 20.0), ("snntorch", "Leaky", "torch", 40.0)]
        others += [("spikingjelly", "LIFNode", "torch", 30.0)]
        others += [("snukeras", "SNU", "keras-jax", 16.0), ("snukeras", "SNU", "keras-torch", 32.0)]
        others += [("snukeras", "SNU recurrent", "keras-jax", 33.0)]
        for library, unit, framework, milliseconds in others:
            made = row(case, "all", library, unit, milliseconds)
            results["speed"]["rows"].append({**made, "framework": framework})
    path = content.with_name(tables.BACKENDS.name)
    report.save(path, results)
    found = {
        line.strip("| ").split(" | ", 1)[0]: line.strip("| ").split(" | ", 1)[1]
        for line in tables.table("aims", path).splitlines()[2:]
    }
    assert found["recurrent `SNU` on jax, TensorFlow's path: at least 0.87"].endswith("0.91 | yes")
    assert found["`SNU` on torch, snntorch: more than 1"].startswith("1.25 | ")
    assert found["`SNU` on torch, spikingjelly: more than 1"].endswith("0.94 | no")
