"""A matrix on crossbar tiles: placement, drift compensation, the matrix product."""

import warnings
from collections.abc import Iterator, Sequence

import keras
import numpy as np
from keras import ops

from snukeras import _arguments
from snukeras._arrays import host_array, to_tensor
from snukeras._strategy import tracing
from snukeras._types import Array, Tensor
from snukeras.pcm.converters import Converter
from snukeras.pcm.devices import DeviceState, IdealDevice, InferencePCM
from snukeras.pcm.faults import StuckDevices
from snukeras.pcm.hardware import Hardware, ProgrammingReport
from snukeras.pcm.pairs import DifferentialPair
from snukeras.pcm.programming import check_slices, combined, groups, targets_for
from snukeras.pcm.wires import check_ir_drop, with_ir_drop

#: Share of pairs that may miss their target on hardware before a warning says so.
_MISSED = 0.05
#: Readings of hardware of which `held` takes means and variances.
_READINGS = 8


class Crossbar:
    """One matrix on PCM tiles.

    Signed weights become differential pairs (see DifferentialPair); rows are word lines (inputs),
    columns are bit lines (outputs). A matrix larger than a tile is split; the partial sums of its
    row blocks are converted one by one, corrected for drift, and added digitally.

    Args:
        matrix: (rows, columns), finite.
        device: an InferencePCM; default IdealDevice of the range of `pair`.
        pair: DifferentialPair; default the range of the device (of the hardware, if it has one),
            with a scale for each column. One scale for the whole matrix leaves most devices near
            0, where noise weighs most.
        tile_size: (word lines, bit lines of one polarity) of a tile.
        input_converter, output_converter: Converter or None. Inputs are in the unit of x; outputs
            in the unit of x times weights of [-1, 1], as they leave the tile.
        wire_resistance: ohm per cell, see with_ir_drop.
        compensation: None, "global" (one factor per tile) or "column": digital factors behind the
            output converter that undo the mean drift. A readout with one-hot inputs gives the mean
            |weight| of the tile or column; the factor is that of a readout at t = 0 over that of
            one at t. Both have read noise of their own, independent of that of the product.
        faults: StuckDevices shaped like the matrix, or None. They are read with the noise of their
            conductance. On `hardware`, they read exactly as given here.
        avoid_faults: whether the partner of a stuck device is programmed to save the weight.
        hardware: a Hardware that holds the devices instead of `device`; time then is its own.
        name: name of the matrix, used in errors and as the address for `hardware`.
        seed: int or keras.random.SeedGenerator.
        scales: uS per unit of weight, () or (columns,), for a matrix whose range is known, such as
            that of a crossbar map; default those of `pair`.
        slices: significances of the pairs that hold a weight together, the largest first; their
            currents are added in this proportion, before the converter. Pairs of one significance
            hold the same: (1.0, 1.0) halves the variance. Those of a smaller one are programmed to
            what a reading of the larger ones has left over: (1.0, 0.125), a most and a least
            significant pair. With `programmed_for`, that is what they missed of what they were to
            be programmed to.
        programmed_for: s; devices are programmed so that they hold the weights at this time, on
            average (see `snukeras.pcm.targets_for`), and compensation refers to the exact weights.
            None: at the time of programming.
        planned_with: the InferencePCM whose curves `programmed_for` takes, where they are not those
            of `device`.

    Attributes:
        programming: on `hardware`, the ProgrammingReport of each tile by its address.

    Raises:
        ValueError: a matrix that is none or not finite, a pair beyond the range of the device, a
            number or word that is not allowed.
    """

    def __init__(
        self,
        matrix: Array,
        device: InferencePCM | None = None,
        pair: DifferentialPair | None = None,
        tile_size: tuple[int, int] = (256, 256),
        input_converter: Converter | None = None,
        output_converter: Converter | None = None,
        wire_resistance: float = 0.0,
        compensation: str | None = None,
        faults: StuckDevices | None = None,
        avoid_faults: bool = True,
        hardware: Hardware | None = None,
        name: str = "matrix",
        seed: int | keras.random.SeedGenerator | None = None,
        scales: Array | None = None,
        slices: Sequence[float] = (1.0,),
        programmed_for: float | None = None,
        planned_with: InferencePCM | None = None,
    ) -> None:
        self.name = name
        self.matrix = host_array(matrix, name)
        if self.matrix.ndim != 2 or 0 in self.matrix.shape:
            raise ValueError(
                f"`{name}` must be a matrix (rows, columns). Received: shape {self.matrix.shape}"
            )
        if device is None:
            device = IdealDevice(25.0 if pair is None else pair.g_max)
        self.device = device
        self.hardware = hardware
        self.pair = _checked_pair(pair, device, hardware)
        rows, columns = (int(n) for n in tile_size)
        if rows < 1 or columns < 1:
            raise ValueError(f"Argument `tile_size` must be positive. Received: {tile_size!r}")
        self.tile_size = (rows, columns)
        self.input_converter = input_converter or Converter()
        self.output_converter = output_converter or Converter()
        self.wire_resistance = _arguments.number("wire_resistance", wire_resistance, minimum=0.0)
        self.compensation = _arguments.choice(
            "compensation", compensation, (None, "global", "column")
        )
        self.faults = StuckDevices() if faults is None else faults
        self.slices = check_slices(slices)
        self.programmed_for = programmed_for
        if programmed_for is not None:
            _arguments.number("programmed_for", programmed_for, minimum=0.0)
        elif planned_with is not None:
            raise ValueError(
                "`planned_with` must be None where no `programmed_for` is given. "
                f"Received: {planned_with!r}"
            )
        self.planned_with = device if planned_with is None else planned_with
        _check_simulated(self)
        self.avoid_faults = avoid_faults
        if not isinstance(seed, keras.random.SeedGenerator):
            seed = keras.random.SeedGenerator(seed)
        self.seed = seed
        self.scales = self.pair.scales(self.matrix) if scales is None else np.asarray(scales)
        targets = self.pair.to_conductances(self.matrix, self.scales)
        if avoid_faults and self.faults.count():
            targets = self.faults.compensate(*targets, self.pair)
        self.targets = np.stack(targets)
        for rows_of, columns_of in self.tiles:
            check_ir_drop(self.targets[:, rows_of, columns_of], self.wire_resistance, repr(name))
        self.program()

    @property
    def tiles(self) -> list[tuple[slice, slice]]:
        """The (row slice, column slice) of every tile, row blocks first."""
        return [
            (slice(i, min(i + self.tile_size[0], rows)), slice(j, min(j + self.tile_size[1], cols)))
            for rows, cols in [self.matrix.shape]
            for i in range(0, rows, self.tile_size[0])
            for j in range(0, cols, self.tile_size[1])
        ]

    def program(self) -> None:
        """Program all devices (again): a new programming event, new drift exponents.

        A compiled function that calls `matmul` keeps the devices with which it was traced.
        """
        self.programming: dict[str, ProgrammingReport] = {}
        if self.hardware is None:
            self.states = list(self._programmed())
        else:
            for address, (rows, columns) in self._addresses():
                self.programming[address] = self.hardware.program(
                    address, self.targets[:, rows, columns]
                )
            self._warn_of_missed()
        self._reference: list[Tensor] | None = None
        if self.compensation is not None:
            exact = self.programmed_for is not None
            self._reference = self._sizes(self._wanted()) if exact else self._readout(0.0)

    def _programmed(self) -> Iterator[DeviceState]:
        """Program the pairs of all weights, the most significant ones first."""
        if len(self.slices) == 1:
            yield self._program_to(self._planned(self.targets))
            return
        scales = ops.convert_to_tensor(self.scales)
        left = sum(self.slices) * self._wanted()
        for significance, count in groups(self.slices):
            share = left / (significance * count)
            aims = [ops.convert_to_numpy(g) for g in self.pair.to_conductances(share, scales)]
            planned = self._planned(np.stack(aims))
            aim, plan = (self._weights_of(*g) for g in (aims, planned))
            for _ in range(count):
                state = self._program_to(planned)
                # What the pair misses is told by what it was to be programmed to.
                missed = self._weights_of(state.programmed[0], state.programmed[1]) - plan
                left = left - significance * (aim + missed)
                yield state

    def _planned(self, targets: np.ndarray) -> np.ndarray:
        """Return what to program so that devices hold their targets when they are needed."""
        if self.programmed_for is None:
            return targets
        return targets_for(self.planned_with, targets, self.programmed_for)

    def _program_to(self, planned: np.ndarray) -> DeviceState:
        """Program a pair for each weight."""
        state = self.device.program(ops.convert_to_tensor(planned), seed=self.seed)
        return self.faults.hold(state) if self.faults.count() else state

    def _weights_of(self, plus: Array, minus: Array) -> Tensor:
        """Return the weights that two arrays of uS stand for."""
        one, other, scales = (ops.convert_to_tensor(part) for part in (plus, minus, self.scales))
        return self.pair.to_weights(one, other, scales)

    def _wanted(self) -> Tensor:
        """Return the weights that the targets stand for."""
        return self._weights_of(*self.targets)

    def conductances(self, t: float = 0.0) -> np.ndarray:
        """Read all devices once, (2, rows, columns) in uS, at t seconds (see InferencePCM).

        Of several pairs a weight it is their mean, weighted by significance.
        """
        return ops.convert_to_numpy(combined(self._read(t), self.slices))

    def weights(self, t: float = 0.0) -> np.ndarray:
        """Return the weights (rows, columns) with which the crossbar multiplies at time t.

        Read noise, IR drop and compensation are in them; the converters are not.
        """
        weights = self._effective(t)
        if self._reference is not None:
            weights = self._joined(
                [
                    weights[rows, columns] * factor
                    for (rows, columns), factor in zip(self.tiles, self._factors(t), strict=True)
                ]
            )
        return ops.convert_to_numpy(weights).astype("float32")

    def held(self, t: Array = 0.0) -> tuple[Tensor, Tensor]:
        """Return the weights (rows, columns) at time t without read noise, and its variance.

        IR drop is in them; compensation is not. On `hardware`, both come from a few readings.
        """
        found = self._still(t)
        seen = [self._behind_wires(g) for g, _ in found]
        noise = [
            variance * ops.square(through / ops.maximum(g, 1e-30))
            for (g, variance), through in zip(found, seen, strict=True)
        ]
        together, variance = combined(seen, self.slices), combined(noise, self.slices, 2)
        scales = ops.cast(self.scales, variance.dtype)
        scaled = ops.convert_to_tensor(self.scales)
        weights = self.pair.to_weights(together[0], together[1], scaled)
        return weights, ops.sum(variance, axis=0) / ops.square(scales)

    def _still(self, t: Array) -> list[tuple[Tensor, Tensor]]:
        """Return the conductances of each pair without read noise, and its variance, uS."""
        if self.hardware is not None:
            readings = np.stack([ops.convert_to_numpy(self._read(t)[0]) for _ in range(_READINGS)])
            mean, spread = readings.mean(axis=0), readings.var(axis=0, ddof=1)
            return [(ops.convert_to_tensor(mean), ops.convert_to_tensor(spread))]
        found = []
        for state in self.states:
            g = ops.convert_to_tensor(self.device.drifted(state, t))
            std = self.device.read_noise_std(state.programmed, t) * self.device.read_noise
            found.append((g, ops.square(g * ops.cast(std, g.dtype))))
        return found

    def factors(self, t: Array = 0.0) -> np.ndarray:
        """Return the digital factors of the compensation at time t: (row blocks, columns)."""
        across = -(-self.matrix.shape[1] // self.tile_size[1])
        found = np.ones((len(self.tiles) // across, self.matrix.shape[1]), "float32")
        if self._reference is not None:
            for (rows, columns), factor in zip(self.tiles, self._factors(t), strict=True):
                block = rows.start // self.tile_size[0]
                found[block, columns] = ops.convert_to_numpy(factor)
        return found

    @property
    def units(self) -> np.ndarray:
        """The weight that the largest conductance stands for, for each column."""
        return np.broadcast_to(self.pair.span / self.scales, self.matrix.shape[-1:])

    def matmul(self, x: Array, t: Array = 0.0) -> Tensor:
        """Multiply x (..., rows) by the matrix as the tiles do it at time t: (..., columns).

        One reading serves all vectors of the call; a readout of its own gives the factors of the
        drift compensation. Runs in compiled functions too, with fresh noise at every call, and has
        a gradient towards x (see Converter).

        On `hardware` the chip multiplies (`Hardware.mvm`), each vector by itself, and the gradient
        is that of the weights it was to hold. Where faults are given too, one reading serves all
        vectors, with the faults put into it.

        Raises:
            ValueError: x has other than `rows` values; a chip (`hardware`) in a compiled function,
                which would keep the reading of its tracing.
        """
        x = to_tensor(x, "x")
        if len(x.shape) < 1 or x.shape[-1] != self.matrix.shape[0]:
            raise ValueError(
                f"Argument `x` must have {self.matrix.shape[0]} values in its last axis. "
                f"Received: shape {tuple(x.shape)}"
            )
        multiplies = self.hardware is not None and not self.faults.count()
        products = self._measured(x) if multiplies else self._products(x, self._effective(t))
        factors = [1.0] * len(products) if self._reference is None else self._factors(t)
        blocks: dict[int, list[Tensor]] = {}
        for (_, columns), product, factor in zip(self.tiles, products, factors, strict=True):
            product = self.output_converter(product, seed=self.seed)
            product = product / self._unit(columns, product.dtype)
            factor = ops.cast(factor, product.dtype)
            blocks.setdefault(columns.start, []).append(product * factor)
        return ops.concatenate([sum(parts[1:], parts[0]) for parts in blocks.values()], axis=-1)

    def calibrate(self, x: Array, t: float = 0.0) -> None:
        """Fix the ranges of both converters at the largest value that typical inputs give.

        The range of the output is that of all tiles of the matrix, at time t. Values beyond it are
        clipped from then on, whatever the inputs.

        Args:
            x: typical inputs, (..., rows).
            t: s, when the ranges are set; 0 as a rule, since outputs shrink as devices drift.

        Raises:
            ValueError: all inputs or all outputs are 0.
        """
        x = to_tensor(x, "x")
        self.input_converter = self.input_converter.calibrated(x)
        products = self._products(x, self._effective(t))
        largest = [np.abs(ops.convert_to_numpy(product)).max() for product in products]
        self.output_converter = self.output_converter.calibrated(largest)

    def _products(self, x: Tensor, weights: Tensor) -> list[Tensor]:
        """Return the output of each tile, in the unit of x times weights of [-1, 1]."""
        found = []
        for rows, columns in self.tiles:
            signal = self.input_converter(x[..., rows], seed=self.seed)
            held = ops.cast(weights[rows, columns], signal.dtype)
            found.append(ops.matmul(signal, held * self._unit(columns, signal.dtype)))
        return found

    def _measured(self, x: Tensor) -> list[Tensor]:
        """Let the chip multiply; as `_products`."""
        _refuse_graphs()
        assert self.hardware is not None
        found = []
        for address, (rows, columns) in self._addresses():
            signal = self.input_converter(x[..., rows], seed=self.seed)
            vectors = ops.convert_to_numpy(signal).reshape(-1, signal.shape[-1])
            currents = self.hardware.mvm(address, vectors) / self.pair.span
            wanted = self.targets[:, rows, columns]
            exact = ops.matmul(
                signal, ops.cast((wanted[0] - wanted[1]) / self.pair.span, signal.dtype)
            )
            measured = ops.cast(currents.reshape(exact.shape), exact.dtype)
            found.append(exact + ops.stop_gradient(measured - exact))
        return found

    def _joined(self, parts: list[Tensor]) -> Tensor:
        """Put tiles (..., rows, columns), in their order, together to the whole matrix."""
        across = -(-self.matrix.shape[1] // self.tile_size[1])
        blocks = [
            ops.concatenate(parts[start : start + across], axis=-1)
            for start in range(0, len(parts), across)
        ]
        return ops.concatenate(blocks, axis=-2)

    def _unit(self, columns: slice, dtype: str) -> Tensor:
        """Return the factor that scales weights of these columns to [-1, 1]."""
        unit = np.broadcast_to(self.scales / self.pair.span, self.matrix.shape[-1:])
        return ops.cast(unit[columns], dtype)

    def _read(self, t: Array) -> list[Tensor]:
        """Read all devices once: for each pair of a weight (2, rows, columns) in uS."""
        if self.hardware is None:
            return [self.device.read(state, t, seed=self.seed) for state in self.states]
        _refuse_graphs()
        g = np.empty_like(self.targets)
        for address, (rows, columns) in self._addresses():
            g[:, rows, columns] = self.hardware.read(address)
        if self.faults.count():
            g = np.stack(self.faults.apply(g[0], g[1]))
        return [ops.convert_to_tensor(g)]

    def _effective(self, t: Array) -> Tensor:
        """Return the weights at time t without compensation."""
        g = combined([self._behind_wires(part) for part in self._read(t)], self.slices)
        return self.pair.to_weights(g[0], g[1], ops.convert_to_tensor(self.scales))

    def _behind_wires(self, g: Tensor) -> Tensor:
        """Return the conductances that the tiles seem to have."""
        if not self.wire_resistance:
            return g
        return self._joined(
            [
                with_ir_drop(g[:, rows, columns], self.wire_resistance)
                for rows, columns in self.tiles
            ]
        )

    def _readout(self, t: Array) -> list[Tensor]:
        """Return the mean |weight| of each tile, or each column of a tile, from its own reading."""
        return self._sizes(self._effective(t))

    def _sizes(self, weights: Tensor) -> list[Tensor]:
        """Return the mean |weight| of each tile, or each column of a tile."""
        size = ops.abs(weights)
        axis = 0 if self.compensation == "column" else None
        return [ops.mean(size[rows, columns], axis=axis) for rows, columns in self.tiles]

    def _factors(self, t: Array) -> list[Tensor]:
        """Return the digital factors of all tiles at time t, () or (columns of the tile,)."""
        return [
            ops.where(now > 0, then / ops.maximum(now, 1e-30), ops.ones_like(now))
            for then, now in zip(self._reference or [], self._readout(t), strict=True)
        ]

    def _warn_of_missed(self) -> None:
        reports = self.programming.values()
        missed = sum(int(report.missed.sum()) for report in reports)
        if missed > _MISSED * self.matrix.size:
            tolerance = max(report.tolerance for report in reports)
            warnings.warn(
                f"{missed} of {self.matrix.size} pairs of {self.name!r} did not come within "
                f"{tolerance:.2g} uS of their target; `programming` says which. Use a `pair` of "
                f"smaller g_max (now {self.pair.g_max:g} uS), or more iterations.",
                stacklevel=4,
            )

    def _addresses(self) -> list[tuple[str, tuple[slice, slice]]]:
        """Return (name of the tile for the hardware, its slices) for every tile."""
        height, width = self.tile_size
        return [
            (f"{self.name}/{rows.start // height}/{columns.start // width}", (rows, columns))
            for rows, columns in self.tiles
        ]


def _check_simulated(crossbar: Crossbar) -> None:
    """Raise ValueError for what simulated devices alone can do."""
    more = len(crossbar.slices) > 1
    if crossbar.hardware is not None and (more or crossbar.programmed_for is not None):
        raise ValueError(
            "`slices` and `programmed_for` are for simulated devices. Received: `hardware`, which "
            "programs one pair a weight by itself."
        )
    if more and crossbar.faults.count():
        raise ValueError(
            f"`faults` name one pair a weight. Received: faults, and the slices {crossbar.slices}"
        )


def _refuse_graphs() -> None:
    if tracing():
        raise ValueError(
            "A crossbar on `hardware` is read by Python and has no part in compiled functions. "
            "Call it eagerly, or use the weights that `weights()` gives."
        )


def _checked_pair(
    pair: DifferentialPair | None, device: InferencePCM, hardware: Hardware | None
) -> DifferentialPair:
    """Return the pair of a crossbar, within what the device offers."""
    if pair is None:
        g_max = hardware.g_max if hardware is not None and hardware.g_max else device.g_max
        return DifferentialPair(g_max, scale="column")
    if hardware is None and pair.g_max > device.g_max * (1 + 1e-9):
        raise ValueError(
            "Argument `pair` must not use more than the device offers, "
            f"g_max <= {device.g_max:g} uS. Received: {pair!r}"
        )
    return pair
