"""Try the parts beside the layers on the backend of KERAS_BACKEND; not run by pytest itself.

Usage: check_other_parts.py FOLDER [CHECK ...]
Prints, as JSON, the errors of the checks by name, None where a check holds. Figures that all
backends must have in common go to FOLDER/BACKEND.npz; test_backends.py compares them.
"""

import json
import sys
import traceback
import warnings
from pathlib import Path

import keras
import numpy as np

import snukeras
from snukeras.layers import LIF, SNU, SSNU, ConvSNU2D

# Presets of three tasks, both units, a convolution, devices.
PRESETS = ("jsb_snu", "jsb_ssnu", "jsb_snu_loop_pcm", "jsb_lstm", "mnist_snu", "mnist_snu_conv")


def data(samples=16):
    rng = np.random.default_rng(0)
    x = (rng.random((samples, 6, 5)) < 0.4).astype("float32")
    return x, x[:, :, :3]


def model_of(rate=0.5, **arguments):
    """A small network whose weights are the same on all backends."""
    model = keras.Sequential(
        [
            keras.Input((6, 5)),
            snukeras.layers.SNU(8, return_sequences=True, name="snu", **arguments),
            keras.layers.Dense(3, activation="sigmoid", name="dense"),
        ]
    )
    rng = np.random.default_rng(1)
    model.set_weights([0.5 * rng.normal(size=w.shape) for w in model.get_weights()])
    model.compile(keras.optimizers.SGD(rate), "mse")
    return model


def fit(model, epochs=3, **arguments):
    """Train without shuffling; the losses and the weights at the end."""
    history = model.fit(
        *data(), epochs=epochs, batch_size=4, shuffle=False, verbose=0, **arguments
    ).history
    weights = {f"weight{number}": value for number, value in enumerate(model.get_weights())}
    return {"loss": history["loss"], **weights}


def array(value):
    return keras.ops.convert_to_numpy(value)


def constraint(folder):
    """Weights stay on the grid of a PCMConstraint through training."""
    held = snukeras.constraints.PCMConstraint(levels=5, w_max=1.0, seed=0)
    model = model_of(kernel_constraint=held)
    figures = fit(model)
    weights = array(model.layers[0].cell.kernel)
    np.testing.assert_allclose(4 * weights, np.round(4 * weights), atol=1e-5)
    assert len(np.unique(np.round(4 * weights))) > 1
    return figures


