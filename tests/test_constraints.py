"""PCMConstraint keeps weights on the levels and training alive; UnitInterval clips."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from snukeras.constraints import PCMConstraint, UnitInterval


def line(constraint, rate=0.01, steps=300):
    """Fits Dense(4 -> 1) to fixed weights by SGD with small steps; returns (model, last loss)."""
    x = np.random.default_rng(0).normal(size=(256, 4)).astype("float32")
    y = x @ np.array([[1.0], [-1.0], [0.5], [2.0]], "float32")
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(
                1, use_bias=False, kernel_initializer="zeros", kernel_constraint=constraint
            ),
        ]
    )
    model.compile(keras.optimizers.SGD(rate), "mse")
    x, y = np.tile(x, (steps, 1)), np.tile(y, (steps, 1))
    model.fit(x, y, batch_size=256, shuffle=False, verbose=0)
    return model, model.evaluate(x[:256], y[:256], verbose=0)


@pytest.mark.slow
def test_hard_rounding_freezes_training_and_the_default_does_not():
    frozen, frozen_loss = line(PCMConstraint(w_max=3.0, rounding="nearest", seed=0))
    assert np.all(frozen.layers[0].kernel.numpy() == 0)
    alive, loss = line(PCMConstraint(w_max=3.0, seed=0))
    assert loss < 0.02 * frozen_loss
    np.testing.assert_allclose(alive.layers[0].kernel.numpy()[:, 0], [1, -1, 0.5, 2], atol=0.3)
    assert line(PCMConstraint(seed=0))[1] < 0.02 * frozen_loss


def on_grid(w, r, levels):
    position = np.asarray(w) / r * (levels - 1)
    return np.allclose(position, np.round(position), atol=1e-3) and np.abs(position).max() < levels


@pytest.mark.some_cases(2)
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("scale", ["tensor", "column"])
@pytest.mark.parametrize("w_max", [None, 0.7])
def test_weights_are_on_the_levels_after_fit(jit_compile, scale, w_max):
    constraint = PCMConstraint(levels=8, w_max=w_max, scale=scale, seed=1)
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(5, kernel_constraint=constraint)]
    )
    model.compile("adam", "mse", jit_compile=jit_compile)
    generator = np.random.default_rng(0)
    model.fit(generator.normal(size=(32, 6)), generator.normal(size=(32, 5)), verbose=0)
    kernel = model.layers[0].kernel.numpy()
    r = constraint.max_weight(kernel)
    assert np.shape(r) == ((5,) if scale == "column" and w_max is None else ())
    assert on_grid(kernel, r, 8)
    assert len(np.unique(kernel)) > 3


@pytest.mark.slow
def test_default_in_convolutions_and_recurrent_layers():
    model = keras.Sequential(
        [
            keras.Input((8, 3)),
            keras.layers.Conv1D(4, 3, kernel_constraint=PCMConstraint()),
            keras.layers.LSTM(
                3, kernel_constraint=PCMConstraint(), recurrent_constraint=PCMConstraint()
            ),
        ]
    )
    model.compile("adam", "mse", steps_per_execution=2)
    model.fit(np.random.rand(32, 8, 3), np.random.rand(32, 3), batch_size=8, verbose=0)
    cell = model.layers[1].cell
    for kernel in (model.layers[0].kernel, cell.kernel, cell.recurrent_kernel):
        assert on_grid(kernel, PCMConstraint().max_weight(kernel.numpy()), 16)


def test_range_follows_the_largest_weight_without_jumps():
    constraint = PCMConstraint()
    for top in (0.3, 0.5, 0.500001, 1.0, 3.0):
        assert constraint.max_weight(np.array([[top, -0.1]], "float32")) == pytest.approx(top)
    assert constraint.max_weight(np.zeros((2, 2))) == 1.0
    columns = PCMConstraint(scale="column").max_weight(np.array([[0.1, -3.0], [0.2, 0.0]]))
    np.testing.assert_allclose(columns, [0.2, 3.0])


@pytest.mark.parametrize("rounding", ["nearest", "stochastic", "feedback"])
def test_a_largest_weight_that_passes_a_power_of_two_moves_no_other_by_a_level(rounding):
    constraint = PCMConstraint(levels=16, rounding=rounding, seed=1)
    kernel = keras.Variable(np.linspace(-0.999, 0.999, 200, dtype="float32")[:, None])
    kernel.assign(constraint(kernel))
    before = kernel.numpy()
    kernel.assign(np.where(before == before.max(), 1.001, before))
    kernel.assign(constraint(kernel))
    moved = np.abs(kernel.numpy() - before)
    # The grid has grown by 0.2 %; a few weights near the middle of two levels go to the other.
    assert np.mean(moved > 0.003) < 0.05


def test_default_is_unbiased_and_clips():
    constraint = PCMConstraint(levels=3, w_max=1.0, seed=2)
    w = np.full((100, 1000), 0.1, "float32")
    quantized = constraint(w)
    assert set(np.unique(quantized)) == {0.0, 0.5}
    assert abs(quantized.mean() - 0.1) < 4 * np.sqrt(0.1 * 0.4 / w.size)
    assert not np.array_equal(quantized, constraint(w))
    np.testing.assert_array_equal(constraint(np.array([[9.0, -9.0]])), [[1.0, -1.0]])
    clip = PCMConstraint(w_max=1.0, rounding="none")
    np.testing.assert_allclose(clip(np.array([[9.0, 0.123]])), [[1.0, 0.123]], rtol=1e-6)
    on_levels = PCMConstraint(levels=None, w_max=1.0)(np.array([[0.123]]))
    np.testing.assert_allclose(on_levels, [[0.123]], rtol=1e-6)


def test_small_updates_arrive_on_average():
    # Steps of 1e-6 of a level: far below a level, still above float precision near zero.
    constraint = PCMConstraint(levels=2, w_max=1.0, seed=3)
    w = tf.Variable(tf.fill((1_000_000,), 3e-5))
    assert constraint(w).numpy().sum() == pytest.approx(30, abs=25)


@pytest.mark.some_cases(2)
@pytest.mark.parametrize("scale", ["tensor", "column"])
@pytest.mark.parametrize(
    "mode", [{"jit_compile": False}, {"jit_compile": True}, {"run_eagerly": 1}]
)
def test_feedback_trains_latent_weights_and_shows_those_on_the_grid(mode, scale):
    """Against plain NumPy: gradients at the rounded weights, updates to those that add up."""
    random = np.random.default_rng(0)
    start = random.normal(size=(6, 5)).astype("float32")
    constraint = PCMConstraint(levels=5, w_max=0.8, scale=scale, rounding="feedback")
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(5, use_bias=False, kernel_constraint=constraint)]
    )
    model.layers[0].kernel.assign(start)
    model.compile(keras.optimizers.SGD(0.02), "mse", **mode)
    held, latent = start, start
    for _ in range(30):
        x = random.normal(size=(8, 6)).astype("float32")
        y = random.normal(size=(8, 5)).astype("float32")
        model.train_on_batch(x, y)
        gradient = x.T @ (x @ held - y) * (2 / y.size)
        latent = np.clip(latent - 0.02 * gradient, -0.8, 0.8)
        held = np.round(latent / 0.2) * 0.2
        kernel = model.layers[0].kernel
        np.testing.assert_allclose(kernel.numpy(), held, atol=1e-5)
        (remainder,) = constraint.state(kernel)
        np.testing.assert_allclose(kernel.numpy() + remainder.numpy(), latent, atol=1e-5)
    assert not np.array_equal(held, np.clip(np.round(start / 0.2) * 0.2, -0.8, 0.8))


@pytest.mark.slow
def test_feedback_keeps_small_updates_of_several_kernels():
    constraint = PCMConstraint(levels=2, w_max=1.0, rounding="feedback")
    kernels = [keras.Variable(np.zeros((2, 3))), keras.Variable(np.zeros((4, 1)))]
    for _ in range(1000):
        for kernel, update in zip(kernels, (0.001, -0.0004), strict=True):
            kernel.assign(kernel + update)
            kernel.assign(constraint(kernel))
        assert set(np.unique(kernels[0])) <= {0.0, 1.0}
    np.testing.assert_array_equal(kernels[0], np.ones((2, 3)))
    np.testing.assert_array_equal(kernels[1], np.zeros((4, 1)))
    np.testing.assert_allclose(constraint.state(kernels[1])[0], -0.4, atol=1e-3)
    # What is no variable has no remainder.
    np.testing.assert_array_equal(constraint(np.array([[0.6, 0.4]])), [[1.0, 0.0]])


@pytest.mark.slow
def test_feedback_does_not_freeze_training():
    model, loss = line(PCMConstraint(w_max=3.0, rounding="feedback"))
    assert on_grid(model.layers[0].kernel.numpy(), 3.0, 16)
    assert loss < 0.02 * line(PCMConstraint(w_max=3.0, rounding="nearest"))[1]


def test_feedback_refuses_replicas(monkeypatch):
    constraint, kernel = PCMConstraint(rounding="feedback"), keras.Variable(np.zeros((2, 2)))
    monkeypatch.setattr("snukeras.constraints.replicas", lambda: 2)
    with pytest.raises(ValueError, match="one replica"):
        constraint(kernel)


def test_nearest_levels_whatever_the_rounding():
    w = np.array([[0.3, -0.9], [0.1, 5.0]])
    for rounding in ("stochastic", "feedback", "nearest"):
        constraint = PCMConstraint(levels=3, w_max=1.0, rounding=rounding)
        np.testing.assert_allclose(constraint.nearest(w), [[0.5, -1.0], [0.0, 1.0]])
    np.testing.assert_allclose(PCMConstraint(w_max=1.0, rounding="none").nearest(w)[0], w[0])
    assert PCMConstraint(rounding="nearest").state(keras.Variable(w)) == []
    assert len(PCMConstraint().state(keras.Variable(w))) == 1


def test_fresh_rounding_at_every_call_of_a_compiled_function():
    constraint = PCMConstraint(levels=2, w_max=1.0, seed=4)
    calls = {}
    for jit_compile in (False, True):
        compiled = tf.function(constraint, jit_compile=jit_compile)
        w = tf.fill((1000,), 0.5)
        first, second = compiled(w).numpy(), compiled(w).numpy()
        assert not np.array_equal(first, second)
        calls[jit_compile] = first
    again = PCMConstraint(levels=2, w_max=1.0, seed=4)
    np.testing.assert_array_equal(again(tf.fill((1000,), 0.5)), calls[False])


def test_keeps_the_type_of_the_weights():
    for dtype in ("float16", "bfloat16", "float64"):
        w = tf.cast(tf.constant([[0.3, -1.0]]), dtype)
        assert PCMConstraint(seed=1)(w).dtype == dtype


def test_saving_and_loading(tmp_path):
    constraint = PCMConstraint(8, 0.5, "column", "nearest", seed=7)
    assert json.loads(json.dumps(constraint.get_config())) == constraint.get_config()
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3, kernel_constraint=constraint),
            keras.layers.Dense(2, kernel_constraint=PCMConstraint()),
            keras.layers.Dense(2, kernel_constraint=PCMConstraint(8, rounding="feedback")),
        ]
    )
    model.compile("adam", "mse")
    x, y = np.random.rand(16, 4), np.random.rand(16, 2)
    model.fit(x, y, verbose=0)
    kernels = [layer.kernel.numpy() for layer in model.layers]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].kernel_constraint.get_config() == constraint.get_config()
    assert loaded.layers[1].kernel_constraint.get_config() == PCMConstraint().get_config()
    assert loaded.layers[2].kernel_constraint.rounding == "feedback"
    for layer, kernel in zip(loaded.layers, kernels, strict=True):
        np.testing.assert_array_equal(layer.kernel, kernel)
        np.testing.assert_allclose(layer.kernel_constraint.nearest(kernel), kernel, atol=1e-6)
    assert not loaded.layers[2].kernel_constraint.state(loaded.layers[2].kernel)[0].numpy().any()
    loaded.fit(x, y, verbose=0)
    clone = keras.models.clone_model(model)
    assert clone.layers[0].kernel_constraint is not constraint


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"levels": 1}, "`levels`"),
        ({"w_max": 0.0}, "`w_max` must be a finite number above 0"),
        ({"w_max": float("nan")}, "`w_max`"),
        ({"scale": "row"}, "`scale`"),
        ({"rounding": "up"}, "'stochastic', 'nearest', 'none', 'feedback'"),
    ],
)
def test_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        PCMConstraint(**arguments)


def test_unit_interval():
    constraint = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(UnitInterval())
    )
    np.testing.assert_allclose(constraint(np.array([-0.2, 0.4, 1.7])), [0.0, 0.4, 1.0])
