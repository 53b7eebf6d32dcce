"""Inference devices against reference tables, at t = 0, in graphs, with gradients."""

import csv
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from snukeras.pcm import DeviceState, GenericPCM, HermesPCM, IdealDevice, NandakumarPCM

REFERENCE = Path(__file__).parent / "reference"
DRAWS = 1_000_000
TIMES = {"t0_after_programming": 0.0, "25s": 25.0, "1h": 3600.0, "1day": 86400.0, "1year": 31536e3}


def table(name):
    with (REFERENCE / name).open() as lines:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(lines)]


def agrees(samples, mean, std):
    """Mean within 1 %, standard deviation within 2 % (a few table digits near zero apart)."""
    samples = np.asarray(samples, dtype="float64")
    assert samples.mean() == pytest.approx(mean, rel=0.01)
    assert samples.std() == pytest.approx(std, rel=0.02)


@pytest.mark.some_cases(2)
@pytest.mark.parametrize(
    "row", table("generic_25uS_conductance.csv"), ids=lambda r: r["g_target_uS"]
)
def test_conductances_match_the_table(row):
    device = GenericPCM(seed=int(row["g_target_uS"] * 10))
    state = device.program(tf.fill((DRAWS,), row["g_target_uS"]))
    agrees(state.programmed, row["prog_mean_uS"], row["prog_std_uS"])
    agrees(state.nu, row["nu_mean"], row["nu_std"])
    assert np.mean(state.programmed == 0) == pytest.approx(row["prog_frac_at_zero"], abs=2e-3)
    for name, t in TIMES.items():
        agrees(device.drifted(state, t), row[f"gdrift_mean_{name}"], row[f"gdrift_std_{name}"])
        agrees(device.read(state, t), row[f"g_mean_{name}"], row[f"g_std_{name}"])


def test_curves_match_the_closed_form():
    rows = table("generic_25uS_closed_form.csv")
    g = np.array([row["g_target_uS"] for row in rows])
    device = GenericPCM()
    for column, values in {
        "sigma_prog_uS": device.programming_std(g),
        "mu_nu": device.drift_mean(g),
        "sigma_nu": device.drift_std(g),
        **{f"rel_read_noise_{name}": device.read_noise_std(g, t) for name, t in TIMES.items()},
    }.items():
        np.testing.assert_allclose(values, [row[column] for row in rows], rtol=1e-5, err_msg=column)


def test_noise_scales_with_g_max():
    x = np.linspace(0, 1, 5)
    np.testing.assert_allclose(
        GenericPCM(5.0).programming_std(5 * x), GenericPCM().programming_std(25 * x) / 5, rtol=1e-6
    )
    np.testing.assert_allclose(
        GenericPCM(5.0).drift_mean(5 * x), GenericPCM().drift_mean(25 * x), rtol=1e-6
    )


def hermes_by_hand(devices, x):
    """The curves of the chip written out once more, in NumPy."""
    log = np.log(max(x, 1e-7))
    if devices == 2:
        prog = 0.16603222 + 4.71806468 * x - 8.48101252 * x**2 + 4.68961419 * x**3
        std = (
            np.clip(-0.0117 * log - 0.0057, 0.0091, 0.04)
            if x < 0.3055
            else -0.0118 * x**2 + 0.0093 * x + 0.0073
        )
        read = (
            np.clip(-0.0117 * log - 0.0069, 0.015, 0.04)
            if x < 0.16
            else 0.0069 * x**3 - 0.0280 * x**2 + 0.0211 * x + 0.0123
        )
    else:
        prog = 0.15781817 + 2.32443916 * x - 2.16310839 * x**2 + 0.68841818 * x**3
        std = (
            np.clip(-0.0120 * log - 0.0023, 0.0124, 0.04)
            if x < 0.3039
            else -0.0165 * x**2 + 0.0116 * x + 0.0104
        )
        read = (
            np.clip(-0.0078 * log + 0.0038, 0.0179, 0.04)
            if x < 0.1591
            else 0.0664 * x**3 - 0.1352 * x**2 + 0.0768 * x + 0.0088
        )
    mean = (
        np.clip(-0.0387 * log - 0.0182, 0.0720, 0.13)
        if x < 0.0945
        else -0.0436 * x**2 - 0.0126 * x + 0.0736
    )
    return prog, mean, std, read


@pytest.mark.parametrize("devices, g_max, t_0", [(1, 10.35, 200.0), (2, 20.7, 300.0)])
def test_hermes(devices, g_max, t_0):
    device = HermesPCM(devices, seed=1)
    assert (device.g_max, device.t_0, device.t_read) == (g_max, t_0, 512e-9)
    for x in (0.0, 0.02, 0.09, 0.1, 0.15, 0.2, 0.3, 0.31, 0.7, 1.0):
        g = np.array([x * g_max])
        prog, mean, std, read = hermes_by_hand(devices, x)
        assert device.programming_std(g)[0] == pytest.approx(prog, rel=1e-5)
        assert device.drift_mean(g)[0] == pytest.approx(mean, rel=1e-5)
        assert device.drift_std(g)[0] == pytest.approx(std, rel=1e-5)
        spectrum = np.sqrt(np.log((3600 + t_0 + 512e-9) / 2 / 512e-9))
        assert device.read_noise_std(g, 3600.0)[0] == pytest.approx(read * spectrum, rel=1e-5)
    x = 0.5
    state = device.program(np.full(200_000, x * g_max, "float32"))
    prog, mean, std, read = hermes_by_hand(devices, x)
    assert state.programmed.std() == pytest.approx(prog, rel=0.02)
    assert state.nu.mean() == pytest.approx(mean, rel=0.01)
    assert state.nu.std() == pytest.approx(std, rel=0.02)
    with pytest.raises(ValueError, match="`devices_per_polarity` must be 1 or 2"):
        HermesPCM(3)


