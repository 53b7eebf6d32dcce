"""The levels of a PCMConstraint are those of the map, so that an export moves no weight."""

import csv

import keras
import numpy as np
import pytest
from maps import mapped, matrix, written

from snukeras.constraints import PCMConstraint
from snukeras.export import MappedChip
from snukeras.export.crossbar.device_list import write_device_list
from snukeras.export.crossbar.targets import Target, load_target
from snukeras.export.errors import BadInputError
from snukeras.network.matrices import Unrolling, matrices
from snukeras.network.weights import Weight, collect
from snukeras.pcm import IdealDevice


def trained(levels=16, w_max=0.9, on_grid=True):
    """A network whose first kernel lies on the levels of its constraint."""
    keras.utils.set_random_seed(0)
    constraint = PCMConstraint(levels, w_max=w_max)
    dense = keras.layers.Dense(7, kernel_constraint=constraint, name="held")
    model = keras.Sequential([keras.Input((20,)), dense, keras.layers.Dense(3, name="free")])
    # Far from a level and from the range, so that both matter.
    dense.kernel.assign(0.37 * np.random.default_rng(0).normal(size=(20, 7)))
    if on_grid:
        dense.kernel.assign(constraint.nearest(dense.kernel))
    return model


@pytest.mark.some_cases(2)
@pytest.mark.parametrize("w_max", [0.9, None])
@pytest.mark.parametrize("asked", [None, 16, 31])
@pytest.mark.parametrize("scale", ["tensor", "column"])
def test_an_export_with_the_levels_of_the_training_moves_no_weight(tmp_path, w_max, asked, scale):
    model = trained(w_max=w_max)
    target = load_target("pcm").replace(levels=asked)
    crossbar = mapped(tmp_path / "m", model, target, scale=scale)
    kernel = model.get_layer("held").kernel.numpy()
    np.testing.assert_allclose(crossbar.weights()["held/kernel"], kernel, rtol=2e-7, atol=1e-8)
    assert crossbar.levels("held/kernel") == (asked or 16)
    assert crossbar.levels("free/kernel") == asked
    if asked is None:
        assert len(np.unique(crossbar.conductances("held/kernel")[0])) <= 16
    chip = MappedChip(crossbar, model, IdealDevice())
    np.testing.assert_allclose(chip.weights(60.0)["held/kernel"], kernel, rtol=1e-5, atol=1e-6)


def test_levels_that_do_not_fit_are_those_that_were_asked_for(tmp_path):
    crossbar = mapped(tmp_path / "m", trained(), load_target("pcm").replace(levels=9))
    assert crossbar.levels("held/kernel") == 9


def test_weights_off_their_grid_are_not_moved(tmp_path):
    model = trained(on_grid=False)
    crossbar = mapped(tmp_path / "m", model)
    assert crossbar.levels("held/kernel") is None
    kernel = model.get_layer("held").kernel.numpy()
    np.testing.assert_allclose(crossbar.weights()["held/kernel"], kernel, rtol=1e-6, atol=1e-7)


@pytest.mark.slow
def test_kernels_that_unroll_in_another_way_come_back(tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 3))
    x = keras.layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(inputs)
    x = keras.layers.Conv2DTranspose(4, 3, name="transposed")(x)
    x = keras.layers.SeparableConv2D(5, 2, name="separable")(x)
    x = keras.layers.Reshape((-1, 5))(x)
    x = keras.layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    model = keras.Model(inputs, keras.layers.EinsumDense("abc,cd->abd", (None, 3), name="e")(x))
    crossbar = mapped(tmp_path / "m", model)
    assert crossbar.matrices == [found.name for found in matrices(model)]
    assert crossbar.entry("depthwise/kernel").column_axes == (2, 3)
    rebuilt, chip = crossbar.weights(), MappedChip(crossbar, model, IdealDevice())
    for weight in collect(model):
        np.testing.assert_allclose(rebuilt[weight.name], weight.values, rtol=1e-5, atol=1e-6)
        if weight.matrix:
            entry = crossbar.entry(weight.name)
            shape = weight.unrolling.matrix(weight.values).shape
            assert (entry.rows, entry.columns) == shape
            assert chip.weights()[weight.name].shape == weight.values.shape
    np.testing.assert_allclose(
        chip.weights()["transposed/kernel"], rebuilt["transposed/kernel"], rtol=1e-4, atol=1e-6
    )


def test_a_cell_of_the_list_of_devices_is_no_formula(tmp_path):
    name = "=HYPERLINK(1)/kernel"
    weights = [Weight(name, "=HYPERLINK(1)", "kernel", np.ones((1, 1), "float32"), Unrolling())]
    write_device_list(written(tmp_path / "m", weights), tmp_path / "d.csv")
    with open(tmp_path / "d.csv", newline="") as file:
        for row in csv.DictReader(file):
            assert row["matrix"] == f"'{name}"


def test_more_tiles_than_a_map_can_hold_are_refused(tmp_path):
    big = matrix("d/kernel", np.ones((400, 400)))
    with pytest.raises(BadInputError, match="Choose a larger tile"):
        written(tmp_path / "m", [big], Target("t", "t", 1, 2))
