"""Monte-Carlo evaluation: rows, resumption, workers, refusal of other people's results."""

import concurrent.futures
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
import work

import snukeras
from snukeras.pcm import (
    Chip,
    DifferentialPair,
    GenericPCM,
    StuckDevices,
    analog,
    calibrate,
    evaluate_chips,
    summarize,
)

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


@pytest.mark.parametrize("samples", [None, 8])
def test_samples_labels_and_weights_are_equally_many(task, samples):
    model, x, y = task
    weights = np.ones(31, "float32")
    received = r"32 in `x`, 32 in `y`, 31 in `sample_weight`"
    for given in (weights, {"dense": weights}, weights.tolist()):
        with pytest.raises(ValueError, match=rf"equally many samples\. Received: {received}"):
            evaluate_chips(model, x, y, given, chips=1, samples=samples)
    with pytest.raises(ValueError, match="32 in `x`, 30 in `y`"):
        evaluate_chips(model, x, y[:30], chips=1, samples=samples)
    if samples is None:
        batches = [(x, y), (x, y, weights)]
        with pytest.raises(ValueError, match=f"Received: {received}"):
            evaluate_chips(model, iter(batches), chips=1)


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


def settings_of_chips(folder=None):
    device = GenericPCM(20.0) if folder is None else work.DeadlyPCM(str(folder), g_max=20.0)
    return {
        "chips": 3,
        "times": (0.0, DAY),
        "device": device,
        "pair": DifferentialPair(20.0, levels=16),
        "compensation": "column",
    }


def test_an_executor_gives_the_same_rows_and_lost_chips_are_done_when_run_again(task, tmp_path):
    model, x, y = task
    path = tmp_path / "rows.json"
    alone = evaluate_chips(model, x, y, chips=3, times=(DAY,))
    executor = work.Direct(lost=(1,))
    with pytest.raises(RuntimeError, match="1 of 3 tasks were lost"):
        evaluate_chips(model, x, y, chips=3, times=(DAY,), results=path, executor=executor)
    assert [row["chip"] for row in json.loads(path.read_text())["rows"]] == [0, 2]
    rows = evaluate_chips(model, x, y, chips=3, times=(DAY,), results=path, executor=executor)
    assert rows == alone and len(executor.futures) == 4


@pytest.mark.slow
def test_threads_give_the_same_rows_of_one_evaluation_after_the_other(task):
    model, x, y = task
    alone = evaluate_chips(model, x, y, **settings_of_chips())
    until = {"chips": 20, "times": (DAY,), "stderr": {"loss": 1e9}}
    known = evaluate_chips(model, x, y, **until)
    assert len(known) == 8
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for _ in range(2):
            assert evaluate_chips(model, x, y, executor=pool, **settings_of_chips()) == alone
            assert evaluate_chips(model, x, y, executor=pool, **until) == known


def test_a_worker_that_lacks_the_module_of_a_class(task, tmp_path, monkeypatch):
    model, x, y = task
    device = work.DeadlyPCM(str(tmp_path))
    monkeypatch.setattr(work.DeadlyPCM, "__module__", "module_of_mine")
    with pytest.raises(RuntimeError, match="A worker cannot import module_of_mine"):
        evaluate_chips(model, x, y, chips=1, device=device, executor=work.Direct())


@pytest.mark.slow
def test_workers_give_the_same_rows_and_one_that_dies_is_replaced(task, tmp_path):
    model, x, y = task
    alone = evaluate_chips(model, x, y, **settings_of_chips())
    together = evaluate_chips(model, x, y, workers=2, **settings_of_chips(tmp_path))
    assert (tmp_path / "died").exists()
    for a, b in zip(alone, together, strict=True):
        assert a.keys() == b.keys()
        assert list(a.values()) == pytest.approx(list(b.values()), rel=1e-4)


