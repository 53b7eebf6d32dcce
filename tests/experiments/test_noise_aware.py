"""Plain and noise-aware weights on chips over a year: figures, going on, table and plot."""

import json

import keras
import pytest
from tiny_zoo import make_task

from experiments import noise_aware
from snukeras.layers import SSNU


@pytest.fixture
def run(tmp_path, monkeypatch):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((None, 88)), SSNU(6, return_sequences=True),
         keras.layers.Dense(88, activation="sigmoid")]
    )  # fmt: skip
    found = {"files": {"model.weights.h5": {"sha256": "1" * 64}}, "test": 9.0, "task": "scales"}
    monkeypatch.setattr(noise_aware.presets, "load", lambda *a, **k: model)
    monkeypatch.setattr(noise_aware.presets, "info", lambda *a, **k: found)
    output = tmp_path / "noise_aware" / "tiny.json"

    def once():
        return noise_aware.experiment(
            ("plain", "noisy"), 2, output, tmp_path / "runs", tasks={"scales": make_task()}
        )

    return once, output


@pytest.mark.slow
def test_figures_table_and_plot(run, tmp_path, monkeypatch):
    once, output = run
    results = once()
    assert json.loads(output.read_text()) == results
    assert list(results["models"]) == ["plain", "noisy"]
    for model in results["models"].values():
        assert [len(case) for case in model["cases"].values()] == [4, 4, 4]
        for case in model["cases"].values():
            assert all(f["min"] <= f["mean"] <= f["max"] for f in case.values())
    assert once() == results  # from the chips that are done
    kept = []
    monkeypatch.setattr(noise_aware.publish, "keep_chips", lambda *a: kept.append(a[:2]))
    noise_aware.to_cards(results)
    assert [name for name, _ in kept] == ["plain", "noisy"]
    assert kept[1][1]["times"] == results["models"]["noisy"]["cases"]["one a column"]
    lines = noise_aware.table(tmp_path).splitlines()
    last = results["models"]["noisy"]["cases"]["one a column"]["1 year"]["mean"]
    assert len(lines) == 2 + 2 * 3
    assert lines[-1].startswith("| `noisy` | 9.000 | 2 | one a column |")
    assert lines[-1].endswith(f"| {last / 9 - 1:+.1%} |")
    noise_aware.plot(results, tmp_path / "plot.png")
    assert 5_000 < (tmp_path / "plot.png").stat().st_size < 150_000


def test_errors(capsys, monkeypatch):
    assert noise_aware.main(["--names", "nothing"]) == 1
    assert "no pretrained model named 'nothing'" in capsys.readouterr().err
    monkeypatch.setattr(noise_aware.presets, "info", lambda *a, **k: {"task": "mnist"})
    assert noise_aware.main(["--names", "tiny"]) == 1
    assert "piano rolls. Received: mnist" in capsys.readouterr().err
