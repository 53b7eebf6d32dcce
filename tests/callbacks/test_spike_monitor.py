"""SpikeMonitor: rates in the logs, a warning that helps, at little cost."""

import csv
import warnings

import keras
import numpy as np
import pytest

import snukeras
from snukeras.callbacks import PCMNoise, SpikeMonitor
from snukeras.layers import PAPER, SNU, SSNU, ConvSNU2D
from snukeras.network import observers


def data(rate=0.3, samples=32, steps=6, features=8):
    random = np.random.default_rng(0)
    x = (random.random((samples, steps, features)) < rate).astype("float32")
    return x, random.random((samples, 3)).astype("float32")


def network(threshold=0.2, **arguments):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([
        keras.Input((None, 8)),
        keras.layers.Masking(),
        SNU(10, **{**PAPER, "threshold": threshold}, return_sequences=True, name="first"),
        SSNU(5, return_sequences=True),
        SNU(3, threshold=0.2, name="second"),
    ])  # fmt: skip
    model.compile(keras.optimizers.SGD(0.0), "mse", **arguments)
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"jit_compile": True}, marks=pytest.mark.slow),
        pytest.param({"steps_per_execution": 2}, marks=pytest.mark.slow),
        pytest.param({"run_eagerly": True}, marks=pytest.mark.slow),
    ],
)
def test_history_has_the_rates_of_the_spikes(options):
    model, (x, y) = network(**options), data()
    x[:8, 3:] = 0  # masked
    history = model.fit(
        x, y, batch_size=8, epochs=2, verbose=0, validation_split=0.0,
        callbacks=[SpikeMonitor(saturated=0.5)],
    ).history  # fmt: skip
    mask = np.any(x, axis=-1)
    traced = snukeras.trace(model, x)
    for name in ("first", "second"):
        rates = traced[name]["spikes"][mask].mean(axis=0)
        # The weights never move, so both epochs have the rates of the trace.
        assert history[f"{name}/rate"] == pytest.approx([rates.mean()] * 2, abs=1e-5)
        assert history[f"{name}/silent"] == pytest.approx([(rates == 0).mean()] * 2)
        assert history[f"{name}/saturated"] == pytest.approx([(rates > 0.5).mean()] * 2)
    assert not any(key.startswith("ssnu") for key in history)


@pytest.mark.slow
def test_the_filters_of_a_convolution_are_its_units():
    keras.utils.set_random_seed(1)
    layer = ConvSNU2D(4, 3, threshold=0.3, return_sequences=True)
    model = keras.Sequential([keras.Input((5, 6, 6, 1)), layer, keras.layers.Flatten()])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    x = np.random.default_rng(0).random((8, 5, 6, 6, 1)).astype("float32")
    history = model.fit(x, np.zeros((8, 320)), verbose=0, callbacks=[SpikeMonitor()]).history
    rates = layer(x).numpy().mean(axis=(0, 1, 2, 3))
    assert history[f"{layer.name}/rate"] == pytest.approx([rates.mean()], abs=1e-5)
    assert history[f"{layer.name}/silent"] == pytest.approx([(rates == 0).mean()])


@pytest.mark.slow
def test_a_silent_layer_is_told_once_with_what_helps():
    model, (x, y) = network(threshold=100.0), data()
    with pytest.warns(UserWarning, match=r"100% of the units of 'first' have not spiked") as told:
        model.fit(x, y, epochs=3, verbose=0, callbacks=[SpikeMonitor()])
    (said,) = [str(w.message) for w in told if "of the units" in str(w.message)]
    assert "snukeras.initializers.calibrate(model, x)" in said


@pytest.mark.slow
def test_a_silent_layer_is_told_before_a_long_epoch_ends():
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            assert batch < 25, "no warning in 25 batches"

    model, (x, y) = network(threshold=100.0), data(samples=60)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with pytest.raises(UserWarning, match="have not spiked"):
            model.fit(x, y, batch_size=1, verbose=0, callbacks=[SpikeMonitor(), Stop()])


