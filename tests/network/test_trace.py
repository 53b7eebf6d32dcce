"""snukeras.trace and return_membrane: spikes and membranes of the layers as they run."""

import keras
import numpy as np
import oracle
import pytest
import tensorflow as tf

import snukeras
from snukeras.export import counting
from snukeras.layers import SNU, SSNU, ConvSNU2D
from snukeras.network import observers

BATCH, STEPS, FEATURES, UNITS = 3, 7, 5, 6


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(BATCH, STEPS, FEATURES)).astype("float32")


def layer_of(cls=SNU, implementation="auto", **arguments):
    keras.utils.set_random_seed(1)
    # The oracle has the rectified g of the paper.
    settings = {"threshold": 0.3, "return_sequences": True, "state_activation": "relu"}
    arguments = {**settings, **arguments}
    return cls(UNITS, implementation=implementation, **arguments)


def test_a_trace_has_the_states_of_the_oracle(x):
    layer = layer_of(recurrent=True)
    traced = snukeras.trace(keras.Sequential([keras.Input(x.shape[1:]), layer]), x)
    cell = layer.cell
    unit = oracle.Unit(
        kernel=np.float64(cell.kernel.numpy()),
        decay=np.float64(cell.decay_values()),
        threshold=np.float64(cell.threshold_values()),
        recurrent_kernel=np.float64(cell.recurrent_kernel.numpy()),
    )
    steps = oracle.forward(unit, np.float64(x))
    assert list(traced) == [layer.name]
    np.testing.assert_allclose(
        traced[layer.name]["membranes"], np.stack([s["s"] for s in steps], 1), atol=1e-5
    )
    assert np.array_equal(traced[layer.name]["spikes"], np.stack([s["y"] for s in steps], 1))


@pytest.mark.some_cases(1)
@pytest.mark.parametrize("cls", [SNU, SSNU])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"recurrent": True, "go_backwards": True},
        {"zero_output_for_mask": True, "state_activation": "tanh"},
    ],
)
def test_the_fast_path_returns_the_membranes_and_gradients_of_the_plain_one(
    x, cls, masked, options
):
    mask = np.ones((BATCH, STEPS), bool)
    mask[0, :2] = mask[1, 3:] = False
    found = []
    for implementation in ("fused", "cell"):
        layer = layer_of(cls, implementation, return_membrane=True, return_state=True, **options)
        inputs = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            y, s, last_y, last_s = layer(inputs, mask=mask if masked else None, training=True)
            loss = tf.reduce_sum(tf.sin(s)) + tf.reduce_sum(tf.cos(y) * s) + tf.reduce_sum(last_s)
        gradients = tape.gradient(loss, [inputs, *layer.trainable_variables])
        found.append([y, s, last_y, last_s, *gradients])
    for fast, plain in zip(*found, strict=True):
        np.testing.assert_allclose(fast, plain, atol=2e-5)


@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize("states", [True, False])
def test_what_a_layer_returns_has_the_shapes_that_it_announces(x, sequences, states):
    for layer, data in (
        (layer_of(return_sequences=sequences, return_state=states, return_membrane=True), x),
        (ConvSNU2D(4, 3, return_sequences=sequences, return_state=states, return_membrane=True),
         np.ones((2, 5, 6, 6, 1), "float32")),
    ):  # fmt: skip
        given = keras.Input(data.shape[1:])
        announced = [tensor.shape[1:] for tensor in layer(given)]
        assert announced == [tuple(tensor.shape[1:]) for tensor in layer(data)]
        assert len(announced) == (4 if states else 2)
        again = type(layer).from_config(layer.get_config())
        assert again.return_membrane


def test_without_sequences_the_membrane_is_that_of_the_last_step(x):
    whole = layer_of(return_membrane=True)
    last = layer_of(return_membrane=True, return_sequences=False)
    whole(x), last(x)
    last.set_weights(whole.get_weights())
    np.testing.assert_array_equal(last(x)[1], whole(x)[1][:, -1])


def test_a_mask_goes_on_past_a_layer_that_returns_its_membrane():
    given = keras.Input((None, FEATURES))
    _, membrane = layer_of(return_membrane=True)(keras.layers.Masking()(given))
    output = keras.layers.LSTM(2)(membrane)
    model = keras.Model(given, output)
    x = np.random.default_rng(1).normal(size=(2, 6, FEATURES)).astype("float32")
    padded = np.concatenate([x, np.zeros_like(x)], 1)
    np.testing.assert_allclose(
        model.predict(x, verbose=0), model.predict(padded, verbose=0), atol=1e-6
    )


class Own(keras.Model):
    """A model of a user's own, with layers in a dict and in a layer of its own."""

    def __init__(self):
        super().__init__()
        self.parts = {"first": layer_of(name="first")}
        self.wrapped = keras.layers.Bidirectional(layer_of(name="second"))
        self.inner = keras.Sequential([keras.layers.Dense(4), layer_of(SSNU, name="first")])

    def call(self, x, training=False):
        return self.inner(self.wrapped(self.parts["first"](x)))


def test_all_layers_of_any_model_are_traced(x):
    model = Own()
    model(x)
    x = np.concatenate([x] * 3)
    traced = snukeras.trace(model, x, batch_size=4)
    assert len(traced) == 4 and "first" in traced
    assert sum(name.endswith("/first") for name in traced) == 1
    for values in traced.values():
        assert {key: value.shape for key, value in values.items()} == dict.fromkeys(
            ("spikes", "membranes"), (9, STEPS, UNITS)
        )
    whole = snukeras.trace(model, x, batch_size=9)
    for name, values in traced.items():
        np.testing.assert_allclose(values["membranes"], whole[name]["membranes"], atol=1e-5)