def test_drift_exponent_stays_with_the_programming_event():
    device = GenericPCM(seed=3)
    state = device.program(np.full((50, 40), 10.0, "float32"))
    hour, day = device.drifted(state, 3600.0), device.drifted(state, 86400.0)
    np.testing.assert_array_equal(hour, device.drifted(state, 3600.0))
    nu = np.log(hour / day) / np.log((86400 + 20) / (3600 + 20))
    np.testing.assert_allclose(nu, state.nu, rtol=1e-3, atol=1e-6)
    again = device.program(np.full((50, 40), 10.0, "float32"))
    assert not np.array_equal(again.nu, state.nu)


def test_time_zero_is_the_programmed_value_with_read_noise():
    device = GenericPCM(seed=3)
    state = device.program(np.full((2000,), 10.0, "float32"))
    np.testing.assert_array_equal(device.drifted(state), state.programmed)
    assert np.std(device.read(state) / state.programmed) == pytest.approx(0.0668, rel=0.1)
    assert not np.array_equal(device.read(state), device.read(state))


def test_one_int_gives_each_kind_of_draw_its_own_numbers():
    device = GenericPCM(drift=0.0)
    g = np.full((2000,), 10.0, "float32")
    state = device.program(g, seed=1)
    read = device.read(state, seed=1)
    assert abs(np.corrcoef(state.programmed - g, read - state.programmed)[0, 1]) < 0.1
    np.testing.assert_array_equal(read, device.read(state, seed=1))
    # Generators, which never repeat themselves, are drawn from as before.
    pulsed = NandakumarPCM(drift=0.0)
    fresh = pulsed.reset((2000,), seed=1)
    grown = pulsed.pulse(fresh, np.ones(2000, bool), seed=1)
    noise = [fresh.conductance, grown.conductance, pulsed.read(grown, seed=1) - grown.conductance]
    assert np.all(np.abs(np.corrcoef(noise) - np.eye(3)) < 0.3)


def test_programming_noise_and_exponent_are_independent():
    state = GenericPCM().program(np.full((100_000,), 10.0, "float32"), seed=5)
    assert abs(np.corrcoef(state.programmed, state.nu)[0, 1]) < 0.02


def test_factors_switch_noise_off():
    g = np.linspace(0, 25, 100).astype("float32")
    for device in (GenericPCM(programming_noise=0, drift=0, read_noise=0), IdealDevice()):
        state = device.program(g)
        np.testing.assert_allclose(device.read(state, 1e6), g, rtol=1e-6)


def test_seeds():
    g = np.full((10,), 5.0, "float32")
    first = GenericPCM(seed=1).program(g)
    second = GenericPCM(seed=1).program(g)
    np.testing.assert_array_equal(first.programmed, second.programmed)
    seed = keras.random.SeedGenerator(2)
    device = GenericPCM()
    assert not np.array_equal(
        device.program(g, seed=seed).programmed, device.program(g, seed=seed).programmed
    )


@pytest.mark.slow
def test_compiled_and_differentiable():
    device = GenericPCM(seed=1)
    g = tf.Variable([0.0, 1e-9, 1.0, 10.0, 25.0])

    def read(t):
        with tf.GradientTape() as tape:
            state = device.program(tf.convert_to_tensor(g), seed=4)
            now = device.read(state, t, seed=5)
        return now, tape.gradient(now, g), state

    eager = device.read(device.program(g.numpy(), seed=4), 3600.0, seed=5)
    for jit_compile in (True, False):
        now, gradient, state = tf.function(read, jit_compile=jit_compile)(tf.constant(3600.0))
        np.testing.assert_allclose(now, eager, rtol=1e-4)
        assert np.all(np.isfinite(gradient)) and gradient[3] > 0.3
        assert isinstance(state, DeviceState)


@pytest.mark.parametrize("t", [-1.0, np.nan, np.inf, [0.0, -2.0]])
def test_refuses_bad_times(t):
    device = GenericPCM()
    state = device.program(np.ones(2))
    for call in (device.drifted, device.read):
        with pytest.raises(ValueError, match="must be finite and at least 0"):
            call(state, t)


@pytest.mark.slow
def test_devices_of_many_shapes_give_no_warning(caplog):
    device = GenericPCM(seed=1)
    for n in range(1, 9):
        device.read(device.program(np.ones((n, n), "float32")), 25.0)
    assert not caplog.records


def test_refuses_bad_targets_and_arguments():
    with pytest.raises(ValueError, match="of at least 0 uS"):
        GenericPCM().program(np.array([-1.0]))
    with pytest.raises(ValueError, match="NaN or infinite"):
        GenericPCM().program(np.array([np.nan]))
    for arguments in ({"g_max": 0}, {"t_0": -1}, {"drift": -1}, {"t_read": 0}, {"t_read": 30.0}):
        with pytest.raises(ValueError, match="`" + next(iter(arguments)) + "`"):
            GenericPCM(**arguments)


@pytest.mark.parametrize("device", [GenericPCM(5.0, seed=1), HermesPCM(1), IdealDevice(3.0)])
def test_config(device):
    other = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(device))
    assert type(other) is type(device) and other.get_config() == device.get_config()
