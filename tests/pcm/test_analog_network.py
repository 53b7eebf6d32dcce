"""Networks on tiles are ordinary Keras models that compute by what was asked for."""

import keras
import numpy as np
import pytest

import snukeras
from snukeras.pcm import (
    AnalogNetwork,
    GenericPCM,
    InputConverter,
    OutputConverter,
    Tile,
    analog,
    calibrate,
)

L, S = keras.layers, snukeras.layers
BLOCKS = Tile(5, 4, InputConverter(None, 1e4), OutputConverter(None, 1e4))
EIGHT = Tile(8, 8, InputConverter(8, 2.0), OutputConverter(8, 4.0, noise=0.01))
random = np.random.default_rng(1)
X = random.random((6, 9, 7)).astype("float32")


def network(**compiled):
    keras.utils.set_random_seed(2)
    model = keras.Sequential(
        [
            keras.Input((9, 7)),
            S.SNU(12, decay=0.7, return_sequences=True, name="units"),
            S.SSNU(8, recurrent=True, return_sequences=True, name="soft"),
            L.LSTM(6, return_sequences=True, name="memory"),
            L.Dense(3, name="out"),
        ]
    )
    if compiled:
        model.compile("adam", "mse", **compiled)
    return model


def values(x):
    return keras.ops.convert_to_numpy(x)