@pytest.mark.slow
def test_a_cluster_gives_the_same_rows(tmp_path):
    distributed = pytest.importorskip("distributed", reason="Dask is not installed")
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((4, 6)),
            snukeras.layers.SNU(8, return_sequences=True),
            keras.layers.Dense(3),
        ]
    )
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(8, 4, 6)).astype("float32")
    net = analog(model, seed=0)
    calibrate(net, x)
    net.compile("sgd", "mse")
    faults = StuckDevices.random((8, 3), DifferentialPair(25.0), reset=0.2, seed=1)
    y = np.zeros((8, 4, 3))
    with (
        work.cluster() as (address, _),
        distributed.Client(address, set_as_default=False) as client,
    ):
        for given in (model, net):
            name = next(name for name in Chip(given).crossbars if "dense" in name)
            arguments = {"chips": 4, "times": (DAY,), "faults": {name: faults}}
            alone = evaluate_chips(given, x, y, **arguments)
            together = evaluate_chips(given, x, y, executor=client, **arguments)
            for a, b in zip(alone, together, strict=True):
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
    for workers in (0, -1, 1.5):
        with pytest.raises(ValueError, match="`workers` must be an integer of at least 1"):
            evaluate_chips(model, x, y, workers=workers)
    with pytest.raises(ValueError, match="`workers` must be 1 where an `executor` is given"):
        evaluate_chips(model, x, y, workers=2, executor=work.Direct())
    with pytest.raises(ValueError, match="`executor` must be None or have a method submit"):
        evaluate_chips(model, x, y, executor="tcp://node1:8786")
    with pytest.raises(ValueError, match="`hardware`"):
        evaluate_chips(model, x, y, hardware=object())
    with pytest.raises(ValueError, match="must be compiled"):
        evaluate_chips(keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)]), x, y)
    assert Chip(model).devices == 2 * (48 + 24)


@pytest.mark.slow
def test_batches_and_dicts(task):
    model, x, y = task
    arrays = evaluate_chips(model, x, y, chips=2, times=(DAY,), batch_size=8)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    for a, b in zip(
        arrays, evaluate_chips(model, dataset, chips=2, times=(DAY,)), strict=True
    ):  # fmt: skip
        assert a == pytest.approx(b, rel=1e-5)
    given = keras.Input((6,), name="given")
    named = keras.Model({"given": given}, model(given))
    named.compile("sgd", "mse", metrics=["mae"])
    rows = evaluate_chips(named, {"given": x}, y, chips=2, times=(DAY,))
    assert rows[0]["loss"] == pytest.approx(arrays[0]["loss"], rel=1e-5)
    with pytest.raises(ValueError, match="must be None for batches"):
        evaluate_chips(model, dataset, y, chips=1)
    with pytest.raises(ValueError, match="at least one batch"):
        evaluate_chips(model, iter(()), chips=1)


@pytest.mark.slow
def test_chips_share_the_samples(task):
    model, x, y = task
    y = y + np.random.default_rng(3).normal(0, 3, y.shape)  # samples differ more than chips
    arguments = {"times": (DAY,), "chips": 16, "device": GenericPCM(read_noise=0.0)}
    whole = summarize(evaluate_chips(model, x, y, **arguments))[DAY]["loss"]
    part = summarize(evaluate_chips(model, x, y, samples=8, **arguments))[DAY]["loss"]
    assert part["mean"] == pytest.approx(whole["mean"], rel=0.02)
    single = np.square(model.predict(x, verbose=0) - y).mean(axis=1)
    assert part["std"] < 0.5 * single.std() / np.sqrt(8)
    for samples in (0, 33, 2.5, True):
        with pytest.raises(ValueError, match="`samples` must be None or an integer from 1 to 32"):
            evaluate_chips(model, x, y, samples=samples)
    with pytest.raises(ValueError, match="`samples` must be None for batches"):
        evaluate_chips(model, iter([(x, y)]), samples=4)


