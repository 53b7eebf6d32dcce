"""Derivatives of gradients, and tangents: the compiled scan has those of the plain path."""

import numpy as np
import pytest
import tensorflow as tf

from snukeras.layers import SNU, SSNU, ConvSSNU1D

BATCH, STEPS, FEATURES, UNITS = 3, 5, 4, 3
MASK = np.array([[1, 1, 1, 1, 1], [0, 0, 1, 0, 1], [1, 1, 0, 0, 0]], bool)
CASES = [
    (SNU, {}, None),
    (SSNU, {"recurrent": True, "trainable_decay": True, "use_bias": True}, MASK),
    (SNU, {"lateral_inhibition": True, "state_activation": "softplus"}, MASK),
]


@pytest.fixture
def x():
    return tf.constant(np.random.default_rng(0).normal(size=(BATCH, STEPS, FEATURES)))


def twins(cls, shape, **arguments):
    """The same layer on the fast path and on the plain one."""
    arguments = {"return_sequences": True, "threshold": 0.1, "dtype": "float64", **arguments}
    pair = [cls(UNITS, implementation=i, **arguments) for i in ("fused", "cell")]
    for layer in pair:
        layer.build(shape)
        layer.set_weights(pair[0].get_weights())
    return pair


def second_derivatives(layer, x, mask=None):
    """The gradients of the size of the gradients of a nonlinear loss."""
    sources = [x, *(v.value for v in layer.trainable_variables)]
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            loss = tf.reduce_sum(layer(x, mask=mask, training=True) ** 3)
        size = sum(tf.reduce_sum(g * g) for g in inner.gradient(loss, sources))
    return outer.gradient(size, sources)


def assert_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-10)
        assert np.abs(one).max() > 0


@pytest.mark.slow
@pytest.mark.parametrize("cls, arguments, mask", CASES)
def test_nested_tapes(cls, arguments, mask, x):
    fused, plain = twins(cls, x.shape, **arguments)
    expected = second_derivatives(plain, x, mask)
    assert_equal(second_derivatives(fused, x, mask), expected)
    in_graph = tf.function(second_derivatives, autograph=False)
    assert_equal(in_graph(fused, x, mask), expected)


@pytest.mark.slow
def test_nested_tapes_in_a_compiled_function_and_for_any_length(x):
    fused, plain = twins(SSNU, x.shape, recurrent=True)
    expected = second_derivatives(plain, x)
    compiled = tf.function(lambda x: second_derivatives(fused, x), jit_compile=True)
    assert_equal(compiled(x), expected)
    signature = [tf.TensorSpec((None, None, FEATURES), "float64")]
    any_length = tf.function(lambda x: second_derivatives(fused, x), input_signature=signature)
    assert_equal(any_length(x), expected)


@pytest.mark.slow
def test_nested_tapes_over_maps():
    x = tf.constant(np.random.default_rng(1).normal(size=(2, STEPS, 6, 2)))
    fused, plain = twins(ConvSSNU1D, x.shape, kernel_size=2, lateral_inhibition=True)
    assert_equal(second_derivatives(fused, x), second_derivatives(plain, x))


@pytest.mark.slow
@pytest.mark.parametrize("cls, arguments, mask", CASES[:2])
def test_tangents_and_products_with_the_hessian(cls, arguments, mask, x):
    direction = tf.constant(np.random.default_rng(2).normal(size=x.shape))
    found = []
    for layer in twins(cls, x.shape, **arguments):
        with tf.autodiff.ForwardAccumulator(x, direction) as forward:
            with tf.GradientTape() as tape:
                tape.watch(x)
                outputs = layer(x, mask=mask)
                loss = tf.reduce_sum(outputs**2)
            gradient = tape.gradient(loss, x)
        found.append([forward.jvp(outputs), forward.jvp(gradient)])
    assert_equal(*found)
