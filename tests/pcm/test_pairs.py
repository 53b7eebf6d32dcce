"""Differential pairs: exact inverse, levels, scales, faults, bad input."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from snukeras.pcm import DifferentialPair, StuckDevices

weights = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=1, max_dims=4, max_side=6),
    elements=st.floats(-1e4, 1e4, width=32, allow_subnormal=False).filter(
        lambda v: v == 0 or abs(v) > 1e-6
    ),
)


@settings(max_examples=100, deadline=None)
@given(
    weights,
    st.sampled_from(["tensor", "column"]),
    st.just(0.0) | st.floats(1e-3, 5),
    st.floats(0.5, 40),
)
def test_round_trip(w, scale, g_min, span):
    pair = DifferentialPair(g_max=g_min + span, g_min=g_min, scale=scale)
    s = pair.scales(w)
    assert s.shape == (() if scale == "tensor" else (w.shape[-1],))
    plus, minus = pair.to_conductances(w)
    for g in (plus, minus):
        assert g.shape == w.shape and g.dtype == np.float32
        assert g.min() >= np.float32(pair.g_min) and g.max() <= np.float32(pair.g_max)
    assert np.all(np.minimum(plus, minus) == np.float32(pair.g_min))
    error = np.abs(pair.to_weights(plus, minus, s) - w)
    assert np.all(error <= 1e-6 * (1 + g_min / span) * pair.max_weight(w))


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(weights, st.sampled_from(["tensor", "column"]), st.integers(2, 40))
def test_levels(w, scale, levels):
    pair = DifferentialPair(20.0, 0.5, levels, scale)
    plus, minus = pair.to_conductances(w)
    position = (np.stack([plus, minus]) - 0.5) / pair.step
    assert np.allclose(position, np.round(position), atol=1e-3)
    rebuilt = pair.to_weights(plus, minus, pair.scales(w))
    half = pair.step / pair.scales(w) / 2
    assert np.all(np.abs(rebuilt - w) <= half * 1.0001 + 1e-12)
    # What is on the levels stays there, whatever the rounding.
    for rounding in ("nearest", "stochastic"):
        again = pair.quantize(rebuilt, pair.scales(w), rounding, seed=3)
        np.testing.assert_allclose(again, rebuilt, rtol=1e-4, atol=1e-6 * np.abs(w).max())


def test_quantize_agrees_with_the_devices():
    w = np.random.default_rng(0).normal(size=(40, 30)).astype("float32")
    pair = DifferentialPair(levels=7, scale="column")
    plus, minus = pair.to_conductances(w)
    np.testing.assert_allclose(
        pair.quantize(w), pair.to_weights(plus, minus, pair.scales(w)), atol=1e-6
    )
    assert np.array_equal(pair.quantize(w, rounding="none"), pair.quantize(w, rounding="none"))
    np.testing.assert_allclose(pair.quantize(w, rounding="none"), w, rtol=1e-6)


def test_stochastic_rounding_is_unbiased():
    pair = DifferentialPair(levels=5)
    w = np.full((200_000,), 0.1, "float32")
    w[0] = 1.0
    q = pair.quantize(w, rounding="stochastic", seed=1)[1:]
    assert set(np.round(np.unique(q), 5)) == {0.0, 0.25}
    assert abs(q.mean() - 0.1) < 4 * np.sqrt(0.1 * 0.15 / q.size)


def test_clips_at_given_scales():
    plus, minus = DifferentialPair(10.0).to_conductances([[2.0, -3.0, 0.5]], scales=10.0)
    np.testing.assert_allclose(plus, [[10, 0, 5]])
    np.testing.assert_allclose(minus, [[0, 10, 0]])


@pytest.mark.parametrize("scale", ["tensor", "column"])
def test_zero_matrix(scale):
    pair = DifferentialPair(25.0, 1.0, scale=scale)
    w = np.zeros((3, 4), "float32")
    np.testing.assert_allclose(pair.scales(w), 24.0)
    plus, minus = pair.to_conductances(w)
    assert np.all(plus == 1.0) and np.all(minus == 1.0)
    assert np.all(pair.to_weights(plus, minus, pair.scales(w)) == 0)


def test_a_zero_column_beside_others():
    w = np.array([[0.0, 2.0], [0.0, -4.0]])
    pair = DifferentialPair(8.0, scale="column")
    np.testing.assert_allclose(pair.scales(w), [8.0, 2.0])
    assert pair.to_conductances(w)[0].dtype == np.float64


def test_tensors_stay_tensors_also_compiled():
    pair = DifferentialPair(levels=9, scale="column")
    w = np.random.default_rng(1).normal(size=(5, 3)).astype("float32")

    @tf.function(jit_compile=True)
    def compiled(w):
        return (*pair.to_conductances(w), pair.quantize(w))

    got = compiled(tf.constant(w))
    assert all(tf.is_tensor(g) for g in got)
    want = (*pair.to_conductances(w), pair.quantize(w))
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert tf.is_tensor(pair.scales(keras.Variable(w)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_refuses_weights_that_are_not_finite(bad):
    w = np.ones((2, 2), "float32")
    w[1, 0] = bad
    for call in (DifferentialPair().scales, DifferentialPair().to_conductances):
        with pytest.raises(ValueError, match="1 of 4 values are NaN or infinite"):
            call(w)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"levels": 1}, "`levels` must be None"),
        ({"levels": 2.5}, "`levels` must be None"),
        ({"levels": True}, "`levels` must be None"),
        ({"g_max": 0.0}, "`g_max` must be a finite number above 0"),
        ({"g_max": 5.0, "g_min": 5.0}, "`g_max` must be a finite number above 5"),
        ({"g_max": np.nan}, "`g_max`"),
        ({"g_min": -1.0}, "`g_min` must be a finite number of at least 0"),
        ({"g_max": "wide"}, "`g_max`"),
        ({"clip": "worst"}, 'must be None, a number above 0, or "best"'),
        ({"scale": "row"}, "`scale` must be one of 'tensor', 'column'. Received: scale='row'"),
    ],
)
def test_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        DifferentialPair(**arguments)


def test_refuses_scales_that_do_not_fit():
    pair = DifferentialPair()
    with pytest.raises(ValueError, match=r"shape \(\) or \(3,\)"):
        pair.to_conductances(np.ones((2, 3)), scales=np.ones(2))
    with pytest.raises(ValueError, match="must be positive"):
        pair.to_weights(np.ones((2, 3)), np.ones((2, 3)), scales=0.0)
    with pytest.raises(ValueError, match="same shape"):
        pair.to_weights(np.ones((2, 3)), np.ones((3, 2)), scales=1.0)
    with pytest.raises(ValueError, match="at least one axis"):
        DifferentialPair(scale="column").scales(1.0)
    with pytest.raises(TypeError, match="`weights` must be numbers"):
        pair.scales("abc")


def test_config():
    pair = DifferentialPair(12.0, 0.1, 16, "column")
    other = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(pair))
    assert other.get_config() == pair.get_config()
    assert "g_max=12.0" in repr(other)


def test_stuck_devices():
    pair = DifferentialPair(10.0)
    w = np.array([[0.5, -0.5, 1.0, 0.2]])
    plus, minus = pair.to_conductances(w, scales=10.0)
    # Stuck at SET on G-, at RESET on G-, at RESET on G+, both at a value.
    stuck = StuckDevices(
        plus=[[np.nan, np.nan, 0.0, 3.0]],
        minus=[[10.0, 0.0, np.nan, 3.0]],
    )
    assert stuck.count() == 5
    held = stuck.apply(plus, minus)
    np.testing.assert_allclose(held[0], [[5, 0, 0, 3]])
    np.testing.assert_allclose(held[1], [[10, 0, 0, 3]])
    better = stuck.compensate(plus, minus, pair)
    # The partner goes as far as its range allows: w = 0.5 needs 15 uS, w = 1 needs -10 uS.
    np.testing.assert_allclose(better[0], [[10, 0, 0, 3]])
    np.testing.assert_allclose(better[1], [[10, 0, 0, 3]])
    saved = StuckDevices(minus=4.0).compensate(plus, minus, pair)
    np.testing.assert_allclose(pair.to_weights(*saved, 10.0), [[0.5, -0.4, 0.6, 0.2]], atol=1e-6)
    levels = DifferentialPair(10.0, levels=3)
    np.testing.assert_allclose(
        StuckDevices(minus=4.0).compensate(plus, minus, levels)[0], [[10, 0, 10, 5]]
    )


def test_random_faults():
    pair = DifferentialPair(25.0, 1.0)
    stuck = StuckDevices.random((300, 400), pair, reset=0.02, set=0.01, value=7, at_value=0.03)
    for values in (stuck.plus, stuck.minus):
        for held, chance in ((1.0, 0.02), (25.0, 0.01), (7.0, 0.03)):
            assert abs(np.mean(values == held) - chance) < 0.003
    same = [StuckDevices.random((9, 9), pair, reset=0.3, seed=5).plus for _ in range(2)]
    np.testing.assert_array_equal(*same)
    assert StuckDevices.random((3, 3), pair).count() == 0
    with pytest.raises(ValueError, match="must not exceed 1"):
        StuckDevices.random((3, 3), pair, reset=0.7, set=0.7)
    with pytest.raises(ValueError, match="`value`"):
        StuckDevices.random((3, 3), pair, at_value=0.1)
    with pytest.raises(ValueError, match="at least 0"):
        StuckDevices(plus=[-1.0, 2.0])