def test_samples_taken_in_turn_are_no_part_of_the_standard_error():
    """Many means of chips that share samples spread as their standard error says."""
    random = np.random.default_rng(0)
    turns, count, runs = 5, 40, 400
    of_turn = random.normal(0, 3.0, turns)
    of_turn -= of_turn.mean()  # all samples together have the figure of the whole
    means, told, plain = [], [], []
    for _ in range(runs):
        values = 90 + of_turn[np.arange(count) % turns] + random.normal(0, 0.5, count)
        rows = [{"chip": i, "time": 0.0, "acc": v} for i, v in enumerate(values)]
        random.shuffle(rows)
        found = summarize(rows, turns)[0.0]["acc"]
        means.append(found["mean"])
        told.append(found["stderr"])
        plain.append(summarize(rows)[0.0]["acc"]["stderr"])
    assert np.mean(told) == pytest.approx(np.std(means), rel=0.1)
    assert np.mean(told) == pytest.approx(0.5 / np.sqrt(count), rel=0.03)
    assert np.mean(plain) > 2 * np.mean(told)
    # A turn that was not taken as often as another says nothing of the whole.
    odd = summarize(rows[:-1], turns)[0.0]["acc"]["stderr"]
    assert odd == pytest.approx(np.mean(plain), rel=0.3)
    assert np.isnan(summarize(rows[:1])[0.0]["acc"]["stderr"])
    with pytest.raises(ValueError, match="`turns`"):
        summarize(rows, 0)


@pytest.mark.slow
def test_samples_in_turn_stop_earlier_and_keep_the_rows(task):
    model, x, y = task
    y = y + np.random.default_rng(3).normal(0, 3, y.shape)
    arguments = {"times": (DAY,), "chips": 48, "samples": 8}
    rows = evaluate_chips(model, x, y, **arguments)
    wanted = summarize(rows[:24], 4)[DAY]["loss"]["stderr"] * 1.0001
    fewer = evaluate_chips(model, x, y, stderr={"loss": wanted}, **arguments)
    assert fewer == rows[: len(fewer)] and len(fewer) <= 24
    assert summarize(rows[:24])[DAY]["loss"]["stderr"] > 1.5 * wanted


@pytest.mark.slow
def test_stops_at_a_standard_error(task, tmp_path):
    model, x, y = task
    arguments = {"times": (0.0, DAY), "chips": 40, "results": tmp_path / "rows.json"}
    whole = evaluate_chips(model, x, y, times=(0.0, DAY), chips=40)
    losses = np.reshape([row["loss"] for row in whole], (40, 2))
    errors = {n: losses[:n].std(axis=0, ddof=1).max() / n**0.5 for n in range(8, 41)}
    wanted = errors[20] * 1.0001
    count = next(n for n in errors if errors[n] <= wanted)
    rows = evaluate_chips(model, x, y, stderr={"loss": wanted}, **arguments)
    assert rows == whole[: 2 * count]
    assert evaluate_chips(model, x, y, stderr={"loss": wanted}, **arguments) == rows
    with pytest.raises(ValueError, match="must name metrics of the model, loss, mae"):
        evaluate_chips(model, x, y, stderr={"accuracy": 1.0}, **arguments)
    with pytest.raises(ValueError, match="stderr"):
        evaluate_chips(model, x, y, stderr={"loss": 0.0}, **arguments)


@pytest.mark.slow
def test_networks_on_tiles(task):
    model, x, y = task
    net = analog(model, "generic8")
    calibrate(net, x)
    rows = evaluate_chips(net, x, y, chips=3, times=(0.0, DAY), compensation="column")
    assert len({row["loss"] for row in rows}) == 6
    seed = np.random.SeedSequence([0, 1]).generate_state(1)
    chip = Chip(net, seed=int(seed[0] >> 1), compensation="column")
    found = chip.model(0.0).evaluate(x, y, verbose=0, return_dict=True)
    assert found["loss"] == pytest.approx(rows[2]["loss"], rel=1e-4)
    again = evaluate_chips(net, x, y, chips=3, times=(DAY,), compensation="column", samples=16)
    assert np.mean([row["mae"] for row in again]) == pytest.approx(
        np.mean([row["mae"] for row in rows if row["time"] == DAY]), rel=0.2
    )
