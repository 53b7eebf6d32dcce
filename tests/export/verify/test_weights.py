"""The proof of a map finds what is wrong; the map alone rebuilds the network."""

import keras
import numpy as np
import pytest
from maps import written

from snukeras.export.crossbar.targets import load_target
from snukeras.export.verify.weights import compare_map
from snukeras.layers import SNU
from snukeras.network.weights import assign, collect


def network(cls=SNU, **options):
    inputs = keras.Input((None, 6))
    options = {"threshold": 0.1, "recurrent": True, "return_sequences": True, **options}
    x = cls(8, name="unit", **options)(keras.layers.Masking()(inputs))
    return keras.Model(inputs, keras.layers.Dense(3, activation="sigmoid", name="out")(x))


@pytest.mark.parametrize("levels", [None, 9])
def test_map_against_model(tmp_path, levels):
    model = network()
    weights = collect(model)
    crossbar = written(tmp_path / "m", weights, load_target("pcm").replace(levels=levels))
    found = compare_map(weights, crossbar)
    assert found["ok"]
    for matrix in found["matrices"]:
        assert matrix["max_error"] <= matrix["half_level"] + 1e-6
        assert levels is None or matrix["max_error"] > 0.1 * matrix["half_level"]
    model.get_layer("out").kernel.assign_add(np.full((8, 3), 0.5))
    assert not compare_map(collect(model), crossbar).ok


def test_map_without_a_parameter_is_found(tmp_path):
    model = network()
    weights = [weight for weight in collect(model) if weight.role != "threshold"]
    found = compare_map(collect(model), written(tmp_path / "m", weights))
    assert not found["ok"] and not found["complete"]


def test_the_map_alone_rebuilds_the_network(tmp_path):
    model = network()
    rebuilt = written(tmp_path / "m", collect(model)).weights()
    blank = network()
    assign(blank, rebuilt)
    for a, b in zip(model.get_weights(), blank.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
