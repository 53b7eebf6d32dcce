"""The interface through which a real PCM chip plugs in, and a simulated chip behind it."""

import abc

import numpy as np

from snukeras.pcm.pulses import NandakumarPCM, PulsedPCM, PulseState


class Hardware(abc.ABC):
    """A chip with PCM devices that can be RESET, given SET pulses, and read.

    Devices are addressed by tile and position. A tile has a name (a string, "matrix/row/column"
    when a Chip gives it) and holds an array (2, rows, columns): G+ first, then G-. A driver for a
    real chip implements `reset`, `pulse` and `read`; whatever happens between these calls (time,
    drift) is the chip's own. A chip with a program-and-verify loop of its own also overrides
    `program`.

    Nothing here is specific to one process: the driver may talk to an instrument, a socket, or a
    simulator. It should raise OSError when the chip does not answer.
    """

    @abc.abstractmethod
    def reset(self, tile: str, where: np.ndarray) -> None:
        """RESETs the devices where `where`, bool (2, rows, columns), is True.

        The first call for a tile decides its shape.
        """

    @abc.abstractmethod
    def pulse(self, tile: str, counts: np.ndarray) -> None:
        """Gives `counts`, int (2, rows, columns), SET pulses to the devices of a tile."""

    @abc.abstractmethod
    def read(self, tile: str) -> np.ndarray:
        """Reads the devices of a tile now: float (2, rows, columns), uS."""

    #: Mean growth per SET pulse in uS, with which `program` plans, and its tolerance in uS.
    step = 0.75
    tolerance = 0.75

    def program(self, tile: str, targets: np.ndarray, iterations: int = 30) -> np.ndarray:
        """Brings the devices near `targets` (2, rows, columns), uS: program and verify.

        All devices are RESET. Then, in every iteration, devices below their target by more than
        `tolerance` get one SET pulse; devices above it by more than twice that are RESET and try
        again. Devices within those bounds are left alone.

        Returns:
            The last reading, uS.
        """
        targets = np.asarray(targets, dtype="float32")
        self.reset(tile, np.ones(targets.shape, bool))
        for _ in range(iterations):
            reading = np.asarray(self.read(tile))
            if reading.shape != targets.shape:
                raise ValueError(
                    f"Tile {tile!r} must read as {targets.shape}, the shape of its targets. "
                    f"Received: {reading.shape} from {type(self).__name__}.read"
                )
            below = targets - reading > self.tolerance
            above = reading - targets > 2 * self.tolerance
            if not below.any() and not above.any():
                break
            if above.any():
                self.reset(tile, above)
            if below.any():
                self.pulse(tile, below.astype("int32"))
        return np.asarray(self.read(tile))


class SimulatedHardware(Hardware):
    """A chip of simulated devices behind the interface of a real one.

    Args:
        device: a PulsedPCM; default NandakumarPCM with 20 uS.
        pulse_time: s that pass with each call of `reset` or `pulse`.
        seed: int or None, for the default device.
    """

    def __init__(self, device: PulsedPCM | None = None, pulse_time: float = 1e-3, seed=None):
        self.device = NandakumarPCM(seed=seed) if device is None else device
        self.pulse_time = pulse_time
        self.time = 0.0
        self._tiles: dict[str, PulseState] = {}

    def wait(self, seconds: float) -> None:
        """Lets time pass."""
        self.time += seconds

    def reset(self, tile, where):
        self.time += self.pulse_time
        where = np.asarray(where, bool)
        if tile not in self._tiles:
            self._tiles[tile] = self.device.reset(where.shape, t=self.time)
        else:
            state = self._state(tile, where)
            self._tiles[tile] = self.device.reset_where(state, where, self.time)

    def pulse(self, tile, counts):
        counts = np.asarray(counts)
        state = self._state(tile, counts)
        for n in range(int(counts.max(initial=0))):
            self.time += self.pulse_time
            state = self.device.pulse(state, counts > n, self.time)
        self._tiles[tile] = state

    def read(self, tile):
        return np.asarray(self.device.read(self._state(tile), self.time))

    def _state(self, tile, array=None) -> PulseState:
        if tile not in self._tiles:
            raise ValueError(
                f"`tile` must name a tile that was RESET before. Received: {tile!r}; known: "
                f"{sorted(self._tiles)}"
            )
        state = self._tiles[tile]
        if array is not None and array.shape != tuple(state.conductance.shape):
            raise ValueError(
                f"Tile {tile!r} has shape {tuple(state.conductance.shape)}. "
                f"Received: an array of shape {array.shape}"
            )
        return state
