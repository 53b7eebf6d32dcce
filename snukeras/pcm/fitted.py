"""Devices by measurement: a resistive memory by published figures, and fits of a lab's own data."""

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
from keras import ops

from snukeras import _arguments
from snukeras._arrays import like, to_tensor
from snukeras._random import READ, Seed, normal
from snukeras._types import Array, Config, Tensor
from snukeras.pcm.devices import DeviceState, InferencePCM, gaussian_nodes

COLUMNS = ("device", "target_uS", "time_s", "measured_uS")
# Fewest devices of one target, and fewest times of a device, that a fit takes.
_DEVICES, _TIMES = 8, 3
_RESAMPLED = 100
# Largest targets, and shares of the targets, that are measurements in another unit.
_SIEMENS, _APART = 1e-3, 1e-2

DAY = 86400.0
#: Deviation from the target in uS, at 1 s, a day, and two days, for g_max 40 uS: polynomials in
#: x = target / g_max, lowest order first.
_WAN = {
    1.0: (0.348, 16.030, -43.853, 45.393, -16.815),
    DAY: (0.701, 22.086, -50.773, 47.095, -16.458),
    2 * DAY: (0.782, 20.274, -43.507, 37.062, -11.934),
}


@keras.saving.register_keras_serializable(package="snukeras")
class WanReRAM(InferencePCM):
    """Resistive memory of Wan et al. 2022 (doi 10.1038/s41586-022-04992-8), 40 uS.

    It does not drift one way: devices stray from their targets, further with time. The deviations
    at 1 s, a day and two days are those that aihwkit (inference/noise/reram.py) fitted to the
    published figures; between them the variance goes with the logarithm of time, and beyond two
    days nothing was measured, so nothing is given. Time counts from a second after programming.
    What a device strays by is drawn once, when it is programmed.

    Args:
        g_max: largest conductance, uS; deviations scale with it.
        programming_noise: factor on the deviation at 1 s.
        drift: factor on what comes later.
        read_noise: factor on the noise of a reading, 1 % of g_max as aihwkit recommends.
        seed: as for InferencePCM.
    """

    reference_g_max = 40.0

    def __init__(
        self,
        g_max: float = 40.0,
        programming_noise: float = 1.0,
        drift: float = 1.0,
        read_noise: float = 1.0,
        seed: int | None = None,
    ) -> None:
        super().__init__(g_max, 1.0, 1.0, programming_noise, drift, read_noise, seed)

    def _programming_std(self, x: Tensor) -> Tensor:
        return ops.maximum(_polynomial(_WAN[1.0], x), 0.0)

    def _drift_mean(self, x: Tensor) -> Tensor:
        # No exponent: the state keeps a standard normal number in its place.
        return ops.zeros_like(x)

    _drift_std = _drift_mean

    def _read_noise(self, x: Tensor) -> Tensor:
        # No more than the conductance itself, of devices that hold next to nothing.
        return 0.01 / ops.maximum(x, 0.01)

    def read_noise_std(self, conductance: Array, t: Array = 0.0) -> Array:
        """Return the read noise of programmed uS, relative to them; it is the same at all times."""
        self._time(t)
        return like(self._read_noise(self._relative(conductance)), conductance)

    def _program(self, g: Tensor, seed: Seed) -> tuple[Tensor, Tensor, Tensor]:
        noise = normal((2, *g.shape), g.dtype, seed)
        std = self.programming_std(g) * self.programming_noise
        return g, ops.maximum(g + std * noise[0], 0.0), noise[1]

    def drifted(self, state: DeviceState, t: Array = 0.0) -> Array:
        """Return the conductances in uS at time t (s) without read noise.

        Raises:
            ValueError: a time beyond two days.
        """
        g = to_tensor(state.programmed, "programmed")
        spread = self._relaxation(to_tensor(state.target, "target"), t) * self.drift
        return like(ops.maximum(g + spread * to_tensor(state.nu, "nu"), 0.0), state.programmed)

    def read(self, state: DeviceState, t: Array = 0.0, seed: Seed | None = None) -> Array:
        """Read the devices once at time t (s), uS, with fresh read noise."""
        g = to_tensor(self.drifted(state, t), "programmed")
        drawn = normal(g.shape, g.dtype, self._draw(seed, READ))
        std = self._read_noise(self._relative(to_tensor(state.programmed, "programmed")))
        return like(ops.maximum(g * (1.0 + std * self.read_noise * drawn), 0.0), state.programmed)

    def expected(self, target: Array, t: float = 0.0) -> np.ndarray:
        """Return the mean conductance at time t (s) of many devices of each target, float64 uS."""
        g = np.asarray(target, "float64")
        std = np.asarray(self.programming_std(g)) * self.programming_noise
        later = ops.convert_to_numpy(self._relaxation(to_tensor(g, "target"), t)) * self.drift
        nodes, shares = gaussian_nodes()
        programmed = np.maximum(g[..., None] + std[..., None] * nodes, 0.0)
        strayed = np.maximum(programmed[..., None] + later[..., None, None] * nodes, 0.0)
        held: np.ndarray = strayed @ shares @ shares
        return held

    def _time(self, t: Array) -> Array:
        times = super()._time(t)
        latest = np.max(ops.convert_to_numpy(times))
        if latest > max(_WAN):
            raise ValueError(
                f"`t` must be at most {max(_WAN):g} s, two days: later nothing was measured of "
                f"these devices. Received: {latest:g}"
            )
        return times

    def _relaxation(self, target: Tensor, t: Array) -> Tensor:
        """Return the deviation in uS that comes on top of that at 1 s."""
        time = float(self._time(t)) + 1.0
        known = sorted(_WAN)
        x = self._relative(target)
        variances = [ops.square(ops.maximum(_polynomial(_WAN[key], x), 0.0)) for key in known]
        share = np.interp(np.log(time), np.log(known), np.arange(len(known)))
        low = min(int(share), len(known) - 2)
        between = variances[low] + (share - low) * (variances[low + 1] - variances[low])
        added = ops.sqrt(ops.maximum(between - variances[0], 0.0))
        return added * (self.g_max / self.reference_g_max)

    def get_config(self) -> Config:
        names = ("g_max", "programming_noise", "drift", "read_noise", "seed")
        return {name: getattr(self, name) for name in names}


