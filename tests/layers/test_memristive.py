"""All-memristive layers: against a slow NumPy network, and nothing lost between save and load."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from snukeras.layers import (
    SNU,
    AllMemristive,
    LevelTuned,
    PhaseChangeNeurons,
    PhaseChangeSynapses,
    Uncoupled,
    WinnerTakesAll,
)
from snukeras.pcm import ExpStepPCM, NandakumarPCM

FEATURES, UNITS = 12, 3
LEVELS = [20.0, 30.0, 40.0]


class Device:
    """One mean NandakumarPCM device."""

    def __init__(self):
        self.reset(0.0)

    def reset(self, t):
        self.g, self.n, self.t = 0.1, 0, t

    def set(self, t):
        self.n, self.t = self.n + 1, t
        self.g += -0.084 * self.g + 0.880 + 1.40 * np.exp(-self.n / 2.6)
        self.g = min(max(self.g, 0.1), 20.0)

    def read(self, t):
        return max(self.g * max((t - self.t) / 38.6, 1.0) ** -0.04, 0.1)


class Network:
    """The network without noise, with depression 1, neuron after neuron."""

    def __init__(self, coupling, initial, window, step_time):
        self.coupling, self.window, self.step_time = coupling, window, step_time
        self.synapses = [[Device() for _ in range(UNITS)] for _ in range(FEATURES)]
        for device in np.ravel(self.synapses):
            for _ in range(initial):
                device.set(0.0)
        self.cells = [Device() for _ in range(UNITS)]
        self.last = [-(10**9)] * FEATURES
        self.steps = 0
        self.events = dict.fromkeys(
            ("synapse_set", "synapse_reset", "neuron_set", "neuron_reset"), 0
        )

    def enabled(self, s):
        if not isinstance(self.coupling, LevelTuned):
            return [k for k in range(UNITS) if s[k] > self.coupling.level]
        enabled = []
        for k in range(UNITS):
            if s[k] > self.coupling.levels[k]:
                enabled.append(k)
            elif self.coupling.chain:
                break
        return enabled[-1:]

    def step(self, x, pulse_input=15.0, threshold=0.35, most=4):
        self.steps += 1
        t = self.steps * self.step_time
        read = [[device.read(t) for device in row] for row in self.synapses]
        s = [sum(x[i] * read[i][k] for i in range(FEATURES)) for k in range(UNITS)]
        pulses = {k: min(int(s[k] // pulse_input), most) for k in self.enabled(s)}
        resting, fired = set(), set()
        for m in range(1, most + 1):
            due = [
                k
                for k, n in pulses.items()
                if k not in resting and m * n // most > (m - 1) * n // most
            ]
            for k in due:
                self.cells[k].set(t)
                self.events["neuron_set"] += 1
            over = [k for k in due if self.cells[k].read(t) / 20.0 >= threshold]
            if over and self.coupling.one_winner:
                over = [max(over, key=lambda k: self.cells[k].read(t))]
            ended = range(UNITS) if over and self.coupling.one_winner else over
            for k in ended:
                self.events["neuron_reset"] += self.cells[k].n > 0
                if self.cells[k].n:
                    self.cells[k].reset(t)
            resting |= set(ended)
            fired |= set(over)
        for i in range(FEATURES):
            if x[i]:
                self.last[i] = self.steps
            for k in fired:
                if self.steps - self.last[i] < self.window:
                    self.synapses[i][k].set(t)
                    self.events["synapse_set"] += 1
                elif read[i][k] > 1.0:
                    self.synapses[i][k].reset(t)
                    self.events["synapse_reset"] += 1
        return [float(k in fired) for k in range(UNITS)], [c.g / 20.0 for c in self.cells]


def layer_of(coupling, device=None, window=1, step_time=1e-3, depression=1.0, initial=8, **more):
    return AllMemristive(
        UNITS,
        coupling,
        synapses=PhaseChangeSynapses(
            UNITS, device, initial, depression=depression, window=window, seed=3
        ),
        neurons=PhaseChangeNeurons(
            UNITS, device, pulse_input=15.0, step_time=step_time, seed=4
        ),
        seed=5,
        **more,
    )  # fmt: skip


def spikes(samples, steps=5, seed=0):
    """Three noisy patterns of different size."""
    random = np.random.default_rng(seed)
    patterns = np.zeros((3, FEATURES))
    patterns[0, :3] = patterns[1, 2:7] = patterns[2, 5:] = 1
    chance = 0.9 * patterns[random.integers(0, 3, samples)] + 0.05
    return (random.random((samples, steps, FEATURES)) < chance[:, None]).astype("float32")


def fitted(model, x, **arguments):
    model.compile(jit_compile=False)  # compiling would take longer than the training
    model.fit(x, shuffle=False, verbose=0, **arguments)
    return model


def compiled(layer, x, **arguments):
    """The layer's outputs; eagerly each step would take milliseconds."""
    layer.build(x.shape)
    return tf.function(lambda: layer(x, **arguments))()


