"""Trainings on chips over a year: figures, going on, table and plot."""

import json

import numpy as np
import pytest
from tiny_zoo import make_task, write_recipe

from experiments import noise_aware


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("noise")
    content = write_recipe(folder / "zoo", epochs=2)
    write_recipe(
        content,
        epochs=2,
        name="tiny_pcm",
        averaging=None,
        constraint={"levels": 8, "w_max": 0.6, "rounding": "feedback"},
        noise={"noise": 0.05},
    )
    output = folder / "results" / "noise_aware" / "tiny.json"

    def run(**arguments):
        arguments = {"seeds": (0, 1), "chips": 3, **arguments}
        return noise_aware.experiment(
            ("tiny", "tiny_pcm"),
            output=output,
            runs=folder / "runs",
            content=content,
            progress=lambda event: None,
            tasks={"scales": make_task()},
            **arguments,
        )

    return run, run(), output


def test_figures(measured):
    _, results, output = measured
    assert json.loads(output.read_text()) == results
    assert list(results["models"]) == ["tiny", "tiny_pcm"]
    for model in results["models"].values():
        assert len(model["chips"]) == 3 * 4 and len(model["seeds"]) == 2
        for index, case in enumerate(model["chips"]):
            means = [seed["chips"][index]["mean"] for seed in model["seeds"]]
            assert case["mean"] == pytest.approx(np.mean(means))
            assert case["deviation_of_chips"] >= 0
        assert len({case["mean"] for case in model["chips"]}) > 1


def test_goes_on_and_refuses_other_settings(measured):
    run, results, _ = measured
    assert run() == results
    with pytest.raises(ValueError, match="from another recipe"):
        run(epochs=1)


def test_table_and_plot(measured, tmp_path):
    _, results, output = measured
    lines = noise_aware.table(output.parents[1]).splitlines()
    assert len(lines) == 2 + 2 * 3
    assert "| `tiny_pcm` | one a column |" in lines[-1] and lines[-1].endswith("% |")
    noise_aware.plot(results, tmp_path / "plot.png")
    assert 5_000 < (tmp_path / "plot.png").stat().st_size < 150_000


def test_errors(capsys):
    assert noise_aware.main(["--names", "nothing"]) == 1
    assert "no recipe named 'nothing'" in capsys.readouterr().err
