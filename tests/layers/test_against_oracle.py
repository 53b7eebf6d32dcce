"""The layers against the NumPy oracle: values, states and gradients, on both paths."""

import itertools

import keras
import numpy as np
import oracle
import pytest
import tensorflow as tf

from snukeras.activations import get_pseudo_derivative
from snukeras.layers import SNU, SSNU, SNUCell

BATCH, STEPS, FEATURES, UNITS = 3, 7, 5, 6


def build(cls, rng, g="relu", dtype="float64", **arguments):
    """A layer with random parameters, and the same unit for the oracle."""
    if cls is SNU:
        arguments.setdefault("pseudo_derivative", "tanh")
    layer = cls(
        UNITS,
        state_activation=_float32_slope if g == "leaky_relu" else g,
        decay=rng.uniform(0.2, 0.9, UNITS),
        threshold=rng.uniform(0.1, 0.6, UNITS),
        trainable_decay=True,
        return_sequences=True,
        return_state=True,
        dtype=dtype,
        **arguments,
    )
    layer.build((BATCH, STEPS, FEATURES))
    for variable in layer.trainable_variables:
        if "kernel" in variable.name or "bias" in variable.name:
            variable.assign(0.7 * rng.normal(size=variable.shape))
    cell = layer.cell
    unit = oracle.Unit(
        kernel=np.float64(cell.kernel.numpy()),
        decay=np.float64(cell.decay_values()),
        threshold=np.float64(cell.threshold_values()),
        recurrent_kernel=np.float64(cell.recurrent_kernel.numpy()) if cell.recurrent else None,
        bias=np.float64(cell.bias.numpy()) if cell.use_bias else None,
        g=g,
        spiking=cls is SNU,
        pseudo_derivative=arguments.get("pseudo_derivative", "tanh"),
        lateral_inhibition=cell.lateral_inhibition,
    )
    return layer, unit


@keras.saving.register_keras_serializable(package="tests")
def _float32_slope(a):
    # keras.activations.leaky_relu rounds its slope to float32 in TensorFlow.
    return tf.where(a > 0, a, 0.2 * a)


def random_mask(rng):
    mask = rng.random((BATCH, STEPS)) > 0.35
    mask[0] = True
    mask[1, :2] = False
    mask[1, 3] = True
    return mask


CASES = [
    *itertools.product(
        (SNU, SSNU),
        (False, True),
        ("relu", "linear", "leaky_relu"),
        (False, True),
        (False,),
        (False,),
        ("fused", "cell"),
    ),
    *itertools.product(
        (SNU, SSNU),
        (False, True),
        ("relu", "softplus"),
        (False, True),
        (False, True),
        (True,),
        ("fused",),
    ),
    *itertools.product((SNU, SSNU), (True,), ("tanh",), (True,), (True,), (True,), ("cell",)),
]


@pytest.mark.some_cases(8)
@pytest.mark.parametrize("cls, recurrent, g, masked, inhibition, given, implementation", CASES)
def test_values_and_gradients(cls, recurrent, g, masked, inhibition, given, implementation):
    case = (cls, recurrent, g, masked, inhibition, given, implementation)
    rng = np.random.default_rng(CASES.index(case))
    layer, unit = build(
        cls,
        rng,
        g,
        recurrent=recurrent,
        lateral_inhibition=inhibition,
        use_bias=recurrent,
        implementation=implementation,
    )
    x = rng.normal(size=(BATCH, STEPS, FEATURES))
    mask = random_mask(rng) if masked else None
    s, y = (rng.random((2, BATCH, UNITS))) if given else (None, None)
    trace = oracle.forward(unit, x, mask, s, y)

    sources = {"x": tf.constant(x)}
    if given:
        sources |= {"s": tf.constant(s), "y": tf.constant(y)}
    upstream = [rng.normal(size=(BATCH, STEPS, UNITS)), *rng.normal(size=(2, BATCH, UNITS))]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        results = layer(
            sources["x"],
            initial_state=[sources["y"], sources["s"]] if given else None,
            mask=None if mask is None else tf.constant(mask),
            # With training=False the fast path keeps nothing for the backward pass until asked.
            training=CASES.index(case) % 2 == 0,
        )
        loss = sum(tf.reduce_sum(r * u) for r, u in zip(results, upstream, strict=True))
    expected = (oracle.outputs(trace), trace[-1]["y"], trace[-1]["s"])
    for result, value in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, value, atol=1e-12)

    sources |= {v.name: v.value for v in layer.trainable_variables}
    gradients = tape.gradient(loss, sources)
    reference = oracle.backward(unit, x, trace, upstream[0], to_y=upstream[1], to_s=upstream[2])
    assert set(gradients) <= set(reference)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, reference[name], rtol=1e-7, atol=1e-9, err_msg=name)


