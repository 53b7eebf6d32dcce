"""Training by recipe: results, selection, averaging, and going on after a kill."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tiny_zoo
from tiny_zoo import make_recipe, make_task, write_recipe

import snukeras
from snukeras.constraints import PCMConstraint
from snukeras.zoo import training
from snukeras.zoo.publishing import publish
from snukeras.zoo.tasks import PianoRolls


def train(content, runs, task=None, progress=lambda event: None, **arguments):
    tasks = {"scales": task or make_task()}
    return training.train("tiny", content, runs, progress=progress, tasks=tasks, **arguments)


class Watched(PianoRolls):
    """A task that notes what is measured, and with which weights.

    Where `figures` are given they are the validation figures, in turn.
    """

    def __init__(self, figures=()):
        super().__init__("scales", "Scales", tiny_zoo.load, "0" * 64, "none needed")
        self.measured = []
        self.figures = list(figures)

    def evaluate(self, model, split, batch_size=128):
        self.measured.append((split, model.get_weights()))
        if split == "valid" and self.figures:
            return self.figures.pop(0)
        return super().evaluate(model, split, batch_size)


def test_results(small_zoo):
    content, runs = small_zoo
    results = json.loads((content / "results" / "tiny.json").read_text())
    counted = results.pop("costs")
    assert counted["samples"] == 5 and counted["macs_per_step"] == 2 * 88 * 6
    assert results == json.loads((runs / "tiny" / "results.json").read_text())
    assert [seed["seed"] for seed in results["seeds"]] == [0, 1]
    for seed in results["seeds"]:
        history = json.loads((runs / "tiny" / f"seed-{seed['seed']}" / "result.json").read_text())
        valid = history["history"]["valid"]
        assert len(valid) == seed["epochs_trained"] == 4
        assert seed["epoch"] == 1 + int(np.argmin(valid))
        assert abs(seed["valid"] - min(valid)) < 1e-6
        assert valid[-1] < valid[0] and seed["seconds"] > 0
    tests = [seed["test"] for seed in results["seeds"]]
    assert results["test"] == {
        "mean": pytest.approx(np.mean(tests)),
        "deviation": pytest.approx(np.std(tests, ddof=1)),
    }
    best = min(results["seeds"], key=lambda seed: seed["valid"])["seed"]
    assert results["best_seed"] == snukeras.zoo.info("tiny", content)["seed"] == best
    assert results["recipe"]["epochs"] == 4 and results["data"]["sha256"] == "0" * 64
    assert results["versions"]["keras"] == keras.__version__


def test_evaluate_gives_the_figures_again(small_zoo):
    figures = publish.evaluate("tiny", small_zoo[0], tasks={"scales": make_task()})
    for measured, shipped in figures.values():
        assert measured == shipped


def test_published_weights_are_those_of_the_best_epoch_of_the_best_seed(small_zoo):
    content, runs = small_zoo
    seed = snukeras.zoo.info("tiny", content)["seed"]
    weights = snukeras.zoo.load("tiny", content=content).get_weights()
    with np.load(runs / "tiny" / f"seed-{seed}" / "state.npz") as state:
        for index, weight in enumerate(weights):
            np.testing.assert_array_equal(weight, state[f"best_{index}"])


def test_finished_seeds_are_not_trained_again(small_zoo):
    content, runs = small_zoo
    before = (runs / "tiny" / "seed-0" / "result.json").stat().st_mtime_ns
    train(content, runs, progress=lambda event: pytest.fail("trained again"))
    assert (runs / "tiny" / "seed-0" / "result.json").stat().st_mtime_ns == before


def test_test_split_is_measured_once_with_the_weights_of_the_best_epoch(tmp_path):
    write_recipe(tmp_path, seeds=[0], epochs=4)
    task = Watched([5.0, 3.0, 4.0, 3.5])
    result = train(tmp_path, tmp_path / "runs", task)["seeds"][0]
    assert [split for split, _ in task.measured] == ["valid"] * 4 + ["test"]
    assert result["epoch"] == 2 and result["valid"] == 3.0
    for a, b in zip(task.measured[4][1], task.measured[1][1], strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(task.measured[4][1][0], task.measured[3][1][0])


@pytest.mark.slow
@pytest.mark.some_cases(1)
@pytest.mark.parametrize(("ties", "chosen"), [("first", 2), ("last", 3)])
def test_of_equal_epochs_the_first_or_the_last_is_chosen(tmp_path, ties, chosen):
    write_recipe(tmp_path, seeds=[0], epochs=4, ties=ties)
    task = Watched([5.0, 3.0, 3.0, 3.5])
    result = train(tmp_path, tmp_path / "runs", task)["seeds"][0]
    assert result["epoch"] == chosen
    for a, b in zip(task.measured[4][1], task.measured[chosen - 1][1], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_try_leaves_the_test_split_alone_until_it_is_asked_for(tmp_path):
    write_recipe(tmp_path, seeds=[0], epochs=4)
    task = Watched()
    results = train(tmp_path, tmp_path / "runs", task, epochs=2)
    assert {split for split, _ in task.measured} == {"valid"}
    assert "test" not in results and "test" not in results["seeds"][0]
    asked = train(tmp_path, tmp_path / "runs", task, epochs=2, test=True)
    assert [split for split, _ in task.measured].count("test") == 1
    assert asked["test"]["mean"] == asked["seeds"][0]["test"]
    assert asked["seeds"][0]["valid"] == results["seeds"][0]["valid"]
    best = task.measured[results["seeds"][0]["epoch"] - 1][1]
    for a, b in zip(task.measured[-1][1], best, strict=True):
        np.testing.assert_array_equal(a, b)
    task.measured.clear()
    assert train(tmp_path, tmp_path / "runs", task, epochs=2, test=True) == asked
    assert task.measured == []


@pytest.mark.slow
def test_two_trainings_of_a_seed_do_not_share_a_folder(tmp_path):
    write_recipe(tmp_path, seeds=[0], epochs=2)

    def try_another(event):
        with pytest.raises(RuntimeError, match=r"Another training works in .*seed-0"):
            train(tmp_path, tmp_path / "runs")

    train(tmp_path, tmp_path / "runs", progress=try_another)
    assert not [*(tmp_path / "runs").rglob(".partial.*")]


@pytest.mark.slow
def test_progress_within_a_long_epoch(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("snukeras.zoo.training.seeds._WITHIN_S", 0.0)
    write_recipe(tmp_path, seeds=[0], epochs=2)
    events = []
    train(tmp_path, tmp_path / "runs", progress=events.append)
    assert [(event["epoch"], event["batch"]) for event in events] == [
        *[(0, batch) for batch in (1, 2, 3)],
        (1, 4),
        *[(1, batch) for batch in (1, 2, 3)],
        (2, 4),
    ]
    assert events[0]["valid"] is None and events[4]["valid"] == events[3]["valid"]
    assert all(np.isfinite(event["loss"]) and event["batches"] == 4 for event in events)
    train(tmp_path, tmp_path / "runs", progress=None, restart=True)
    assert "tiny seed 0 epoch 2/2, batch 1 of 4: loss" in capsys.readouterr().out


def test_learning_curves_stay_in_the_results(small_zoo):
    for results in (small_zoo[0] / "results" / "tiny.json", small_zoo[1] / "tiny" / "results.json"):
        text = results.read_text()
        for seed in json.loads(text)["seeds"]:
            assert len(seed["history"]["loss"]) == len(seed["history"]["valid"]) == 4
        assert (
            text.count('"valid": [') == 2
            and ",\n            " not in text.split('"valid": [')[1][:40]
        )


@pytest.mark.slow
def test_patience(tmp_path):
    write_recipe(tmp_path, seeds=[0], epochs=9, patience=2)
    result = train(tmp_path, tmp_path / "runs", Watched([5.0, 3.0, 4.0, 3.5]))["seeds"][0]
    assert result["epoch"] == 2 and result["epochs_trained"] == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    "averaging", [{"class": "ema", "momentum": 0.7}, {"class": "swa", "first_epoch": 3}]
)
def test_averaged_weights_are_measured_and_raw_ones_trained(tmp_path, averaging):
    # One step an epoch, so that the weights after each epoch are those after each step.
    write_recipe(tmp_path, seeds=[0], epochs=5, batch_size=13, averaging=averaging)
    task, raw = Watched(), []

    def note(event):
        with np.load(tmp_path / "runs" / "tiny" / "seed-0" / "state.npz") as state:
            variables = [state[f"variable_{i}"] for i in range(8)]
        # Without the seeds of dropout, which are integers: the five weights of the network.
        raw.append([v for v in variables if v.dtype == np.float32][:5])

    train(tmp_path, tmp_path / "runs", task, note)
    for epoch, weights in enumerate(raw, start=1):
        if averaging["class"] == "ema":
            # Each step weighs momentum times what the one after it does; the sum of all is one.
            share = averaging["momentum"] ** np.arange(epoch)[::-1]
            average = [
                np.tensordot(share / share.sum(), np.stack(values), 1)
                for values in zip(*raw[:epoch], strict=True)
            ]
        else:
            chosen = raw[2:epoch] if epoch >= 3 else [weights]
            average = [np.mean(values, axis=0) for values in zip(*chosen, strict=True)]
        for a, b in zip(average, task.measured[epoch - 1][1], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert not np.allclose(raw[-1][0], task.measured[4][1][0])


HARDWARE = {
    "constraint": {"levels": 8, "rounding": "feedback", "scale": "column"},
    "noise": {"noise": 0.1, "ramp_epochs": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize("averaging", [None, {"class": "ema", "momentum": 0.7}])
def test_what_is_measured_lies_on_the_grid(tmp_path, averaging):
    write_recipe(tmp_path, seeds=[0], epochs=3, averaging=averaging, **HARDWARE)
    task = Watched()
    train(tmp_path, tmp_path / "runs", task)
    constraint = PCMConstraint(levels=8, scale="column")
    for _, weights in task.measured:
        kernels = [w for w in weights if w.ndim == 2]
        assert len(kernels) == 2
        for kernel in kernels:
            np.testing.assert_allclose(constraint.nearest(kernel), kernel, atol=1e-6)


@pytest.mark.slow
def test_noise_and_constraint_go_on_where_they_stopped(tmp_path):
    write_recipe(tmp_path, seeds=[0], epochs=4, **HARDWARE)

    def stop(event):
        if event["epoch"] == 2:
            raise KeyboardInterrupt

    whole = train(tmp_path, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, tmp_path / "parts", progress=stop)
    parts = train(tmp_path, tmp_path / "parts")
    assert parts["seeds"][0].pop("seconds") and whole["seeds"][0].pop("seconds")
    assert parts == whole
    states = [tmp_path / run / "tiny" / "seed-0" / "state.npz" for run in ("whole", "parts")]
    with np.load(states[0]) as a, np.load(states[1]) as b:
        for key in set(a.files) - {"state"}:
            np.testing.assert_array_equal(a[key], b[key])


def test_divergence(tmp_path):
    write_recipe(
        tmp_path,
        seeds=[0],
        averaging=None,
        schedule=None,
        network={
            "input_shape": [None, 88],
            "layers": [
                {
                    "class": "Dense",
                    "units": 8,
                    "activation": "exponential",
                    "bias_initializer": {"class_name": "Constant", "config": {"value": 200.0}},
                },
                {"class": "Dense", "units": 88, "activation": "sigmoid"},
            ],
        },
    )
    with pytest.raises(FloatingPointError, match="seed 0 diverged in epoch"):
        train(tmp_path, tmp_path / "runs")


@pytest.mark.slow
def test_weights_without_a_value_are_a_divergence(tmp_path):
    """Units with NaN are silent: neither the loss nor the validation figure shows it."""
    recipe = make_recipe(seeds=[0], averaging=None, schedule=None)
    recipe["network"]["layers"][0] |= {
        "recurrent": True,
        "state_activation": "linear",
        "decay": 1.0,
        "pseudo_derivative": {
            "class_name": "snukeras>Arctan",
            "config": {"slope": 1e-3},
        },
        "recurrent_initializer": {"class_name": "RandomNormal", "config": {"stddev": 1e8}},
    }
    write_recipe(tmp_path, **recipe)
    with pytest.raises(FloatingPointError, match="the sum of weights is nan"):
        train(tmp_path, tmp_path / "runs")


@pytest.mark.slow
def test_progress_and_tensorboard(tmp_path, monkeypatch):
    write_recipe(tmp_path, seeds=[7], epochs=2)
    events = []
    results = train(tmp_path, tmp_path / "runs", progress=events.append)
    ends = [event["epoch"] for event in events if event["batch"] == event["batches"]]
    assert ends == [1, 2]
    assert events[-1]["best_valid"] == results["seeds"][0]["valid"]
    if importlib.util.find_spec("tensorboard"):
        train(tmp_path, tmp_path / "runs", tensorboard=True, restart=True)
        logs = tmp_path / "runs" / "tiny" / "seed-7" / "tensorboard"
        assert list(logs.rglob("events.out.tfevents.*"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install tensorboard"):
        train(tmp_path, tmp_path / "runs", tensorboard=True)


@pytest.mark.slow
def test_another_recipe_needs_a_restart(tmp_path):
    write_recipe(tmp_path, seeds=[0], epochs=1)
    train(tmp_path, tmp_path / "runs")
    write_recipe(tmp_path, seeds=[0], epochs=1, batch_size=5)
    with pytest.raises(ValueError, match=r"seed-0/result\.json is from another recipe"):
        train(tmp_path, tmp_path / "runs")
    assert train(tmp_path, tmp_path / "runs", restart=True)["recipe"]["batch_size"] == 5
    # What only describes a model does not matter.
    write_recipe(tmp_path, seeds=[0, 1], epochs=1, batch_size=5, title="Another title")
    results = train(tmp_path, tmp_path / "runs", seeds=[0])
    assert results["recipe"]["title"] == "Another title"
    assert results["test"]["deviation"] is None


def test_unknown_task(tmp_path):
    write_recipe(tmp_path, task="scale")
    with pytest.raises(ValueError, match=r"no task named 'scale'. Did you mean scales\?"):
        train(tmp_path, tmp_path / "runs")


# A training that kills itself without warning (SIGKILL): while a batch is made in the middle of
# an epoch, or while its state is being written.
KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
import tiny_zoo
from snukeras.datasets import piano_roll
from snukeras.zoo import training

content, moment = Path(sys.argv[1]), sys.argv[2]
saves = 0


def die():
    os.kill(os.getpid(), signal.SIGKILL)


savez, fit_batches = np.savez, tiny_zoo.PianoRolls.training_data


def dying_savez(path, **arrays):
    global saves
    saves += 1
    if moment == "while saving" and saves == 3:
        Path(path).write_bytes(b"PK half a file")
        die()
    savez(path, **arrays)


def dying_data(self, recipe, seed, first_epoch=0):
    import tensorflow as tf

    count = 0
    def see(x, y, w):
        nonlocal count
        count += 1
        if moment == "in an epoch" and count == 14:
            die()
        return x

    for_graph = lambda x, y, w: (
        tf.ensure_shape(tf.numpy_function(see, (x, y, w), tf.float32), x.shape), y, w
    )
    return fit_batches(self, recipe, seed, first_epoch).map(for_graph)


np.savez = dying_savez
tiny_zoo.PianoRolls.training_data = dying_data
training.train("tiny", content, content / "runs", tasks={"scales": tiny_zoo.make_task()})
"""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    content = write_recipe(tmp_path_factory.mktemp("whole"), seeds=[0], epochs=5)
    train(content, content / "runs")
    return content / "runs" / "tiny" / "seed-0"


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["in an epoch", "while saving"])
def test_killed_training_goes_on_and_ends_the_same(tmp_path, uninterrupted, moment):
    content = write_recipe(tmp_path, seeds=[0], epochs=5)
    run = subprocess.run(
        [sys.executable, "-c", KILLED, str(content), moment],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == -signal.SIGKILL, run.stderr
    seed = content / "runs" / "tiny" / "seed-0"
    assert not (seed / "result.json").exists()

    epochs = []
    train(content, content / "runs", progress=lambda event: epochs.append(event["epoch"]))
    assert 1 < epochs[0] <= 4 and epochs[-1] == 5
    whole, resumed = (
        json.loads((folder / "result.json").read_text()) for folder in (uninterrupted, seed)
    )
    for result in (whole, resumed):
        del result["seconds"]
    assert resumed == whole
    with np.load(uninterrupted / "state.npz") as a, np.load(seed / "state.npz") as b:
        assert set(a.files) == set(b.files)
        for key in a.files:
            if key != "state":
                np.testing.assert_array_equal(a[key], b[key])
    left = [path.name for path in sorted(seed.iterdir())]
    assert left == [".lock", "result.json", "state.npz"]


def test_recipe_of_the_readme_example():
    """The keys that zoo/README.md explains are those that there are."""
    from snukeras.zoo import recipes

    text = (Path(__file__).parents[2] / "zoo" / "README.md").read_text("utf-8")
    section = text.split("## Recipes")[1].split("## Presets")[0]
    for key in recipes.check(make_recipe()).entries():
        assert f"`{key}`" in section
