"""A matrix on crossbar tiles: placement, drift compensation, the matrix product."""

import keras
import numpy as np
from keras import ops

from snukeras.pcm._arrays import check_choice, check_number, host_array, to_tensor
from snukeras.pcm.converters import Converter
from snukeras.pcm.devices import IdealDevice
from snukeras.pcm.faults import StuckDevices
from snukeras.pcm.pairs import DifferentialPair
from snukeras.pcm.wires import with_ir_drop


class Crossbar:
    """One matrix on PCM tiles.

    Signed weights become differential pairs (see DifferentialPair); rows are word lines (inputs),
    columns are bit lines (outputs). A matrix larger than a tile is split; the partial sums of its
    row blocks are converted one by one and added digitally.

    Args:
        matrix: (rows, columns), finite.
        device: an InferencePCM; default IdealDevice of the range of `pair`.
        pair: DifferentialPair; default of the device's g_max.
        tile_size: (word lines, bit lines of one polarity) of a tile.
        input_converter, output_converter: Converter or None. Inputs are in the unit of x; outputs
            in the unit of x times weights of [-1, 1], as they leave the tile.
        wire_resistance: ohm per cell, see with_ir_drop.
        compensation: None, "global" (one factor per tile) or "column": digital factors that undo
            the mean drift. A readout with one-hot inputs gives the mean |weight| of the tile or
            column; the factor is that of the reading at t = 0 over that of now.
        faults: StuckDevices shaped like the matrix, or None.
        avoid_faults: whether the partner of a stuck device is programmed to save the weight.
        hardware: a Hardware that holds the devices instead of `device`; time then is its own.
        name: name of the matrix, used in errors and as the address for `hardware`.
        seed: int or keras.random.SeedGenerator.
    """

    def __init__(
        self,
        matrix,
        device=None,
        pair=None,
        tile_size=(256, 256),
        input_converter=None,
        output_converter=None,
        wire_resistance=0.0,
        compensation=None,
        faults=None,
        avoid_faults=True,
        hardware=None,
        name="matrix",
        seed=None,
    ):
        self.name = name
        self.matrix = host_array(matrix, name)
        if self.matrix.ndim != 2 or 0 in self.matrix.shape:
            raise ValueError(
                f"`{name}` must be a matrix (rows, columns). Received: shape {self.matrix.shape}"
            )
        if device is None:
            device = IdealDevice(25.0 if pair is None else pair.g_max)
        self.device = device
        self.pair = DifferentialPair(device.g_max) if pair is None else pair
        if hardware is None and self.pair.g_max > device.g_max * (1 + 1e-9):
            raise ValueError(
                "`pair` must not use more than the device offers, "
                f"g_max <= {device.g_max:g} uS. Received: {self.pair!r}"
            )
        rows, columns = (int(n) for n in tile_size)
        if rows < 1 or columns < 1:
            raise ValueError(f"`tile_size` must be positive. Received: {tile_size!r}")
        self.tile_size = (rows, columns)
        self.input_converter = input_converter or Converter()
        self.output_converter = output_converter or Converter()
        self.wire_resistance = check_number("wire_resistance", wire_resistance, minimum=0.0)
        self.compensation = check_choice("compensation", compensation, (None, "global", "column"))
        self.faults = StuckDevices() if faults is None else faults
        self.avoid_faults = avoid_faults
        self.hardware = hardware
        self.seed = (
            seed
            if isinstance(seed, keras.random.SeedGenerator)
            else keras.random.SeedGenerator(seed)
        )
        self.scales = self.pair.scales(self.matrix)
        targets = self.pair.to_conductances(self.matrix, self.scales)
        if avoid_faults and self.faults.count():
            targets = self.faults.compensate(*targets, self.pair)
        self.targets = np.stack(targets)
        self.program()

    @property
    def tiles(self):
        """The (row slice, column slice) of every tile, row blocks first."""
        return [
            (slice(i, min(i + self.tile_size[0], rows)), slice(j, min(j + self.tile_size[1], cols)))
            for rows, cols in [self.matrix.shape]
            for i in range(0, rows, self.tile_size[0])
            for j in range(0, cols, self.tile_size[1])
        ]

    def program(self):
        """Programs all devices (again): a new programming event, new drift exponents."""
        if self.hardware is None:
            self.state = self.device.program(ops.convert_to_tensor(self.targets), seed=self.seed)
        else:
            for address, (rows, columns) in self._addresses():
                self.hardware.program(address, self.targets[:, rows, columns])
        self._reference = None
        if self.compensation is not None:
            self._reference = self._readout(self._effective(0.0))

    def conductances(self, t=0.0):
        """One reading of all devices, (2, rows, columns) in uS, at t seconds (see InferencePCM)."""
        if self.hardware is None:
            g = self.device.read(self.state, t, seed=self.seed)
        else:
            g = np.empty_like(self.targets)
            for address, (rows, columns) in self._addresses():
                g[:, rows, columns] = self.hardware.read(address)
        if self.faults.count():
            g = np.stack(self.faults.apply(g[0], g[1]))
        return keras.ops.convert_to_numpy(g)

    def weights(self, t=0.0):
        """The weights (rows, columns) with which the crossbar multiplies at time t.

        Read noise, IR drop and compensation are in them; the converters are not.
        """
        weights = self._effective(t)
        if self._reference is not None:
            now = self._readout(weights)
            weights = weights * np.where(now > 0, self._reference / np.maximum(now, 1e-30), 1.0)
        return weights.astype("float32")

    def matmul(self, x, t=0.0):
        """x (..., rows) times the matrix as the tiles compute it at time t: (..., columns).

        One reading serves all vectors of the call.
        """
        x = to_tensor(x, "x")
        if len(x.shape) < 1 or x.shape[-1] != self.matrix.shape[0]:
            raise ValueError(
                f"`x` must have {self.matrix.shape[0]} values in its last axis. "
                f"Received: shape {tuple(x.shape)}"
            )
        weights = self.weights(t)
        to_unit = np.broadcast_to(self.scales / self.pair.span, self.matrix.shape[-1:])
        blocks: dict[int, list] = {}
        for rows, columns in self.tiles:
            signal = self.input_converter(x[..., rows], seed=self.seed)
            unit = to_unit[columns].astype("float32")
            product = ops.matmul(signal, ops.cast(weights[rows, columns] * unit, signal.dtype))
            product = self.output_converter(product, seed=self.seed) / unit
            blocks.setdefault(columns.start, []).append(product)
        return ops.concatenate([sum(parts[1:], parts[0]) for parts in blocks.values()], axis=-1)

    def _effective(self, t):
        """Weights at time t without compensation."""
        g = self.conductances(t)
        if self.wire_resistance:
            for rows, columns in self.tiles:
                g[:, rows, columns] = with_ir_drop(g[:, rows, columns], self.wire_resistance)
        return self.pair.to_weights(g[0], g[1], self.scales)

    def _readout(self, weights):
        """Mean |weight| per tile or per column of a tile, spread over the shape of the matrix."""
        means = np.empty_like(weights)
        for rows, columns in self.tiles:
            size = np.abs(weights[rows, columns])
            axis = 0 if self.compensation == "column" else None
            means[rows, columns] = size.mean(axis=axis)
        return means

    def _addresses(self):
        """(name of the tile for the hardware, its slices), for every tile."""
        height, width = self.tile_size
        return [
            (f"{self.name}/{rows.start // height}/{columns.start // width}", (rows, columns))
            for rows, columns in self.tiles
        ]
