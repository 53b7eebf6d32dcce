"""PCMOptimizer: accumulate, pulse, refresh, read; and nothing lost between save and load."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from snukeras.constraints import PCMConstraint
from snukeras.layers import SNU
from snukeras.optimizers import PCMOptimizer
from snukeras.pcm import ExpStepPCM, NandakumarPCM

QUIET = {"noise": 0.0}


def dense(inputs=6, units=5, **arguments):
    """A Dense layer with its variables."""
    layer = keras.layers.Dense(
        units, kernel_initializer=keras.initializers.RandomUniform(-0.6, 0.6, seed=3), **arguments
    )
    layer.build((None, inputs))
    return layer


def built(inner=None, layer=None, **arguments):
    """An optimizer for the kernel of one layer, with 8 uS per unit of weight, and that layer."""
    layer = layer or dense(use_bias=False)
    arguments = {"device": NandakumarPCM(**QUIET), "w_max": 2.5, "seed": 1, **arguments}
    optimizer = PCMOptimizer(inner or keras.optimizers.SGD(1.0), **arguments)
    optimizer.build(layer.trainable_variables)
    return optimizer, layer


class Rule:
    """The rule for noiseless NandakumarPCM devices in plain NumPy, one pair after the other."""

    g_max, w_max, epsilon, step_time = 20.0, 2.5, 0.75, 5.0
    above, within, every, most, programming = 4.0, 2.0, 3, 2, 20
    scale = np.float32(g_max / w_max)

    def __init__(self, weights):
        self.clock, self.steps = 0.0, 0
        n = weights.size
        self.g, self.n, self.last = np.zeros((2, n)), np.zeros((2, n)), np.zeros((2, n))
        self.count, self.refreshes = np.zeros((2, n), int), np.zeros(n, int)
        self.chi = np.zeros(n, "float32")
        for pair, weight in enumerate(weights.ravel()):
            self.program(pair, weight * self.scale)

    def pulse(self, device, pair):
        self.n[device, pair] += 1
        g, memory = self.g[device, pair], np.exp(-self.n[device, pair] / 2.6)
        g += -0.084 * g + 0.880 + 1.40 * memory
        self.g[device, pair] = np.clip(g, 0.1, self.g_max)
        self.last[device, pair] = self.clock
        self.count[device, pair] += 1

    def read(self, pair):
        age = np.maximum((self.clock - self.last[:, pair]) / 38.6, 1.0)
        return np.clip(self.g[:, pair] * age**-0.04, 0.1, self.g_max)

    def program(self, pair, target):
        self.g[:, pair], self.n[:, pair], self.last[:, pair] = 0.1, 0, self.clock
        for _ in range(self.programming):
            plus, minus = self.read(pair)
            missing = target - (plus - minus)
            if abs(missing) <= self.epsilon:
                break
            self.pulse(0 if missing > 0 else 1, pair)

    def step(self, changes):
        self.clock += self.step_time
        self.steps += 1
        for pair, change in enumerate(changes):
            self.chi[pair] += change * self.scale
            whole = int(self.chi[pair] / self.epsilon)  # towards zero
            whole = max(-self.most, min(self.most, whole))
            self.chi[pair] -= whole * self.epsilon
            for _ in range(abs(whole)):
                self.pulse(0 if whole > 0 else 1, pair)
            plus, minus = self.read(pair)
            saturated = max(plus, minus) > self.above and abs(plus - minus) < self.within
            if self.steps % self.every == 0 and saturated:
                self.refreshes[pair] += 1
                self.program(pair, plus - minus)

    def weights(self):
        pairs = np.array([self.read(pair) for pair in range(self.chi.size)])
        return (pairs[:, 0] - pairs[:, 1]) / self.scale


@pytest.mark.some_cases(1)
@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_step_is_the_rule_of_the_reference(jit_compile):
    layer = dense(use_bias=False)
    rule = Rule(layer.kernel.numpy())
    optimizer, _ = built(
        layer=layer,
        granularity=rule.epsilon,
        max_pulses=rule.most,
        refresh_every=rule.every,
        refresh_above=rule.above,
        refresh_within=rule.within,
        programming_pulses=rule.programming,
        step_time=rule.step_time,
    )
    np.testing.assert_allclose(layer.kernel.numpy().ravel(), rule.weights(), atol=1e-5)
    apply = tf.function(
        lambda gradient: optimizer.apply([gradient], [layer.kernel]), jit_compile=jit_compile
    )
    random = np.random.default_rng(0)
    path = layer.kernel.path
    for _ in range(50):
        gradient = random.normal(0.0, 0.1, layer.kernel.shape).astype("float32")
        before = layer.kernel.numpy()
        apply(tf.constant(gradient))
        rule.step(((before - gradient) - before).ravel())
        np.testing.assert_allclose(layer.kernel.numpy().ravel(), rule.weights(), atol=1e-4)
    flat = (2, layer.kernel.numpy().size)
    np.testing.assert_array_equal(optimizer.pulse_counts()[path].reshape(flat), rule.count)
    np.testing.assert_array_equal(optimizer.refresh_counts()[path].ravel(), rule.refreshes)
    np.testing.assert_allclose(optimizer.conductances()[path].reshape(flat), rule.g, atol=1e-3)
    np.testing.assert_allclose(optimizer.accumulator.numpy(), rule.chi, atol=1e-3)
    # The run has seen what it is to test.
    assert rule.refreshes.sum() > 20 and rule.count.sum() > 500
    assert np.any(rule.clock - rule.last > 38.6)


@pytest.mark.some_cases(1)
@pytest.mark.parametrize("constraint", ["non_neg", "unit_norm"])
def test_constraints_do_not_rectify_read_noise(constraint):
    layer = dense(30, 40, use_bias=False, kernel_constraint=constraint)
    kernel = np.abs(np.random.default_rng(0).normal(size=(30, 40))).astype("float32")
    kernel /= np.linalg.norm(kernel, axis=0)
    kernel[:5] = 0.0
    layer.kernel.assign(kernel)
    optimizer, _ = built(layer=layer, device=NandakumarPCM(drift=0.0), refresh_every=None)
    before = np.subtract(*optimizer.conductances()[layer.kernel.path]) / 8.0
    apply = tf.function(lambda: optimizer.apply([tf.zeros(layer.kernel.shape)], [layer.kernel]))
    for _ in range(150):
        apply()
    after = np.subtract(*optimizer.conductances()[layer.kernel.path]) / 8.0
    # What programming missed is put right once; nothing creeps.
    assert abs(after.mean() - before.mean()) < 0.01
    assert np.abs(after[:5]).mean() < 0.05
    if constraint == "unit_norm":
        norms = np.linalg.norm(after, axis=0)
        assert abs(norms.mean() - 1.0) < 0.1


@pytest.mark.slow
def test_constraints_still_hold_what_updates_would_break():
    layer = dense(30, 40, use_bias=False, kernel_constraint="non_neg")
    layer.kernel.assign(np.full((30, 40), 0.3, "float32"))
    optimizer, _ = built(layer=layer, device=NandakumarPCM(drift=0.0), refresh_every=None)
    for _ in range(60):
        optimizer.apply([tf.fill(layer.kernel.shape, 0.02)], [layer.kernel])
    held = np.subtract(*optimizer.conductances()[layer.kernel.path]).ravel()
    held = held + optimizer.accumulator.numpy()  # uS
    # A pulse that went below 0 is answered in the next step.
    assert np.mean(held < -0.5) < 0.1
    assert -0.1 < held.mean() < 0.5


def test_truncates_towards_zero_and_keeps_the_rest():
    optimizer, layer = built(granularity=0.8, refresh_every=None, max_pulses=3)
    counts = optimizer.pulse_counts()[layer.kernel.path].reshape(2, -1).copy()
    wanted = np.zeros(30, "float32")
    wanted[:6] = [-0.5, 0.5, -1.0, 1.0, -8.0, 8.0]  # uS; 8 uS per unit of weight
    optimizer.apply([(-wanted / 8.0).reshape(6, 5)], [layer.kernel])
    new = optimizer.pulse_counts()[layer.kernel.path].reshape(2, -1) - counts
    np.testing.assert_array_equal(new[0, :6], [0, 0, 0, 1, 0, 3])
    np.testing.assert_array_equal(new[1, :6], [0, 0, 1, 0, 3, 0])
    assert not new[:, 6:].any()
    left = optimizer.accumulator.numpy()[:6]
    np.testing.assert_allclose(left, [-0.5, 0.5, -0.2, 0.2, -5.6, 5.6], atol=1e-5)


@pytest.mark.slow
def test_the_model_holds_a_fresh_reading_after_each_step():
    layer = dense(use_bias=False)
    optimizer, _ = built(layer=layer, device=NandakumarPCM(), refresh_every=None)
    held = np.subtract(*optimizer.conductances()[layer.kernel.path]) / 8.0
    readings = [layer.kernel.numpy()]
    for _ in range(200):
        optimizer.apply([tf.zeros(layer.kernel.shape)], [layer.kernel])
        readings.append(layer.kernel.numpy())
    np.testing.assert_array_equal(
        np.subtract(*optimizer.conductances()[layer.kernel.path]) / 8.0, held
    )
    # Read noise of two devices, at least 0.13 uS each, at most 0.13 + 0.03 * 12 uS.
    spread = np.std(readings[:30], axis=0) * 8.0
    assert 0.1 < np.median(spread) < 0.6
    # Drift: after 200 s they have lost a part of (200 / 38.6) ** -0.04.
    large = np.abs(held) > 0.3
    lost = np.mean(np.abs(readings[-20:]), axis=(0,))[large] / np.abs(held)[large]
    assert 0.87 < np.mean(lost) < 0.99


def test_time_passes_only_as_told():
    optimizer, layer = built(step_time=2.0)
    fresh = layer.kernel.numpy()
    optimizer.read()
    np.testing.assert_array_equal(layer.kernel.numpy(), fresh)
    optimizer.read(wait=38.6 * 100)
    plus, minus = optimizer.conductances()[layer.kernel.path]
    drifted = np.maximum(plus * 100**-0.04, 0.1) - np.maximum(minus * 100**-0.04, 0.1)
    np.testing.assert_allclose(layer.kernel.numpy(), drifted / 8.0, atol=1e-5)
    optimizer.apply([tf.zeros(layer.kernel.shape)], [layer.kernel])
    assert optimizer.clock.numpy() == pytest.approx(3862.0)


def test_programming_comes_near_the_weights_and_counts():
    layer = dense(40, 30, use_bias=False)
    wanted = layer.kernel.numpy()
    optimizer, _ = built(layer=layer, device=NandakumarPCM())
    error = layer.kernel.numpy() - wanted
    assert np.sqrt(np.mean(error**2)) * 8.0 < 1.0  # uS, about one granularity
    counts = optimizer.pulse_counts()[layer.kernel.path]
    assert counts.shape == (2, 40, 30) and 0.5 < counts.mean() < 6
    np.testing.assert_array_equal(counts.ravel(), optimizer.pulses_since_reset.numpy().ravel())

    layer.kernel.assign(-wanted)
    optimizer.accumulator.assign(optimizer.accumulator + 0.3)
    optimizer.program()
    assert np.corrcoef(layer.kernel.numpy().ravel(), -wanted.ravel())[0, 1] > 0.9
    assert not optimizer.accumulator.numpy().any()
    after = optimizer.pulse_counts()[layer.kernel.path]
    np.testing.assert_array_equal(
        (after - counts).ravel(), optimizer.pulses_since_reset.numpy().ravel()
    )


def test_clipping_schedule_and_decay_are_those_of_the_inner_optimizer():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0], [0.5, 0.25])
    inner = keras.optimizers.SGD(schedule, clipnorm=0.02, weight_decay=0.01)
    optimizer, layer = built(inner, granularity=100.0)
    total = np.zeros(30)
    for rate in (0.5, 0.25):
        gradient = np.random.default_rng(5).normal(size=(6, 5)).astype("float32")
        clipped = gradient * (0.02 / np.linalg.norm(gradient))
        total += (-rate * (clipped + 0.01 * layer.kernel.numpy())).ravel() * 8.0
        optimizer.apply([gradient], [layer.kernel])
        np.testing.assert_allclose(optimizer.accumulator.numpy(), total, atol=1e-5)
    assert float(optimizer.learning_rate) == 0.25 and int(optimizer.iterations) == 2

    optimizer, _ = built(keras.optimizers.SGD(0.1))
    optimizer.learning_rate = 0.3
    assert float(optimizer.inner_optimizer.learning_rate) == pytest.approx(0.3)


def test_what_is_not_chosen_trains_in_float():
    first, second = dense(name="first"), dense(5, 4, name="second")
    variables = [*first.trainable_variables, *second.trainable_variables]
    optimizer = PCMOptimizer(keras.optimizers.SGD(0.1), layers=["sec*"], seed=0)
    before = [v.numpy() for v in variables]
    optimizer.build(variables)
    assert list(optimizer.conductances()) == [second.kernel.path]
    np.testing.assert_array_equal(first.kernel.numpy(), before[0])
    optimizer.apply([tf.ones(v.shape) for v in variables], variables)
    for variable, old in zip(variables, before, strict=True):
        if variable is not second.kernel:
            np.testing.assert_allclose(variable.numpy(), old - 0.1, atol=1e-6)
    assert PCMOptimizer("sgd", layers=[first]).layers == ["first"]


def music_model(device, **compile_arguments):
    keras.utils.set_random_seed(4)
    model = keras.Sequential(
        [
            keras.Input((6, 10)),
            SNU(16, return_sequences=True, state_activation="linear", recurrent=True, name="snu"),
            keras.layers.Dropout(0.1, seed=2),
            keras.layers.Dense(10, activation="sigmoid", name="keys"),
        ]
    )
    inner = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.01, 100), clipnorm=1.0)
    model.compile(
        PCMOptimizer(inner, device, refresh_every=4, seed=7),
        "binary_crossentropy",
        **compile_arguments,
    )
    return model


def music():
    x = (np.random.default_rng(1).random((64, 6, 10)) < 0.2).astype("float32")
    return x, x


def variables_of(model):
    return [v.numpy() for v in [*model.variables, *model.optimizer.variables]]


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [False, True])
def test_saving_and_loading_loses_nothing(tmp_path, jit_compile):
    x, y = music()
    fit = {"batch_size": 8, "shuffle": False, "verbose": 0}
    model = music_model(NandakumarPCM(), jit_compile=jit_compile)
    model.fit(x, y, epochs=2, **fit)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    # Keras leaves the generators of dropout out of a file.
    for other, variable in zip(loaded.variables, model.variables, strict=True):
        if "seed" in variable.path:
            other.assign(variable)
    for kept, one in zip(variables_of(loaded), variables_of(model), strict=True):
        np.testing.assert_array_equal(kept, one)
    model.fit(x, y, epochs=2, **fit)
    loaded.fit(x, y, epochs=2, **fit)
    for kept, one in zip(variables_of(loaded), variables_of(model), strict=True):
        np.testing.assert_array_equal(kept, one)
    paths = list(model.optimizer.refresh_counts())
    assert [path.split("/")[-1] for path in paths] == ["kernel", "recurrent_kernel", "kernel"]
    assert sum(count.sum() for count in model.optimizer.refresh_counts().values()) > 0


@pytest.mark.slow
def test_several_steps_per_execution_are_the_same_steps():
    x, y = music()
    results = []
    for steps in (1, 4):
        model = music_model(ExpStepPCM(), steps_per_execution=steps)
        model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
        results.append(model.optimizer.conductance.numpy())
        assert int(model.optimizer.steps) == 8
    np.testing.assert_array_equal(*results)


@pytest.mark.slow
def test_eager_steps_are_the_compiled_steps():
    layers = [dense(use_bias=False) for _ in range(2)]
    eager, compiled = (built(layer=one, device=NandakumarPCM(), refresh_every=2) for one in layers)
    apply = tf.function(lambda gradient: compiled[0].apply([gradient], [layers[1].kernel]))
    random = np.random.default_rng(0)
    for _ in range(10):
        gradient = tf.constant(random.normal(0.0, 0.1, (6, 5)), "float32")
        eager[0].apply([gradient], [layers[0].kernel])
        apply(gradient)
    np.testing.assert_allclose(layers[0].kernel.numpy(), layers[1].kernel.numpy(), atol=1e-5)


@pytest.mark.some_cases(1)
@pytest.mark.parametrize(
    "device, jit_compile",
    [
        pytest.param(NandakumarPCM, True, marks=pytest.mark.slow),
        (NandakumarPCM, False),
        (ExpStepPCM, False),
    ],
)
def test_learns(device, jit_compile):
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 512)
    x = (random.normal(size=(4, 16))[labels] + random.normal(size=(512, 16))).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((16,)),
            keras.layers.Dense(24, "relu", kernel_initializer=keras.initializers.HeNormal(1)),
            keras.layers.Dense(4, kernel_initializer=keras.initializers.HeNormal(2)),
        ]
    )
    model.compile(
        PCMOptimizer(keras.optimizers.Adam(0.003), device(), seed=5),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=jit_compile,
    )
    first = model.evaluate(x, labels, verbose=0)[1]
    model.fit(x, labels, batch_size=32, epochs=12, verbose=0)
    assert first < 0.5
    assert model.evaluate(x, labels, verbose=0)[1] > 0.9


def test_a_diverged_training_shows():
    optimizer, layer = built(granularity=0.5)
    gradient = np.zeros((6, 5), "float32")
    gradient[0, 0], gradient[1, 1] = np.nan, np.inf
    optimizer.apply([gradient], [layer.kernel])
    bad = ~np.isfinite(layer.kernel.numpy())
    np.testing.assert_array_equal(bad, ~np.isfinite(gradient))
    assert np.all(np.isfinite(optimizer.conductance.numpy()))


def test_the_seed_decides():
    one, two, other = (
        built(device=NandakumarPCM(), seed=seed)[0].conductance.numpy() for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, two)
    assert abs(np.corrcoef((one - other).ravel(), one.ravel())[0, 1]) < 0.99
    assert not np.array_equal(one, other)


def test_config_keeps_every_argument():
    arguments = {
        "layers": ["a*"],
        "w_max": 1.5,
        "granularity": 0.5,
        "max_pulses": 4,
        "refresh_every": None,
        "refresh_above": 7.0,
        "refresh_within": 3.0,
        "programming_pulses": 9,
        "step_time": 0.5,
        "seed": 3,
        "name": "loop",
    }
    optimizer = PCMOptimizer("adam", ExpStepPCM(g_max=10.0), **arguments)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert again.get_config() == optimizer.get_config()
    assert isinstance(again, PCMOptimizer) and again.device.g_max == 10.0
    assert {name: getattr(again, name) for name in arguments} == arguments


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"inner_optimizer": 3}, TypeError, "inner_optimizer"),
        ({"inner_optimizer": PCMOptimizer("sgd")}, TypeError, "PCMOptimizer"),
        ({"inner_optimizer": keras.optimizers.SGD(use_ema=True)}, ValueError, "use_ema"),
        ({"device": "pcm"}, TypeError, "device"),
        ({"layers": [SNU]}, ValueError, "layers"),
        ({"layers": []}, ValueError, "layers"),
        ({"w_max": 0.0}, ValueError, "w_max"),
        ({"granularity": 0.0}, ValueError, "granularity"),
        ({"granularity": -1.0}, ValueError, "granularity"),
        ({"granularity": np.nan}, ValueError, "granularity"),
        ({"max_pulses": 0}, ValueError, "max_pulses"),
        ({"refresh_every": 1.5}, ValueError, "refresh_every"),
        ({"programming_pulses": 0}, ValueError, "programming_pulses"),
        ({"step_time": -1.0}, ValueError, "step_time"),
        ({"refresh_above": 3.0, "refresh_within": 3.0}, ValueError, "refresh_within"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        PCMOptimizer(**{"inner_optimizer": "sgd", **arguments})


def test_bad_models_and_moments():
    layer = dense(name="known")
    with pytest.raises(ValueError, match=r"(?s)'unknown'.*known/kernel"):
        PCMOptimizer("sgd", layers=["unknown"]).build(layer.trainable_variables)
    with pytest.raises(ValueError, match="kernels"):
        PCMOptimizer("sgd").build([layer.bias])
    used = keras.optimizers.SGD(0.1)
    used.build([layer.kernel])
    with pytest.raises(ValueError, match="make a new one"):
        PCMOptimizer(used).build([layer.kernel])
    with pytest.raises(ValueError, match="PCMConstraint"):
        built(layer=dense(kernel_constraint=PCMConstraint()))
    for look in ("conductances", "pulse_counts", "refresh_counts", "program", "read"):
        with pytest.raises(ValueError, match="built"):
            getattr(PCMOptimizer("sgd"), look)()
    layer.kernel.assign(layer.kernel * np.nan)
    with pytest.raises(ValueError, match="finite"):
        PCMOptimizer("sgd").build([layer.kernel])
