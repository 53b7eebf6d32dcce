"""Results of experiments: gathered case by case, asked for by commands, printed with deviations."""

import json
from pathlib import Path

import pytest
import work

from experiments import defaults, reporting
from snukeras import _executors


def test_only_new_cases_are_measured_and_a_failure_keeps_what_is_there(tmp_path):
    path = tmp_path / "results.json"

    def measure(seed):
        if seed == 2:
            raise RuntimeError("killed")
        return {"twice": 2 * seed}

    cases = [{"seed": seed} for seed in range(3)]
    with pytest.raises(RuntimeError):
        reporting.gather(path, cases, measure)
    found = reporting.gather(path, cases, lambda seed: {"twice": -1})
    assert found == [{"seed": 0, "twice": 0}, {"seed": 1, "twice": 2}, {"seed": 2, "twice": -1}]


def test_cases_on_an_executor_keep_their_order(tmp_path):
    path = tmp_path / "results.json"
    cases = [{"seed": seed} for seed in range(4)]
    with (
        reporting.on(work.Direct(lost=(0, 2))),
        pytest.raises(RuntimeError, match="2 of 4 tasks were lost"),
    ):
        reporting.gather(path, cases, work.twice)
    assert [run["seed"] for run in json.loads(path.read_text())["runs"]] == [1, 3]
    executor = work.Direct()
    with reporting.on(executor):
        found = reporting.gather(path, [*cases, cases[1]], work.twice)
    assert found == [{"seed": seed, "twice": 2 * seed} for seed in range(4)]
    assert len(executor.futures) == 2 and reporting.executor() is None
    with reporting.on(executor):
        reporting.gather(path, [*cases, {"seed": 9}], lambda seed: {"twice": 0}, here=True)
    assert len(executor.futures) == 2
    with pytest.raises(ValueError, match="`executor`"), reporting.on("tcp://node1:8786"):
        pass


def test_commands_take_workers(monkeypatch, capsys):
    asked = []

    @reporting.reported
    @reporting.on_workers
    def main(argv=None):
        asked.append((argv, reporting.executor()))
        return 0

    assert main(["run", "--workers", "2", "--seeds", "1"]) == 0
    assert asked[-1][0] == ["run", "--seeds", "1"]
    assert isinstance(asked[-1][1], _executors.Workers)
    assert main(["run"]) == 0 and asked[-1][1] is None
    for words in (["--workers", "0"], ["--workers", "2", "--cluster", "tcp://a:1"]):
        with pytest.raises(SystemExit, match="2"):
            main(words)
    with pytest.raises(SystemExit, match="0"):
        defaults.main(["--help"])
    assert "--depths" in (shown := capsys.readouterr().out) and "--workers N" in shown


def test_spread_and_command_line(tmp_path):
    assert reporting.spread([1.0, 3.0], ".1f") == "2.0 ± 1.4"
    assert reporting.spread([1.25]) == "1.25"
    assert reporting.folder("spatial", tmp_path) == tmp_path / "spatial"
    parser = reporting.parser("spatial", "", ["search", "run"], range(2))
    arguments = parser.parse_args(["run", "--results", str(tmp_path)])
    assert (arguments.what, arguments.results, arguments.seeds) == (["run"], tmp_path, [0, 1])


@pytest.mark.parametrize("error", [ValueError, FileNotFoundError, FloatingPointError, ImportError])
def test_a_command_reports_what_was_wrong_with_its_input(error, capsys):
    @reporting.reported
    def main(argv=None):
        raise error("no such model")

    assert main([]) == 1
    assert capsys.readouterr().err == "error: no such model\n"


def test_a_command_does_not_hide_faults_of_the_code():
    @reporting.reported
    def main(argv=None):
        return [][0]

    with pytest.raises(IndexError):
        main([])


# What measures time does so alone; the pictures measure nothing.
ALONE = {
    *("analog_speed", "c_speed", "chips_speed", "export_speed", "lightning", "monitor_speed"),
    *("pcm_speed", "pictures"),
}


def test_every_experiment_takes_an_executor():
    folder = Path(reporting.__file__).parent
    commands = [
        path.parent if path.stem == "__main__" else path.with_suffix("")
        for path in folder.rglob("*.py")
        if "def main(" in path.read_text("utf-8") and path != folder / "__main__.py"
    ]
    taking = {
        command.name
        for command in commands
        for path in (command.with_suffix(".py"), command / "__main__.py")
        if path.exists() and "on_workers\ndef main(" in path.read_text("utf-8")
    }
    assert taking == {command.name for command in commands} - ALONE
