"""A call with arguments that do not fit names them, on both paths."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from snukeras.layers import SNU, ConvSNU1D

BATCH, STEPS, FEATURES, UNITS = 3, 6, 4, 5


def zeros(*shape):
    return np.zeros(shape, "float32")


@pytest.fixture(scope="module", params=["fused", "cell"])
def layer(request):
    layer = SNU(UNITS, implementation=request.param, name="unit")
    layer.build((None, STEPS, FEATURES))
    return layer


@pytest.mark.parametrize(
    "states, received",
    [
        ([zeros(BATCH, UNITS)], r"a list of tensors of shapes \[\(3, 5\)\]"),
        ([zeros(BATCH, UNITS)] * 3, r"\[\(3, 5\), \(3, 5\), \(3, 5\)\]"),
        ([zeros(BATCH, UNITS - 1)] * 2, r"\[\(3, 4\), \(3, 4\)\]"),
        ([zeros(BATCH, UNITS), zeros(BATCH + 1, UNITS)], r"\(3, 5\), \(4, 5\)"),
        ([zeros(BATCH, 1, UNITS)] * 2, r"\(3, 1, 5\)"),
        (zeros(BATCH, UNITS), r"a tensor of shape \(3, 5\)"),
        (zeros(2, BATCH, UNITS), r"a tensor of shape \(2, 3, 5\)"),
    ],
)
def test_a_wrong_initial_state(layer, states, received):
    allowed = r"`initial_state` of layer 'unit' must be \[y, s\].*two tensors of shape \(3, 5\)"
    with pytest.raises(ValueError, match=f"{allowed}. Received: .*{received}"):
        layer(zeros(BATCH, STEPS, FEATURES), initial_state=states)


@pytest.mark.parametrize(
    "shape", [(BATCH + 1, STEPS), (BATCH, STEPS - 1), (BATCH, STEPS, 1), (STEPS,)]
)
def test_a_wrong_mask(layer, shape):
    with pytest.raises(ValueError) as raised:
        layer(zeros(BATCH, STEPS, FEATURES), mask=np.ones(shape, bool))
    message = "`mask` of layer 'unit' must be of shape (batch, time), here (3, 6)"
    assert message in str(raised.value) and f"of shape {shape}" in str(raised.value)


def test_a_wrong_initial_state_of_a_functional_model_is_named_when_it_is_built(layer):
    inputs = keras.Input((STEPS, FEATURES))
    layer(inputs, initial_state=[keras.Input((UNITS,))] * 2)
    with pytest.raises(ValueError, match="a list of tensors of shapes"):
        layer(inputs, initial_state=[keras.Input((UNITS,))] * 3)
    with pytest.raises(ValueError, match=r"\(None, 4\)"):
        layer(inputs, initial_state=[keras.Input((UNITS - 1,))] * 2)


def test_states_of_maps():
    layer, x = ConvSNU1D(2, 3), zeros(BATCH, STEPS, 7, 4)
    layer(x, initial_state=(zeros(BATCH, 5, 2), zeros(BATCH, 5, 2)))
    with pytest.raises(ValueError, match=r"two tensors of shape \(3, 5, 2\).*\(3, 7, 2\)"):
        layer(x, initial_state=[zeros(BATCH, 7, 2)] * 2)


@pytest.mark.parametrize("implementation", ["fused", "cell"])
def test_an_empty_sequence_whose_length_was_not_known(implementation):
    layer = SNU(UNITS, implementation=implementation, name="unit")
    run = tf.function(layer, input_signature=[tf.TensorSpec((None, None, FEATURES))])
    assert run(zeros(BATCH, STEPS, FEATURES)).shape == (BATCH, UNITS)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"'unit.*at least one step"):
        run(zeros(BATCH, 0, FEATURES))


def test_unrolling_needs_a_number_of_steps():
    layer = SNU(UNITS, unroll=True)
    with pytest.raises(ValueError, match=r"unroll=True needs sequences of a known number"):
        tf.function(layer).get_concrete_function(tf.TensorSpec((BATCH, None, FEATURES)))
