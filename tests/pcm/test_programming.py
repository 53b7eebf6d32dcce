"""Several pairs a weight, most and least significant ones, targets for a time to come."""

import keras
import numpy as np
import pytest

from snukeras.pcm import (
    Chip,
    Crossbar,
    DifferentialPair,
    GenericPCM,
    HermesPCM,
    IdealDevice,
    SimulatedHardware,
    StuckDevices,
    analog,
    calibrate,
    targets_for,
)

DAY, YEAR = 86400.0, 31536e3
RANDOM = np.random.default_rng(0)
MATRIX = np.clip(RANDOM.normal(size=(256, 64)), -10 / 3, 10 / 3).astype("float32")
PAIR = DifferentialPair(25.0, scale="column")


def error(t, compensation="column", device=None, pair=PAIR, **arguments):
    """Relative error of the weights, which is that of products of normal inputs."""
    device = device or GenericPCM()
    crossbar = Crossbar(MATRIX, device, pair, compensation=compensation, seed=1, **arguments)
    return np.linalg.norm(crossbar.weights(t) - MATRIX) / np.linalg.norm(MATRIX)


@pytest.mark.slow
def test_more_pairs_are_better():
    one, two, four = (error(DAY, slices=(1.0,) * n) for n in (1, 2, 4))
    assert two == pytest.approx(one / np.sqrt(2), rel=0.03)
    assert four == pytest.approx(one / 2, rel=0.05)
    # What a most significant pair misses, the least significant one corrects.
    both = error(0.0, slices=(1.0, 0.125), device=GenericPCM(read_noise=0.0))
    assert both < 0.3 * error(0.0, device=GenericPCM(read_noise=0.0))
    assert both < error(0.0, slices=(1.0, 1.0), device=GenericPCM(read_noise=0.0))


@pytest.mark.some_cases(2)
@pytest.mark.parametrize("slices", [(1.0,), (1.0, 1.0), (1.0, 0.125), (1.0, 0.25, 0.25)])
def test_ideal_devices_hold_the_matrix(slices):
    levels = DifferentialPair(25.0, levels=5, scale="column")
    exact = Crossbar(MATRIX, IdealDevice(), PAIR, slices=slices)
    np.testing.assert_allclose(exact.weights(), MATRIX, atol=2e-5)
    coarse = Crossbar(MATRIX, IdealDevice(), levels, slices=slices)
    # The targets are on levels, which pairs hold exactly.
    np.testing.assert_allclose(coarse.weights(), levels.quantize(MATRIX), atol=0.2)


def test_held_is_the_mean_and_variance_of_readings():
    crossbar = Crossbar(MATRIX[:32, :16], GenericPCM(), PAIR, slices=(1.0, 0.25), seed=1)
    mean, variance = (keras.ops.convert_to_numpy(part) for part in crossbar.held(DAY))
    readings = np.stack([crossbar.weights(DAY) for _ in range(60)])
    np.testing.assert_allclose(readings.mean(axis=0), mean, atol=0.06)
    assert readings.var(axis=0).mean() == pytest.approx(variance.mean(), rel=0.1)


@pytest.mark.parametrize("device", [GenericPCM(read_noise=0.0), HermesPCM(2, read_noise=0.0)])
def test_targets_for_a_later_time_are_met_on_average(device):
    wanted = np.repeat(np.linspace(0.05, 1.0, 20) * device.g_max, 20000).astype("float32")
    target = targets_for(device, wanted, YEAR)
    held = device.drifted(device.program(target, seed=1), YEAR).reshape(20, -1).mean(axis=1)
    idle = device.drifted(device.program(np.zeros(20000, "float32"), seed=2), YEAR).mean()
    share = (held - idle) / (held[-1] - idle)
    np.testing.assert_allclose(share, np.linspace(0.05, 1.0, 20), atol=0.006)
    plain = device.drifted(device.program(wanted, seed=1), YEAR).reshape(20, -1).mean(axis=1)
    off = np.abs((plain - idle) / (plain[-1] - idle) - np.linspace(0.05, 1.0, 20)).max()
    assert off > (0.1 if isinstance(device, HermesPCM) else 0.006)
    assert np.all(np.diff(target) >= 0) and target.max() <= device.g_max


@pytest.mark.slow
def test_programming_for_a_year_helps_after_a_year():
    device = HermesPCM(2)
    pair = DifferentialPair(device.g_max, scale="column")
    before, after = (error(YEAR, device=device, pair=pair, programmed_for=t) for t in (None, YEAR))
    assert after < 0.9 * before
    # A model on a chip has it too.
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((256,)), keras.layers.Dense(64, use_bias=False)])
    model.layers[0].kernel.assign(MATRIX)
    net = analog(model, "generic8")
    x = RANDOM.normal(size=(32, 256)).astype("float32")
    calibrate(net, x)
    errors = []
    for more in ({}, {"programmed_for": YEAR, "slices": (1.0, 1.0)}):
        chip = Chip(net, seed=1, compensation="column", **more)
        y = keras.ops.convert_to_numpy(chip.model(YEAR)(x))
        errors.append(np.linalg.norm(y - x @ MATRIX))
        assert chip.devices == 2 * MATRIX.size * len(more.get("slices", (1.0,)))
    assert errors[1] < 0.75 * errors[0]


@pytest.mark.slow
def test_slices_of_less_significance_leave_the_targets_for_later_alone():
    """They correct what the larger ones missed of their targets, not the targets themselves."""
    device = HermesPCM(2)
    given = {"device": device, "pair": DifferentialPair(device.g_max, scale="column")}
    given["programmed_for"] = YEAR
    one, both = error(YEAR, **given), error(YEAR, slices=(1.0, 0.125), **given)
    assert both < 0.9 * one


def test_refused():
    for slices in ((), (1.0, 0.0), (0.5, 1.0), None, "1,1", 2.0, (1.0, 1e-7)):
        with pytest.raises(ValueError, match="`slices`"):
            Crossbar(MATRIX, slices=slices)
    with pytest.raises(ValueError, match="`programmed_for`"):
        Crossbar(MATRIX, programmed_for=-1.0)
    with pytest.raises(ValueError, match="`planned_with` must be None"):
        Crossbar(MATRIX, planned_with=GenericPCM())
    with pytest.raises(ValueError, match="are for simulated devices"):
        Crossbar(MATRIX[:4, :4], hardware=SimulatedHardware(), slices=(1.0, 1.0))
    stuck = StuckDevices(plus=np.full((4, 4), 10.0))
    with pytest.raises(ValueError, match="`faults` name one pair"):
        Crossbar(MATRIX[:4, :4], faults=stuck, slices=(1.0, 1.0))
