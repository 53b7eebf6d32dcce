"""PCM devices for inference: programming noise, drift and read noise of a conductance."""

import functools
from collections.abc import Callable
from typing import NamedTuple, Self, TypeVar

import keras
import numpy as np
from keras import ops

from snukeras import _arguments
from snukeras._arrays import is_tensor, like, to_tensor
from snukeras._random import PROGRAM, READ, Quick, Seed, draw, normal
from snukeras._types import Array, Config, Dtype, Tensor

_Result = TypeVar("_Result")
#: Points of the Gaussian quadrature of noise.
_NODES = 21


class DeviceState(NamedTuple):
    """What programmed devices remember: three arrays of one shape.

    The drift exponent belongs to the programming event: it is drawn once, in `program`, and every
    later reading uses it.
    """

    target: Array  # uS, the wanted conductance
    programmed: Array  # uS, what the device held t_0 after programming
    nu: Array  # drift exponent


def gaussian_nodes() -> tuple[np.ndarray, np.ndarray]:
    """Return points of a standard normal variable, and the share of each in a mean over it."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    return nodes, weights / weights.sum()


class InferencePCM:
    """Base of the inference models: a device is programmed once and then read.

    Time `t` counts from the reference reading, t_0 seconds after programming, as in aihwkit's
    t_inference: t = 0 is that reading, and "25 s" is t_0 + 25 s after programming.

        programmed = max(0, target + programming_std(target) * N(0, 1))
        nu         = |drift_mean(target) + drift_std(target) * N(0, 1)|
        drifted(t) = programmed * ((t + t_0) / t_0) ^ -nu
        read(t)    = max(0, drifted(t) * (1 + read_noise(programmed, t) * N(0, 1)))

    Negative conductances are clipped to 0. Nothing is clipped at g_max: a device programmed to it
    may hold more. Each N is drawn afresh per device; noise of different devices is independent,
    and so are two readings of one device, although real 1/f noise is correlated in time.

    Every method is element-wise, so leading axes may stand for chips. Host arrays give host arrays,
    tensors give tensors, also in compiled functions and with gradients.

    Args:
        g_max: largest conductance, uS. Noise scales with it.
        t_0: time of the reference reading after programming, s.
        t_read: duration of a reading, s; the lower end of the 1/f band.
        programming_noise: factor on the programming noise; 0 switches it off.
        drift: factor on the drift exponent.
        read_noise: factor on the read noise.
        seed: int or None, of the generator that serves calls without a `seed` of their own.
    """

    reference_g_max = 25.0

    def __init__(
        self,
        g_max: float,
        t_0: float,
        t_read: float,
        programming_noise: float = 1.0,
        drift: float = 1.0,
        read_noise: float = 1.0,
        seed: int | None = None,
    ) -> None:
        self.g_max = _arguments.number("g_max", g_max, above=0.0)
        self.t_0 = _arguments.number("t_0", t_0, above=0.0)
        self.t_read = _arguments.number("t_read", t_read, above=0.0, maximum=self.t_0)
        self.programming_noise = _arguments.number(
            "programming_noise", programming_noise, minimum=0.0
        )
        self.drift = _arguments.number("drift", drift, minimum=0.0)
        self.read_noise = _arguments.number("read_noise", read_noise, minimum=0.0)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self._graphs: dict[tuple, Callable] = {}

    # The four curves of a model, in terms of x = conductance / g_max. --------------------------

    def _programming_std(self, x: Tensor) -> Tensor:
        """Return the standard deviation in uS at the reference g_max."""
        raise NotImplementedError

    def _drift_mean(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _drift_std(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _read_noise(self, x: Tensor) -> Tensor:
        """Return Q_s: the relative read noise without its dependence on time."""
        raise NotImplementedError

    # The same in physical units. --------------------------------------------------------------

    def programming_std(self, target: Array) -> Array:
        """Return the standard deviation of the programming noise, uS, at targets in uS."""
        std = self._programming_std(self._relative(target)) * (self.g_max / self.reference_g_max)
        return like(ops.maximum(std, 0.0), target)

    def drift_mean(self, target: Array) -> Array:
        """Return the mean drift exponent at target conductances in uS (before the factor "
        "`drift`)."""
        return like(self._drift_mean(self._relative(target)), target)

    def drift_std(self, target: Array) -> Array:
        """Return the standard deviation of the drift exponent at target conductances in uS."""
        return like(self._drift_std(self._relative(target)), target)

    def read_noise_std(self, conductance: Array, t: Array = 0.0) -> Array:
        """Return the read noise at time t (s) of programmed uS, relative to the drifted ones."""
        quality = self._read_noise(self._relative(conductance))
        return like(quality * self._read_spectrum(t, quality.dtype), conductance)

    # What happens to devices. -----------------------------------------------------------------

    def program(self, target: Array, seed: Seed | None = None) -> DeviceState:
        """Program devices to `target` conductances (uS, at least 0) and draw their exponents.

        Args:
            target: uS, any shape.
            seed: int or keras.random.SeedGenerator; by default the generator of this object. Two
                calls with one int draw the same numbers; `read` with that int draws others.
        """
        g = to_tensor(target, "target")
        if not is_tensor(target) and np.any(np.asarray(target) < 0):
            raise ValueError(
                "Argument `target` must be conductances of at least 0 uS. Received: a smallest "
                f"value of {np.min(target):g}; split signed weights with DifferentialPair first."
            )
        state = self._run(self._program, g, self._draw(seed, PROGRAM))
        return DeviceState(*(like(part, target) for part in state))

    def _program(self, g: Tensor, seed: Seed) -> tuple[Tensor, Tensor, Tensor]:
        noise = normal((2, *g.shape), g.dtype, seed)
        std = self.programming_std(g) * self.programming_noise
        programmed = ops.maximum(g + std * noise[0], 0.0)
        nu = ops.abs(self.drift_mean(g) + self.drift_std(g) * noise[1]) * self.drift
        return g, programmed, nu

    def drifted(self, state: DeviceState, t: Array = 0.0) -> Array:
        """Return the conductances in uS at time t (s) without read noise."""
        programmed = to_tensor(state.programmed, "programmed")
        factor = self._drift_logarithm(t, programmed.dtype)
        g = self._run(self._drifted, programmed, to_tensor(state.nu, "nu"), factor)
        return like(g, state.programmed)

    def _drifted(self, programmed: Tensor, nu: Tensor, logarithm: Tensor | None) -> Tensor:
        return programmed if logarithm is None else programmed * ops.exp(-nu * logarithm)

    def read(self, state: DeviceState, t: Array = 0.0, seed: Seed | None = None) -> Array:
        """Read the devices once at time t (s), uS, with fresh read noise."""
        programmed = to_tensor(state.programmed, "programmed")
        g = self._run(
            self._read,
            programmed,
            to_tensor(state.nu, "nu"),
            self._drift_logarithm(t, programmed.dtype),
            self._read_spectrum(t, programmed.dtype),
            self._draw(seed, READ),
        )
        return like(g, state.programmed)

    def _read(
        self,
        programmed: Tensor,
        nu: Tensor,
        logarithm: Tensor | None,
        spectrum: Tensor,
        seed: Seed,
    ) -> Tensor:
        g = self._drifted(programmed, nu, logarithm)
        std = self._read_noise(self._relative(programmed)) * spectrum * self.read_noise
        return ops.maximum(g * (1.0 + std * normal(g.shape, g.dtype, seed)), 0.0)

    def expected(self, target: Array, t: float = 0.0) -> np.ndarray:
        """Return the mean conductance at time t (s) of many devices of each target, float64 uS."""
        time = float(self._time(t))
        g = np.asarray(target, "float64")
        std, mean, spread = (
            np.asarray(ops.convert_to_numpy(curve(g)), "float64")[..., None]
            for curve in (self.programming_std, self.drift_mean, self.drift_std)
        )
        nodes, shares = gaussian_nodes()
        programmed = np.maximum(g[..., None] + std * self.programming_noise * nodes, 0.0) @ shares
        nu = np.abs(mean + spread * nodes) * self.drift
        drifted = np.exp(-nu * np.log((time + self.t_0) / self.t_0)) @ shares
        held: np.ndarray = programmed * drifted
        return held

    def _run(self, function: Callable[..., _Result], *arguments: Tensor) -> _Result:
        """Call one of the methods above, as a graph where that saves time.

        Some thirty operations on small arrays cost less than Python's part in them.
        """
        quick = any(isinstance(argument, Quick) for argument in arguments)
        if keras.backend.backend() != "tensorflow" or quick:
            return function(*arguments)
        import tensorflow as tf

        if not tf.executing_eagerly():
            return function(*arguments)
        # A graph keeps the settings with which it was made. TensorFlow warns of code that it has
        # to trace many times, so each shape has a partial function of its own, without code.
        shapes = (tuple(getattr(argument, "shape", ())) for argument in arguments)
        key = (function.__name__, *self._settings(), *shapes)
        if key not in self._graphs:
            self._graphs[key] = tf.function(functools.partial(function), autograph=False)
        return self._graphs[key](*arguments)

    # ------------------------------------------------------------------------------------------

    def _settings(self) -> tuple:
        """Return what a graph depends on, to be hashed."""
        return tuple(self.get_config().values())

    def _relative(self, g: Array) -> Tensor:
        # Never 0: the curves take logarithms and powers, whose gradients there are not finite.
        # They are all constant below 1e-7.
        return ops.maximum(to_tensor(g, "conductance") / self.g_max, 1e-7)

    def _draw(self, seed: Seed | None, stream: int) -> Seed:
        return draw(self.seed_generator if seed is None else seed, stream)

    def _drift_logarithm(self, t: Array, dtype: Dtype) -> Tensor | None:
        times = self._time(t)
        if not is_tensor(times) and times.ndim == 0 and times == 0:
            return None  # no drift yet: a compiled function then leaves out the exponents
        return ops.cast(self._log(times / self.t_0 + 1.0), dtype)

    def _read_spectrum(self, t: Array, dtype: Dtype) -> Tensor:
        spectrum = self._log((self._time(t) + self.t_0 + self.t_read) / 2 / self.t_read)
        return ops.sqrt(ops.cast(spectrum, dtype))

    def _time(self, t: Array) -> Array:
        if is_tensor(t):
            return t
        times = np.asarray(t, dtype="float64")
        if not np.all(np.isfinite(times)) or np.any(times < 0):
            raise ValueError(
                "`t`, in seconds since the reference reading, must be finite and at least 0. "
                f"Received: {t!r}"
            )
        return times

    @staticmethod
    def _log(x: Array) -> Array:
        # In float64 on the host where possible: a year is 3e7 s.
        return ops.log(x) if is_tensor(x) else np.log(x)

    def get_config(self) -> Config:
        return {
            "g_max": self.g_max,
            "t_0": self.t_0,
            "t_read": self.t_read,
            "programming_noise": self.programming_noise,
            "drift": self.drift,
            "read_noise": self.read_noise,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(**config)


@keras.saving.register_keras_serializable(package="snukeras")
class GenericPCM(InferencePCM):
    """The PCM of a 90-nm array of one million devices, 25 uS; aihwkit's PCMLikeNoiseModel.

    Curves as in aihwkit (inference/noise/pcm.py), fitted to the data of Nandakumar et al., ICECS
    2019, and Joshi et al. 2020 (doi 10.1038/s41467-020-16108-9). As in its code, the read noise
    depends on the programmed conductance. Unlike it, the two devices of a pair keep their own
    states. Left out: dependence on temperature, and noise that is correlated in time.

    See InferencePCM for the equations, the time origin and the arguments.
    """

    reference_g_max = 25.0

    def __init__(
        self,
        g_max: float = 25.0,
        t_0: float = 20.0,
        t_read: float = 250e-9,
        programming_noise: float = 1.0,
        drift: float = 1.0,
        read_noise: float = 1.0,
        seed: int | None = None,
    ) -> None:
        super().__init__(g_max, t_0, t_read, programming_noise, drift, read_noise, seed)

    def _programming_std(self, x: Tensor) -> Tensor:
        return 0.26348 + 1.9650 * x - 1.1731 * x * x

    def _drift_mean(self, x: Tensor) -> Tensor:
        return ops.clip(-0.0155 * ops.log(x) + 0.0244, 0.049, 0.1)

    def _drift_std(self, x: Tensor) -> Tensor:
        return ops.clip(-0.0125 * ops.log(x) - 0.0059, 0.008, 0.045)

    def _read_noise(self, x: Tensor) -> Tensor:
        # x ** 0.65; compiled for a processor, logarithm and exponential are far quicker.
        return ops.minimum(0.0088 / ops.maximum(ops.exp(0.65 * ops.log(x)), 1e-3), 0.2)


class _Curves(NamedTuple):
    """Fits of the 14-nm chip: polynomials in x, lowest order first, beside a logarithmic part."""

    g_max: float
    t_0: float
    programming: tuple
    drift_mean_log: tuple  # threshold in x, slope, intercept, lower and upper bound
    drift_mean: tuple
    drift_std_log: tuple
    drift_std: tuple
    read_log: tuple
    read: tuple


_HERMES = {
    1: _Curves(
        g_max=10.35,
        t_0=200.0,
        programming=(0.15781817, 2.32443916, -2.16310839, 0.68841818),
        drift_mean_log=(0.0945, -0.0387, -0.0182, 0.0720, 0.13),
        drift_mean=(0.0736, -0.0126, -0.0436),
        drift_std_log=(0.3039, -0.0120, -0.0023, 0.0124, 0.04),
        drift_std=(0.0104, 0.0116, -0.0165),
        read_log=(0.1591, -0.0078, 0.0038, 0.0179, 0.04),
        read=(0.0088, 0.0768, -0.1352, 0.0664),
    ),
    2: _Curves(
        g_max=20.7,
        t_0=300.0,
        programming=(0.16603222, 4.71806468, -8.48101252, 4.68961419),
        drift_mean_log=(0.0945, -0.0387, -0.0182, 0.0720, 0.13),
        drift_mean=(0.0736, -0.0126, -0.0436),
        drift_std_log=(0.3055, -0.0117, -0.0057, 0.0091, 0.04),
        drift_std=(0.0073, 0.0093, -0.0118),
        read_log=(0.16, -0.0117, -0.0069, 0.015, 0.04),
        read=(0.0123, 0.0211, -0.0280, 0.0069),
    ),
}


def _polynomial(coefficients: tuple, x: Tensor) -> Tensor:
    value = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        value = value * x + coefficient
    return value


def _below_and_above(log_part: tuple, coefficients: tuple, x: Tensor) -> Tensor:
    """Return the clipped logarithm below its threshold, the polynomial from there on."""
    threshold, slope, intercept, low, high = log_part
    logarithmic = ops.clip(slope * ops.log(x) + intercept, low, high)
    return ops.where(x < threshold, logarithmic, _polynomial(coefficients, x))


@keras.saving.register_keras_serializable(package="snukeras")
class HermesPCM(InferencePCM):
    """The PCM of IBM's 14-nm 64-core chip; aihwkit's HermesNoiseModel.

    Curves as in aihwkit (inference/noise/hermes.py), for the chip of Le Gallo et al. 2023 (doi
    10.1038/s41928-023-01010-1). With two devices per polarity a conductance is the sum of both,
    and the curves hold for the sum.

    See InferencePCM for the equations, the time origin and the other arguments.

    Args:
        devices_per_polarity: 1 (g_max 10.35 uS, t_0 200 s) or 2 (20.7 uS, 300 s).
        g_max: uS, None: as above.
        t_0: s, None: as above.
    """

    def __init__(
        self,
        devices_per_polarity: int = 2,
        g_max: float | None = None,
        t_0: float | None = None,
        t_read: float = 512e-9,
        programming_noise: float = 1.0,
        drift: float = 1.0,
        read_noise: float = 1.0,
        seed: int | None = None,
    ) -> None:
        if devices_per_polarity not in _HERMES:
            raise ValueError(
                "Argument `devices_per_polarity` must be 1 or 2. Received: "
                f"{devices_per_polarity!r}"
            )
        self.devices_per_polarity = devices_per_polarity
        self._curves = curves = _HERMES[devices_per_polarity]
        self.reference_g_max = curves.g_max
        super().__init__(
            curves.g_max if g_max is None else g_max,
            curves.t_0 if t_0 is None else t_0,
            t_read,
            programming_noise,
            drift,
            read_noise,
            seed,
        )

    def _programming_std(self, x: Tensor) -> Tensor:
        return _polynomial(self._curves.programming, x)

    def _drift_mean(self, x: Tensor) -> Tensor:
        return _below_and_above(self._curves.drift_mean_log, self._curves.drift_mean, x)

    def _drift_std(self, x: Tensor) -> Tensor:
        return _below_and_above(self._curves.drift_std_log, self._curves.drift_std, x)

    def _read_noise(self, x: Tensor) -> Tensor:
        return _below_and_above(self._curves.read_log, self._curves.read, x)

    def get_config(self) -> Config:
        return {"devices_per_polarity": self.devices_per_polarity, **super().get_config()}


@keras.saving.register_keras_serializable(package="snukeras")
class IdealDevice(InferencePCM):
    """A device without noise or drift: the reference beside the others."""

    def __init__(self, g_max: float = 25.0, seed: int | None = None) -> None:
        super().__init__(g_max, 1.0, 1.0, 0.0, 0.0, 0.0, seed)

    def _programming_std(self, x: Tensor) -> Tensor:
        return ops.zeros_like(x)

    _drift_mean = _drift_std = _read_noise = _programming_std

    def get_config(self) -> Config:
        return {"g_max": self.g_max, "seed": self.seed}
