"""Check the physics on the backend of KERAS_BACKEND; run by test_backends.py, not by pytest."""

import keras
import numpy as np

from snukeras._random import normal, quick_normal, quick_uniform
from snukeras.constraints import PCMConstraint
from snukeras.pcm import Chip, Converter, GenericPCM, SimulatedHardware, Tile, analog, calibrate


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


if __name__ == "__main__":
    for check in (numbers, devices, chips, constraint, tiles):
        check()
