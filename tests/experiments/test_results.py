"""Results of experiments: gathered case by case, asked for by commands, printed with deviations."""

import pytest

from experiments import reporting


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


def test_spread_and_command_line(tmp_path):
    assert reporting.spread([1.0, 3.0], ".1f") == "2.0 ± 1.4"
    assert reporting.spread([1.25]) == "1.25"
    assert reporting.folder("spatial", tmp_path) == tmp_path / "spatial"
    parser = reporting.parser("spatial", "", ["search", "run"], range(2))
    arguments = parser.parse_args(["run", "--results", str(tmp_path)])
    assert (arguments.what, arguments.results, arguments.seeds) == (["run"], tmp_path, [0, 1])


@pytest.mark.parametrize("error", [ValueError, FileNotFoundError, FloatingPointError])
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
