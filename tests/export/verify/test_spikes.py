"""Potentials in float64 are those of the oracle; their bound tells rounding from mistakes."""

import numpy as np
import pytest
from networks import sequences
from oracle import Unit as Oracle
from oracle import forward

from snukeras.export.verify.spikes import contradictions, potentials_of
from snukeras.layers import SNU


@pytest.mark.parametrize("masked", [False, True])
def test_potentials_are_those_of_the_oracle(masked):
    layer = SNU(
        5,
        state_activation="relu",
        threshold=0.2,
        recurrent=True,
        lateral_inhibition=True,
        use_bias=True,
        decay=0.9,
    )
    x = sequences()
    layer.build(x.shape)
    unit = Oracle(
        *(np.asarray(v, "float64") for v in (layer.cell.kernel, np.full(5, 0.9), np.full(5, 0.2))),
        recurrent_kernel=np.asarray(layer.cell.recurrent_kernel, "float64"),
        bias=np.zeros(5),
        lateral_inhibition=True,
    )
    mask = np.random.default_rng(0).random(x.shape[:2]) < 0.7 if masked else None
    trace = forward(unit, x.astype("float64"), mask)
    y = np.stack([step["y"] for step in trace], axis=1)
    s, bound = potentials_of(layer.cell, x, y, mask)
    np.testing.assert_allclose(s, np.stack([step["s"] for step in trace], axis=1), atol=1e-7)
    assert np.all(bound >= 0) and bound.max() < 1e-4


def test_decisions_beyond_rounding_are_contradictions_others_are_not():
    x = sequences()
    layer = SNU(4, state_activation="relu", threshold=0.2, return_sequences=True)
    y = np.array(layer(x))
    s, bound = potentials_of(layer.cell, x, y)
    assert contradictions(layer.cell, s, bound, y) == 0
    at = np.unravel_index(np.argmin(np.abs(s - 0.2)), s.shape)
    y[at] = 1 - y[at]
    assert contradictions(layer.cell, s, bound, y) == 1
    s[at] = np.float32(0.2) + (0.9 if y[at] < 0.5 else -0.9) * bound[at]
    assert contradictions(layer.cell, s, bound, y) == 0
