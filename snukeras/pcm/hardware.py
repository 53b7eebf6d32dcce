"""The interface through which a real PCM chip plugs in, and a simulated chip behind it."""

import abc
import functools
from typing import NamedTuple

import numpy as np
from keras import ops

from snukeras.pcm.pulses import NandakumarPCM, PulsedPCM, PulseState

# In units of `Hardware.step`: a partner above _HIGH is spent, a weight below _SMALL is quickly
# programmed again.
_HIGH, _SMALL = 3, 10
_REACH = 40  # SET pulses after which the mean device hardly grows
_CLIMB = 20  # iterations that a pair needs to come back after a RESET
_VECTORS = 64  # readings that `mvm` holds at once
_LAST_PATIENCE = 1.5  # growth of the tolerance in the last quarter of the iterations


class ProgrammingReport(NamedTuple):
    """What program and verify has reached on one tile."""

    held: np.ndarray  #: (2, rows, columns), uS: mean of the last readings
    error: np.ndarray  #: (rows, columns), uS of G+ - G- beyond what was wanted
    missed: np.ndarray  #: (rows, columns), True where the pair did not come within the tolerance
    tolerance: float  #: uS
    iterations: int  #: rounds of pulses
    pulses: np.ndarray | None = None  #: (2, rows, columns): SET pulses; None: the chip did not say
    resets: np.ndarray | None = None  #: (2, rows, columns): RESETs; None: the chip did not say
    seconds: float | None = None  #: on the chip's clock, `Hardware.time`; None: it has none