def noise(folder):
    """Gradients belong to noisy weights, updates to clean ones, and all else sees clean ones."""
    noise = snukeras.callbacks.PCMNoise(0.1, seed=0, schedule=lambda epoch: 1.0 - 0.2 * epoch)
    figures = fit(model_of(kernel_constraint="unit_norm"), callbacks=[noise])
    still = model_of(rate=0.0)
    before = still.get_weights()
    seen = fit(still, callbacks=[noise, snukeras.callbacks.SpikeMonitor(warn=False)])
    for one, other in zip(before, still.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    # The noise is fresh in every step, also where nothing else changes.
    assert len(set(np.round(seen["loss"], 6))) == 3
    assert "train_step" not in vars(still) and "make_train_function" not in vars(still)
    assert len({fit(model_of(), epochs=1)["loss"][0] for _ in range(2)}) == 1
    return figures | {f"still_{name}": value for name, value in seen.items()}


def clipping(folder):
    model = model_of()
    figures = fit(model, callbacks=[snukeras.callbacks.ClipWeights(1.5)])
    return figures


def devices_as_noise(folder):
    device = snukeras.pcm.GenericPCM()
    noise = snukeras.callbacks.PCMNoise(device, scale="column", time=60.0, seed=0)
    return fit(model_of(), callbacks=[noise])


def noise_undone(folder):
    """An error in a step leaves the model as it was."""
    model = model_of()
    before = model.get_weights()
    x, y = data()

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise RuntimeError("stopped")

    noise = snukeras.callbacks.PCMNoise(0.5, seed=0)
    # Of a step of JAX that fails, Keras itself leaves no weights.
    cases = [([noise, Stop()], y), ([noise], y[:, :5])]
    for callbacks, targets in cases[: 1 if keras.backend.backend() == "jax" else 2]:
        model.set_weights(before)
        try:
            model.fit(x, targets, batch_size=4, verbose=0, callbacks=callbacks)
        except Exception as error:
            assert (str(error) == "stopped") == (len(callbacks) == 2), error
        else:
            raise AssertionError("no error was raised")
    if keras.backend.backend() == "jax":
        model.set_weights(before)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    losses = [fit(each, epochs=1)["loss"] for each in (model, model_of())]
    np.testing.assert_allclose(*losses, rtol=1e-6)


def monitor(folder):
    """Rates in the logs are those that a trace counts."""
    monitor = snukeras.callbacks.SpikeMonitor(warn=False)
    model = model_of(rate=0.0)
    history = model.fit(*data(), epochs=2, batch_size=4, verbose=0, callbacks=[monitor]).history
    traced = snukeras.trace(model, data()[0])["snu"]["spikes"]
    np.testing.assert_allclose(history["snu/rate"], 2 * [np.mean(traced)], rtol=1e-5)
    assert 0 < history["snu/rate"][0] < 1
    return {name: history[f"snu/{name}"] for name in ("rate", "silent", "saturated")}


class Untold(keras.Model):
    """Not built when it is made, and without an argument `training`."""

    def __init__(self):
        super().__init__()
        self.units = snukeras.layers.SNU(4, return_sequences=True, name="units")

    def call(self, x):
        return self.units(x)


def untold(folder):
    """Models that Keras builds by tracing are calibrated, traced, and counted in training alone."""
    x = data()[0]
    traced = snukeras.trace(Untold(), x)
    assert [*traced] == ["units"] and traced["units"]["spikes"].shape == (*x.shape[:2], 4)
    model = Untold()
    rate = snukeras.initializers.calibrate(model, x, rate=0.3)["units"]
    model.compile(keras.optimizers.SGD(0.0), "mse")
    y = np.zeros((*x.shape[:2], 4))
    history = model.fit(
        x, y, epochs=2, verbose=0, validation_data=(0 * x, y),
        callbacks=[snukeras.callbacks.SpikeMonitor(warn=False)],
    ).history  # fmt: skip
    np.testing.assert_allclose(history["units/rate"], 2 * [rate], rtol=1e-5)


def monitor_warns(folder):
    model = model_of()
    model.layers[0].set_weights([0 * w for w in model.layers[0].get_weights()])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(*data(), verbose=0, callbacks=[snukeras.callbacks.SpikeMonitor()])
    assert any("have not spiked" in str(each.message) for each in caught)


def refused(folder):
    """What is TensorFlow's alone says so in one line."""
    if keras.backend.backend() == "tensorflow":
        return
    if keras.backend.backend() == "jax":
        held = snukeras.constraints.PCMConstraint(levels=5, rounding="feedback")
        _refuses(lambda: fit(model_of(kernel_constraint=held)), "stochastic")
    else:
        model = model_of()
        model(data()[0])
        _refuses(lambda: model.export(str(folder / "no.onnx"), format="onnx"), "TensorFlow")
    from snukeras.zoo import command

    _refuses(lambda: command.main(["train", "jsb_snu", "--runs", str(folder)]), "TensorFlow")
    from snukeras.export.command import main

    path = str(folder / "sparsemax.keras")
    keras.Sequential([keras.Input((6,)), keras.layers.Activation("sparsemax")]).save(path)
    _refuses(lambda: main([path, "--target", "onnx", "--output", str(folder / "no")]), "tensorflow")


def _refuses(function, word):
    import contextlib
    import io

    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            code = function()
    except ValueError as error:
        told.write(str(error))
    except SystemExit as error:
        code = error.code
        assert code, "exit code 0"
    else:
        assert isinstance(code, int) and code, "it was accepted"
    text = told.getvalue()
    assert word in text and "Traceback" not in text, text


def optimizer(folder):
    """Training with devices in the loop: the noise differs, its statistics do not."""
    model = model_of()
    inner = keras.optimizers.Adam(1e-2)
    model.compile(snukeras.optimizers.PCMOptimizer(inner, seed=0), "mse")
    history = model.fit(*data(), verbose=0, epochs=3)
    assert np.isfinite(history.history["loss"]).all()
    wide = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, use_bias=False)])
    target = np.tile(np.linspace(-0.5, 0.5, 64), (64, 1))
    wide.set_weights([target])
    wide.compile(
        snukeras.optimizers.PCMOptimizer(keras.optimizers.SGD(0.0), seed=0, w_max=1.0), "mse"
    )
    x = np.zeros((8, 64), "float32")
    wide.fit(x, x, verbose=0)
    difference = wide.get_weights()[0] - target
    return {"statistics": [100 * difference.mean(), difference.std()]}


def grapes(folder):
    """Inputs of a small network learn slower or faster by the factors of GRAPES."""
    model = model_of()
    wrapped = snukeras.optimizers.with_grapes(model)
    x, _ = data()
    np.testing.assert_array_equal(array(wrapped(x)), array(model(x)))
    wrapped.compile(keras.optimizers.SGD(0.5), "mse")
    figures = fit(wrapped, epochs=5)
    assert figures["loss"][-1] < figures["loss"][0]
    return figures


def analog(folder):
    """A network on tiles computes nearly what it did."""
    model, (x, _) = model_of(), data()
    net = snukeras.pcm.analog(model, seed=0)
    snukeras.pcm.calibrate(net, x)
    outputs = array(net(x))
    assert np.abs(outputs - array(model(x))).mean() < 0.1
    noisy = snukeras.pcm.analog(model, device=snukeras.pcm.GenericPCM(), seed=0)
    snukeras.pcm.calibrate(noisy, x)
    assert np.abs(noisy.predict(x, verbose=0) - noisy.predict(x, verbose=0)).max() > 1e-4
    x = np.tile(x, (20, 1, 1))
    return {
        "outputs": np.mean(outputs, axis=(0, 1)),
        "statistics": [np.mean(array(noisy(x))), np.std(array(noisy(x)) - array(net(x)))],
    }