def test_a_layer_that_is_called_twice_is_traced_twice(x):
    layer = layer_of(name="snu")
    given = keras.Input((STEPS, UNITS))
    model = keras.Model(given, layer(layer(given)))
    data = np.random.default_rng(2).normal(size=(2, STEPS, UNITS)).astype("float32")
    traced = snukeras.trace(model, data)
    assert list(traced) == ["snu", "snu@2"]
    np.testing.assert_array_equal(traced["snu@2"]["spikes"], model.predict(data, verbose=0))


@pytest.mark.parametrize("implementation", ["auto", "cell"])
@pytest.mark.parametrize("sequences", [True, False])
def test_a_trace_changes_nothing(x, implementation, sequences):
    layer = layer_of(implementation=implementation, return_sequences=sequences)
    model = keras.Sequential([keras.Input(x.shape[1:]), layer])
    before, weights = model.predict(x, verbose=0), model.get_weights()
    traced = snukeras.trace(model, x)[layer.name]
    assert traced["spikes"].shape == (BATCH, STEPS, UNITS)
    assert not observers.of(layer)
    np.testing.assert_array_equal(before, model.predict(x, verbose=0))
    for old, new in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    shown = traced["spikes"] if sequences else traced["spikes"][:, -1]
    np.testing.assert_array_equal(before, shown)


def test_what_cannot_be_traced_is_refused(x):
    bare = keras.Sequential(
        [keras.Input(x.shape[1:]), keras.layers.RNN(snukeras.layers.SNUCell(UNITS))]
    )
    with pytest.raises(ValueError, match="no SNU layers to trace"):
        snukeras.trace(bare, x)
    dense = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="no SNU layers to trace"):
        snukeras.trace(dense, x[:, 0])
    model = keras.Sequential([keras.Input(x.shape[1:]), layer_of()])
    with pytest.raises(ValueError, match="at least one sample"):
        snukeras.trace(model, x[:0])

    class Compiled(keras.Model):
        def __init__(self):
            super().__init__()
            self.snu = layer_of()

        @tf.function
        def call(self, x, training=False):
            return self.snu(x)

    model = Compiled()
    for run in (snukeras.trace, snukeras.initializers.calibrate):
        with pytest.raises(TypeError, match="compiled function"):
            run(model, x)


@pytest.mark.parametrize("run", [snukeras.trace, snukeras.initializers.calibrate])
def test_bad_models_and_inputs_are_refused(run, x):
    model = keras.Sequential([keras.Input(x.shape[1:]), layer_of()])
    for bad in (None, 3.0, [], x.tolist(), (part for part in x)):
        with pytest.raises(ValueError, match=r"`x` must be an array \(samples, ...\), .*Received"):
            run(model, bad)
    with pytest.raises(ValueError, match=r"one for each input .*arrays of \[3, 2\] samples"):
        run(model, [x, x[:2]])
    with pytest.raises(ValueError, match=r"Give the inputs of one batch, x, y = next"):
        run(model, tf.data.Dataset.from_tensor_slices(x).batch(2))
    with pytest.raises(ValueError, match="at least one sample"):
        run(model, x[:0])
    for odd in (np.nan, np.inf):
        with pytest.raises(ValueError, match=r"finite numbers\. Received: NaN or infinity in 1 of"):
            run(model, np.concatenate([x.ravel()[:-1], [odd]]).reshape(x.shape))
    with pytest.raises(ValueError, match=r"`model` must be a Keras model, or one layer\. .*'snu'"):
        run("snu", x)


def test_a_batch_of_a_trace_holds_a_sample(x):
    model = keras.Sequential([keras.Input(x.shape[1:]), layer_of()])
    for size in (0, -1, 1.5, None):
        with pytest.raises(ValueError, match="`batch_size` must be an integer of at least 1"):
            snukeras.trace(model, x, batch_size=size)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_in_half_precision_rates_are_counted_in_full(dtype):
    """NumPy would add up bfloat16 in bfloat16."""
    keras.utils.set_random_seed(1)
    cost = snukeras.regularizers.SpikeRate(target=0.1)
    layer = SNU(40, return_sequences=True, activity_regularizer=cost, name="s",
                dtype=f"mixed_{dtype}")  # fmt: skip
    model = keras.Sequential([keras.Input((50, 20)), layer, keras.layers.Dense(2)])
    x = (np.random.default_rng(0).random((32, 50, 20)) < 0.3).astype("float32")
    spikes = snukeras.trace(model, x)["s"]["spikes"]
    assert spikes.dtype == np.float32
    rate = np.float64(spikes).mean()
    assert rate > 0.05 and spikes.mean() == pytest.approx(rate, rel=1e-3)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    monitor = snukeras.callbacks.SpikeMonitor()
    history = model.fit(x, np.zeros((32, 50, 2)), batch_size=32, verbose=0, callbacks=[monitor])
    assert history.history["s/rate"][0] == pytest.approx(rate, rel=1e-3)
    layer(x)
    assert float(layer.losses[0]) == pytest.approx(float(cost(spikes)), rel=1e-3)
    counted = next(iter(counting.count(model, None, x).units.values()))
    assert counted.spikes == pytest.approx(np.float64(spikes).sum(), rel=1e-3)
    reached = snukeras.initializers.calibrate(model, x, rate=0.2)
    assert reached["s"] == pytest.approx(0.2, abs=0.02)
