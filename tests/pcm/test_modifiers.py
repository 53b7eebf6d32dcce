"""What training does to weights, and weights clipped before they are mapped."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from snukeras.callbacks import PCMNoise
from snukeras.constraints import PCMConstraint
from snukeras.pcm import (
    Chip,
    Crossbar,
    DifferentialPair,
    GenericPCM,
    IdealDevice,
    InputConverter,
    OutputConverter,
    Tile,
    WeightModifier,
    analog,
    calibrate,
)

SHARE = np.clip(np.random.default_rng(1).normal(0, 0.4, (200, 100)), -1, 1).astype("float32")
PAIR = DifferentialPair(25.0, scale="column")


def modified(kind, strength, device=None):
    seed = keras.random.SeedGenerator(1)
    changed = WeightModifier(kind, strength)(keras.ops.convert_to_tensor(SHARE), seed, PAIR, device)
    return keras.ops.convert_to_numpy(changed)


def test_kinds():
    assert modified("additive", 0.1).std() == pytest.approx(np.hypot(SHARE.std(), 0.1), rel=0.01)
    assert (modified("additive", 0.1) - SHARE).std() == pytest.approx(0.1, rel=0.02)
    relative = modified("multiplicative", 0.2)[SHARE != 0] / SHARE[SHARE != 0] - 1
    assert relative.std() == pytest.approx(0.2, rel=0.02)
    device = GenericPCM()
    g = np.stack([np.maximum(SHARE, 0), np.maximum(-SHARE, 0)]) * 25.0
    expected = np.sqrt(np.square(device.programming_std(g)).sum(axis=0)) / 25.0
    error = modified("programming", 0.5, device) - SHARE
    assert np.sqrt(np.mean((error / expected) ** 2)) == pytest.approx(0.5, rel=0.02)
    read = modified("pcm", 1.0, device) - SHARE
    # Beside the programming noise there is that of the reading, and no conductance is negative.
    assert 0.7 < read.std() / np.sqrt(np.mean(expected**2)) < 1.6
    dropped = modified("drop_connect", 0.3)
    assert np.mean(dropped == 0) == pytest.approx(0.3, abs=0.02)
    assert set(np.unique(dropped[dropped != 0])) <= set(np.unique(SHARE))
    assert len(np.unique(modified("dorefa", 3))) == 7


def test_devices_read_after_a_year():
    """Drift of each column is corrected, as a chip does it; what devices differ in remains."""
    device = GenericPCM()
    share = keras.ops.convert_to_tensor(SHARE)
    after = WeightModifier("pcm", 1.0, time=31536e3)(share, keras.random.SeedGenerator(1), PAIR)
    after = keras.ops.convert_to_numpy(after)
    np.testing.assert_allclose(np.abs(after).sum(0), np.abs(SHARE).sum(0), rtol=1e-5)
    crossbar = Crossbar(SHARE, device, PAIR, compensation="column", seed=2)
    error = np.std(crossbar.weights(31536e3) - SHARE)
    assert np.std(after - SHARE) == pytest.approx(error, rel=0.05)
    assert np.std(modified("pcm", 1.0) - SHARE) < 0.8 * error
    with pytest.raises(ValueError, match="`time` must be 0 for 'additive'"):
        WeightModifier("additive", 0.1, time=25.0)


def test_drift_is_in_front_of_converters_and_its_factor_behind():
    """A step of a converter stands for more of a weight when currents are small."""
    modifier = WeightModifier("pcm", 1.0, time=31536e3)
    share = keras.ops.convert_to_tensor(SHARE)
    drifted, factor = modifier.in_front(share, keras.random.SeedGenerator(1), PAIR)
    drifted, factor = (keras.ops.convert_to_numpy(part) for part in (drifted, factor))
    assert factor.shape == (1, 100) and np.all((factor > 1.5) & (factor < 3.5))
    np.testing.assert_allclose(np.abs(drifted * factor).sum(0), np.abs(SHARE).sum(0), rtol=1e-5)
    # Where the converter clips, its range comes out, times the factor.
    tile = Tile(200, 100, None, OutputConverter(6, range=1.0))
    model = keras.Sequential([keras.Input((200,)), keras.layers.Dense(100, use_bias=False)])
    net = analog(model, tile, modifiers=modifier, seed=1)
    net.set_weights([SHARE, *net.get_weights()[1:]])
    x = np.sign(SHARE.T)
    exact, trained = (np.diag(np.asarray(net(x, training=t))) for t in (False, True))
    np.testing.assert_allclose(exact, np.abs(SHARE).max(axis=0), rtol=1e-5)
    assert np.all((trained > 1.5 * exact) & (trained < 3.5 * exact))


def test_a_step_has_a_time_of_its_own(tmp_path):
    modifier = WeightModifier("pcm", 1.0, time=(25.0, 31536e3))
    assert WeightModifier.from_config(keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(modifier)).get_config()) == modifier  # fmt: skip
    share, seed = keras.ops.convert_to_tensor(SHARE), keras.random.SeedGenerator(1)
    factors = [float(np.mean(modifier.in_front(share, seed, PAIR)[1])) for _ in range(30)]
    fresh, old = (
        float(np.mean(WeightModifier("pcm", 1.0, time=t).in_front(share, seed, PAIR)[1]))
        for t in (25.0, 31536e3)
    )
    assert fresh - 0.05 < min(factors) < fresh + 0.3 and old - 0.3 < max(factors) < old + 0.05
    assert np.mean(factors) == pytest.approx((fresh + old) / 2, abs=0.2)
    for times in ((25.0,), (25.0, 25.0), (0.0, 25.0)):
        with pytest.raises(ValueError, match="`time`"):
            WeightModifier("pcm", 1.0, time=times)


def test_gradients_are_taken_at_the_changed_weights():
    share = tf.Variable(SHARE)
    for kind, strength in (("additive", 0.1), ("pcm", 1.0), ("dorefa", 4), ("programming", 1.0)):
        with tf.GradientTape() as tape:
            seed = keras.random.SeedGenerator(1)
            y = WeightModifier(kind, strength)(tf.convert_to_tensor(share), seed, PAIR)
        np.testing.assert_array_equal(tape.gradient(y, share), np.ones_like(SHARE))
    with tf.GradientTape() as tape:
        after = WeightModifier("pcm", 0.7, time=(25.0, 31536e3))
        y = after(tf.convert_to_tensor(share), keras.random.SeedGenerator(1), PAIR)
    np.testing.assert_allclose(tape.gradient(y, share), np.ones_like(SHARE), rtol=1e-5)


def test_what_is_no_modifier():
    with pytest.raises(ValueError, match="`kind` must be one of 'additive'"):
        WeightModifier("gaussian", 0.1)
    for kind, strength in (
        ("additive", -1.0),
        ("drop_connect", 1.0),
        ("dorefa", 1),
        ("dorefa", 2.5),
    ):
        with pytest.raises(ValueError, match="`strength`"):
            WeightModifier(kind, strength)


def dense(**arguments):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(10, name="d")])
    return analog(model, **arguments)


def test_only_training_steps_are_changed(tmp_path):
    x = np.random.default_rng(2).random((8, 20)).astype("float32")
    modifiers = [WeightModifier("dorefa", 6), WeightModifier("additive", 0.1)]
    net = dense(tile="ideal", modifiers=modifiers)
    exact = np.asarray(net.digital()(x))
    np.testing.assert_allclose(net(x, training=False), exact, atol=1e-5)
    np.testing.assert_allclose(net.predict(x, verbose=0), exact, atol=1e-5)
    one, other = np.asarray(net(x, training=True)), np.asarray(net(x, training=True))
    assert np.abs(one - exact).mean() > 0.01 and not np.array_equal(one, other)
    before = np.asarray(net.get_layer("d").kernel)
    net.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=False)
    net.fit(x, exact, verbose=0)
    np.testing.assert_array_equal(net.get_layer("d").kernel, before)
    net.save(tmp_path / "net.keras")
    assert keras.models.load_model(tmp_path / "net.keras").modifiers == tuple(modifiers)


@pytest.mark.slow
def test_weights_are_clipped_before_they_are_mapped():
    """Error of the product of normal weights after a day: less when the tails are cut."""
    random = np.random.default_rng(3)
    matrix = np.clip(random.normal(size=(256, 256)), -10 / 3, 10 / 3).astype("float32")
    x = random.normal(size=(64, 256)).astype("float32")
    errors = {}
    for scale in ("tensor", "column"):
        for clip in (None, 2.5):
            pair = DifferentialPair(25.0, scale=scale, clip=clip)
            crossbar = Crossbar(matrix, GenericPCM(), pair, compensation="global", seed=1)
            y = keras.ops.convert_to_numpy(crossbar.matmul(x, 86400.0))
            errors[scale, clip] = np.linalg.norm(y - x @ matrix) / np.linalg.norm(x @ matrix)
    assert errors["tensor", 2.5] < 0.95 * errors["tensor", None]
    assert errors["column", 2.5] < errors["column", None]
    assert max(errors["tensor", 2.5], errors["column", 2.5]) < 0.14


def test_a_network_computes_with_what_its_pairs_hold():
    pair = DifferentialPair(25.0, scale="column", clip=1.0, levels=5)
    net = dense(tile="ideal", pair=pair)
    x = np.random.default_rng(2).random((8, 20)).astype("float32")
    kernel = np.asarray(net.get_layer("d").kernel)
    held = np.asarray(pair.quantize(kernel))
    np.testing.assert_allclose(net(x), x @ held, atol=1e-5)
    assert np.abs(held - kernel).max() > 0.01
    chip = Chip(net, IdealDevice(), seed=1)
    np.testing.assert_allclose(chip.model()(x), x @ held, atol=1e-5)
    tile = Tile(16, 8, InputConverter(8, "vector"), OutputConverter(8, 4.0))
    net = dense(tile=tile, pair=DifferentialPair(25.0, scale="tensor", clip=2.0))
    np.testing.assert_allclose(Chip(net, IdealDevice()).model()(x), net(x), atol=2e-3)
    again = DifferentialPair.from_config(pair.get_config())
    assert again.get_config() == pair.get_config() and again.clip == 1.0
    with pytest.raises(ValueError, match="`clip`"):
        DifferentialPair(clip=0.0)


@pytest.mark.slow
def test_training_for_a_chip_helps_on_it():
    keras.utils.set_random_seed(5)
    random = np.random.default_rng(5)
    x = random.normal(size=(256, 16)).astype("float32")
    y = np.tanh(x @ random.normal(size=(16, 4)).astype("float32"))
    model = keras.Sequential(
        [keras.Input((16,)), keras.layers.Dense(32, "relu"), keras.layers.Dense(4)]
    )
    model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
    model.fit(x, y, epochs=20, verbose=0)
    tile = Tile(output=OutputConverter(6, noise=0.1))
    plain = analog(model, tile)
    calibrate(plain, x)
    trained = analog(model, tile, modifiers=WeightModifier("additive", 0.05))
    calibrate(trained, x)
    trained.fit(x, y, epochs=20, verbose=0)
    on_chips = [
        np.mean([Chip(net, seed=s).model().evaluate(x, y, verbose=0) for s in range(4)])
        for net in (plain, trained)
    ]
    assert on_chips[1] < on_chips[0]


def learning(**arguments):
    keras.utils.set_random_seed(1)
    layers = [keras.Input((12,)), keras.layers.Dense(5, name="d"), keras.layers.Dense(3, name="e")]
    return analog(keras.Sequential(layers), learned_clip=True, **arguments)


def test_learned_limits_of_weights():
    """The product is that of clipped weights; the gradient is the sum over what is clipped."""
    net = learning(tile="ideal")
    x = np.random.default_rng(2).random((8, 12)).astype("float32")
    tiles = net.tiles[0]
    w = keras.ops.convert_to_numpy(net.get_layer("d").kernel)
    # At first nothing is clipped.
    np.testing.assert_allclose(tiles.limit.numpy(), np.abs(w).max(axis=0))
    np.testing.assert_allclose(net(x), net.digital()(x), atol=1e-5)
    limit = np.abs(w).max(axis=0) * np.array([0.5, 0.8, 1.0, 1.5, 0.3], "float32")
    tiles.limit.assign(limit)
    with tf.GradientTape() as tape:
        y = tiles.multiply(x, net.get_layer("d").kernel)
        total = tf.reduce_sum(y)
    np.testing.assert_allclose(y, x @ np.clip(w, -limit, limit), atol=1e-5)
    slope, weights = tape.gradient(total, [tiles.limit.value, net.get_layer("d").kernel.value])
    clipped = np.abs(w) > limit * (1 + 1e-6)
    expected = (x.sum(axis=0)[:, None] * np.sign(w) * clipped).sum(axis=0)
    np.testing.assert_allclose(slope, expected, atol=1e-4)
    np.testing.assert_allclose(weights, x.sum(axis=0)[:, None] * ~clipped, atol=1e-5)
    assert any(v is tiles.limit for v in net.trainable_variables)


def test_networks_with_learned_limits(tmp_path):
    device = IdealDevice(25.0)
    tile = Tile(16, 8, InputConverter(8), OutputConverter(8))
    net = learning(tile=tile, device=device, output_scales=True)
    x = np.random.default_rng(2).random((32, 12)).astype("float32")
    calibrate(net, x)
    net.tiles[0].limit.assign(net.tiles[0].limit * 0.6)
    net.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=True)
    net.fit(x, np.ones((32, 3)), epochs=2, verbose=0)
    y = net.predict(x, verbose=0)
    net.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), y, atol=1e-6)
    np.testing.assert_array_equal(loaded.tiles[0].limit, net.tiles[0].limit)
    chip = Chip(net, seed=1)
    limit = np.asarray(net.tiles[0].limit.numpy())
    np.testing.assert_allclose(next(iter(chip.crossbars.values())).units, limit, rtol=1e-5)
    np.testing.assert_allclose(chip.model().predict(x, verbose=0), y, atol=1e-3)
    plain = net.digital()
    scale = np.asarray(net.tiles[0].scale.numpy())
    top = np.abs(np.asarray(plain.get_layer("d").kernel.numpy())).max(axis=0)
    assert np.all(top <= limit * np.abs(scale) * (1 + 1e-5))
    net.remap()
    np.testing.assert_allclose(net.predict(x, verbose=0), y, atol=1e-4)
    with pytest.raises(ValueError, match="`learned_clip` needs a pair with scale='column'"):
        learning(pair=DifferentialPair(25.0, scale="column", clip=2.0))


def test_learned_limits_with_a_constraint_and_noise_in_one_training(tmp_path):
    keras.utils.set_random_seed(1)
    constraint = PCMConstraint(levels=8, rounding="nearest")
    layers = [keras.Input((12,)), keras.layers.Dense(5, kernel_constraint=constraint, name="d"),
              keras.layers.Dense(3, name="e")]  # fmt: skip
    net = analog(keras.Sequential(layers), "generic8", learned_clip=True)
    x = np.random.default_rng(2).random((32, 12)).astype("float32")
    y = np.random.default_rng(3).random((32, 3)).astype("float32")
    calibrate(net, x)
    free = net.get_layer("e").kernel
    # Without steps the weights are those before, although the loss was that of others.
    net.compile(keras.optimizers.SGD(0.0), "mse")
    before, exact = np.array(free), net.evaluate(x, y, verbose=0)
    noise = [PCMNoise(0.5, seed=1)]
    (loss,) = net.fit(x, y, batch_size=32, verbose=0, callbacks=noise).history["loss"]
    assert abs(loss - exact) > 0.05 * exact
    np.testing.assert_array_equal(free, before)
    limits = [np.array(tiles.limit) for tiles in net.tiles]
    net.compile(keras.optimizers.Adam(0.02), "mse")
    net.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=[PCMNoise(seed=1)])
    held = np.array(net.get_layer("d").kernel)
    np.testing.assert_allclose(constraint.nearest(held), held, atol=1e-6)
    assert len(np.unique(np.abs(held).round(5))) <= 8
    assert all(np.any(tiles.limit != was) for tiles, was in zip(net.tiles, limits, strict=True))
    net.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), net.predict(x, verbose=0))
    np.testing.assert_array_equal(loaded.get_layer("d").kernel, held)
    again = loaded.get_layer("d").kernel.constraint
    np.testing.assert_allclose(again.nearest(held), held, atol=1e-6)
