"""The quick generators: moments, independence, the same numbers with and without XLA."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from snukeras._random import Quick, normal, quick_normal, quick_uniform


def test_quick_normal_is_nearly_normal():
    z = quick_normal((1000, 1000), 1).numpy()
    assert abs(z.mean()) < 4e-3 and z.std() == pytest.approx(1, rel=3e-3)
    assert abs(np.mean(z**3)) < 0.02 and np.mean(z**4) == pytest.approx(2.85, abs=0.02)
    assert np.abs(z).max() < 4.91
    assert np.mean(z < 1.0) == pytest.approx(0.8413, abs=0.004)


def test_quick_uniform_is_uniform():
    u = quick_uniform((1000, 1000), 1).numpy()
    assert u.min() >= 0 and u.max() < 1 and u.max() > 0.9999
    counts = np.histogram(u, 1000, (0, 1))[0]
    assert np.sum((counts - 1000) ** 2 / 1000) == pytest.approx(999, abs=5 * np.sqrt(2 * 999))
    assert np.histogram(u * 2**24 % 256, 256)[0].std() < 1.3 * np.sqrt(1e6 / 256)


@pytest.mark.slow
@pytest.mark.parametrize("draw", [quick_normal, quick_uniform])
def test_draws_are_independent(draw):
    seed = keras.random.SeedGenerator(3)
    a, b = (draw((300, 300), seed).numpy() for _ in range(2))
    many = [a, b, np.roll(a, 1, 0), np.roll(a, 1, 1), np.roll(a, 7, 1), draw((300, 300), 4).numpy()]
    table = np.corrcoef([x.ravel() for x in many]) - np.eye(len(many))
    assert np.abs(table).max() < 4.5 / 300
    # Neighbouring seeds, as a generator gives them, at one place.
    places = np.stack([draw((4,), seed).numpy() for _ in range(2000)], axis=1)
    rows = np.concatenate([places[:, 1:], places[:, :-1]])
    assert np.abs(np.corrcoef(rows) - np.eye(8)).max() < 4.5 / np.sqrt(2000)


def test_same_numbers_in_every_mode():
    for draw in (quick_normal, quick_uniform):
        eager = draw((50,), 5).numpy()
        for jit_compile in (False, True):
            compiled = tf.function(lambda draw=draw: draw((50,), 5), jit_compile=jit_compile)
            np.testing.assert_allclose(compiled(), eager, rtol=1e-5, atol=1e-7)


def test_normal_takes_ints_generators_and_quick_ones():
    assert normal((3,), "float64", 1).dtype == "float64"
    np.testing.assert_array_equal(normal((9,), "float32", 1), normal((9,), "float32", 1))
    for seed in (keras.random.SeedGenerator(1), Quick(keras.random.SeedGenerator(1))):
        assert not np.array_equal(normal((9,), "float32", seed), normal((9,), "float32", seed))
    with pytest.raises(ValueError, match="no global generator"):
        normal((3,), "float32", None)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 5), (4097,), (2, 300, 301)])
def test_normal_numbers_are_those_of_tensorflow(shape):
    for seed in ([5, 7], [0, 0], [-1, 2**31 - 1]):
        expected = tf.random.stateless_normal(shape, seed, alg="philox").numpy()
        found = normal(shape, "float32", tf.constant(seed, "int64"))
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


def test_normal_is_the_same_in_every_mode():
    eager = normal((3, 2000), "float32", 5).numpy()
    for jit_compile in (False, True):
        # Beside its use in other operations, with which XLA would merge it.
        compiled = tf.function(lambda: normal((3, 2000), "float32", 5)[1:], jit_compile=jit_compile)
        np.testing.assert_allclose(compiled(), eager[1:], rtol=0, atol=1e-6)


@pytest.mark.slow
def test_tails_are_normal():
    z = np.concatenate([normal((4_000_000,), "float32", seed).numpy() for seed in range(5)])
    for size in (1.0, 2.0, 3.0, 4.0, 4.5, 5.0):
        expected = len(z) * math.erfc(size / math.sqrt(2))
        assert np.sum(np.abs(z) > size) == pytest.approx(expected, abs=5 * math.sqrt(expected))
    assert z.mean() == pytest.approx(0, abs=5 / math.sqrt(len(z)))
    assert z.astype("float64").std() == pytest.approx(1, abs=5 / math.sqrt(2 * len(z)))