def model_of(layer, steps=5):
    return keras.Sequential([keras.Input((steps, FEATURES)), layer])


@pytest.mark.some_cases(1)
@pytest.mark.parametrize(
    ("coupling", "window"),
    [
        (LevelTuned(LEVELS), 1),
        (LevelTuned(LEVELS, chain=True), 3),
        (WinnerTakesAll(20.0), 3),
        (Uncoupled(), 1),
    ],
    ids=["level", "chain", "winner", "uncoupled"],
)
def test_learning_is_that_of_the_slow_network(coupling, window):
    step_time = 5.0  # so that devices drift
    layer = layer_of(
        coupling, NandakumarPCM(noise=0.0), window, step_time, return_potentials=True
    )  # fmt: skip
    x = spikes(24)
    found = compiled(layer, x, training=True)
    slow = Network(coupling, 8, window, step_time)
    wanted = np.array([[slow.step(step) for step in sample] for sample in x])
    np.testing.assert_array_equal(found[0], wanted[:, :, 0])
    np.testing.assert_allclose(found[1], wanted[:, :, 1], atol=1e-5)
    g = [[device.g for device in row] for row in slow.synapses]
    np.testing.assert_allclose(layer.synapses.conductance, g, rtol=1e-4)
    assert layer.programming_events() == slow.events
    assert wanted[:, :, 0].sum() > 3 and slow.events["synapse_reset"] > 3


@pytest.mark.slow
def test_patterns_of_different_size_go_to_the_neurons_of_their_levels():
    images = np.zeros((3, 30), "float32")
    images[0, :6] = images[1, :14] = images[2, :30] = 1
    layer = AllMemristive(3, LevelTuned([20.0, 70.0, 200.0]), seed=1)
    x = np.repeat(images[np.random.default_rng(0).integers(0, 3, 60), None], 5, 1)
    model = fitted(keras.Sequential([keras.Input((5, 30)), layer]), x, epochs=2)
    learned = np.asarray(layer.synapses.conductance).T > 3.0
    assert (learned == (images > 0)).mean() > 0.95
    fired = model.predict(np.repeat(images[:, None], 5, 1), verbose=0).sum(axis=1) > 0
    np.testing.assert_array_equal(fired, np.eye(3, dtype=bool))


def test_neurons_fire_when_enough_has_crystallised_and_differ_from_cycle_to_cycle():
    drive = np.full((1, 400, 1), 60.0, "float32")

    def intervals(noise):
        layer = PhaseChangeNeurons(
            1, NandakumarPCM(noise=noise), pulse_input=50.0, max_pulses=4, seed=1
        )
        return np.diff(np.flatnonzero(np.asarray(compiled(layer, drive))))

    assert set(intervals(0.0)) == {8}  # pulses of the mean device up to 0.35 * 20 uS
    noisy = intervals(1.0)
    assert noisy.std() > 1.0 and 5.0 < noisy.mean() < 9.0


def test_strong_inputs_fire_sooner_and_weak_ones_never():
    drive = np.full((1, 60, 3), [40.0, 60.0, 1000.0], "float32")
    layer = PhaseChangeNeurons(3, NandakumarPCM(noise=0.0), pulse_input=50.0)
    assert np.asarray(compiled(layer, drive)).sum(axis=1).tolist() == [[0.0, 7.0, 30.0]]


def test_synapses_read_with_noise_around_their_conductance():
    layer = PhaseChangeSynapses(2, seed=1)
    x = np.zeros((1, 500, FEATURES), "float32")
    x[:, :, 3] = 1
    read = np.asarray(compiled(layer, x))[0]
    np.testing.assert_allclose(read.mean(axis=0), layer.conductance[3], rtol=0.02)
    assert (read.std(axis=0) > 0.2).all()


@pytest.mark.slow
def test_the_batch_size_changes_nothing():
    x = spikes(12)
    one, four = (fitted(model_of(layer_of(LevelTuned(LEVELS))), x, batch_size=n) for n in (1, 4))
    for a, b in zip(one.get_weights(), four.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_saved_model_goes_on_bit_for_bit_also_after_predictions(tmp_path):
    layer = AllMemristive(UNITS, LevelTuned(LEVELS))  # a random seed
    model = fitted(model_of(layer), spikes(6))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    before = model.get_weights()
    model.predict(spikes(3), verbose=0)
    model.predict(spikes(3), verbose=0)
    for m in (model, loaded):
        fitted(m, spikes(6, seed=1))
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(model.get_weights(), before, strict=True))


