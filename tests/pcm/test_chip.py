"""A chip programs a Keras model and gives it back; a chip in another process plugs in."""

import json
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

from snukeras.pcm import (
    Chip,
    DifferentialPair,
    Hardware,
    IdealDevice,
    NandakumarPCM,
    StuckDevices,
)

YEAR = 31536e3


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 5))
    x = keras.layers.Conv1D(8, 3, activation="relu", padding="same")(inputs)
    x = keras.layers.LayerNormalization()(x)
    x = keras.layers.GRU(7, return_sequences=True)(x)
    outputs = keras.layers.Dense(4)(x)
    model = keras.Model(inputs, outputs)
    model.compile("adam", "mse", metrics=["mae"])
    return model


@pytest.fixture(scope="module")
def data(model):
    x = np.random.default_rng(0).normal(size=(16, 6, 5)).astype("float32")
    return x, model.predict(x, verbose=0)


def test_ideal_chip_is_the_model(model, data):
    chip = Chip(model, IdealDevice())
    assert [w.shape for w in chip.weights().values()] == [(3, 5, 8), (8, 21), (7, 21), (7, 4)]
    assert chip.devices == 2 * (120 + 168 + 147 + 28)
    held = chip.model()
    assert held is not model
    np.testing.assert_allclose(held.predict(data[0], verbose=0), data[1], atol=1e-5)
    loss, mae = held.evaluate(*data, verbose=0)
    assert loss < 1e-9 and mae < 1e-4


@pytest.mark.slow
def test_errors_grow_with_time_and_compensation_helps(model, data):
    before = model.get_weights()
    chips = {c: Chip(model, seed=1, compensation=c) for c in (None, "global")}
    losses = {
        c: [chip.model(t).evaluate(*data, verbose=0)[0] for t in (0.0, YEAR)]
        for c, chip in chips.items()
    }
    assert losses[None][0] < 0.2 * losses[None][1]
    assert losses["global"][1] < 0.5 * losses[None][1]
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_biases_and_norms_stay_digital(model):
    held = Chip(model, seed=1).model(YEAR)
    for a, b in zip(model.weights, held.weights, strict=True):
        assert np.array_equal(a.numpy(), b.numpy()) == (not a.name.endswith("kernel"))


@pytest.mark.slow
def test_one_seed_is_one_chip(model):
    first, second, third = (Chip(model, seed=s).weights(25.0) for s in (1, 1, 2))
    for name, weights in first.items():
        np.testing.assert_array_equal(weights, second[name])
        assert not np.array_equal(weights, third[name])


def test_matrices_by_name():
    matrices = {"a": np.eye(3), "b": np.ones((2, 5))}
    chip = Chip(matrices, IdealDevice(), pair=DifferentialPair(levels=9), tile_size=(2, 2))
    np.testing.assert_allclose(chip.weights()["b"], 1.0, rtol=1e-6)
    np.testing.assert_allclose(chip.matmul("a", np.arange(3.0)), [0, 1, 2], atol=1e-5)
    assert chip.conductances()["b"].shape == (2, 2, 5)
    with pytest.raises(ValueError, match="no Keras model"):
        chip.model()
    with pytest.raises(ValueError, match="`name` must be one of"):
        chip.matmul("c", np.ones(3))


def test_embeddings_only_when_asked():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Embedding(9, 3)])
    with pytest.raises(ValueError, match="at least one kernel"):
        Chip(model)
    assert len(Chip(model, embeddings=True).weights()) == 1


@pytest.mark.slow
def test_faults_by_name(model):
    name = next(iter(Chip(model).weights()))
    stuck = StuckDevices(plus=np.full((15, 8), 25.0))
    chip = Chip(model, IdealDevice(), faults={name: stuck}, avoid_faults=False)
    assert np.all(chip.conductances()[name][0] == 25.0)
    with pytest.raises(ValueError, match="`faults` must name matrices"):
        Chip(model, faults={"elsewhere": stuck})


