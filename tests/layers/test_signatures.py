"""Constructors name all their arguments, and refuse what they do not know."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

import snukeras.layers
from snukeras._arguments import LayerArguments
from snukeras.activations import FastSigmoid
from snukeras.layers import SNU, SSNU, ConvSNU1D, ConvSNU2D, ConvSSNU1D, ConvSSNU2D, SNUCell

PUBLIC = [getattr(snukeras.layers, name) for name in snukeras.layers.__all__]
CLASSES = [thing for thing in PUBLIC if isinstance(thing, type)]
OF_KERAS = {*LayerArguments.__annotations__, "activity_regularizer"}


def example(cls):
    """Return an instance of a class of layers."""
    given = {
        "units": 2,
        "filters": 2,
        "kernel_size": 1,
        "rank": 1,
        "steps": 3,
        "input_dim": 4,
        "output_dim": 2,
        "levels": [1.0, 2.0],
        "coupling": snukeras.layers.Uncoupled(),
    }
    parameters = inspect.signature(cls).parameters
    return cls(**{name: value for name, value in given.items() if name in parameters})


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if cls is not snukeras.layers.Spatial])
def test_a_signature_names_every_argument_of_the_config(cls):
    config = {*example(cls).get_config()}
    parameters = {*inspect.signature(cls).parameters}
    assert config - parameters - OF_KERAS == set()


@pytest.mark.parametrize("cls", [SNU, SSNU, ConvSNU1D, ConvSNU2D, ConvSSNU1D, ConvSSNU2D])
def test_a_signature_is_that_of_the_cell_and_of_the_layer(cls):
    layer = example(cls)
    of_cell = inspect.signature(type(layer.cell)).parameters
    parameters = inspect.signature(cls).parameters
    for name in {*of_cell} - {"rank", "kwargs"}:
        assert parameters[name].default == of_cell[name].default, name
    for name in ("return_sequences", "stateful", "implementation"):
        assert name in parameters


@pytest.mark.parametrize(
    "cls, arguments, words",
    [
        (SNU, {"treshold": 1.0}, ["SNU", "`treshold`", "`threshold`", "1.0"]),
        (SSNU, {"pseudo_derivative": "tanh"}, ["SSNU", "sigmoid", "SNU"]),
        (ConvSNU2D, {"nonsense": 3}, ["ConvSNU2D", "`nonsense`", "padding", "nonsense=3"]),
        (ConvSSNU1D, {"convolution": {}}, ["ConvSSNU1D", "`convolution`"]),
    ],
)
def test_an_unknown_argument_is_named(cls, arguments, words):
    with pytest.raises(TypeError) as raised:
        cls(2, **({} if cls in (SNU, SSNU) else {"kernel_size": 1}), **arguments)
    for word in words:
        assert word in str(raised.value)


def test_the_arguments_of_every_keras_layer_pass():
    layer = ConvSSNU2D(2, 3, name="unit", dtype="float64", trainable=False)
    assert (layer.name, layer.dtype, layer.trainable) == ("unit", "float64", False)
    assert layer.cell.dtype == "float64" and not layer.cell.trainable


@pytest.mark.parametrize(
    "word, instead",
    [
        ("activation", "state_activation"),
        ("beta", "decay"),
        ("tau", "decay=1 - 1 / tau"),
        ("spike_grad", "pseudo_derivative"),
    ],
)
@pytest.mark.parametrize("cls", [SNU, SSNU])
def test_a_word_of_habit_gets_a_hint(cls, word, instead):
    with pytest.raises(TypeError, match=f"has no argument `{word}`.*{instead}.*{word}=0.9"):
        cls(2, **{word: 0.9})


UNUSED = [
    (dict(recurrent_dropout=0.5), "recurrent=True"),
    (dict(recurrent_initializer="orthogonal"), "recurrent=True"),
    (dict(recurrent_regularizer="l2"), "recurrent=True"),
    (dict(recurrent_constraint="non_neg"), "recurrent=True"),
    (dict(bias_initializer="ones"), "use_bias=True"),
    (dict(bias_constraint="non_neg"), "use_bias=True"),
    (dict(decay_regularizer="l2"), "trainable_decay=True"),
    (dict(threshold_constraint="non_neg", trainable_threshold=False), "trainable_threshold=True"),
    (dict(decay=0.5, decay_initializer="ones"), "not both"),
]


@pytest.mark.parametrize("arguments, remedy", UNUSED)
@pytest.mark.parametrize("cls", [SNU, ConvSSNU1D])
def test_an_argument_without_use_is_an_error(cls, arguments, remedy):
    size = {} if cls is SNU else {"kernel_size": 1}
    with pytest.raises(ValueError) as raised:
        cls(2, **size, **arguments)
    assert remedy in str(raised.value) and next(iter(arguments)) in str(raised.value)


@pytest.mark.parametrize("cls", [SNU, SNUCell])
def test_a_config_of_an_earlier_version_with_unused_arguments_loads(cls):
    config = cls(2).get_config()
    kept = {**config, "recurrent_dropout": 0.5, "bias_initializer": "ones"}
    assert cls.from_config(kept).get_config() == config
    used = cls.from_config({**kept, "recurrent": True})
    assert used.recurrent_dropout == 0.5
    # The defaults of a layer may be said again in any form.
    cls(2, recurrent_initializer=keras.initializers.GlorotUniform(), recurrent_dropout=0)


def test_threshold_and_decay_take_initializers_regularizers_and_constraints(tmp_path):
    x = np.random.default_rng(0).normal(size=(3, 6, 4)).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((None, 4)),
            SNU(
                50,
                trainable_decay=True,
                decay_initializer=keras.initializers.RandomUniform(0.5, 1.5, seed=1),
                decay_regularizer=keras.regularizers.L2(0.1),
                threshold_initializer=keras.initializers.RandomNormal(0.0, 1.0, seed=2),
                threshold_constraint="non_neg",
            ),
        ]
    )
    cell = model.layers[0].cell
    decay = cell.decay_values()
    assert decay.min() < 0.7 and decay.max() == 1.0 and np.mean(decay == 1.0) < 0.9
    assert cell.threshold_values().min() < 0
    np.testing.assert_allclose(model.losses[0], 0.1 * np.sum(decay**2), rtol=1e-5)
    model.compile(keras.optimizers.SGD(0.01), "mse")
    model.fit(x, np.ones((3, 50)), verbose=0)
    assert cell.threshold_values().min() == 0.0
    assert cell.decay_values().max() < 1.0
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(x), model(x))
    assert again.layers[0].get_config() == model.layers[0].get_config()


def test_drawn_decays_that_do_not_train_are_weights():
    layer = SNU(
        9, decay_initializer=keras.initializers.RandomUniform(0.1, 0.9), trainable_threshold=False
    )
    layer.build((2, 3, 4))
    assert [w.name for w in layer.non_trainable_weights] == ["decay"]
    assert [w.name for w in layer.trainable_weights] == ["kernel"]
    assert layer.decay is None and np.ptp(layer.cell.decay_values()) > 0


@keras.saving.register_keras_serializable(package="tests")
def bell(z):
    return keras.ops.exp(-keras.ops.square(z))


def plain_bell(z):
    return bell(z)


@pytest.mark.slow
def test_a_function_is_a_pseudo_derivative(tmp_path):
    x = np.random.default_rng(0).normal(size=(3, 6, 4)).astype("float32")
    upstream = np.random.default_rng(1).normal(size=(3, 6, 5)).astype("float32")
    gradients, weights = [], None
    for implementation in ("fused", "cell"):
        layer = SNU(5, pseudo_derivative=bell, return_sequences=True, implementation=implementation)
        layer.build(x.shape)
        weights = layer.get_weights() if weights is None else weights
        layer.set_weights(weights)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(x) * upstream)
        gradients.append(tape.gradient(loss, layer.cell.kernel.value))
    tanh = SNU(5, pseudo_derivative="tanh", return_sequences=True)
    tanh.build(x.shape)
    tanh.set_weights(weights)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tanh(x) * upstream)
    np.testing.assert_allclose(*gradients, rtol=1e-5, atol=1e-6)
    assert np.abs(gradients[0] - tape.gradient(loss, tanh.cell.kernel.value)).max() > 1e-3
    model = keras.Sequential([keras.Input((None, 4)), keras.layers.Bidirectional(layer)])
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.layers[0].forward_layer.pseudo_derivative is bell


def test_a_function_that_is_not_registered_loads_where_it_is_named(tmp_path):
    layer = SNU(5, pseudo_derivative=plain_bell)
    assert SNU.from_config(layer.get_config()).pseudo_derivative is plain_bell
    model = keras.Sequential([keras.Input((None, 4)), layer])
    model.save(tmp_path / "model.keras")
    with pytest.raises(TypeError, match=r"(?s)Could not locate function 'plain_bell'.*register"):
        keras.models.load_model(tmp_path / "model.keras")
    again = keras.models.load_model(
        tmp_path / "model.keras", custom_objects={"plain_bell": plain_bell}
    )
    assert again.layers[0].pseudo_derivative is plain_bell


def test_the_class_of_a_pseudo_derivative_is_no_pseudo_derivative():
    with pytest.raises(ValueError, match=r"Give an object of the class: FastSigmoid\(\)"):
        SNU(2, pseudo_derivative=FastSigmoid)