def chip(folder):
    """Devices that hold a network: the same targets, programmed with the same statistics."""
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, use_bias=False)])
    model.set_weights([np.random.default_rng(0).normal(size=(64, 64))])
    held = snukeras.pcm.Chip(model, seed=0).model(3600.0).get_weights()[0]
    return {"statistics": [np.std(held - model.get_weights()[0])]}


def trace(folder):
    found = snukeras.trace(model_of(recurrent=True), data()[0])["snu"]
    assert found["spikes"].shape == (16, 6, 8)
    return {"spikes": found["spikes"], "membranes": found["membranes"]}


def zoo(folder):
    """Presets give their golden outputs."""
    from snukeras.zoo import presets

    for name in PRESETS:
        presets.verify(name)
    model = snukeras.zoo.load("jsb_snu")
    x, y, _ = snukeras.datasets.piano_roll.pad(snukeras.zoo.samples.read()[1])
    outputs = model.predict(x, verbose=0)
    assert outputs.shape == y.shape
    return {"outputs": outputs}


def export(folder):
    """An export folder holds the same network and the same conductances."""
    import onnx

    from snukeras.export import command, load_map

    path, out = Path(folder) / "small.keras", Path(folder) / "out"
    model_of(recurrent=True).save(path)
    code = command.main([str(path), "--target", "pcm", "--output", str(out)])
    assert code == 0, f"exit code {code}"
    graph = onnx.load(next(out.glob("*.onnx"))).graph
    figures = {f"onnx_{i.name}": onnx.numpy_helper.to_array(i) for i in graph.initializer}
    weights = load_map(out / "crossbar.snumap").weights()
    return figures | {f"map_{name}": value for name, value in weights.items()}


def torch_format(folder):
    """Keras's export for torch gives the outputs of Keras; on another backend Keras refuses it."""
    path = str(Path(folder) / "net.pt2")
    layers, every = keras.layers, {"return_sequences": True}
    networks = {
        "snu": [keras.Input((6, 5)), SNU(8, **every), layers.Dense(3)],
        "last": [keras.Input((6, 5)), SNU(8, recurrent=True, lateral_inhibition=True)],
        "soft": [keras.Input((6, 5)), SSNU(8, recurrent=True, **every)],
        "mask": [keras.Input((6, 5)), layers.Masking(), SNU(8, recurrent=True, **every)],
        "stateful": [keras.Input(batch_shape=(1, 6, 5)), SNU(8, stateful=True, **every)],
        "maps": [keras.Input((4, 6, 6, 1)), ConvSNU2D(2, 3, **every)],
        "lif": [keras.Input((6, 5)), LIF(5, **every)],
    }
    for name, parts in networks.items():
        keras.utils.set_random_seed(1)
        model = keras.Sequential(parts)
        shape = (1, *model.input_shape[1:])
        x = 2.0 * np.random.default_rng(0).normal(size=shape).astype("float32")
        x[:, 3] = 0.0
        model(x)
        if keras.backend.backend() != "torch":
            refuses(model, path, "backend")
            return
        if name == "stateful":
            refuses(model, path, "stateful=True")
            continue
        import torch

        model.export(path, format="torch", verbose=False)
        found = torch.export.load(path).module()(torch.from_numpy(x)).detach().numpy()
        np.testing.assert_allclose(found, array(model(x)), atol=1e-5, err_msg=name)
        assert np.abs(found).mean() > 0.01, name


def refuses(model, path, word):
    try:
        model.export(path, format="torch", verbose=False)
    except (ValueError, RuntimeError) as error:
        assert word in str(error), error
    else:
        raise AssertionError("Keras exported it")


CHECKS = (
    constraint,
    noise,
    clipping,
    devices_as_noise,
    noise_undone,
    monitor,
    untold,
    monitor_warns,
    optimizer,
    grapes,
    analog,
    chip,
    trace,
    zoo,
    export,
    refused,
    torch_format,
)


def main(folder, *names):
    """Run all checks, or those of some names."""
    errors, figures = {}, {}
    folder = Path(folder) / keras.backend.backend()
    folder.mkdir()
    for check in CHECKS:
        if names and check.__name__ not in names:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = check(folder) or {}
            figures |= {f"{check.__name__}/{name}": value for name, value in found.items()}
            errors[check.__name__] = None
        except BaseException:
            errors[check.__name__] = traceback.format_exc()
    np.savez(folder / "figures.npz", **figures)
    print(json.dumps(errors))


if __name__ == "__main__":
    main(*sys.argv[1:])
