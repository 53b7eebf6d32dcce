"""GRAPES: gradients against NumPy, on all layers, wrapping of models, saving."""

import re
import warnings
from pathlib import Path

import keras
import numpy as np
import oracle
import pytest
import tensorflow as tf

from snukeras.callbacks import PCMNoise
from snukeras.constraints import PCMConstraint
from snukeras.layers import SNU, SSNU, ConvSNU1D, ConvSNU2D, SNUCell
from snukeras.network import topology
from snukeras.optimizers import GRAPES, grapes, with_grapes, without_grapes

RNG = np.random.default_rng(0)


def factor(*kernels, units, clip=True):
    """M of the paper, from kernels whose last axis holds the units, gate by gate."""
    incoming = np.zeros(units)
    for kernel in kernels:
        for column, value in enumerate(np.abs(kernel).reshape(-1, kernel.shape[-1]).sum(axis=0)):
            incoming[column % units] += value
    m = 2 * incoming / incoming.max()
    return np.clip(m, 1, 2) if clip else m


def gradients(model, x, y, training=True):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(model(x, training=training) - y))
    return [tf.convert_to_tensor(g).numpy() for g in tape.gradient(loss, model.trainable_variables)]


def dense_net(**arguments):
    return keras.Sequential(
        [
            keras.Input((7,), dtype="float64"),
            keras.layers.Dense(6, "relu", dtype="float64"),
            keras.layers.Dense(5, "tanh", dtype="float64"),
            keras.layers.Dense(3, dtype="float64"),
        ],
        **arguments,
    )


def dense_reference(weights, x, y, clip=True, propagate=True):
    """Backpropagation of dense_net by hand; the gradients in the order of the variables."""
    (w1, b1, w2, b2, w3, b3) = weights
    a1 = x @ w1 + b1
    h1 = np.maximum(a1, 0)
    a2 = h1 @ w2 + b2
    h2 = np.tanh(a2)
    delta3 = 2 * (h2 @ w3 + b3 - y)
    m1, m2 = factor(w1, units=6, clip=clip), factor(w2, units=5, clip=clip)
    if propagate:
        delta2 = m2 * (delta3 @ w3.T) * (1 - h2**2)
        delta1 = m1 * (delta2 @ w2.T) * (a1 > 0)
        own1, own2 = delta1, delta2
    else:
        delta2 = (delta3 @ w3.T) * (1 - h2**2)
        delta1 = (delta2 @ w2.T) * (a1 > 0)
        own1, own2 = m1 * delta1, m2 * delta2
    return [
        *(x.T @ own1, own1.sum(0)),
        *(h1.T @ own2, own2.sum(0)),
        *(h2.T @ delta3, delta3.sum(0)),
    ]


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("propagate", [True, False])
def test_dense_gradients_are_those_of_a_reference(clip, propagate):
    plain = dense_net()
    model = with_grapes(plain, clip=clip, propagate=propagate)
    x, y = RNG.normal(size=(9, 7)), RNG.normal(size=(9, 3))
    wanted = dense_reference(plain.get_weights(), x, y, clip, propagate)
    for found, reference in zip(gradients(model, x, y), wanted, strict=True):
        np.testing.assert_allclose(found, reference, rtol=1e-10, atol=1e-12)
    # Outside of training, and without GRAPES, nothing is modulated.
    for other in (gradients(model, x, y, training=False), gradients(plain, x, y)):
        assert not np.allclose(other[0], wanted[0])
    np.testing.assert_array_equal(model(x, training=True), plain(x, training=True))


