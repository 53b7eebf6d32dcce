"""Check the physics on the backend of KERAS_BACKEND; run by test_backends.py, not by pytest."""

import tempfile

import keras
import numpy as np

from snukeras import _strategy
from snukeras._random import normal, quick_normal, quick_uniform
from snukeras.constraints import PCMConstraint
from snukeras.pcm import (
    Chip,
    Converter,
    GenericPCM,
    InputConverter,
    OutputConverter,
    SimulatedHardware,
    Tile,
    WeightModifier,
    analog,
    calibrate,
    evaluate_chips,
)


def numbers():
    shape = (200, 500)
    for draw in (lambda s: normal(shape, "float32", s), lambda s: quick_normal(shape, s)):
        x, y = (keras.ops.convert_to_numpy(draw(seed)).ravel() for seed in (1, 2))
        assert abs(x.mean()) < 0.015 and abs(x.std() - 1.0) < 0.01
        assert abs(np.mean(x**4) - 2.95) < 0.15
        assert abs(np.corrcoef(x, y)[0, 1]) < 0.015
        assert abs(np.corrcoef(x[1:], x[:-1])[0, 1]) < 0.015
    u = keras.ops.convert_to_numpy(quick_uniform(shape, 3)).ravel()
    assert 0.0 <= u.min() < 1e-3 and 0.999 < u.max() < 1.0
    assert abs(np.var(u) - 1 / 12) < 1e-3


def chips():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(60), keras.layers.Dense(2)])
    model.compile(loss="mse")
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    wanted = model.predict(x, verbose=0)
    one, two, other = (
        Chip(model, seed=seed, compensation="column", tile_size=(32, 32)) for seed in (1, 1, 2)
    )
    same, changed = two.weights(25.0), other.weights(25.0)
    for name, weights in one.weights(25.0).items():
        np.testing.assert_array_equal(weights, same[name])
        assert not np.array_equal(weights, changed[name])
    held = one.model(86400.0)
    assert 0.0 < held.evaluate(x, wanted, verbose=0) < 0.3 * np.var(wanted)
    name = next(iter(one.crossbars))
    crossbar = one.crossbars[name]
    crossbar.output_converter = Converter(8)
    crossbar.calibrate(x)
    got = keras.ops.convert_to_numpy(crossbar.matmul(x, 25.0))
    assert np.corrcoef(got.ravel(), (x @ crossbar.matrix).ravel())[0, 1] > 0.97


def devices():
    device, g = GenericPCM(drift=0.0), np.full((3000,), 10.0, "float32")
    state = device.program(g, seed=1)
    noise = device.read(state, seed=1) - state.programmed
    assert abs(np.corrcoef(state.programmed, noise)[0, 1]) < 0.1
    report = Chip({"w": np.eye(8)}, hardware=SimulatedHardware(seed=1)).programming["w/0/0"]
    assert report.missed.mean() < 0.1


def constraint():
    w = np.linspace(-1.0, 1.0, 4001).astype("float32")[:, None]
    held = keras.ops.convert_to_numpy(PCMConstraint(levels=3, seed=1)(w))
    assert set(np.unique(held)) == {-1.0, -0.5, 0.0, 0.5, 1.0}
    assert abs(np.mean(held - w)) < 0.01


def tiles():
    """Calibration sees each step of a loop; a chip leaves the network that it was made of whole."""
    layers = [
        keras.Input((6, 5)),
        keras.layers.LSTM(4, return_sequences=True),
        keras.layers.Bidirectional(keras.layers.SimpleRNN(3)),
        keras.layers.Dense(2),
    ]
    keras.utils.set_random_seed(1)
    model = keras.Sequential(layers)
    x = np.random.default_rng(0).random((8, 6, 5)).astype("float32")
    net = analog(model, Tile(3, 3), device=GenericPCM(), seed=1)
    calibrate(net, x)
    error = net.predict(x, verbose=0) - model.predict(x, verbose=0)
    assert 0.0 < np.abs(error).max() < 0.3
    # Products of the second step on are not those of zero states.
    assert all(float(keras.ops.min(part.output_range)) > 0.05 for part in net.tiles)
    jit = keras.backend.backend() != "torch"
    net.compile("adam", "mse", jit_compile=jit)
    net.fit(x, np.zeros((8, 2)), verbose=0)
    Chip(net, seed=1).model(25.0).predict(x, verbose=0)
    assert all(np.isfinite(keras.ops.convert_to_numpy(v)).all() for v in net.variables)


def loops():
    """Each step of a loop has noise of its own, also behind a mask, and in each call another."""
    steps, units = 30, 200
    given = keras.Input((steps, 3))
    x = keras.layers.Masking()(given)
    plain = keras.layers.SimpleRNN(
        units, return_sequences=True, activation=None, recurrent_initializer="zeros"
    )
    cells = [keras.layers.GRUCell(2), keras.layers.SimpleRNNCell(2)]
    others = [keras.layers.GRU(2)(x), keras.layers.LSTM(2)(x), keras.layers.RNN(cells)(x)]
    model = keras.Model(given, [plain(x), *others])
    x = np.ones((2, steps, 3), "float32")
    x[0, 5:9] = x[:, 20] = 0.0  # one sample rests, then both
    tile = Tile(input=None, output=OutputConverter(None, None, noise=0.1))
    net, exact = analog(model, tile, seed=1), model.predict(x, verbose=0)
    noise = []
    for _ in range(2):
        found = net.predict(x, verbose=0)
        error = found[0] - exact[0]
        np.testing.assert_array_equal(found[0][:, 20], found[0][:, 19])
        np.testing.assert_array_equal(found[0][0, 5:9], found[0][0, [4] * 4])
        noise.append(np.delete(error[1], 20, axis=0))
        assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(found[1:], exact[1:], strict=True))
    noise = np.concatenate(noise)
    assert np.abs(np.corrcoef(noise) - np.eye(len(noise))).max() < 0.4
    assert abs(noise.std() - 0.1 * np.sqrt(2)) < 0.1 and abs(noise.mean()) < 0.01


