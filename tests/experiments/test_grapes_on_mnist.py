"""The measurements of GRAPES: trainings that go on, tasks, paired figures, tables."""

import json

import numpy as np
import pytest

from experiments.grapes import __main__, tables, training


@pytest.fixture
def digits(monkeypatch):
    """A MNIST of noise around ten random images."""
    random = np.random.default_rng(0)
    images, x = random.random((10, 784)), {}
    for name, count in (("train", 600), ("valid", 50), ("test", 50)):
        labels = np.arange(count) % 10
        noisy = np.clip(images[labels] + random.normal(0, 0.1, (count, 784)), 0, 1)
        x[name] = (np.float32(noisy), np.eye(10, dtype="float32")[labels])
    monkeypatch.setattr(training, "mnist_sets", lambda images=None: x)
    training.COMPILED.clear()
    return x


@pytest.mark.slow
def test_trainings_go_on_and_can_be_repeated(digits, tmp_path, monkeypatch):
    arguments = {"networks": ["relu"], "epochs": 1, "output": tmp_path / "grapes"}
    __main__.experiment(["accuracy"], seeds=[0, 1], runs=tmp_path / "runs", **arguments)
    results = json.loads((tmp_path / "grapes" / "accuracy.json").read_text())
    assert len(results["trainings"]) == 6
    first = {run["method"]: run for run in results["trainings"] if run["seed"] == 0}
    assert first["plain"]["modulation_at_start"] == []
    matched, modulated = first["matched"], first["grapes"]
    for one, other in zip(
        matched["modulation_at_start"], modulated["modulation_at_start"], strict=True
    ):
        assert one["mean"] == pytest.approx(other["mean"], abs=1e-3)
        assert one["deviation"] == 0 < other["deviation"]
    assert len(matched["valid"]) == 4
    text = tables.table("accuracy", tmp_path)
    assert "| ReLU | grapes | 2 |" in text and text.count("\n") == 5
    assert tables.table("modulation", tmp_path).count("±") == 4

    # One model serves several seeds; alone, a seed gives the same.
    training.COMPILED.clear()
    alone = training.train("accuracy", "relu", "float", "grapes", 1, epochs=1)
    (among,) = (
        run for run in results["trainings"] if run["method"] == "grapes" and run["seed"] == 1
    )
    assert alone["valid"] == among["valid"]
    # What is there is not trained again.
    monkeypatch.setattr(training, "train", None)
    __main__.experiment(["accuracy"], seeds=[0, 1], runs=tmp_path / "runs", **arguments)


def test_two_tasks_one_after_the_other(digits):
    first, second = training.two_tasks("split", digits, seed=0)
    assert len(first["train"][0]) == len(second["train"][0]) == 300
    assert first["test"][1].shape == (25, 5) and (second["test"][1].sum(axis=1) == 1).all()
    np.testing.assert_array_equal(first["test"][0][0], digits["test"][0][0])
    np.testing.assert_array_equal(second["test"][0][0], digits["test"][0][5])
    same, permuted = training.two_tasks("permuted", digits, seed=0)
    assert same is digits
    given, found = digits["valid"][0], permuted["valid"][0]
    np.testing.assert_array_equal(np.sort(given, axis=1), np.sort(found, axis=1))
    assert not np.array_equal(given, found)

    result = training.train("forgetting", "snu", "split", "grapes", 0)
    assert len(result["course"]) == 4 and 0 <= result["first_before"] <= 1


def test_differences_are_paired(tmp_path):
    folder = tmp_path / "grapes"
    folder.mkdir(parents=True)
    base = {"network": "relu", "scenario": "float", "parts_of_an_epoch": 4}
    trainings = [
        {
            **base,
            **{"method": method, "seed": seed, "test": 0.9 + 0.01 * seed + gain},
            "valid": [0.9, 0.96 + 0.01 * seed + gain],
        }
        for seed in (1, 0)
        for method, gain in (("plain", 0.0), ("matched", 0.001), ("grapes", 0.003))
    ]
    (folder / "accuracy.json").write_text(json.dumps({"trainings": trainings}))
    lines = tables.table("accuracy", tmp_path).splitlines()
    assert lines[2] == "| ReLU | plain | 2 | 90.50 ± 0.71 |  |  | 0.50, 1 of 2 seeds |"
    assert lines[4].split(" | ")[4:6] == ["+0.30 ± 0.00", "+0.20 ± 0.00"]


def test_command_line(digits, tmp_path, capsys):
    arguments = ["robustness", "--scenarios", "constraint", "--networks", "relu", "--seeds", "3"]
    assert __main__.main([*arguments, "--epochs", "1", "--runs", str(tmp_path)]) == 0
    assert "relu-constraint-grapes-3" in capsys.readouterr().out
    run = json.loads((tmp_path / "robustness" / "relu-constraint-plain-3.json").read_text())
    assert 0 <= run["test_on_chip"] <= 1
    assert (run["learning_rate"], run["epochs"]) == (0.1, 1)
    # A folder holds trainings of one kind.
    assert __main__.main([*arguments, "--epochs", "2", "--runs", str(tmp_path)]) == 1
    assert "another learning rate or number of epochs" in capsys.readouterr().err


def test_settings_of_a_training():
    assert training.settings("accuracy", "snu", "float") == {"learning_rate": 3.0, "epochs": 5}
    split = training.settings("forgetting", "snu", "split", {"images": 9})
    assert split == {"learning_rate": 1.5, "epochs": 1}
    assert training.settings("forgetting", "relu", "split", {"learning_rate": 1.0})["epochs"] == 1


def test_a_folder_that_cannot_be_made_fails_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "train", lambda *_, **__: pytest.fail("trained"))
    (tmp_path / "file").write_text("")
    assert __main__.main(["accuracy", "--runs", str(tmp_path / "file")]) == 1