@pytest.mark.some_cases(1)
@pytest.mark.parametrize(
    ("unit", "recurrent", "implementation", "propagate"),
    [
        (SNU, True, "fused", True),
        (SNU, False, "cell", True),
        (SNU, True, "cell", False),
        (SSNU, False, "fused", False),
        (SSNU, True, "cell", True),
    ],
)
def test_snu_gradients_are_those_of_a_reference(unit, recurrent, implementation, propagate):
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    arguments = {
        "recurrent": recurrent,
        "trainable_decay": True,
        "threshold": 0.3,
        "return_sequences": True,
        "implementation": implementation,
        "dtype": "float64",
        # The oracle has the paper's.
        **({"pseudo_derivative": "tanh", "state_activation": "relu"} if unit is SNU else {}),
    }
    plain = keras.Sequential(
        [
            keras.Input((4, 7), dtype="float64"),
            unit(6, **arguments),
            unit(5, **arguments),
            keras.layers.Dense(3, dtype="float64"),
        ]
    )
    model = with_grapes(plain, propagate=propagate)
    x, y = rng.normal(size=(3, 4, 7)), rng.normal(size=(3, 4, 3))

    layers = []
    for layer in plain.layers[:2]:
        cell = layer.cell
        layers.append(
            oracle.Unit(
                kernel=cell.kernel.numpy(),
                decay=cell.decay_values(),
                threshold=cell.threshold_values(),
                recurrent_kernel=cell.recurrent_kernel.numpy() if recurrent else None,
                spiking=unit is SNU,
            )
        )
    w3, b3 = plain.layers[2].get_weights()
    h1 = oracle.forward(layers[0], x)
    y1 = oracle.outputs(h1)
    h2 = oracle.forward(layers[1], y1)
    y2 = oracle.outputs(h2)
    delta3 = 2 * (y2 @ w3 + b3 - y)
    m = [
        factor(
            *(k for k in (u.kernel, u.recurrent_kernel) if k is not None), units=u.kernel.shape[1]
        )
        for u in layers
    ]
    passed = m if propagate else [1.0, 1.0]
    g2 = oracle.backward(layers[1], y1, h2, passed[1] * (delta3 @ w3.T))
    g1 = oracle.backward(layers[0], x, h1, passed[0] * g2["x"])
    wanted = []
    for grads, own in ((g1, m[0]), (g2, m[1])):
        for name in ("kernel", *(["recurrent_kernel"] if recurrent else []), "threshold", "decay"):
            wanted.append(grads[name] * (1.0 if propagate else own))
    wanted += [np.einsum("bti,btj->ij", y2, delta3), delta3.sum((0, 1))]
    assert np.abs(wanted[0]).max() > 0
    for found, reference in zip(gradients(model, x, y), wanted, strict=True):
        np.testing.assert_allclose(found, reference, rtol=1e-6, atol=1e-9)


SEQUENCE, IMAGE = (5, 3), (5, 6, 3)
LAYERS = {
    "Dense": (lambda: keras.layers.Dense(4), (3,)),
    "Embedding": (lambda: keras.layers.Embedding(6, 4), (5,)),
    "Conv1D": (lambda: keras.layers.Conv1D(4, 2), SEQUENCE),
    "Conv2D": (lambda: keras.layers.Conv2D(4, 2), IMAGE),
    "Conv3D": (lambda: keras.layers.Conv3D(4, 2), (3, 3, 3, 2)),
    "TimeDistributed": (
        lambda: keras.layers.TimeDistributed(keras.layers.Dense(4)),
        SEQUENCE,
    ),
    "Bidirectional": (
        lambda: keras.layers.Bidirectional(keras.layers.GRU(4, return_sequences=True)),
        SEQUENCE,
    ),
    "SimpleRNN": (lambda: keras.layers.SimpleRNN(4, return_sequences=True), SEQUENCE),
    "LSTM": (lambda: keras.layers.LSTM(4), SEQUENCE),
    "GRU": (lambda: keras.layers.GRU(4), SEQUENCE),
    "RNN": (lambda: keras.layers.RNN(SNUCell(4, recurrent=True)), SEQUENCE),
    "ConvLSTM1D": (lambda: keras.layers.ConvLSTM1D(4, 2), IMAGE),
    "SNU": (lambda: SNU(4, recurrent=True, threshold=0.2, return_sequences=True), SEQUENCE),
    "SSNU": (lambda: SSNU(4), SEQUENCE),
    "ConvSNU1D": (lambda: ConvSNU1D(4, 2, threshold=0.2), IMAGE),
    "ConvSNU2D": (lambda: ConvSNU2D(4, 2, threshold=0.2), (2, *IMAGE)),
}


