"""Devices by measurement: published figures of resistive memory, and fits of a lab's data."""

import csv

import keras
import numpy as np
import pytest

from snukeras.pcm import (
    Crossbar,
    DifferentialPair,
    FittedPCM,
    GenericPCM,
    WanReRAM,
    evaluate_chips,
    fit_device,
    targets_for,
)

DAY = 86400.0
# aihwkit's fit of the published figures (inference/noise/reram.py): uS at 1 s, a day and two days.
PUBLISHED = {
    0.0: (-16.815, 45.393, -43.853, 16.030, 0.348),
    DAY - 1: (-16.458, 47.095, -50.773, 22.086, 0.701),
    2 * DAY - 1: (-11.934, 37.062, -43.507, 20.274, 0.782),
}


def test_deviations_are_those_that_were_published():
    device = WanReRAM(read_noise=0.0)
    for share in (0.25, 0.5, 0.75, 1.0):
        target = np.full(40000, 40.0 * share, "float32")
        state = device.program(target, seed=1)
        before = None
        for t, coefficients in PUBLISHED.items():
            held = device.drifted(state, t)
            assert held.mean() == pytest.approx(40.0 * share, rel=0.005)
            assert held.std() == pytest.approx(max(np.polyval(coefficients, share), before or 0),
                                               rel=0.03)  # fmt: skip
            before = held.std()
            np.testing.assert_array_equal(held, device.drifted(state, t))
    noisy = WanReRAM()
    readings = noisy.read(state, 0.0, seed=2) - noisy.drifted(state, 0.0)
    assert readings.std() == pytest.approx(0.4, rel=0.02)
    middle = device.drifted(state, 3600.0).std()
    assert device.drifted(state, 0.0).std() < middle < device.drifted(state, DAY - 1).std()


def test_nothing_is_given_beyond_what_was_measured():
    device, matrix = WanReRAM(), np.ones((4, 4), "float32")
    state = device.program(matrix, seed=1)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
    model.compile(loss="mse")
    given = {"x": matrix, "y": matrix, "chips": 1, "times": [1.0], "device": device}
    for late in (
        lambda t: device.drifted(state, t),
        lambda t: device.read(state, t),
        lambda t: device.read_noise_std(matrix, t),
        lambda t: targets_for(device, matrix, t),
        lambda t: Crossbar(matrix, device, programmed_for=t),
        lambda t: evaluate_chips(model, **given, programmed_for=t),
        lambda t: evaluate_chips(model, **{**given, "times": [1.0, t]}),
    ):
        late(2 * DAY)
        with pytest.raises(ValueError, match=r"at most 172800 s, two days.* Received: 259200"):
            late(3 * DAY)


def test_targets_for_a_day_are_met_on_average():
    """Devices of small targets stray upwards alone, since none holds less than nothing."""
    device = WanReRAM(read_noise=0.0)
    shares = np.linspace(0.05, 1.0, 20)
    target = targets_for(device, np.repeat(shares * 40.0, 40000).astype("float32"), DAY)
    held = device.drifted(device.program(target, seed=1), DAY).reshape(20, -1).mean(axis=1)
    idle = device.drifted(device.program(np.zeros(40000, "float32"), seed=2), DAY).mean()
    np.testing.assert_allclose((held - idle) / (held[-1] - idle), shares, atol=0.003)


def test_a_matrix_on_it():
    matrix = np.random.default_rng(0).normal(size=(64, 32)).astype("float32")
    crossbar = Crossbar(matrix, WanReRAM(), DifferentialPair(40.0, scale="column"), seed=1)
    mean, variance = (keras.ops.convert_to_numpy(part) for part in crossbar.held(3600.0))
    readings = np.stack([crossbar.weights(3600.0) for _ in range(100)])
    np.testing.assert_allclose(readings.mean(axis=0), mean, atol=0.05)
    assert readings.var(axis=0).mean() == pytest.approx(variance.mean(), rel=0.25)
    again = WanReRAM.from_config(WanReRAM(20.0, drift=0.5).get_config())
    assert (again.g_max, again.drift) == (20.0, 0.5)