@keras.saving.register_keras_serializable(package="snukeras")
class FittedPCM(InferencePCM):
    """A device whose curves were fitted to measurements; `fit_device` makes one.

    With x = conductance / g_max, within the targets that were measured (beyond them, the curves
    stay as they are at the end):

        programming_std = p0 + p1 x + p2 x^2      uS, at `reference_g_max`
        drift_mean = m0 + m1 log x,  drift_std = s0 + s1 log x
        read noise = q0 + q1 log x                before its dependence on time

    Args:
        g_max, t_0, t_read, programming_noise, drift, read_noise, seed: as for InferencePCM.
        reference_g_max: that of the measurements, uS.
        curves: the coefficients by name: "programming", "drift_mean", "drift_std", "read".
        errors: their standard errors, likewise.
        measured: smallest and largest x of the measurements.
    """

    def __init__(
        self,
        g_max: float,
        t_0: float,
        t_read: float,
        reference_g_max: float,
        curves: Mapping[str, Sequence[float]],
        errors: Mapping[str, Sequence[float]],
        measured: Sequence[float],
        programming_noise: float = 1.0,
        drift: float = 1.0,
        read_noise: float = 1.0,
        seed: int | None = None,
    ) -> None:
        super().__init__(g_max, t_0, t_read, programming_noise, drift, read_noise, seed)
        self.reference_g_max = float(reference_g_max)
        self.curves = {name: tuple(map(float, values)) for name, values in curves.items()}
        self.errors = {name: tuple(map(float, values)) for name, values in errors.items()}
        self.measured = (float(measured[0]), float(measured[1]))

    def _within(self, x: Tensor) -> Tensor:
        return ops.clip(x, *self.measured)

    def _programming_std(self, x: Tensor) -> Tensor:
        return ops.maximum(_polynomial(self.curves["programming"], self._within(x)), 0.0)

    def _line(self, name: str, x: Tensor) -> Tensor:
        return ops.maximum(_polynomial(self.curves[name], ops.log(self._within(x))), 0.0)

    def _drift_mean(self, x: Tensor) -> Tensor:
        return self._line("drift_mean", x)

    def _drift_std(self, x: Tensor) -> Tensor:
        return self._line("drift_std", x)

    def _read_noise(self, x: Tensor) -> Tensor:
        return self._line("read", x)

    def _settings(self) -> tuple:
        return (repr(self.get_config()),)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "reference_g_max": self.reference_g_max,
            "curves": {name: list(values) for name, values in self.curves.items()},
            "errors": {name: list(values) for name, values in self.errors.items()},
            "measured": list(self.measured),
        }


