"""PCM devices for training: how a conductance grows from SET pulse to SET pulse."""

from typing import NamedTuple, Self

import keras
import numpy as np
from keras import ops

from snukeras import _arguments
from snukeras._arrays import is_tensor, like, to_tensor
from snukeras._random import PULSE, READ, RESET, Seed, normal
from snukeras._types import Array, Config, Dtype, Tensor


class PulseState(NamedTuple):
    """What pulsed devices remember: arrays of one shape."""

    conductance: Array  # uS, after the last pulse
    pulses: Array  # SET pulses since RESET
    time: Array  # s, of the last pulse


class PulsedPCM:
    """Base of the training models: RESET starts a device anew, SET pulses let it grow.

    All methods are element-wise and return a new PulseState; they work in compiled functions.
    Times are in seconds on one clock of the caller's.

    Args:
        g_max: largest conductance, uS.
        noise: factor on all spreads (RESET, pulses, reading); 0 gives the mean device.
        drift: factor on the drift exponent.
        seed: int or None, of the generator that serves calls without a `seed` of their own.
    """

    def __init__(
        self, g_max: float, noise: float = 1.0, drift: float = 1.0, seed: int | None = None
    ) -> None:
        self.g_max = _arguments.number("g_max", g_max, above=0.0)
        self.noise = _arguments.number("noise", noise, minimum=0.0)
        self.drift = _arguments.number("drift", drift, minimum=0.0)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def _step(self, g: Tensor, pulses: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and standard deviation (uS) of the growth by the next pulse."""
        raise NotImplementedError

    def _reset(self, normal: Tensor) -> Tensor:
        """Return the conductances after RESET, uS, from standard normal numbers."""
        raise NotImplementedError

    def _floor(self) -> float:
        """Return the smallest conductance after a SET pulse, uS."""
        return 0.0

    def reset(
        self,
        shape: tuple[int, ...],
        t: Array = 0.0,
        seed: Seed | None = None,
        dtype: str = "float32",
    ) -> PulseState:
        """Make fresh devices, RESET at time t.

        Args:
            shape: shape of the array.
            t: s.
            seed: int or keras.random.SeedGenerator; by default the generator of this object.
                Here and below, each kind of call draws its own numbers from one int.
            dtype: type of the conductances.
        """
        g = self._reset(self._normal(tuple(shape), dtype, seed, RESET))
        return PulseState(g, ops.zeros_like(g), ops.zeros_like(g) + ops.cast(t, dtype))

    def reset_where(
        self, state: PulseState, where: Array, t: Array, seed: Seed | None = None
    ) -> PulseState:
        """RESET the devices for which the boolean array `where` holds, at time t."""
        g = to_tensor(state.conductance, "conductance")
        fresh = self._reset(self._normal(ops.shape(g), g.dtype, seed, RESET))
        return PulseState(
            ops.where(where, fresh, g),
            ops.where(where, 0.0, state.pulses),
            ops.where(where, ops.cast(t, g.dtype), state.time),
        )

    def pulse(
        self, state: PulseState, where: Array, t: Array = 0.0, seed: Seed | None = None
    ) -> PulseState:
        """Apply one SET pulse at time t to the devices for which `where` holds."""
        g = to_tensor(state.conductance, "conductance")
        n = ops.cast(state.pulses, g.dtype)
        mean, std = self._step(g, n)
        step = mean + std * self.noise * self._normal(ops.shape(g), g.dtype, seed, PULSE)
        return PulseState(
            ops.where(where, ops.clip(g + step, self._floor(), self.g_max), g),
            ops.where(where, n + 1.0, n),
            ops.where(where, ops.cast(t, g.dtype), state.time),
        )

    def drifted(self, state: PulseState, t: Array = 0.0) -> Array:
        """Return the mean of many readings at time t, uS: drift without read noise.

        The base class has no drift.
        """
        return state.conductance

    def read(self, state: PulseState, t: Array = 0.0, seed: Seed | None = None) -> Array:
        """Read the devices once at time t, uS."""
        raise NotImplementedError

    def granularity(self, pulses: int = 10) -> float:
        """Return the mean growth per pulse over the first `pulses` pulses of the mean device, "
        "uS."""
        g = float(ops.convert_to_numpy(self._reset(ops.zeros(()))))
        first = g
        for n in range(pulses):
            mean, _ = self._step(ops.convert_to_tensor(g), ops.convert_to_tensor(float(n)))
            g = min(g + float(ops.convert_to_numpy(mean)), self.g_max)
        return (g - first) / pulses

    def _normal(
        self, shape: tuple[int, ...], dtype: Dtype, seed: Seed | None, stream: int
    ) -> Tensor:
        return normal(shape, dtype, self.seed_generator if seed is None else seed, stream)

    def get_config(self) -> Config:
        return {
            "g_max": self.g_max,
            "noise": self.noise,
            "drift": self.drift,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(**config)


@keras.saving.register_keras_serializable(package="snukeras")
class NandakumarPCM(PulsedPCM):
    """The doped Ge2Sb2Te5 device of Nandakumar et al. 2018 (doi 10.1063/1.5042408).

    With n SET pulses since RESET and P = exp(-n / 2.6), n counting the new pulse:

        RESET: G ~ N(0.1, 0.01) uS, at least 0.01
        SET:   G <- clip(G + mean + std N(0, 1), 0.1, g_max)
               mean = -0.084 G + 0.880 + 1.40 P,  std = 0.091 G + 0.260 + 2.15 P   [uS]
        read:  G_d = G (dt / 38.6 s)^-0.04,  clip(G_d + (0.03 G_d + 0.13) N(0, 1), 0.1, g_max)

    Constants of the public implementation of Y. Demirag (github.com/YigitDemirag/srnn-pcm). The
    model describes a device 38.6 s after its pulse; until then it is read as it is at 38.6 s (the
    bare power law would exceed G without bound at dt = 0). One drift exponent holds for all.

    Args:
        g_max: 20 uS reproduces the paper's staircase; 12 uS was used for training.
    """

    read_time = 38.6  # s

    def __init__(
        self,
        g_max: float = 20.0,
        noise: float = 1.0,
        drift: float = 1.0,
        seed: int | None = None,
    ) -> None:
        super().__init__(g_max, noise, drift, seed)
        _arguments.number("g_max", g_max, above=0.1)

    def _floor(self) -> float:
        return 0.1

    def _reset(self, normal: Tensor) -> Tensor:
        return ops.maximum(0.1 + 0.01 * self.noise * normal, 0.01)

    def _step(self, g: Tensor, pulses: Tensor) -> tuple[Tensor, Tensor]:
        memory = ops.exp(-(pulses + 1.0) / 2.6)
        return -0.084 * g + 0.880 + 1.40 * memory, 0.091 * g + 0.260 + 2.15 * memory

    def drifted(self, state: PulseState, t: Array = 0.0) -> Array:
        g = to_tensor(state.conductance, "conductance")
        if not is_tensor(t) and not is_tensor(state.time) and np.any(t < np.asarray(state.time)):
            raise ValueError(
                f"`t` (s) must not lie before the last pulse. Received: t={t!r} and a last pulse "
                f"at {np.max(state.time):g} s"
            )
        age = ops.cast(t, g.dtype) - ops.cast(state.time, g.dtype)
        drifted = g * ops.power(ops.maximum(age / self.read_time, 1.0), -0.04 * self.drift)
        return like(drifted, state.conductance)

    def read(self, state: PulseState, t: Array = 0.0, seed: Seed | None = None) -> Array:
        drifted = to_tensor(self.drifted(state, t), "conductance")
        noise = self._normal(ops.shape(drifted), drifted.dtype, seed, READ) * self.noise
        read = ops.clip(drifted + (0.03 * drifted + 0.13) * noise, 0.1, self.g_max)
        return like(read, state.conductance)


@keras.saving.register_keras_serializable(package="snukeras")
class ExpStepPCM(PulsedPCM):
    """The device of Nandakumar et al. 2020 (doi 10.3389/fnins.2020.00406).

    Constants of aihwkit's PCMPresetDevice.

    In units of w = 2 G / g_max, for the average device (no spread from device to device):

        RESET: w = 0.01 + 0.01 N(0, 1), at least 0
        SET:   dw = 0.01 (1 + 27.235 exp(-2.5 w))
               w <- clip(w + dw + 0.6 (dw + 0.042 + 0.108 w) N(0, 1), 0, 2)

    The step depends on the conductance alone. It has no drift and no read noise of its own
    (`drift` does nothing): aihwkit puts them into the converters.

    Args:
        g_max: uS that stands for w = 2.
        reset_mean: w after RESET. aihwkit resets to 0.01; its published staircase starts at 0.
        reset_std: spread of w after RESET.
    """

    def __init__(
        self,
        g_max: float = 25.0,
        noise: float = 1.0,
        drift: float = 1.0,
        reset_mean: float = 0.01,
        reset_std: float = 0.01,
        seed: int | None = None,
    ) -> None:
        super().__init__(g_max, noise, drift, seed)
        self.reset_mean = _arguments.number("reset_mean", reset_mean, minimum=0.0, maximum=2.0)
        self.reset_std = _arguments.number("reset_std", reset_std, minimum=0.0)

    def _reset(self, normal: Tensor) -> Tensor:
        w = ops.maximum(self.reset_mean + self.reset_std * self.noise * normal, 0.0)
        return w * (self.g_max / 2.0)

    def _step(self, g: Tensor, pulses: Tensor) -> tuple[Tensor, Tensor]:
        w = g * (2.0 / self.g_max)
        step = 0.01 * (1.0 + 27.235 * ops.exp(-2.5 * w))
        spread = 0.6 * (step + 0.042 + 0.108 * w)
        return step * (self.g_max / 2.0), spread * (self.g_max / 2.0)

    def read(self, state: PulseState, t: Array = 0.0, seed: Seed | None = None) -> Array:
        return like(to_tensor(state.conductance, "conductance"), state.conductance)

    def get_config(self) -> Config:
        config = super().get_config()
        return {**config, "reset_mean": self.reset_mean, "reset_std": self.reset_std}