@pytest.mark.slow
def test_a_saturated_layer_is_told_and_a_busy_one_is_not(recwarn):
    x, y = data()
    model = network(threshold=-5.0)
    with pytest.warns(UserWarning, match="'first' spike at every step"):
        model.fit(x, y, verbose=0, callbacks=[SpikeMonitor()])
    recwarn.clear()
    network(threshold=-5.0).fit(x, y, verbose=0, callbacks=[SpikeMonitor(warn=False)])
    keras.utils.set_random_seed(1)
    model = network()
    snukeras.initializers.calibrate(model, x)
    model.fit(x, y, verbose=0, callbacks=[SpikeMonitor()])
    assert not [w for w in recwarn if "of the units" in str(w.message)]


class Untold(keras.Model):
    """A model whose call has no argument `training`, so that Keras tells its layers nothing."""

    def __init__(self):
        super().__init__()
        self.units = SNU(10, return_sequences=True, name="units")
        self.read = keras.layers.Dense(3)

    def call(self, x):
        return self.read(self.units(x)[:, -1])


def test_training_steps_alone_are_counted_in_a_model_that_is_not_told_of_training():
    x, y = data()
    model = Untold()
    model.compile(keras.optimizers.SGD(0.0), "mse")
    rates = snukeras.initializers.calibrate(model, x, rate=0.3)
    history = model.fit(
        x, y, epochs=2, verbose=0, validation_data=(0 * x, y), callbacks=[SpikeMonitor()]
    ).history
    assert history["units/rate"] == pytest.approx([rates["units"]] * 2)


def test_a_layer_that_hardly_spikes_is_told():
    x, _ = data(samples=200)
    x[1:] = 0  # many units spike, on one sample of 200
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((None, 8)), SNU(10, name="rare")])
    model.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="the units of 'rare' hardly spike"):
        model.fit(x, np.zeros((200, 10)), verbose=0, callbacks=[SpikeMonitor()])


def test_the_logs_reach_the_callbacks_that_follow(tmp_path):
    model, (x, y) = network(), data()
    log = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
    model.fit(x, y, epochs=2, verbose=0, callbacks=[SpikeMonitor(), log])
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    assert {"first/rate", "second/silent"} <= set(rows[1])


def test_tensorboard_has_the_rates(tmp_path):
    pytest.importorskip("tensorboard")
    model, (x, y) = network(), data()
    board = keras.callbacks.TensorBoard(str(tmp_path))
    model.fit(x, y, verbose=0, callbacks=[SpikeMonitor(), board])
    (events,) = (tmp_path / "train").glob("events*")
    assert b"epoch_first/rate" in events.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("monitor_first", [True, False])
def test_it_stands_beside_noise_and_leaves_nothing_behind(monitor_first):
    model, (x, y) = network(), data()
    model.fit(x, y, verbose=0)
    weights = model.get_weights()
    callbacks = [SpikeMonitor(), PCMNoise(0.5, seed=1)]
    plain = model.evaluate(x, y, verbose=0)
    history = model.fit(
        x, y, verbose=0, callbacks=callbacks if monitor_first else callbacks[::-1]
    ).history
    assert history["loss"][0] != pytest.approx(plain, abs=1e-6), "the noise was lost"
    assert 0 < history["first/rate"][0] < 1
    assert not any(observers.of(layer) for layer in model.layers)
    again = model.fit(x, y, verbose=0).history
    assert set(again) == {"loss"} and again["loss"][0] == pytest.approx(plain, abs=1e-6)
    for old, new in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.slow
def test_a_model_that_was_fitted_before_is_watched_and_one_without_units_refused():
    model, (x, y) = network(), data()
    model.fit(x, y, verbose=0)
    monitor = SpikeMonitor()
    for _ in range(2):
        assert 0 < model.fit(x, y, verbose=0, callbacks=[monitor]).history["first/rate"][0] < 1
    with pytest.raises(ValueError, match="saturated"):
        SpikeMonitor(saturated=1.0)
    dense = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    dense.compile("sgd", "mse")
    with pytest.raises(ValueError, match="needs a model with spiking layers"):
        dense.fit(x[:, 0], y, verbose=0, callbacks=[SpikeMonitor()])