def refused():
    """What cannot be is refused in a sentence."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="d")])
    model.compile("sgd", "mse")
    x, y, nan = np.ones((4, 3), "float32"), np.ones((4, 2), "float32"), float("nan")
    net = analog(model, "generic8")
    cases = [
        (lambda: InputConverter(1), "`bits` must be"),
        (lambda: OutputConverter(8, -1.0), "`range` must be"),
        (lambda: Tile(0, 8), "`rows` must be"),
        (lambda: analog(model, "generic9"), "`tile` must be"),
        (lambda: analog(model, device=GenericPCM), "`device` must be"),
        (lambda: analog(model, modifiers="pcm"), "`modifiers` must be"),
        (lambda: analog(keras.Sequential([keras.Input((3,)), keras.layers.ReLU()])), "matrices"),
        (lambda: net(x), "no ranges yet"),
        (lambda: net.predict(x, verbose=0), "no ranges yet"),
        (lambda: net.fit(x, y, verbose=0), "no ranges yet"),
        (lambda: calibrate(net, x * nan), "`x` must be finite"),
        (lambda: calibrate(net, None), "`x` must be arrays"),
        (lambda: calibrate(net, x, percentile=101), "`percentile` must be"),
        (lambda: calibrate(net, x, output_share={"d/kernel": 1.5}), "`output_share` must be"),
        (lambda: calibrate(net, x, batch_size=0), "`batch_size` must be"),
        (lambda: Chip(model, seed=1).model(nan), "must be finite and at least 0"),
        (lambda: Chip(model, seed=-1), "`seed` must be"),
        (lambda: WeightModifier("pcm", 1.0, time=-1.0), "`time` must be"),
        (lambda: evaluate_chips(model, x, y, times=(-1.0,)), "`times` must be"),
        (lambda: evaluate_chips(model, x, y, chips=0), "`chips` must be"),
        (lambda: evaluate_chips(model, x, y, stderr=0.1), "`stderr` must be"),
        (
            lambda: evaluate_chips(model, x, y, chips=2, progress=False, stderr={"mae": 0.1}),
            "`stderr` must name",
        ),
        (lambda: evaluate_chips(model, x, y, np.ones(3)), "equally many samples"),
    ]
    for use, words in cases:
        try:
            use()
        except ValueError as error:
            assert words in str(error), f"{words}: {error}"
        else:
            raise AssertionError(f"not refused: {words}")


def within():
    """A network on tiles inside another model: refused without ranges, right with them."""
    x, y = np.ones((4, 3), "float32"), np.ones((4, 1), "float32")
    for use in ("predict", "fit"):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="d")])
        outer = keras.Sequential([keras.Input((3,)), analog(model, "generic8")])
        outer.add(keras.layers.Dense(1))
        outer.compile("sgd", "mse")
        try:
            getattr(outer, use)(x, *([y] if use == "fit" else []), verbose=0)
            _strategy.wait_for_told()
        except Exception as error:  # JAX has one of its own around ours
            assert "d/kernel have no ranges yet" in str(error), error
        else:
            raise AssertionError(f"not refused: {use}")
    net = analog(model, "generic8")
    outer = keras.Sequential([keras.Input((3,)), net, keras.layers.Dense(1)])
    outer.compile("sgd", "mse")
    calibrate(net, np.random.default_rng(0).random((8, 3)).astype("float32"))
    outer.fit(x, y, verbose=0)
    before = outer.predict(x, verbose=0)
    with tempfile.TemporaryDirectory() as folder:
        outer.save(f"{folder}/outer.keras")
        again = keras.models.load_model(f"{folder}/outer.keras")
    assert np.allclose(again.predict(x, verbose=0), before, atol=1e-6)


def exported():
    """A SavedModel computes what the tiles do; noise is refused where a file would not have it."""
    if keras.backend.backend() == "torch":
        return  # Keras writes no SavedModel of any model there
    import tensorflow as tf

    x = np.random.default_rng(0).random((8, 5, 3)).astype("float32")
    layers = [keras.layers.LSTM(4, return_sequences=True), keras.layers.Dense(2)]
    net = analog(keras.Sequential([keras.Input((5, 3)), *layers]))
    calibrate(net, x)
    with tempfile.TemporaryDirectory() as folder:
        net.export(folder, verbose=False)
        loaded = tf.saved_model.load(folder)
        np.testing.assert_allclose(loaded.serve(x), net.predict(x, verbose=0), atol=1e-5)
        try:
            Chip(net).model(25.0).export(folder, verbose=False)
        except ValueError as error:
            assert "holds no random numbers" in str(error), error
            assert keras.backend.backend() == "jax"
        else:
            assert keras.backend.backend() == "tensorflow"


if __name__ == "__main__":
    for check in (numbers, devices, chips, constraint, tiles, loops, refused, within, exported):
        check()