def fit_device(
    path: str | Path,
    g_max: float | None = None,
    t_0: float = 20.0,
    t_read: float = 250e-9,
    seed: int = 0,
) -> FittedPCM:
    """Fit a device model to measurements of programmed devices.

    The file has the columns device (any name), target_uS, time_s (since the reference reading, t_0
    after programming) and measured_uS, a line for each reading, and at least 8 devices of each of 4
    targets, each read at least 3 times. Each device gets a line in log(g) over
    log((t + t_0) / t_0): its slope is the drift exponent, its value at 0 what was programmed, and
    what readings miss it by is read noise, whose part in the spread of the two others is taken off.
    Curves over the targets are least squares. Their
    standard errors come from 100 draws of the devices, with replacement. Targets at which devices
    read 0 are left out.

    Args:
        path: CSV file.
        g_max: uS; default the largest target.
        t_0: s, from programming to the reference reading.
        t_read: s, the duration of a reading.
        seed: of the draws.

    Raises:
        ValueError: a file without these columns, numbers that are not finite or negative, in
            siemens, or too few devices, targets or readings.
    """
    for name, value in (("t_0", t_0), ("t_read", t_read)):
        _arguments.number(name, value, above=0.0)
    if g_max is not None:
        _arguments.number("g_max", g_max, above=0.0)
    devices = _devices(Path(path), t_0, t_read)
    _check_unit(Path(path), devices)
    largest = float(max(device.target for device in devices))
    known = largest if g_max is None else float(g_max)
    by_target: dict[float, list[_Device]] = {}
    for device in devices:
        by_target.setdefault(device.target, []).append(device)
    groups = {t: held for t, held in sorted(by_target.items()) if len(held) >= _DEVICES and t > 0}
    if len(groups) < 4:
        raise ValueError(
            f"{path} must have at least {_DEVICES} devices, none of which reads 0, of each of at "
            f"least 4 targets. Received: {len(groups)} such targets"
        )
    table = {
        target / known: np.array([(d.programmed, d.nu, d.read, *d.unsure) for d in held])
        for target, held in groups.items()
    }
    curves = _curves(table, known)
    random = np.random.default_rng(seed)
    drawn = []
    for _ in range(_RESAMPLED):
        again = {x: rows[random.integers(len(rows), size=len(rows))] for x, rows in table.items()}
        drawn.append(_curves(again, known))
    errors = {
        name: np.std([found[name] for found in drawn], axis=0, ddof=1).tolist() for name in curves
    }
    return FittedPCM(known, t_0, t_read, known, curves, errors, (min(table), max(table)))


def _check_unit(path: Path, devices: "Sequence[_Device]") -> None:
    """Raise ValueError for measurements or targets that look like siemens."""
    largest = max(device.target for device in devices)
    ratio = float(np.median([d.programmed / d.target for d in devices if d.target > 0] or [1.0]))
    if largest < _SIEMENS or not _APART <= ratio <= 1 / _APART:
        raise ValueError(
            f"{path} must have conductances in microsiemens; multiply siemens by 1e6. Received: "
            f"targets up to {largest:g}, and devices that read {ratio:.2g} times their targets"
        )