def write(path, device, targets, devices, times):
    """Measure devices as a lab would, and write the file."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["device", "target_uS", "time_s", "measured_uS"])
        for index, target in enumerate(targets):
            state = device.program(np.full(devices, target, "float32"), seed=index)
            for number, t in enumerate(times):
                for which, g in enumerate(device.read(state, t, seed=1000 * index + number)):
                    table.writerow([f"d{which}", f"{target:.6g}", t, f"{g:.6g}"])


@pytest.mark.slow
def test_a_fit_finds_the_curves_of_the_devices(tmp_path):
    true = GenericPCM()
    targets = np.linspace(3.0, 25.0, 8)
    write(tmp_path / "lab.csv", true, targets, 200, (0.0, 25.0, 100.0, 1e3, 1e4, 1e5))
    found = fit_device(tmp_path / "lab.csv")
    assert isinstance(found, FittedPCM) and found.g_max == 25.0
    for t in targets:
        assert found.programming_std(t) == pytest.approx(true.programming_std(t), rel=0.1)
        assert found.drift_mean(t) == pytest.approx(true.drift_mean(t), rel=0.1)
        assert found.read_noise_std(t, 1e3) == pytest.approx(true.read_noise_std(t, 1e3), rel=0.25)
    # Errors are those of the fit: with a quarter of the devices they are twice as large.
    write(tmp_path / "few.csv", true, targets, 50, (0.0, 25.0, 100.0, 1e3, 1e4, 1e5))
    few = fit_device(tmp_path / "few.csv")
    ratios = [a / b for name in found.errors
              for a, b in zip(few.errors[name], found.errors[name], strict=True)]  # fmt: skip
    assert 1.4 < np.median(ratios) < 2.9
    again = FittedPCM.from_config(found.get_config())
    assert again.get_config() == found.get_config()
    matrix = np.random.default_rng(0).normal(size=(64, 64)).astype("float32")
    pair = DifferentialPair(25.0, scale="column")
    errors = [
        np.std(Crossbar(matrix, d, pair, seed=1, compensation="column").weights(DAY) - matrix)
        for d in (true, again)
    ]
    assert errors[1] == pytest.approx(errors[0], rel=0.1)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["device,target_uS,time_s"], "must have the columns"),
        (["device,target_uS,time_s,measured_uS", "a,1,0,x"], "line 2: not numbers"),
        (["device,target_uS,time_s,measured_uS", "a,1,0,nan"], "line 2: numbers must be finite"),
        (["device,target_uS,time_s,measured_uS", "a,1,0,1", "a,1,9,1"], "at least 3 times"),
        (["device,target_uS,time_s,measured_uS", *(f"a,1,{t},1" for t in range(4))],
         "at least 8 devices"),
    ],
)  # fmt: skip
def test_files_that_do_not_do(tmp_path, lines, message):
    path = tmp_path / "lab.csv"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=message):
        fit_device(path)


@pytest.mark.parametrize("factors", [(1.0, 1e-6), (1e-6, 1e-6)])
def test_siemens_are_told_from_microsiemens(tmp_path, factors):
    target, measured = factors
    rows = [
        f"{t}-{n},{t * target:g},{time},{t * measured * (1 + 0.01 * n):g}"
        for t in (5.0, 10.0, 15.0, 20.0)
        for n in range(8)
        for time in (0, 60, 3600)
    ]
    path = tmp_path / "lab.csv"
    path.write_text("\n".join(["device,target_uS,time_s,measured_uS", *rows]) + "\n")
    with pytest.raises(ValueError, match="in microsiemens; multiply siemens by 1e6"):
        fit_device(path)


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "lab.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="must be a CSV file in UTF-8"):
        fit_device(tmp_path / "lab.csv")
    for name in ("g_max", "t_0", "t_read"):
        with pytest.raises(ValueError, match=f"`{name}`"):
            fit_device(tmp_path / "lab.csv", **{name: 0.0})
