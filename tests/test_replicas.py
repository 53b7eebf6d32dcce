"""Constraints and noise on two replicas (in a process of its own: it needs two logical CPUs)."""

import json
import subprocess
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.slow

SCRIPT = """
import json

import keras
import numpy as np
import tensorflow as tf

import snukeras
from snukeras.callbacks import PCMNoise, SpikeMonitor
from snukeras.constraints import PCMConstraint

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
x, y = np.random.rand(64, 8), np.random.rand(64, 5)
results = {}


def train(constraint=None, callbacks=(), rate=0.01):
    with strategy.scope():
        constraint = constraint or PCMConstraint(levels=4, w_max=1.0, seed=1)
        model = keras.Sequential(
            [
                keras.Input((8,)),
                keras.layers.Dense(
                    5, kernel_constraint=constraint, kernel_initializer=keras.initializers.Ones()
                ),
            ]
        )
        model.compile(keras.optimizers.SGD(rate), "mse")
    model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=list(callbacks))
    return [v.numpy().tolist() for v in model.layers[0].kernel.value.values]


class Clip(keras.constraints.Constraint):
    def __call__(self, w):
        return w


results["constraint"] = train()
try:
    train(PCMConstraint())
except ValueError as error:
    results["outside"] = str(error)
results["still"] = train(Clip(), [PCMNoise(0.5)], rate=0.0)
results["clean"] = train(Clip())
results["noisy"] = train(Clip(), [PCMNoise(0.5, seed=1)])

spikes = (np.random.default_rng(0).random((32, 6, 8)) < 0.3).astype("float32")
with strategy.scope():
    model = keras.Sequential([keras.Input((6, 8)), snukeras.layers.SNU(10, name="snu")])
    model.compile(keras.optimizers.SGD(0.0), "mse")
monitor = SpikeMonitor()
history = model.fit(
    spikes, np.zeros((32, 10)), batch_size=8, verbose=0, callbacks=[monitor]
).history
results["rate"] = [
    history["snu/rate"][0],
    float(snukeras.trace(model, spikes)["snu"]["spikes"].mean()),
]
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def results():
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


def test_all_replicas_round_alike(results):
    first, second = np.asarray(results["constraint"])
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first * 3, np.round(first * 3), atol=1e-4)


def test_a_constraint_from_outside_the_strategy_is_refused(results):
    # Each replica would round by its own draws, and their weights would drift apart.
    assert "strategy.scope()" in results["outside"]


def test_noise_on_two_replicas(results):
    still, clean, noisy = (np.asarray(results[name]) for name in ("still", "clean", "noisy"))
    # Without a learning rate nothing moves: the clean weights are put back on both replicas.
    np.testing.assert_array_equal(still, np.ones((2, 8, 5)))
    for replicas in (clean, noisy):
        np.testing.assert_array_equal(replicas[0], replicas[1])
        assert not np.array_equal(replicas[0], np.ones((8, 5)))
    assert 1e-4 < np.abs(clean - noisy).max() < 0.5


def test_spikes_are_counted_on_all_replicas(results):
    counted, traced = results["rate"]
    assert counted == pytest.approx(traced, abs=1e-5)