@dataclasses.dataclass(frozen=True)
class _Device:
    """What the readings of one device say.

    Attributes:
        target: uS.
        programmed: uS at the reference reading.
        nu: Drift exponent.
        read: Relative read noise before its dependence on time.
        unsure: What the read noise lets the two before it be off by: variances, of the logarithm.
    """

    target: float
    programmed: float
    nu: float
    read: float
    unsure: tuple[float, float]


def _devices(path: Path, t_0: float, t_read: float) -> list[_Device]:
    """Read a file of measurements."""
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be a CSV file in UTF-8. Received: {error}") from None
    readings: dict[tuple[str, float], list[tuple[float, float]]] = {}
    with io.StringIO(text, newline="") as file:
        table = csv.DictReader(file)
        missing = [name for name in COLUMNS if name not in (table.fieldnames or ())]
        if missing:
            raise ValueError(f"{path} must have the columns {COLUMNS}. Missing: {missing}")
        for number, row in enumerate(table, 2):
            try:
                target, time, measured = (float(row[name]) for name in COLUMNS[1:])
            except (TypeError, ValueError):
                raise ValueError(f"{path}, line {number}: not numbers. Received: {row}") from None
            if not all(np.isfinite(v) and v >= 0 for v in (target, time, measured)):
                raise ValueError(
                    f"{path}, line {number}: numbers must be finite and at least 0. Received: {row}"
                )
            readings.setdefault((row["device"], target), []).append((time, measured))
    found = []
    dead = {target for (_, target), rows in readings.items() if min(g for _, g in rows) == 0.0}
    for (_, target), rows in readings.items():
        times, g = np.array(sorted(rows)).T
        if len(set(times)) < _TIMES:
            raise ValueError(
                f"{path} must have at least {_TIMES} times of each device. Received: {len(times)} "
                f"readings of one with the target {target:g} uS"
            )
        if target in dead:
            continue
        x = np.log((times + t_0) / t_0)
        lines = np.stack([np.ones_like(x), x], axis=1)
        solved = np.linalg.pinv(lines)
        start, slope = solved @ np.log(g)
        left = np.log(g) - lines @ (start, slope)
        spectrum = np.sqrt(np.log((times + t_0 + t_read) / 2 / t_read))
        noise = np.sqrt(np.sum(np.square(left / spectrum)) / (len(times) - 2))
        unsure = np.square(solved * noise * spectrum).sum(axis=1)
        found.append(_Device(target, np.exp(start), -slope, noise, (unsure[0], unsure[1])))
    return found


def _curves(table: Mapping[float, np.ndarray], g_max: float) -> dict[str, list[float]]:
    """Return the coefficients of all curves; see `FittedPCM`."""
    x = np.array([*table])
    found = np.array([_of_target(rows) for rows in table.values()])
    return {
        "programming": np.polyfit(x, found[:, 0], 2)[::-1].tolist(),
        "drift_mean": np.polyfit(np.log(x), found[:, 1], 1)[::-1].tolist(),
        "drift_std": np.polyfit(np.log(x), found[:, 2], 1)[::-1].tolist(),
        "read": np.polyfit(np.log(x), found[:, 3], 1)[::-1].tolist(),
    }


def _of_target(rows: np.ndarray) -> tuple[float, ...]:
    """Return programming noise, mean and deviation of the exponent, and read noise of a target.

    What read noise adds to the spread of the devices is taken off.
    """
    programmed, nu, read, unsure, unsure_nu = rows.T
    spread = programmed.var(ddof=1) - np.mean(programmed**2 * unsure)
    of_nu = nu.var(ddof=1) - np.mean(unsure_nu)
    return (
        float(np.sqrt(max(spread, 0.0))),
        float(nu.mean()),
        float(np.sqrt(max(of_nu, 0.0))),
        float(np.sqrt(np.mean(read**2))),
    )


def _polynomial(coefficients: Sequence[float], x: Tensor) -> Tensor:
    """Return a polynomial, lowest order first."""
    total = ops.zeros_like(x) + coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        total = total * x + coefficient
    return total