@pytest.mark.some_cases(1)
@pytest.mark.parametrize("tile", ["ideal", BLOCKS])
def test_without_non_idealities_it_is_the_model(tile):
    model = network()
    net = analog(model, tile)
    np.testing.assert_allclose(net(X), model(X), atol=1e-5)
    np.testing.assert_allclose(net.predict(X, verbose=0), model(X), atol=1e-5)
    assert [layer.name for layer in net.layers] == [layer.name for layer in model.layers]
    for mine, other in zip(
        net.get_weights()[: len(model.weights)], model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(mine, other)
    assert list(net.products()) == [
        "units/kernel",
        "soft/kernel",
        "soft/recurrent_kernel",
        "memory/kernel",
        "memory/recurrent_kernel",
        "out/kernel",
    ]
    np.testing.assert_array_equal(net.digital()(X), model(X))


def test_every_matrix_is_on_tiles():
    inputs = keras.Input((8, 8, 2))
    x = L.Conv2D(4, 3, activation="relu")(inputs)
    x = L.DepthwiseConv2D(3)(x)
    x = L.Reshape((16, 4))(x)
    x = L.MultiHeadAttention(2, 3)(x, x)
    x = L.Bidirectional(L.GRU(3, return_sequences=True))(x)
    x = L.EinsumDense("abc,cd->abd", (None, 5))(x)
    model = keras.Model(inputs, L.TimeDistributed(L.Dense(2))(x))
    net = analog(model, BLOCKS)
    assert len(net.tiles) == 12
    x = random.normal(size=(2, 8, 8, 2)).astype("float32")
    np.testing.assert_allclose(net(x), model(x), atol=1e-5)


def test_what_stays_digital_is_named():
    words = keras.Input((5,), dtype="int32")
    embedding = S.TiedEmbedding(10, 4, name="words")
    x = S.SSNU(4, return_sequences=True)(embedding(words))
    model = keras.Model(words, embedding(x, reverse=True))
    with pytest.warns(UserWarning, match="stay digital: words/embeddings"):
        net = analog(model, "ideal")
    assert len(net.tiles) == 1


@pytest.mark.slow
@pytest.mark.parametrize("jit", [True, False])
def test_training(jit):
    net = analog(network(jit_compile=jit), EIGHT, GenericPCM(), seed=1)
    before = [values(v) for v in net.trainable_variables]
    history = net.fit(X, X[..., :3], epochs=2, verbose=0, batch_size=4)
    assert np.all(np.isfinite(history.history["loss"]))
    changed = [np.any(values(v) != w) for v, w in zip(net.trainable_variables, before, strict=True)]
    assert all(changed)
    assert np.isfinite(net.evaluate(X, X[..., :3], verbose=0))
    # Fresh noise with each call.
    one, other = net.predict(X, verbose=0), net.predict(X, verbose=0)
    assert not np.array_equal(one, other)


@pytest.mark.slow
def test_it_learns_ranges_and_weights():
    tile = Tile(64, 64, InputConverter(8, "learned"), OutputConverter(8, "learned"))
    net = analog(network(), tile)
    net.compile(keras.optimizers.Adam(0.01), "mse")
    calibrate(net, X)
    ranges = values(net.tiles[-1].output_range)
    first, *_, last = net.fit(X, X[..., :3], epochs=30, verbose=0).history["loss"]
    assert last < 0.7 * first
    assert np.any(values(net.tiles[-1].output_range) != ranges)


@pytest.mark.slow
def test_saved_loaded_cloned_and_copied(tmp_path):
    tile = Tile(5, 4, output=OutputConverter(8, offset=0.1))
    net = analog(network(jit_compile=False), tile, GenericPCM(read_noise=0.0), seed=4)
    calibrate(net, X)
    expected = values(net(X))
    net.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    assert isinstance(loaded, AnalogNetwork) and loaded.tile == tile
    np.testing.assert_array_equal(loaded(X), expected)
    assert np.isfinite(loaded.evaluate(X, X[..., :3], verbose=0))
    clone = keras.models.clone_model(net)
    with pytest.raises(ValueError, match="no ranges yet"):
        clone(X)
    clone.set_weights(net.get_weights())
    np.testing.assert_array_equal(clone(X), expected)
    net.save_weights(tmp_path / "net.weights.h5")
    again = keras.models.clone_model(net)
    again.load_weights(tmp_path / "net.weights.h5")
    np.testing.assert_array_equal(again(X), expected)
    outer = keras.Sequential([keras.Input((9, 7)), net, L.Dense(2)])
    outer.save(tmp_path / "outer.keras")
    inner = keras.models.load_model(tmp_path / "outer.keras").layers[0]
    np.testing.assert_array_equal(inner(X), expected)


class OfNoTopology(keras.Model):
    """A subclass, of which Keras knows the shape of one input."""

    def __init__(self, **options):
        super().__init__(**options)
        self.units = S.SNU(4, return_sequences=True)

    def call(self, x):
        return self.units(x)


def of_a_dict():
    x = {"a": keras.Input((9, 7), name="a"), "b": keras.Input((9, 7), name="b")}
    return keras.Model(x, L.Dense(3)(x["a"] + x["b"]))


@pytest.mark.some_cases(1)
@pytest.mark.parametrize("kind", [of_a_dict, network, OfNoTopology])
def test_a_saved_model_computes_what_the_tiles_do(tmp_path, kind):
    import tensorflow as tf

    model = kind()
    x = {"a": X, "b": 2 * X} if kind is of_a_dict else X
    model.predict(x, verbose=0)
    net = analog(model, "generic8")
    calibrate(net, x)
    net.export(tmp_path / "tiles", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "tiles")
    given = {key: tf.constant(value) for key, value in x.items()} if kind is of_a_dict else x
    np.testing.assert_allclose(loaded.serve(given), net.predict(x, verbose=0), atol=1e-5)


def test_what_a_file_cannot_hold_is_refused(tmp_path):
    model = keras.Sequential([keras.Input((9, 7)), L.Dense(3, name="out")])
    with pytest.raises(ValueError, match="out/kernel have no ranges yet"):
        analog(model).export(tmp_path / "net", verbose=False)
    net = analog(model, EIGHT)
    with pytest.raises(ValueError, match="out/kernel' cannot be exported by Keras as onnx"):
        net.export(tmp_path / "net.onnx", format="onnx", verbose=False)
    outer = keras.Sequential([keras.Input((9, 7)), net])
    with pytest.raises(ValueError, match="as litert, which has no operators for its random"):
        outer.export(tmp_path / "net.tflite", format="litert", verbose=False)
    with pytest.raises(ValueError, match=r"analog weights.*Quantize the plain model"):
        net.quantize("int8")


def test_masks_go_through():
    keras.utils.set_random_seed(3)
    given = keras.Input((9, 7))
    x = L.Masking()(given)
    x = S.SSNU(5, return_sequences=True)(x)
    model = keras.Model(given, L.LSTM(4)(x))
    net = analog(model, BLOCKS)
    holes = X.copy()
    holes[:, 5:] = 0.0
    np.testing.assert_allclose(net(holes), model(holes), atol=1e-5)
    inner = keras.Model(given, S.SSNU(5, return_sequences=True)(L.Masking()(given)))
    outer = keras.Sequential(
        [keras.Input((9, 7)), analog(inner, BLOCKS), L.GlobalAveragePooling1D()]
    )
    plain = keras.Sequential([keras.Input((9, 7)), inner, L.GlobalAveragePooling1D()])
    np.testing.assert_allclose(outer(holes), plain(holes), atol=1e-5)


@pytest.mark.slow
def test_half_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = network(jit_compile=False)
        net = analog(model, "ideal")
        exact = values(keras.ops.cast(model(X), "float32"))
        np.testing.assert_allclose(keras.ops.cast(net(X), "float32"), exact, atol=0.1)
        net = analog(model, EIGHT, GenericPCM())
        assert net(X).dtype == "bfloat16"
        assert np.isfinite(net.fit(X, X[..., :3], verbose=0).history["loss"][0])
        assert net.tiles[0].generator is not None and net.get_layer("out").kernel.dtype == "float32"
    finally:
        keras.config.set_dtype_policy("float32")


def test_uncalibrated_use():
    net = analog(network(jit_compile=False), "generic8")
    for use in (
        lambda: net(X),
        lambda: net.predict(X, verbose=0),
        lambda: net.evaluate(X, X[..., :3], verbose=0),
        lambda: net.fit(X, X[..., :3], verbose=0),
        lambda: net.train_on_batch(X, X[..., :3]),
    ):
        with pytest.raises(ValueError, match=r"units/kernel.*no ranges yet.*calibrate"):
            use()
    outer = keras.Sequential([keras.Input((9, 7)), net, L.Dense(2)])
    with pytest.raises(ValueError, match="no ranges yet"):
        outer.predict(X, verbose=0)
    calibrate(net, X)
    outer.predict(X, verbose=0)
    net.evaluate(X, X[..., :3], verbose=0)


def test_feed_forward_units_keep_the_scan_and_recurrent_ones_leave_it():
    net = analog(network(), EIGHT)
    assert net.get_layer("units")._takes_fused()
    assert not net.get_layer("soft")._takes_fused()
    fused = S.SNU(3, recurrent=True, implementation="fused")
    model = keras.Sequential([keras.Input((9, 7)), fused])
    with pytest.raises(ValueError, match="recurrent product is computed elsewhere"):
        analog(model, EIGHT)(X)


def test_a_model_of_another_class():
    class Own(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = L.Dense(4, name="dense")

        def call(self, x):
            return self.dense(x) + 1.0

    model = Own()
    model(X[0])
    net = analog(model, BLOCKS)
    np.testing.assert_allclose(net(X[0]), model(X[0]), atol=1e-5)
    assert len(net.tiles) == 1


def test_dict_inputs():
    given = {"a": keras.Input((4,), name="a"), "b": keras.Input((4,), name="b")}
    outputs = {"sum": L.Dense(2, name="d")(L.Add()([given["a"], given["b"]]))}
    model = keras.Model(given, outputs)
    net = analog(model, "generic8")
    x = {"a": X[0, :, :4], "b": X[1, :, :4]}
    calibrate(net, x)
    np.testing.assert_allclose(net(x)["sum"], model(x)["sum"], atol=0.1)
    net.predict(x, verbose=0)


def test_what_cannot_become_analog():
    with pytest.raises(TypeError, match="must be a Keras model"):
        analog(L.Dense(3))
    with pytest.raises(ValueError, match="must be a built model"):
        analog(keras.Sequential([L.Dense(3)]))
    net = analog(network(), "ideal")
    with pytest.raises(ValueError, match="must not be analog already"):
        analog(net)
    with pytest.raises(ValueError, match="must have matrices"):
        analog(keras.Sequential([keras.Input((3,)), L.Dropout(0.1)]))

    class Trainer(keras.Model):
        def train_step(self, data):
            return {}

    given = keras.Input((3,))
    with pytest.raises(ValueError, match="own train_step"):
        analog(Trainer(given, L.Dense(2)(given)))


def test_it_works_with_constraint_and_noise_of_devices():
    kernel = snukeras.constraints.PCMConstraint(levels=8)
    model = keras.Sequential([keras.Input((7,)), L.Dense(5, kernel_constraint=kernel, name="d")])
    net = analog(model, "generic8", GenericPCM())
    net.compile("sgd", "mse", jit_compile=False)
    calibrate(net, X[0])
    net.fit(X[0], X[0, :, :5], verbose=0, callbacks=[snukeras.callbacks.PCMNoise(seed=1)])
    held = values(net.get_layer("d").kernel)
    np.testing.assert_allclose(kernel.nearest(held), held, atol=1e-6)
