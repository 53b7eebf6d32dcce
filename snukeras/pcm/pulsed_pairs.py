"""Differential pairs of pulsed devices: program and verify, pulses, refresh, reading."""

from typing import NamedTuple

from keras import ops

from snukeras._random import numbered
from snukeras._types import Tensor
from snukeras.pcm.pulses import PulsedPCM, PulseState

# Where the random numbers of one step begin; loops count up from there.
_PULSES, _CHECK, _RESET, _PROGRAM, _READ = 0, 100_000, 100_001, 200_000, 300_000
_LONG = 40  # pulses after which the mean device hardly grows


class PairState(NamedTuple):
    """The state of all devices as tensors, (2, pairs) but for the last, (pairs,)."""

    conductance: Tensor  # uS, after the last pulse
    pulses_since_reset: Tensor
    last_pulse: Tensor  # s
    pulse_count: Tensor  # SET pulses in the life of a device
    refresh_count: Tensor

    def devices(self) -> PulseState:
        """Return the part of the state that the device model keeps."""
        return PulseState(self.conductance, self.pulses_since_reset, self.last_pulse)

    def with_devices(self, state: PulseState) -> "PairState":
        """Return the same counts with another state of the devices."""
        return PairState(*state, self.pulse_count, self.refresh_count)


class PulsedPairs:
    """The operations on pairs of devices that grow by SET pulses, see PCMOptimizer.

    All methods are pure functions of tensors: they return a new PairState. `seed` is a pair of
    integers as SeedGenerator.next() gives them, one for each step of the training; the methods
    draw from different numbers of it.

    Args:
        device: a PulsedPCM.
        granularity: uS of a difference within which programming leaves a pair alone; None: the
            mean growth of the device over its first ten pulses.
        refresh_above: uS; None: three quarters of the mean growth over 40 pulses.
        refresh_within: uS, less than `refresh_above`; None: three quarters of it.
        programming_pulses: most SET pulses to one pair when it is programmed.

    Raises:
        ValueError: `refresh_within` is not below `refresh_above`.
    """

    def __init__(
        self,
        device: PulsedPCM,
        granularity: float | None = None,
        refresh_above: float | None = None,
        refresh_within: float | None = None,
        programming_pulses: int = 20,
    ) -> None:
        self.device = device
        self.granularity = granularity or device.granularity()
        self.above = refresh_above or 0.75 * _LONG * device.granularity(_LONG)
        self.within = refresh_within or 0.75 * self.above
        self.programming_pulses = programming_pulses
        if self.within >= self.above:
            raise ValueError(
                "Argument `refresh_within` must be below `refresh_above`, else refreshed pairs "
                f"would be refreshed for ever. Received: {self.within:g} and {self.above:g} uS"
            )

    def pulse(self, pairs: PairState, whole: Tensor, clock: Tensor, seed: Tensor) -> PairState:
        """Apply |whole| SET pulses to G+ (positive) or G- (negative); `whole` is (pairs,)."""
        most = ops.max(ops.abs(whole))

        def body(k: Tensor, *pairs: Tensor) -> tuple:
            where = ops.stack([whole > k, -whole > k])
            return k + 1.0, *self._one_pulse(PairState(*pairs), where, clock, seed, _PULSES + k)

        _, *found = ops.while_loop(lambda k, *_: k < most, body, (_zero(), *pairs))
        return PairState(*found)

    def refresh(self, pairs: PairState, clock: Tensor, seed: Tensor) -> PairState:
        """RESET saturated pairs and program their differences again."""
        plus, minus = self._draw(pairs, clock, seed, _CHECK)
        difference = plus - minus
        saturated = ops.logical_and(
            ops.maximum(plus, minus) > self.above, ops.abs(difference) < self.within
        )
        refreshes = pairs.refresh_count + ops.cast(saturated, "int32")
        pairs = self.program(pairs, saturated, difference, clock, seed)
        return pairs._replace(refresh_count=refreshes)

    def program(
        self, pairs: PairState, where: Tensor, target: Tensor, clock: Tensor, seed: Tensor
    ) -> PairState:
        """RESET the pairs `where`, then pulse and read them until they hold `target` (uS)."""
        both = ops.stack([where, where])
        state = self.device.reset_where(pairs.devices(), both, clock, numbered(seed, _RESET))
        pairs = pairs.with_devices(state)

        def body(k: Tensor, active: Tensor, *pairs: Tensor) -> tuple:
            held = PairState(*pairs)
            plus, minus = self._draw(held, clock, seed, _PROGRAM + 2.0 * k)
            missing = target - (plus - minus)
            active = ops.logical_and(active, ops.abs(missing) > self.granularity)
            up = ops.stack(
                [ops.logical_and(active, missing > 0), ops.logical_and(active, missing < 0)]
            )
            held = self._one_pulse(held, up, clock, seed, _PROGRAM + 1.0 + 2.0 * k)
            return k + 1.0, active, *held

        def unfinished(k: Tensor, active: Tensor, *_: Tensor) -> Tensor:
            return ops.logical_and(k < self.programming_pulses, ops.any(active))

        _, _, *found = ops.while_loop(unfinished, body, (_zero(), where, *pairs))
        return PairState(*found)

    def read(self, pairs: PairState, clock: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
        """Read G+ and G- once, uS."""
        return self._draw(pairs, clock, seed, _READ)

    def _one_pulse(
        self, pairs: PairState, where: Tensor, clock: Tensor, seed: Tensor, use: Tensor
    ) -> PairState:
        state = self.device.pulse(pairs.devices(), where, clock, numbered(seed, use))
        pairs = pairs.with_devices(state)
        return pairs._replace(pulse_count=pairs.pulse_count + ops.cast(where, "int32"))

    def _draw(
        self, pairs: PairState, clock: Tensor, seed: Tensor, use: Tensor
    ) -> tuple[Tensor, Tensor]:
        read = self.device.read(pairs.devices(), clock, numbered(seed, use))
        return read[0], read[1]


def _zero() -> Tensor:
    return ops.convert_to_tensor(0.0, dtype="float32")
