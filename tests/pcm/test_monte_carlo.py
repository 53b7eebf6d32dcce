"""Monte-Carlo evaluation: rows, resumption, workers, refusal of other people's results."""

import json

import keras
import numpy as np
import pytest

from snukeras.pcm import Chip, DifferentialPair, GenericPCM, evaluate_chips, summarize

DAY = 86400.0


@pytest.fixture(scope="module")
def task():
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3)]
    )
    model.compile("sgd", "mse", metrics=["mae"])
    x = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
    return model, x, model.predict(x, verbose=0)


def test_rows_and_summary(task):
    model, x, y = task
    before = model.get_weights()
    rows = evaluate_chips(model, x, y, chips=6, times=(0.0, DAY), compensation="global")
    assert [(row["chip"], row["time"]) for row in rows] == [
        (i, t) for i in range(6) for t in (0.0, DAY)
    ]
    assert len({row["loss"] for row in rows}) == 12
    summary = summarize(rows)
    assert list(summary) == [0.0, DAY]
    day = [row["loss"] for row in rows if row["time"] == DAY]
    assert summary[DAY]["loss"]["mean"] == pytest.approx(np.mean(day))
    assert summary[DAY]["loss"]["max"] == max(day)
    assert 0 < summary[0.0]["mae"]["mean"] < summary[DAY]["mae"]["mean"]
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_resumes_where_it_stopped(task, tmp_path, monkeypatch):
    model, x, y = task
    arguments = {"times": (DAY,), "seed": 3, "device": GenericPCM()}
    whole = evaluate_chips(model, x, y, chips=5, **arguments)
    path = tmp_path / "rows.json"
    programmed = []
    program = GenericPCM.program

    def interrupted(self, *args, **kwargs):
        programmed.append(1)
        if len(programmed) == 6:  # two matrices per chip
            raise KeyboardInterrupt
        return program(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(GenericPCM, "program", interrupted)
        with pytest.raises(KeyboardInterrupt):
            evaluate_chips(model, x, y, chips=5, results=path, **arguments)
    assert len(json.loads(path.read_text())["rows"]) == 2
    programmed.clear()
    with monkeypatch.context() as patch:
        patch.setattr(GenericPCM, "program", interrupted)
        assert evaluate_chips(model, x, y, chips=4, results=path, **arguments) == whole[:4]
    assert len(programmed) == 4
    assert evaluate_chips(model, x, y, chips=5, results=path, **arguments) == whole
    assert evaluate_chips(model, x, y, chips=2, results=path, **arguments) == whole[:2]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_one_batch_gives_the_figures_of_several(task):
    model, x, y = task
    weights = np.linspace(0.1, 2.0, len(x), dtype="float32")
    several, one = (
        evaluate_chips(model, x, y, weights, chips=2, times=(0.0, DAY), batch_size=size)
        for size in (7, 32)
    )
    for a, b in zip(several, one, strict=True):
        assert a == pytest.approx(b, rel=1e-5)


def test_a_network_made_again_has_the_same_rows(task, tmp_path):
    model, x, y = task
    path = tmp_path / "rows.json"
    rows = evaluate_chips(model, x, y, chips=2, times=(DAY,), results=path)
    again = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3)]
    )
    again.set_weights(model.get_weights())
    again.compile("sgd", "mse", metrics=["mae"])
    assert again.layers[0].name != model.layers[0].name
    assert evaluate_chips(again, x, y, chips=2, times=(DAY,), results=path) == rows
    other = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8), keras.layers.Dense(3)])
    other.set_weights(model.get_weights())
    other.compile("sgd", "mse", metrics=["mae"])
    with pytest.raises(ValueError, match="Different: model"):
        evaluate_chips(other, x, y, chips=2, times=(DAY,), results=path)


@pytest.mark.slow
def test_workers_give_the_same_rows(task):
    model, x, y = task
    arguments = {
        "chips": 3,
        "times": (0.0, DAY),
        "device": GenericPCM(20.0),
        "pair": DifferentialPair(20.0, levels=16),
        "compensation": "column",
    }
    alone = evaluate_chips(model, x, y, **arguments)
    together = evaluate_chips(model, x, y, workers=2, **arguments)
    for a, b in zip(alone, together, strict=True):
        assert a.keys() == b.keys()
        assert list(a.values()) == pytest.approx(list(b.values()), rel=1e-4)


def test_refuses_results_of_another_evaluation(task, tmp_path):
    model, x, y = task
    path = tmp_path / "rows.json"
    evaluate_chips(model, x, y, chips=1, times=(0.0,), results=path)
    for change in ({"times": (1.0,)}, {"seed": 9}, {"compensation": "global"}):
        with pytest.raises(ValueError, match="another evaluation"):
            evaluate_chips(model, x, y, chips=1, results=path, **{"times": (0.0,), **change})
    with pytest.raises(ValueError, match="Different: data"):
        evaluate_chips(model, x + 1, y, chips=1, times=(0.0,), results=path)
    other = keras.models.clone_model(model)
    other.compile("sgd", "mse")
    with pytest.raises(ValueError, match="Different: model"):
        evaluate_chips(other, x, y, chips=1, times=(0.0,), results=path)
    path.write_text("{")
    with pytest.raises(ValueError, match="not a file of chip evaluations"):
        evaluate_chips(model, x, y, chips=1, times=(0.0,), results=path)


def test_refuses_bad_arguments(task):
    model, x, y = task
    with pytest.raises(ValueError, match="`times`"):
        evaluate_chips(model, x, y, times=(-1.0,))
    with pytest.raises(ValueError, match="`times`"):
        evaluate_chips(model, x, y, times=())
    with pytest.raises(ValueError, match="`hardware`"):
        evaluate_chips(model, x, y, hardware=object())
    with pytest.raises(ValueError, match="must be compiled"):
        evaluate_chips(keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)]), x, y)
    assert Chip(model).devices == 2 * (48 + 24)
