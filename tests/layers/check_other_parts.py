"""Try the parts beside the layers on the backend of KERAS_BACKEND; not run by pytest itself.

Usage: check_other_parts.py FOLDER
Prints, as JSON, the errors of the checks by name, None where a check holds.
"""

import json
import sys
import traceback
import warnings
from pathlib import Path

import keras
import numpy as np

import snukeras


def data(samples=16):
    rng = np.random.default_rng(0)
    x = (rng.random((samples, 6, 5)) < 0.4).astype("float32")
    return x, x[:, :, :3]


def model_of(**arguments):
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((6, 5)),
            snukeras.layers.SNU(8, return_sequences=True, **arguments),
            keras.layers.Dense(3, activation="sigmoid"),
        ]
    )


def array(value):
    return keras.ops.convert_to_numpy(value)


def constraint(folder):
    """Weights stay on the grid of a PCMConstraint through training."""
    held = snukeras.constraints.PCMConstraint(levels=5, w_max=1.0, seed=0)
    model = model_of(kernel_constraint=held)
    model.compile("adam", "mse")
    model.fit(*data(), verbose=0)
    weights = keras.ops.convert_to_numpy(model.layers[0].cell.kernel)
    np.testing.assert_allclose(4 * weights, np.round(4 * weights), atol=1e-5)
    assert len(np.unique(np.round(4 * weights))) > 1


def refused(folder):
    """What is TensorFlow's alone says so in one line."""
    for callback in (snukeras.callbacks.PCMNoise(0.05), snukeras.callbacks.SpikeMonitor()):
        model = model_of()
        model.compile("adam", "mse")
        try:
            model.fit(*data(), verbose=0, callbacks=[callback])
        except ValueError as error:
            assert "TensorFlow" in str(error) and keras.backend.backend() in str(error)
            assert "\n" not in str(error)
        else:
            raise AssertionError(f"{type(callback).__name__} was accepted")


def optimizer(folder):
    model = model_of()
    model.compile(snukeras.optimizers.PCMOptimizer(keras.optimizers.Adam(1e-2), seed=0), "mse")
    history = model.fit(*data(), verbose=0, epochs=3)
    assert np.isfinite(history.history["loss"]).all()


def grapes(folder):
    """Inputs of a small network learn slower or faster by the factors of GRAPES."""
    model = model_of()
    wrapped = snukeras.optimizers.with_grapes(model)
    x, y = data()
    np.testing.assert_array_equal(array(wrapped(x)), array(model(x)))
    wrapped.compile(keras.optimizers.SGD(0.5), "mse")
    losses = wrapped.fit(x, y, verbose=0, epochs=5).history["loss"]
    assert losses[-1] < losses[0]


def analog(folder):
    """A network on tiles computes nearly what it did."""
    model, (x, _) = model_of(), data()
    net = snukeras.pcm.analog(model)
    snukeras.pcm.calibrate(net, x)
    assert np.abs(array(net(x)) - array(model(x))).mean() < 0.1


def trace(folder):
    model = model_of()
    assert snukeras.trace(model, data()[0])[model.layers[0].name]["spikes"].shape == (16, 6, 8)


def zoo(folder):
    model = snukeras.zoo.load("jsb_snu")
    x, y, _ = snukeras.datasets.piano_roll.pad(snukeras.zoo.samples.read()[1])
    outputs = keras.ops.convert_to_numpy(model.predict(x, verbose=0))
    assert outputs.shape == y.shape and np.isfinite(outputs).all()
    np.save(Path(folder) / f"jsb_{keras.backend.backend()}.npy", outputs)


def export(folder):
    from snukeras.export import command

    path = Path(folder) / "small.keras"
    model_of().save(path)
    code = command.main([str(path), "--target", "pcm", "--output", str(Path(folder) / "out")])
    assert code == 0, f"exit code {code}"


CHECKS = (constraint, optimizer, grapes, analog, trace, zoo, export, refused)


def main(folder):
    errors = {}
    for check in CHECKS:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                check(folder)
            errors[check.__name__] = None
        except BaseException:
            errors[check.__name__] = traceback.format_exc()
    print(json.dumps(errors))


if __name__ == "__main__":
    main(*sys.argv[1:])