@pytest.mark.some_cases(1)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("cls, g", [(SNU, "relu"), (SSNU, "softplus")])
def test_gradients_do_not_need_the_training_mode(cls, g, masked):
    rng = np.random.default_rng(7)
    layer, _ = build(cls, rng, g, recurrent=True)
    x = tf.constant(rng.normal(size=(BATCH, STEPS, FEATURES)))
    mask = tf.constant(random_mask(rng)) if masked else None
    found = []
    for training in (False, True):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x, mask=mask, training=training)
            loss = sum(tf.reduce_sum(value * value) for value in outputs)
        found.append((outputs, tape.gradient(loss, [x, *layer.trainable_variables])))
    tf.nest.map_structure(np.testing.assert_array_equal, *found)


@pytest.mark.slow
def test_layers_of_several_widths_share_a_process():
    """The compiled functions are traced for other shapes without losing any."""
    rng = np.random.default_rng(8)
    for units, features, batch, steps in [(4, 3, 2, 5), (7, 4, 2, 5), (7, 7, 3, 9), (2, 3, 4, 1)]:
        layers = [
            SNU(units, recurrent=True, return_sequences=True, implementation=i, dtype="float64")
            for i in ("fused", "cell")
        ]
        x = tf.constant(rng.normal(size=(batch, steps, features)))
        gradients = []
        for layer in layers:
            layer.build(x.shape)
            layer.set_weights(layers[0].get_weights())
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.square(layer(x, training=True)))
            gradients.append(tape.gradient(loss, layer.trainable_variables))
        for one, other in zip(*gradients, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-12)


@pytest.mark.some_cases(2)
@pytest.mark.parametrize("name", sorted(oracle.PSEUDO_DERIVATIVES))
@pytest.mark.parametrize("implementation", ["fused", "cell"])
def test_pseudo_derivatives(name, implementation):
    rng = np.random.default_rng(5)
    layer, unit = build(SNU, rng, pseudo_derivative=name, implementation=implementation)
    x = rng.normal(size=(BATCH, STEPS, FEATURES))
    upstream = rng.normal(size=(BATCH, STEPS, UNITS))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(tf.constant(x))[0] * upstream)
    gradient = tape.gradient(loss, layer.cell.kernel.value)
    trace = oracle.forward(unit, x)
    np.testing.assert_allclose(
        gradient, oracle.backward(unit, x, trace, upstream)["kernel"], rtol=1e-7
    )


def test_slope_narrows_the_pseudo_derivative():
    z = np.linspace(-2, 2, 9)
    for name, bump in oracle.PSEUDO_DERIVATIVES.items():
        narrow = type(get_pseudo_derivative(name))(slope=3.0)
        np.testing.assert_allclose(narrow(tf.constant(z)), bump(3 * z), atol=1e-12)


@pytest.mark.some_cases(4)
@pytest.mark.parametrize("implementation", ["fused", "cell"])
@pytest.mark.parametrize("cls", [SNU, SSNU])
@pytest.mark.parametrize("recurrent", [False, True])
def test_float32_spikes_are_equal(cls, recurrent, implementation):
    """Equal spikes in float32, on data whose margins to the threshold exceed rounding."""
    rng = np.random.default_rng(11)
    layer, unit = build(
        cls, rng, dtype="float32", recurrent=recurrent, implementation=implementation
    )
    x = np.float32(rng.normal(size=(64, 40, FEATURES)))
    trace = oracle.forward(unit, np.float64(x))
    margin = np.min([abs(t["s"] - unit.threshold).min(axis=1) for t in trace], axis=0)
    clear = margin > 2e-5
    assert clear.sum() > 32
    result = layer(x)[0].numpy()[clear]
    if cls is SNU:
        np.testing.assert_array_equal(result, oracle.outputs(trace)[clear])
    else:
        np.testing.assert_allclose(result, oracle.outputs(trace)[clear], atol=2e-6)


def test_bare_cell_in_keras_rnn():
    rng = np.random.default_rng(3)
    layer, unit = build(SNU, rng, recurrent=True)
    bare = keras.layers.RNN(SNUCell.from_config(layer.cell.get_config()), return_sequences=True)
    x = rng.normal(size=(BATCH, STEPS, FEATURES))
    bare.build(x.shape)
    bare.set_weights(layer.get_weights())
    np.testing.assert_allclose(bare(x), oracle.outputs(oracle.forward(unit, x)), atol=1e-12)


@pytest.mark.some_cases(2)
@pytest.mark.parametrize("inhibition", [False, True])
@pytest.mark.parametrize("cls", [SNU, SSNU])
def test_a_sample_does_not_depend_on_its_batch(cls, inhibition):
    rng = np.random.default_rng(2)
    layer, _ = build(cls, rng, recurrent=True, lateral_inhibition=inhibition)
    x = rng.normal(size=(8, STEPS, FEATURES))
    together = layer(x)[0]
    alone = tf.concat([layer(x[i : i + 1])[0] for i in range(8)], axis=0)
    np.testing.assert_allclose(together, alone, atol=1e-12)
