"""Chips of networks on tiles: their models compute with converters and noise of each product."""

import analog_oracle
import keras
import numpy as np
import pytest

import snukeras
from snukeras.pcm import (
    Chip,
    Converter,
    GenericPCM,
    IdealDevice,
    InputConverter,
    OutputConverter,
    Tile,
    analog,
    calibrate,
)

EIGHT = Tile(16, 8, InputConverter(8, 1.0), OutputConverter(8, "calibrated", noise=0.01))


def analog_net(tile=EIGHT, device=None):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((6, 20)),
            snukeras.layers.SSNU(30, return_sequences=True, name="units"),
            keras.layers.Conv1D(8, 3, name="conv"),
            keras.layers.DepthwiseConv1D(2, name="deep"),
            keras.layers.Dense(5, name="out"),
        ]
    )
    model.compile("sgd", "mse", jit_compile=False)
    net = analog(model, tile, device)
    calibrate(net, INPUTS)
    return net


INPUTS = np.random.default_rng(2).random((8, 6, 20)).astype("float32")


def numpy(x):
    return keras.ops.convert_to_numpy(x)


def test_an_ideal_chip_computes_like_the_network():
    net = analog_net(Tile(16, 8, None, None))
    chip = Chip(net, IdealDevice(), seed=1)
    np.testing.assert_allclose(chip.model(1e6)(INPUTS), net(INPUTS), atol=1e-5)
    quiet = Tile(16, 8, InputConverter(6, 1.0), OutputConverter(6))
    net = analog_net(quiet)
    np.testing.assert_allclose(Chip(net, IdealDevice()).model()(INPUTS), net(INPUTS), atol=2e-3)


@pytest.mark.slow
def test_products_of_a_chip_are_those_of_its_tiles():
    """Without noise of reading, what a chip's network computes is known from its devices."""
    tile = Tile(16, 8, InputConverter(5, 1.0), OutputConverter(6))
    net = analog_net(tile)
    chip = Chip(net, GenericPCM(read_noise=0.0), compensation="column", seed=1)
    model = chip.model(t=86400.0)
    tiles, crossbar = model.tiles[0], next(iter(chip.crossbars.values()))
    g = crossbar.conductances(86400.0)
    weights = (g[0] - g[1]) / crossbar.scales
    np.testing.assert_allclose(model.get_layer("units").cell.kernel, weights, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(tiles.variance, 0.0 * weights)
    np.testing.assert_allclose(tiles.unit, np.abs(crossbar.matrix).max(axis=0), rtol=1e-6)
    assert np.all(numpy(tiles.factor) > 1.0) and tiles.factor.shape == (2, 30)
    got = numpy(tiles.multiply(INPUTS[0], model.get_layer("units").cell.kernel))
    ranges = np.broadcast_to(numpy(tiles.output_range), (2, 4))
    for x, y in zip(INPUTS[0].astype("float64"), got, strict=True):
        expected = np.zeros(30)
        for block, rows in enumerate((slice(0, 16), slice(16, 20))):
            for column in range(30):
                v = [analog_oracle.convert(value, 5, 1.0) for value in x[rows]]
                unit = float(tiles.unit[column])
                current = v @ weights[rows, column].astype("float64") / unit
                current = analog_oracle.convert(current, 6, ranges[block, column // 8])
                expected[column] += current * unit * float(tiles.factor[block, column])
        assert np.mean(np.abs(y - expected) > 1e-4) < 0.1


@pytest.mark.slow
def test_the_read_noise_of_products_is_that_of_readings():
    net = analog_net(Tile(16, 8, None, None))
    chip = Chip(net, GenericPCM(), seed=1)
    model = chip.model(t=3600.0)
    crossbar = next(iter(chip.crossbars.values()))
    readings = np.stack([crossbar.weights(3600.0) for _ in range(400)])
    held, variance = (numpy(part) for part in crossbar.held(3600.0))
    np.testing.assert_allclose(readings.mean(axis=0), held, atol=0.02)
    assert np.mean(readings.var(axis=0)) == pytest.approx(np.mean(variance), rel=0.05)
    np.testing.assert_array_equal(model.tiles[0].variance, variance)


def test_one_compiled_model_serves_all_chips_and_times():
    net = analog_net()
    model = Chip(net, seed=1).model(0.0)
    traces = []
    layer = model.get_layer("out")
    inner = layer.call
    layer.call = lambda *args, **kwargs: (traces.append(1), inner(*args, **kwargs))[1]
    results = []
    for seed in (1, 2):
        chip = Chip(net, seed=seed)
        for t in (0.0, 1e7):
            chip.write(model, t)
            results.append(model.predict(INPUTS, verbose=0))
    assert len(traces) == 1
    assert all(not np.array_equal(results[0], other) for other in results[1:])
    Chip(net, seed=1).write(model, 0.0)
    np.testing.assert_allclose(model.predict(INPUTS, verbose=0), results[0], atol=1e-6)


@pytest.mark.slow
def test_a_chip_of_a_network_keeps_its_ranges_and_draws_its_columns():
    tile = Tile(16, 8, output=OutputConverter(8, offset=0.1, gain=0.1))
    net = analog_net(tile)
    one, other = Chip(net, seed=1).model(), Chip(net, seed=2).model()
    for mine, first, second in zip(net.tiles, one.tiles, other.tiles, strict=True):
        np.testing.assert_array_equal(mine.output_range, first.output_range)
        assert np.any(numpy(first.gain) != numpy(second.gain))
    again = Chip(net, seed=1).model()
    np.testing.assert_array_equal(one.tiles[0].gain, again.tiles[0].gain)


@pytest.mark.slow
def test_calibration_of_the_read_out_undoes_errors_of_columns_and_drift():
    tile = Tile(16, 8, output=OutputConverter(10, offset=0.05, gain=0.2))
    net = analog_net(tile)
    # Currents far inside the range: a gain must not run into it.
    for tiles in net.tiles:
        tiles.output_range.assign(2.0 * numpy(tiles.output_range))
    exact = numpy(net.digital()(INPUTS))
    chip = Chip(net, GenericPCM(programming_noise=0.0, read_noise=0.2), seed=3)
    model = chip.model(t=1e6)
    before = np.abs(numpy(model(INPUTS)) - exact).mean()
    chip.calibrate_readout(model, INPUTS)
    after = np.abs(numpy(model(INPUTS)) - exact).mean()
    assert after < 0.25 * before
    with pytest.raises(ValueError, match="this chip has made"):
        chip.calibrate_readout(net, INPUTS)
    with pytest.raises(ValueError, match="NaN"):
        chip.calibrate_readout(model, np.full_like(INPUTS, np.nan))


@pytest.mark.slow
def test_what_does_not_fit_a_network_on_tiles():
    net = analog_net()
    with pytest.raises(ValueError, match="`tile_size` must be None for an analog network"):
        Chip(net, tile_size=(64, 64))
    with pytest.raises(ValueError, match="`output_converter` must be None"):
        Chip(net, output_converter=Converter(8))
    Chip(net, tile_size=(16, 8))
    with pytest.raises(ValueError, match="that a chip has made"):
        Chip(net).write(net)
    other = analog(net.digital(), "ideal").on_chip()
    with pytest.raises(ValueError, match="must have the tiles of this chip"):
        Chip(net).write(other)
