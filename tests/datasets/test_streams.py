"""Correlated streams have the rate and the correlations that they are asked for."""

import numpy as np
import pytest

from snukeras.datasets.streams import correlated_streams


@pytest.mark.parametrize("correlation", [0.0, 0.2, 0.9, 1.0])
def test_rates_and_correlations(correlation):
    x = correlated_streams([4, 3], correlation, uncorrelated=3, rate=0.1, steps=100_000, seed=1)
    assert x.shape == (100_000, 10) and set(np.unique(x)) == {0.0, 1.0}
    np.testing.assert_allclose(x.mean(axis=0), 0.1, atol=0.005)
    wanted = np.eye(10)
    wanted[:4, :4] = wanted[4:7, 4:7] = correlation
    np.fill_diagonal(wanted, 1.0)
    np.testing.assert_allclose(np.corrcoef(x.T), wanted, atol=0.02)


def test_a_seed_repeats():
    first, again = (correlated_streams([2], 0.5, 1, steps=50, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"groups": [2], "correlation": 1.2}, "correlation"),
        ({"groups": [2], "correlation": 0.5, "rate": 0.0}, "rate"),
        ({"groups": [-1], "correlation": 0.5}, "groups"),
    ],
)
def test_errors_say_what_is_allowed(arguments, words):
    with pytest.raises(ValueError, match=words):
        correlated_streams(**arguments)