@pytest.mark.slow
def test_seeds_make_networks_that_differ_and_repeat():
    def weights(seed):
        layer = AllMemristive(UNITS, WinnerTakesAll(), seed=seed)
        layer.build((None, 5, FEATURES))
        return layer.get_weights()[0]

    np.testing.assert_array_equal(weights(1), weights(1))
    assert (weights(1) != weights(2)).mean() > 0.9


def test_configs_hold_every_argument():
    layer = AllMemristive(
        2,
        LevelTuned([1.0, 2.0], chain=True),
        PhaseChangeSynapses(2, ExpStepPCM(g_max=10.0), 3, 0.5, 2.0, 4, seed=6),
        PhaseChangeNeurons(2, NandakumarPCM(12.0), 0.5, 7.0, 3, 0.1, seed=7),
        return_potentials=True,
        seed=8,
    )
    config = layer.get_config()
    again = AllMemristive.from_config(config)
    assert again.get_config() == config
    assert again.coupling.levels == [1.0, 2.0] and again.coupling.chain
    assert again.synapses.device.g_max == 10.0 and again.neurons.device.g_max == 12.0
    copy = keras.models.clone_model(model_of(layer_of(Uncoupled(2.0))))
    assert copy.layers[0].coupling.level == 2.0 and not copy.layers[0].coupling.one_winner


@pytest.mark.slow
def test_it_learns_below_a_layer_that_trains_by_gradients():
    model = keras.Sequential(
        [keras.Input((5, FEATURES)), layer_of(LevelTuned(LEVELS)), SNU(4), keras.layers.Dense(1)]
    )
    model.compile("sgd", "mse", jit_compile=False)
    before = model.layers[0].get_weights()
    model.fit(spikes(8), np.ones((8, 1)), verbose=0)
    assert any(
        (a != b).any() for a, b in zip(model.layers[0].get_weights(), before, strict=True)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: LevelTuned([2.0, 1.0]), ValueError, "do not decrease"),
        (lambda: LevelTuned([]), ValueError, "do not decrease"),
        (lambda: LevelTuned([-1.0]), ValueError, "levels"),
        (lambda: AllMemristive(2, LevelTuned([1.0])), ValueError, "each of the 2 neurons"),
        (lambda: AllMemristive(2, "wta"), TypeError, "WinnerTakesAll"),
        (lambda: AllMemristive(0, Uncoupled()), ValueError, "units"),
        (lambda: AllMemristive(2, Uncoupled(), PhaseChangeSynapses(3)), ValueError, "2 units"),
        (lambda: AllMemristive(2, Uncoupled(), neurons=SNU(2)), TypeError, "PhaseChangeNeurons"),
        (lambda: PhaseChangeSynapses(2, depression=1.5), ValueError, "depression"),
        (lambda: PhaseChangeSynapses(2, device="pcm"), TypeError, "PulsedPCM"),
        (lambda: PhaseChangeSynapses(2).build((None, 3)), ValueError, "batch, steps, features"),
        (lambda: PhaseChangeNeurons(2).build((None, 5, 3)), ValueError, "2 units"),
        (lambda: PhaseChangeNeurons(2, threshold=0.0), ValueError, "threshold"),
    ],
)
def test_errors_say_what_is_allowed(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_there_are_no_events_before_the_layer_is_built():
    with pytest.raises(ValueError, match="Call or fit it"):
        AllMemristive(2, Uncoupled()).programming_events()


def test_the_last_batch_of_a_prediction_may_be_smaller():
    layer = AllMemristive(UNITS, coupling=WinnerTakesAll(), return_potentials=True, seed=1)
    model = keras.Sequential([keras.Input((None, FEATURES)), layer])
    x = np.random.default_rng(0).integers(0, 2, (5, 4, FEATURES)).astype("float32")
    spikes, potentials = model.predict(x, batch_size=3, verbose=0)
    assert spikes.shape == potentials.shape == (5, 4, UNITS) and potentials.max() > 0
    open_shape = [tf.TensorSpec((None, None, FEATURES))]
    layer.seed_generator.state.assign([7, 0])
    drawn = tf.function(lambda x: layer(x), input_signature=open_shape)(x)
    layer.seed_generator.state.assign([7, 0])
    for open_one, known in zip(drawn, layer(x), strict=True):
        np.testing.assert_allclose(open_one, known, rtol=1e-5)
