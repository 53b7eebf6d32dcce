"""Devices that no longer switch: where they are, what they hold, what their partner can save."""

import numpy as np
from keras import ops

from snukeras import _arguments
from snukeras._arrays import like, to_tensor
from snukeras._types import Array, Tensor
from snukeras.pcm.devices import DeviceState
from snukeras.pcm.pairs import DifferentialPair


class StuckDevices:
    """The stuck devices of an array of differential pairs.

    Args:
        plus: array shaped like the weights: the conductance in uS at which the G+ device is stuck,
            NaN where it works. A number or None (no fault) stands for the whole array.
        minus: the same for the G- devices.

    Raises:
        ValueError: a stuck conductance that is negative or infinite.
    """

    def __init__(self, plus: Array | None = None, minus: Array | None = None) -> None:
        self.plus = self._checked("plus", plus)
        self.minus = self._checked("minus", minus)

    @staticmethod
    def _checked(name: str, given: Array | None) -> np.ndarray:
        values = np.asarray(np.nan if given is None else given, dtype="float32")
        if np.any(np.isinf(values)) or np.any(values < 0):
            raise ValueError(
                f"Argument `{name}` must hold conductances in uS of at least 0, or NaN for a "
                f"device that works. Received: a smallest value of {np.nanmin(values):g} and a "
                f"largest of {np.nanmax(values):g}"
            )
        return values

    @classmethod
    def random(
        cls,
        shape: tuple[int, ...],
        pair: DifferentialPair,
        reset: float = 0.0,
        set: float = 0.0,
        value: float | None = None,
        at_value: float = 0.0,
        seed: int | None = None,
    ) -> "StuckDevices":
        """Draw faults independently for every device.

        Args:
            shape: shape of the weights.
            pair: the DifferentialPair; stuck at RESET means g_min, stuck at SET means g_max.
            reset: probability that a device is stuck at RESET.
            set: probability that a device is stuck at SET.
            value: conductance in uS for devices stuck in between.
            at_value: probability that a device is stuck at `value`.
            seed: int or None.
        """
        parts = [
            _arguments.number(name, p, minimum=0.0, maximum=1.0)
            for name, p in (("reset", reset), ("set", set), ("at_value", at_value))
        ]
        if sum(parts) > 1.0 + 1e-9:
            raise ValueError(
                "`reset` + `set` + `at_value` must not exceed 1: a device has one fault at most. "
                f"Received: {reset} + {set} + {at_value}"
            )
        if at_value and value is None:
            raise ValueError("`value` (uS) must be given with `at_value`. Received: value=None")
        held = [pair.g_min, pair.g_max, np.nan if value is None else float(value)]
        generator = np.random.default_rng(seed)
        kinds = [*held, np.nan]
        chances = np.asarray([*parts, max(0.0, 1.0 - sum(parts))])
        chances = chances / chances.sum()
        draws = [generator.choice(kinds, size=shape, p=chances) for _ in range(2)]
        return cls(*draws)

    def count(self) -> int:
        """Count the stuck devices."""
        return int(np.sum(~np.isnan(self.plus)) + np.sum(~np.isnan(self.minus)))

    def apply(self, g_plus: Array, g_minus: Array) -> tuple[Array, Array]:
        """Put the stuck values (uS) in: what devices hold, whatever they were programmed to."""
        return self._put(g_plus, self.plus, "g_plus"), self._put(g_minus, self.minus, "g_minus")

    def hold(self, state: DeviceState) -> DeviceState:
        """Put the stuck devices into the state of programmed ones, (2, *weights).

        A stuck device keeps its conductance, without drift. It is read with the read noise of
        any device of that conductance.
        """
        stuck = np.stack(
            [
                np.broadcast_to(values, tuple(state.programmed.shape[1:]))
                for values in (self.plus, self.minus)
            ]
        )
        return DeviceState(
            state.target,
            self._put(state.programmed, stuck, "programmed"),
            self._put(state.nu, np.where(np.isnan(stuck), np.nan, 0.0), "nu"),
        )

    @staticmethod
    def _put(g: Array, stuck: np.ndarray, name: str) -> Array:
        tensor = to_tensor(g, name)
        healthy = np.isnan(stuck)
        fixed = ops.cast(np.where(healthy, 0.0, stuck), tensor.dtype)
        return like(ops.where(healthy, tensor, fixed), g)

    def compensate(
        self, g_plus: Array, g_minus: Array, pair: DifferentialPair
    ) -> tuple[Array, Array]:
        """Return targets (uS) with which the working partner of a stuck device saves the weight.

        The partner takes the conductance that keeps g_plus - g_minus, as far as the range of
        `pair` allows (and to the nearest level, if it has levels). Where both devices are stuck,
        nothing helps. Stuck devices get the value they hold.
        """
        held = self.apply(g_plus, g_minus)
        plus, minus = to_tensor(held[0], "g_plus"), to_tensor(held[1], "g_minus")
        wanted = to_tensor(g_plus, "g_plus") - to_tensor(g_minus, "g_minus")

        def partner(target: Tensor, healthy: np.ndarray, value: Tensor) -> Tensor:
            value = ops.clip(value, pair.g_min, pair.g_max)
            if pair.levels is not None:
                value = ops.round((value - pair.g_min) / pair.step) * pair.step + pair.g_min
            return ops.where(healthy, value, target)

        plus_works, minus_works = np.isnan(self.plus), np.isnan(self.minus)
        new_plus = partner(plus, plus_works & ~minus_works, minus + wanted)
        new_minus = partner(minus, minus_works & ~plus_works, plus - wanted)
        return like(new_plus, g_plus), like(new_minus, g_minus)