@pytest.mark.some_cases(4)
@pytest.mark.parametrize("name", LAYERS)
def test_on_all_layers(name, tmp_path):
    make, shape = LAYERS[name]
    layer = make()
    below = keras.layers.Dense(shape[-1], "tanh")
    inputs = keras.Input(shape)
    hidden = layer(inputs if name == "Embedding" else below(inputs))
    plain = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(hidden)))
    x, y = np.float32(RNG.normal(size=(8, *shape))), np.float32(RNG.normal(size=(8, 2)))
    x = np.abs(x) if name == "Embedding" else x
    kernels = [w.numpy() for w in layer.weights if "kernel" in w.name or "embed" in w.name]
    if name == "Bidirectional":
        half = len(kernels) // 2
        m = np.concatenate([factor(*kernels[:half], units=4), factor(*kernels[half:], units=4)])
    else:
        m = factor(*kernels, units=4)
    assert m.min() < 1.99

    # The layer alone: its errors from above, multiplied, and everything below and in it.
    head = plain.layers[-1].kernel
    own = {id(v) for v in layer.trainable_variables}
    with tf.GradientTape(persistent=True) as tape:
        first = x if name == "Embedding" else below(x)
        output = layer(first, training=True)
        flat = tf.reshape(output, (8, -1))
        error = 2 * (flat @ head + plain.layers[-1].bias - y)
    to_output = tf.reshape(error @ tf.transpose(head), output.shape)

    for propagate in (True, False):
        model = with_grapes(plain, propagate=propagate, layers=[layer.name])
        wrapped = model.get_layer(layer.name)
        np.testing.assert_allclose(wrapped.modulation(), m, rtol=1e-5)
        found = gradients(model, x, y)
        for variable, gradient in zip(model.trainable_variables, found, strict=True):
            if variable.path.startswith(plain.layers[-1].name):
                continue
            modulated = tape.gradient(output, variable, to_output * np.float32(m))
            unmodulated = tf.convert_to_tensor(tape.gradient(output, variable, to_output))
            if id(variable) in own and not propagate:
                units = np.split(m, 2) if name == "Bidirectional" else [m]
                of = units[-1] if "backward" in variable.path else units[0]
                wanted = unmodulated * np.float32(np.tile(of, variable.shape[-1] // 4))
            else:
                wanted = modulated if propagate else unmodulated
            wanted = tf.convert_to_tensor(wanted)
            np.testing.assert_allclose(gradient, wanted, rtol=1e-4, atol=1e-5)

    model = with_grapes(plain, clip=False, layers=[layer])
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.get_layer(layer.name).clip is False
    np.testing.assert_allclose(again(x), plain(x), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(without_grapes(again)(x), plain(x), rtol=1e-5, atol=1e-6)
    for one, other in zip(gradients(again, x, y), gradients(model, x, y), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_channels_first():
    layer = GRAPES(keras.layers.Conv2D(4, 2, data_format="channels_first"))
    layer.build((None, 3, 5, 6))
    errors = ops_of(layer, (2, 4, 4, 5))
    m = factor(layer.layer.kernel.numpy(), units=4)
    np.testing.assert_allclose(errors[0, :, 0, 0], m, rtol=1e-5)


def ops_of(layer, shape):
    """What the layer's modulation makes of errors of 1."""
    x = tf.ones(shape)
    with tf.GradientTape() as tape:
        tape.watch(x)
        axis = grapes.layer.units_of(layer.layer)[0].axis
        y = grapes.layer.scaled_gradient(x, grapes.layer._along(axis, layer.modulation()))
    return tape.gradient(y, x).numpy()


def test_importance_without_clip_uniform_and_of_nothing():
    dense = keras.layers.Dense(3, kernel_initializer="zeros")
    dense.build((None, 2))
    np.testing.assert_array_equal(GRAPES(dense).modulation(), [1, 1, 1])
    np.testing.assert_array_equal(GRAPES(dense, clip=False).modulation(), [1, 1, 1])
    dense.kernel.assign([[1, 2, 0], [-1, 2, 0.5]])
    np.testing.assert_array_equal(GRAPES(dense).importance(), [2, 4, 0.5])
    np.testing.assert_array_equal(GRAPES(dense).modulation(), [1, 2, 1])
    np.testing.assert_array_equal(GRAPES(dense, clip=False).modulation(), [1, 2, 0.25])
    np.testing.assert_allclose(GRAPES(dense, uniform=True).modulation(), [4 / 3] * 3, rtol=1e-6)


def test_with_uniform_modulation_sgd_is_plain_sgd_with_a_learning_rate_for_each_layer():
    plain = dense_net()
    model = with_grapes(plain, uniform=True)
    x, y = RNG.normal(size=(9, 7)), RNG.normal(size=(9, 3))
    rates = [np.mean(layer.modulation()) for layer in model.layers[:2]]
    rates = [rates[0] * rates[1]] * 2 + [rates[1]] * 2 + [1.0] * 2
    pairs = zip(gradients(model, x, y), gradients(plain, x, y), rates, strict=True)
    for found, unmodulated, rate in pairs:
        np.testing.assert_allclose(found, rate * unmodulated, rtol=1e-5)


def test_fit_follows_the_weights_of_each_step_and_the_plain_model_learns_along():
    plain = dense_net()
    weights = plain.get_weights()
    x, y = RNG.normal(size=(12, 7)), RNG.normal(size=(12, 3))
    for start in (0, 6):
        grads = dense_reference(weights, x[start : start + 6], y[start : start + 6])
        weights = [w - 0.01 * g for w, g in zip(weights, grads, strict=True)]
    model = with_grapes(plain)
    model.compile(keras.optimizers.SGD(0.01), SumOfSquares())
    model.fit(x, y, batch_size=6, shuffle=False, verbose=0)
    for found, wanted in zip(plain.get_weights(), weights, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-8)


class SumOfSquares(keras.losses.Loss):
    """The loss of `gradients`."""

    def __init__(self):
        super().__init__(reduction="sum", dtype="float64")

    def call(self, y_true, y_pred):
        return keras.ops.sum(keras.ops.square(y_true - y_pred), axis=-1)


@pytest.mark.slow
def test_fit_on_hardware_in_half_precision(tmp_path):
    policy = "mixed_float16"
    plain = keras.Sequential(
        [
            keras.Input((4, 3)),
            SNU(5, threshold=0.1, kernel_constraint=PCMConstraint(seed=1), dtype=policy),
            keras.layers.Dense(6, "relu", dtype=policy),
            keras.layers.Dense(2, dtype=policy),
        ]
    )
    model = with_grapes(plain)
    assert model.layers[0].dtype_policy.name == policy
    model.compile("adam", "mse")
    before = plain.get_weights()
    x, y = np.float32(RNG.normal(size=(8, 4, 3))), np.float32(RNG.normal(size=(8, 2)))
    model.fit(x, y, verbose=0, callbacks=[PCMNoise(seed=2)])
    assert not np.allclose(before[0], plain.get_weights()[0])
    assert all(np.isfinite(w).all() for w in plain.get_weights())
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert wrapped_names(again) == {layer.name for layer in plain.layers[:2]}
    assert int(again.optimizer.iterations) == 1


# Which layers are hidden. ---------------------------------------------------------------------


def wrapped_names(model):
    """The names of the wrapped layers, also of models inside."""
    found = set()
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found |= wrapped_names(layer)
        elif isinstance(layer, GRAPES):
            assert layer.name == layer.layer.name
            found.add(layer.name)
    return found


def dense(name):
    return keras.layers.Dense(4, name=name)


def test_branches_sums_and_several_outputs():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    left, right = dense("left")(a), dense("right")(b)
    joined = keras.layers.add([left, right])
    summed = joined + dense("residual")(joined)
    head = keras.layers.Softmax()(keras.layers.BatchNormalization()(dense("head")(summed)))
    side = dense("side")(left)
    model = keras.Model({"a": a, "b": b}, {"head": head, "side": side})
    wrapped = with_grapes(model)
    assert wrapped_names(wrapped) == {"left", "right", "residual"}
    assert type(wrapped) is type(model)
    data = {"a": np.ones((3, 4)), "b": np.zeros((3, 4))}
    np.testing.assert_allclose(wrapped(data)["side"], model(data)["side"])
    # What a layer gives to an output directly is an output's error.
    model = keras.Model([a, b], [joined, dense("more")(joined)])
    with pytest.raises(ValueError, match="add a hidden layer"):
        with_grapes(model)


def test_a_layer_that_is_called_twice_is_wrapped_once():
    a, b = keras.Input((4,)), keras.Input((4,))
    shared, act = dense("shared"), keras.layers.ReLU()
    both = keras.layers.concatenate([act(shared(a)), act(shared(b))])
    model = with_grapes(keras.Model([a, b], act(dense("head")(act(dense("middle")(both))))))
    assert wrapped_names(model) == {"shared", "middle"}
    assert len(model.trainable_variables) == 6


def test_models_inside_models():
    # As a hidden part, all its layers are hidden; as the last part, its own last one is not.
    inner = keras.Sequential([keras.Input((4,)), dense("one"), dense("two")], name="inner")
    x = keras.Input((4,))
    hidden = keras.Model(x, dense("head")(inner(x)))
    last = keras.Model(x, keras.layers.Softmax()(inner(dense("first")(x))))
    assert wrapped_names(with_grapes(hidden)) == {"one", "two"}
    assert wrapped_names(with_grapes(last)) == {"first", "one"}
    # Twice, in both roles.
    twice = keras.Model(x, inner(dense("first")(inner(x))))
    assert wrapped_names(with_grapes(twice)) == {"first", "one"}
    # A model with a way around its layers leaves what is before it exposed.
    z = keras.Input((4,))
    around = keras.Model(z, z + dense("two")(dense("one")(z)), name="around")
    model = keras.Model(x, around(dense("first")(x)))
    wrapped = with_grapes(model)
    assert wrapped_names(wrapped) == {"one"}
    plain = without_grapes(wrapped)
    assert wrapped_names(plain) == set()
    np.testing.assert_allclose(plain(np.ones((2, 4))), model(np.ones((2, 4))))


def test_states_and_masks_pass_through(tmp_path):
    words = keras.Input((5,), dtype="int32")
    vectors = keras.layers.Embedding(9, 4, mask_zero=True, name="words")(words)
    sequence, *state = keras.layers.LSTM(
        4, return_sequences=True, return_state=True, name="encoder"
    )(vectors)
    decoded = keras.layers.LSTM(4, name="decoder")(sequence, initial_state=state)
    model = keras.Model(words, dense("head")(decoded))
    wrapped = with_grapes(model)
    assert wrapped_names(wrapped) == {"words", "encoder", "decoder"}
    x = np.array([[1, 2, 3, 0, 0], [4, 5, 6, 7, 8]])
    np.testing.assert_allclose(wrapped(x, training=True), model(x), rtol=1e-6)
    assert not np.allclose(gradients(wrapped, x, 0.0)[0], gradients(model, x, 0.0)[0])
    wrapped.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(x), model(x), rtol=1e-6)


def test_what_is_chosen_by_name():
    x = keras.Input((6, 6, 3))
    y = keras.layers.Conv2D(4, 2, name="conv_a")(x)
    y = keras.layers.SeparableConv2D(4, 2, name="separable")(y)
    y = keras.layers.Conv2D(4, 2, name="conv_b")(y)
    model = keras.Model(x, dense("head")(keras.layers.Flatten()(y)))
    with pytest.raises(ValueError, match=r"separable \(SeparableConv2D\).*conv_a, conv_b"):
        with_grapes(model)
    assert wrapped_names(with_grapes(model, layers="conv_*")) == {"conv_a", "conv_b"}
    assert wrapped_names(with_grapes(model, layers=[model.get_layer("conv_b")])) == {"conv_b"}
    for name in ("head", "separable", "no_such"):
        with pytest.raises(ValueError, match=name):
            with_grapes(model, layers=[name])


def test_what_is_refused():
    class Own(keras.Model):
        def call(self, x):
            return x

    own = Own()
    own(np.ones((1, 2)))

    class OwnSequential(keras.Sequential):
        pass

    layers = [keras.Input((3,)), dense("one"), dense("two")]
    for model, words in (
        (keras.Sequential([dense("one"), dense("two")]), "must be built"),
        (own, "cannot be followed"),
        (keras.Sequential([keras.Input((2,)), own, dense("two")]), "cannot be followed"),
        (with_grapes(keras.Sequential(layers)), "wrapped once"),
        (OwnSequential(layers), "OwnSequential"),
        (keras.Sequential(layers[:2]), "add a hidden layer"),
        (dense("one"), "Received: <Dense"),
    ):
        with pytest.raises(ValueError, match=words):
            with_grapes(model)
    with pytest.raises(ValueError, match="Received: 'bn'"):
        GRAPES(keras.layers.BatchNormalization(name="bn"))
    with pytest.raises(ValueError, match="Received: 'cells'"):
        GRAPES(keras.layers.RNN([SNUCell(2), SNUCell(2)], name="cells"))
    with pytest.raises(ValueError, match="activity regularizer"):
        GRAPES(keras.layers.Dense(2, activity_regularizer="l2"), propagate=False)
    summed = keras.layers.Bidirectional(keras.layers.GRU(2), merge_mode="sum")
    with pytest.raises(ValueError, match="that concatenate"):
        GRAPES(summed)


def test_the_given_model_can_still_be_read_for_export():
    plain = keras.Sequential([keras.Input((3, 4)), SNU(5), dense("head")])
    calls = topology.read(plain).calls
    model = with_grapes(plain)
    assert topology.read(plain).calls == calls
    assert len(topology.read(without_grapes(model)).calls) == len(calls)


@pytest.mark.slow
def test_the_example_of_the_guide_runs(tmp_path, monkeypatch):
    guide = Path(__file__).resolve().parents[2] / "docs" / "grapes.md"
    code = re.search(r"```python\n(.*?)```", guide.read_text("utf-8"), re.DOTALL)[1]
    assert code.count("\n") <= 30
    monkeypatch.chdir(tmp_path)
    made: dict = {}
    exec(code, made)
    assert wrapped_names(made["again"]) == set()
    np.testing.assert_allclose(made["again"](made["x"]), made["plain"](made["x"]), rtol=1e-5)
    for file in ("plain.keras", "grapes.keras"):
        loaded = keras.models.load_model(tmp_path / file)
        np.testing.assert_allclose(loaded(made["x"]), made["plain"](made["x"]), rtol=1e-5)


def test_deep_networks_are_warned_of():
    layers = [keras.layers.Dense(32, "relu", kernel_initializer="he_uniform") for _ in range(9)]
    plain = keras.Sequential([keras.Input((32,)), *layers, keras.layers.Dense(2)])
    with pytest.warns(UserWarning, match=r"9 layers with GRAPES multiply.* propagate=False"):
        with_grapes(plain)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with_grapes(plain, propagate=False)
        with_grapes(plain, layers=[layer.name for layer in layers[:3]])