def test_refuses_other_models_and_bad_weights(model):
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="is it another model"):
        Chip(model).write(other)
    with pytest.raises(ValueError, match="must be a built model"):
        Chip(keras.Sequential([keras.layers.Dense(2)]))
    with pytest.raises(TypeError, match="Keras model or a dict"):
        Chip([1, 2])
    other.layers[0].kernel.assign(np.full((3, 2), np.nan))
    with pytest.raises(ValueError, match="NaN or infinite"):
        Chip(other)
    with pytest.raises(ValueError, match="`t`"):
        Chip(model).model(-5.0)
    with pytest.raises(ValueError, match="`device` must be an InferencePCM"):
        Chip(model, device=NandakumarPCM())


FAKE_CHIP = textwrap.dedent(
    """
    import json, random, sys
    # A chip of its own physics: every SET pulse adds 0.5 to 0.9 uS, reading adds a little noise.
    tiles, generator = {}, random.Random(1)
    for line in sys.stdin:
        request = json.loads(line)
        name, argument = request["tile"], request.get("argument")
        if request["call"] == "reset":
            tile = tiles.setdefault(name, [0.0] * len(argument))
            for i, where in enumerate(argument):
                tile[i] = 0.1 if where else tile[i]
        elif request["call"] == "pulse":
            for i, count in enumerate(argument):
                tiles[name][i] += sum(generator.uniform(0.5, 0.9) for _ in range(count))
        held = tiles[name]
        answer = [g + generator.gauss(0, 0.05) for g in held]
        if request["call"] == "mvm":  # currents of vectors, each a list of rows
            rows, half = len(argument[0]), len(held) // 2
            columns = half // rows
            answer = [
                sum(
                    x * (answer[i * columns + j] - answer[half + i * columns + j])
                    for i, x in enumerate(vector)
                )
                for vector in argument
                for j in range(columns)
            ]
        print(json.dumps(answer), flush=True)
    """
)


class ChipInAnotherProcess(Hardware):
    """Talks to the fake chip in lines of JSON, as a driver might to an instrument."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-c", FAKE_CHIP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.shapes = {}
        self.multiplied = 0

    def _ask(self, call, tile, argument=None, flat=True):
        array = None if argument is None else np.asarray(argument)
        values = None if array is None else (array.ravel() if flat else array).tolist()
        request = {"call": call, "tile": tile, "argument": values}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def reset(self, tile, where):
        self.shapes[tile] = np.shape(where)
        self._ask("reset", tile, where)

    def pulse(self, tile, counts):
        self._ask("pulse", tile, counts)

    def read(self, tile):
        return np.asarray(self._ask("read", tile)).reshape(self.shapes[tile])

    def mvm(self, tile, x):
        self.multiplied += len(x)
        return np.reshape(self._ask("mvm", tile, x, False), (len(x), -1))

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=10)
        self.process.stdout.close()


@pytest.mark.slow
def test_a_chip_in_another_process(model, data):
    hardware = ChipInAnotherProcess()
    try:
        chip = Chip(model, hardware=hardware, tile_size=(8, 16), pair=DifferentialPair(20.0))
        assert len(hardware.shapes) > 4
        held = chip.model()
        (name, crossbar), *_ = chip.crossbars.items()
        x = np.random.default_rng(0).normal(size=(6, crossbar.matrix.shape[0])).astype("float32")
        product = keras.ops.convert_to_numpy(chip.matmul(name, x))
        assert hardware.multiplied == 6 * len(crossbar.tiles)
        for pulses, resets in map(hardware.wear, chip.programming):
            assert pulses.sum() > 0 and resets.min() >= 1
    finally:
        hardware.close()
    exact = x @ crossbar.matrix
    assert 0.0 < np.std(product - exact) < 0.2 * np.std(exact)
    signal, error = np.std(data[1]), np.std(held.predict(data[0], verbose=0) - data[1])
    assert 0.0 < error < 0.2 * signal


def test_a_notebook_shows_the_chip_as_a_table():
    faults = StuckDevices(plus=np.full((300, 4), np.nan))
    faults.plus[0, 0] = 3.0
    matrices = {"<i>a": np.ones((300, 4)), "b": np.ones((2, 2))}
    chip = Chip(matrices, faults={"<i>a": faults}, compensation="global", seed=0)
    html = chip._repr_html_()
    for text in ("&lt;i&gt;a", "300 x 4", "2,400", "2,408", "global", "GenericPCM", "256 x 256"):
        assert text in html
    assert "<i>" not in html and html.count("<tr>") == 4