class Hardware(abc.ABC):
    """A chip with PCM devices that can be RESET, given SET pulses, and read.

    Devices are addressed by tile and position. A tile has a name (a string, "matrix/row/column"
    when a Chip gives it) and holds an array (2, rows, columns): G+ first, then G-. A driver for a
    real chip implements `reset`, `pulse` and `read`, and `mvm` if it multiplies; whatever happens
    between these calls (time, drift) is the chip's own. A chip with a program-and-verify loop of
    its own also overrides `program`.

    Nothing here is specific to one process: the driver may talk to an instrument, a socket, or a
    simulator. It should raise OSError when the chip does not answer.
    """

    @abc.abstractmethod
    def reset(self, tile: str, where: np.ndarray) -> None:
        """RESET the devices where `where`, bool (2, rows, columns), is True.

        The first call for a tile decides its shape.
        """

    @abc.abstractmethod
    def pulse(self, tile: str, counts: np.ndarray) -> None:
        """Apply `counts`, int (2, rows, columns), SET pulses to the devices of a tile."""

    @abc.abstractmethod
    def read(self, tile: str) -> np.ndarray:
        """Read the devices of a tile now: float (2, rows, columns), uS."""

    def readings(self, tile: str, count: int) -> np.ndarray:
        """Read the devices of a tile `count` times: float (count, 2, rows, columns), uS.

        A chip that can read faster than one by one overrides this.
        """
        return np.stack([np.asarray(self.read(tile)) for _ in range(count)])

    def mvm(self, tile: str, x: np.ndarray) -> np.ndarray:
        """Multiply vectors (count, rows) by a tile: the currents x (G+ - G-), (count, columns).

        Each vector meets a reading of its own here. A chip that multiplies overrides this.

        Returns:
            uS times the unit of x.
        """
        x = np.asarray(x, dtype="float64")
        found = []
        for start in range(0, len(x), _VECTORS):
            part = x[start : start + _VECTORS]
            g = np.asarray(self.readings(tile, len(part)), dtype="float64")
            found.append(np.einsum("nr,nrc->nc", part, g[:, 0] - g[:, 1]))
        return np.concatenate(found)

    #: Largest conductance in uS that devices can be programmed to; None: not known. The range of a
    #: Crossbar on this hardware unless it is told another.
    g_max: float | None = None
    #: Mean growth per SET pulse in uS, with which `program` plans.
    step: float = 0.75
    #: uS by which a pair may miss its target; None: the noise of one reading of a pair, as the
    #: readings show it, or a quarter of `step` if that is more.
    tolerance: float | None = None
    #: Readings of the tile between two pulses.
    reads: int = 8
    #: Seconds on the chip's own clock; None: it has none.
    time: float | None = None

    def program(self, tile: str, targets: np.ndarray, iterations: int = 100) -> ProgrammingReport:
        """Bring pairs near `targets` (2, rows, columns), uS: program and verify.

        All devices are RESET. In every iteration the tile is read `reads` times; readings of
        untouched pairs add up. Devices far below their targets get SET pulses. Then the difference
        of the two devices counts alone, since it is the weight, and the partner of the device that
        carries the weight serves to trim it. A pair that misses the difference of its targets by
        more than the tolerance gets the step that leads nearer:

        - below: a SET pulse on the carrying device, or RESET of the partner, where that is nearer;
        - above: a SET pulse on the partner; or a new start of both, where the weight is small or
          the partner is high already.

        A pair within the tolerance is left alone. In the last iterations no pair starts again, and
        the tolerance grows, so that a pair that came near keeps its state: a pulse is as coarse as
        `step`, and would lose it.

        Args:
            tile: name of the tile.
            targets: uS.
            iterations: most rounds of pulses.

        Returns:
            What was reached, and which pairs did not come within the tolerance.

        Raises:
            ValueError: the chip reads in another shape than that of the targets, or no finite
                numbers.
        """
        targets = np.asarray(targets, dtype="float64")
        wanted = targets[0] - targets[1]
        started = self.time
        given = [np.zeros(targets.shape, "int64"), np.ones(targets.shape, "int64")]
        self.reset(tile, np.ones(targets.shape, bool))
        self._check_shape(tile, np.shape(self.read(tile)), targets.shape)
        seen = _Readings(targets.shape)
        for left in range(iterations, -1, -1):
            readings = np.asarray(self.readings(tile, self.reads), dtype="float64")
            self._check_finite(tile, readings)
            seen.add(readings)
            tolerance = self.tolerance or max(seen.noise(), self.step / 4)
            held = seen.mean()
            error = held[0] - held[1] - wanted
            patience = 1.0 + _LAST_PATIENCE * max(0.0, 1.0 - 4.0 * left / iterations)
            near = np.abs(error) <= patience * tolerance
            resets, pulses = self._plan(np.where(near, 0.0, error), held, targets, left)
            if left == 0 or not (resets.any() or pulses.any()):
                break
            if resets.any():
                self.reset(tile, resets)
            if pulses.any():
                self.pulse(tile, pulses)
            given[0] += pulses
            given[1] += resets
            seen.forget(np.any(resets | (pulses > 0), axis=0))
        missed = np.abs(error) > tolerance
        seconds = None if started is None or self.time is None else self.time - started
        worn = self._wear.setdefault(tile, [np.zeros_like(part) for part in given])
        for total, part in zip(worn, given, strict=True):
            total += part
        pulsed, reset = given
        return ProgrammingReport(
            held, error, missed, float(tolerance), iterations - left, pulsed, reset, seconds
        )

    def wear(self, tile: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the SET pulses and RESETs that `program` has given the devices of a tile.

        Returns:
            Two arrays of counts, (2, rows, columns): G+ first, then G-.

        Raises:
            ValueError: a tile that `program` has not brought to targets.
        """
        if tile not in self._wear:
            raise ValueError(
                f"Argument `tile` must name a tile that was programmed. Received: {tile!r}; "
                f"known: {sorted(self._wear)}"
            )
        pulses, resets = self._wear[tile]
        return pulses.copy(), resets.copy()

    @functools.cached_property
    def _wear(self) -> dict[str, list[np.ndarray]]:
        # Drivers have constructors of their own.
        return {}

    def _plan(
        self, error: np.ndarray, held: np.ndarray, targets: np.ndarray, left: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Choose the devices to RESET and the SET pulses, both (2, rows, columns).

        Args:
            error: (rows, columns), uS of G+ - G- too much, 0 where the pair is to be left alone.
            held: (2, rows, columns), uS.
            targets: (2, rows, columns), uS.
            left: iterations that are left.
        """
        wanted = targets[0] - targets[1]
        positive = wanted >= 0
        over = np.where(positive, error, -error)  # uS that the weight is too large
        partner = np.where(positive, held[1], held[0])
        excess = partner - np.where(positive, targets[1], targets[0])
        below, above, in_time = over < 0, over > 0, left > _CLIMB
        high = excess > _HIGH * self.step
        again = above & (high | (np.abs(wanted) < _SMALL * self.step))
        again = (again | (held - targets > _HIGH * self.step).all(axis=0)) & in_time
        # RESET moves the partner by what it holds, if it is to rest.
        rests = partner - excess < self.step
        nearer = (partner > self.step) & (partner < -2 * over)
        lift = below & rests & (nearer | (high & in_time))
        resets = np.stack([again, again | lift])
        pulses = np.stack([below & ~lift, above & ~again]).astype("int32")
        resets = np.where(positive, resets, resets[::-1])
        pulses = np.where(positive, pulses, pulses[::-1])
        missing = targets - held
        climbing = (
            (missing > 2 * self.step) & ~resets & ((error != 0) | (missing > _HIGH * self.step))
        )
        return resets, np.where(climbing, missing / (2 * self.step), pulses).astype("int32")

    def _check_shape(self, tile: str, shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
        if shape != wanted:
            raise ValueError(
                f"Tile {tile!r} must read as {wanted}, the shape of its targets. "
                f"Received: {shape} from {type(self).__name__}.read"
            )

    def _check_finite(self, tile: str, readings: np.ndarray) -> None:
        if not np.all(np.isfinite(readings)):
            count = int(np.count_nonzero(~np.isfinite(readings)))
            raise ValueError(
                f"Tile {tile!r} must read as finite uS. Received: {count} of {readings.size} "
                f"values that are not, from {type(self).__name__}.read"
            )


class _Readings:
    """Sums of the readings of each pair since it was last touched."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._sum, self._squares = np.zeros(shape), np.zeros(shape)
        self._count = np.zeros(shape[1:])

    def add(self, readings: np.ndarray) -> None:
        """Take readings of all devices, (count, 2, rows, columns)."""
        self._sum += readings.sum(axis=0)
        self._squares += (readings**2).sum(axis=0)
        self._count += len(readings)

    def forget(self, pairs: np.ndarray) -> None:
        """Begin anew for the pairs (rows, columns) that were touched."""
        keep = ~pairs
        self._sum *= keep
        self._squares *= keep
        self._count *= keep

    def mean(self) -> np.ndarray:
        """Return the mean readings, (2, rows, columns) in uS."""
        return self._sum / self._count

    def noise(self) -> float:
        """Return the standard deviation in uS of one reading of a pair, over all pairs."""
        if self._count.min() < 2:
            return 0.0
        variance = (self._squares / self._count - self.mean() ** 2).clip(0.0)
        return float(np.sqrt(np.mean(variance.sum(axis=0) * self._count / (self._count - 1))))


class SimulatedHardware(Hardware):
    """A chip of simulated devices behind the interface of a real one.

    Its `g_max` is what the mean device reaches within 40 SET pulses (10.3 uS for NandakumarPCM),
    and its `step` the mean growth over the first ten.

    Args:
        device: a PulsedPCM; default NandakumarPCM with 20 uS.
        pulse_time: s that pass with each call of `reset` or `pulse`.
        seed: int or None, for the default device.
    """

    def __init__(
        self,
        device: PulsedPCM | None = None,
        pulse_time: float = 1e-3,
        seed: int | None = None,
    ) -> None:
        self.device = NandakumarPCM(seed=seed) if device is None else device
        self.pulse_time = pulse_time
        self.g_max = min(_REACH * self.device.granularity(_REACH), self.device.g_max)
        self.step = self.device.granularity()
        self.time: float = 0.0
        self._tiles: dict[str, PulseState] = {}

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.time += seconds

    def reset(self, tile: str, where: np.ndarray) -> None:
        self.time += self.pulse_time
        where = np.asarray(where, bool)
        if tile not in self._tiles:
            self._tiles[tile] = self.device.reset(where.shape, t=self.time)
        else:
            state = self._state(tile, where)
            self._tiles[tile] = self.device.reset_where(state, where, self.time)

    def pulse(self, tile: str, counts: np.ndarray) -> None:
        counts = np.asarray(counts)
        state = self._state(tile, counts)
        for n in range(int(counts.max(initial=0))):
            self.time += self.pulse_time
            state = self.device.pulse(state, counts > n, self.time)
        self._tiles[tile] = state

    def read(self, tile: str) -> np.ndarray:
        return self.readings(tile, 1)[0]

    def readings(self, tile: str, count: int) -> np.ndarray:
        state = PulseState(*(ops.stack([part] * count) for part in self._state(tile)))
        return ops.convert_to_numpy(self.device.read(state, self.time))

    def _state(self, tile: str, array: np.ndarray | None = None) -> PulseState:
        if tile not in self._tiles:
            raise ValueError(
                f"Argument `tile` must name a tile that was RESET before. Received: {tile!r}; "
                f"known: {sorted(self._tiles)}"
            )
        state = self._tiles[tile]
        if array is not None and array.shape != tuple(state.conductance.shape):
            raise ValueError(
                f"Tile {tile!r} has shape {tuple(state.conductance.shape)}. "
                f"Received: an array of shape {array.shape}"
            )
        return state
