"""A chip: all matrices of a Keras model on PCM, read at any time, given back as a Keras model."""

import warnings
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from snukeras import _arguments, _html
from snukeras._arrays import host_array
from snukeras._types import Array, Config, Nested, Tensor
from snukeras.network.matrices import Matrix, Unrolling, by_path, digital_kernels
from snukeras.network.models import copy_model
from snukeras.pcm.analog_network import AnalogNetwork
from snukeras.pcm.calibration import calibrate_readout
from snukeras.pcm.converters import Converter
from snukeras.pcm.crossbar import Crossbar
from snukeras.pcm.devices import GenericPCM, InferencePCM
from snukeras.pcm.faults import StuckDevices
from snukeras.pcm.hardware import Hardware, ProgrammingReport
from snukeras.pcm.pairs import DifferentialPair


class Chip:
    """A simulated (or real) PCM chip that holds the matrices of a network.

    Time `t` is in seconds since the reference reading, see InferencePCM: chip.weights(25) are the
    weights 25 s after it. Each reading draws fresh read noise; drift exponents are drawn when the
    chip is programmed. `snukeras.network.matrices` says which weights are matrices and how
    kernels of more than two axes unroll into rows and columns, as for the exporter.

        chip = snukeras.pcm.Chip(model, snukeras.pcm.GenericPCM(), compensation="global", seed=1)
        chip.model(t=86400).evaluate(x, y)

    Of an analog network (`snukeras.pcm.analog`) the chip has the tiles and wires, and its models
    compute with converters and with read noise in each product.

    Args:
        source: a built Keras model, an analog one among them, or a dict of matrices by name.
        device: an InferencePCM; default that of an analog network, or GenericPCM().
        embeddings: whether embedding tables go on the chip too.
        faults: dict of StuckDevices by matrix name (shaped like the unrolled matrix), or None.
        seed: int or None; one seed is one chip.
        pair, compensation, avoid_faults, hardware: as for Crossbar. By default each column has a
            scale of its own.
        tile_size, input_converter, output_converter, wire_resistance: as for Crossbar; an analog
            network has its own.
        scales: dict of scales by matrix name (see Crossbar), or None.
        slices, programmed_for, planned_with: as for Crossbar.

    Raises:
        ValueError: the model has no kernels or is not built; a matrix is not finite; another tile
            than that of an analog network.
    """

    _without_model = (
        "A chip made from matrices has no Keras model. Use `weights` or `matmul`, or `write` them "
        "into a model of yours."
    )

    def __init__(
        self,
        source: keras.Layer | dict[str, Array],
        device: InferencePCM | None = None,
        embeddings: bool = False,
        faults: dict[str, StuckDevices] | None = None,
        seed: int | None = None,
        pair: DifferentialPair | None = None,
        tile_size: tuple[int, int] | None = None,
        input_converter: Converter | None = None,
        output_converter: Converter | None = None,
        wire_resistance: float | None = None,
        compensation: str | None = None,
        avoid_faults: bool = True,
        hardware: Hardware | None = None,
        scales: dict[str, Array] | None = None,
        slices: Sequence[float] = (1.0,),
        programmed_for: float | None = None,
        planned_with: InferencePCM | None = None,
    ) -> None:
        own: Config = {
            "input_converter": input_converter,
            "output_converter": output_converter,
            "tile_size": tile_size,
            "wire_resistance": wire_resistance,
        }
        if isinstance(source, AnalogNetwork):
            device = source.device if device is None else device
            pair = source.pair if pair is None else pair
            _check_tile(source, own)
            tile_size = (source.tile.rows, source.tile.columns)
            wire_resistance = source.tile.wire_resistance
        self.device = GenericPCM() if device is None else device
        if not isinstance(self.device, InferencePCM):
            raise ValueError(
                "Argument `device` must be an InferencePCM, such as GenericPCM(); devices that "
                "take pulses are for snukeras.optimizers.PCMOptimizer. "
                f"Received: {self.device!r}"
            )
        self.seed = seed if seed is None else _arguments.whole("seed", seed, minimum=0)
        self._tile_size = tile_size or (256, 256)
        # Of the noise of products, of all models of this chip.
        self._entropy = int(np.random.SeedSequence(seed).generate_state(1)[0])
        self.embeddings = embeddings
        self._source = source if isinstance(source, keras.Layer) else None
        arrays, self._unrollings = _matrices(source, embeddings)
        if not arrays:
            raise ValueError("Argument `source` must have at least one kernel. Received: none.")
        faults = faults or {}
        if unknown := set(faults) - set(arrays):
            raise ValueError(
                f"Argument `faults` must name matrices of this chip: {sorted(arrays)}. "
                f"Received: {sorted(unknown)}"
            )
        self._shapes = {name: array.shape for name, array in arrays.items()}
        generator = keras.random.SeedGenerator(seed)
        scales = {**_learned_scales(source, self.device, pair), **(scales or {})}
        self.crossbars = {
            name: Crossbar(
                self._unrollings[name].matrix(array),
                self.device,
                faults=faults.get(name),
                name=name,
                seed=generator,
                pair=pair,
                tile_size=self._tile_size,
                input_converter=input_converter,
                output_converter=output_converter,
                wire_resistance=wire_resistance or 0.0,
                compensation=compensation,
                avoid_faults=avoid_faults,
                hardware=hardware,
                scales=scales.get(name),
                slices=slices,
                programmed_for=programmed_for,
                planned_with=planned_with,
            )
            for name, array in arrays.items()
        }

    @property
    def devices(self) -> int:
        """Number of PCM devices in use (pairs count twice)."""
        return sum(2 * len(c.slices) * c.matrix.size for c in self.crossbars.values())

    def _repr_html_(self) -> str:
        """Return the matrices, tiles and devices as a table, for notebooks."""
        rows = [
            (
                name,
                " x ".join(map(str, crossbar.matrix.shape)),
                f"{2 * crossbar.matrix.size:,}",
                f"{len(crossbar.tiles):,}",
                crossbar.compensation or "none",
                f"{crossbar.faults.count():,}",
            )
            for name, crossbar in self.crossbars.items()
        ]
        tiles = sum(len(crossbar.tiles) for crossbar in self.crossbars.values())
        stuck = sum(crossbar.faults.count() for crossbar in self.crossbars.values())
        rows.append(("total", "", f"{self.devices:,}", f"{tiles:,}", "", f"{stuck:,}"))
        size = " x ".join(map(str, self._tile_size))
        title = f"Chip of {type(self.device).__name__} on tiles of {size} pairs"
        heads = ("matrix", "rows x columns", "devices", "tiles", "drift compensation", "stuck")
        return _html.table(heads, rows, title)

    @property
    def programming(self) -> dict[str, ProgrammingReport]:
        """On `hardware`, what program and verify has reached, by address of the tile."""
        return {
            address: report
            for crossbar in self.crossbars.values()
            for address, report in crossbar.programming.items()
        }

    def program(self) -> None:
        """Program the whole chip again."""
        for crossbar in self.crossbars.values():
            crossbar.program()

    def conductances(self, t: float = 0.0) -> dict[str, np.ndarray]:
        """Read all devices once, by matrix name: (2, rows, columns), uS."""
        return {name: crossbar.conductances(t) for name, crossbar in self.crossbars.items()}

    def weights(self, t: float = 0.0) -> dict[str, np.ndarray]:
        """Return the weights at time t by name, in the shape in which they were given."""
        return {
            name: self._unrollings[name].weight(crossbar.weights(t), self._shapes[name])
            for name, crossbar in self.crossbars.items()
        }

    def matmul(self, name: str, x: Array, t: Array = 0.0) -> Tensor:
        """Multiply x (..., rows) by the matrix `name` as the tiles do it at time t."""
        if name not in self.crossbars:
            raise ValueError(
                f"Argument `name` must be one of {sorted(self.crossbars)}. Received: {name!r}"
            )
        return self.crossbars[name].matmul(x, t)

    def write(self, model: keras.Layer, t: float = 0.0) -> None:
        """Put the weights at time t into `model`, which has the architecture of the source.

        Into the model that another chip or time has made of an analog network, this puts all that
        tells chips and times apart: compiled functions stay, and the noise of its products starts
        from the chip's seed again.

        Raises:
            ValueError: `model` has other kernels than this chip, or is an analog network that no
                chip has made.
        """
        found = _on_tiles(model) if isinstance(model, AnalogNetwork) else None
        matrices = by_path(model, self.embeddings) if found is None else found
        shapes = [tuple(matrix.variable.shape) for matrix in matrices.values()]
        if shapes != list(self._shapes.values()):
            raise ValueError(
                "Argument `model` must have the kernels of this chip, in this order: "
                f"{list(self._shapes.values())}. Received: {shapes}; is it another model?"
            )
        if isinstance(model, AnalogNetwork):
            self._program(model, t)
            return
        for matrix, weights in zip(matrices.values(), self.weights(t).values(), strict=True):
            matrix.variable.assign(weights)

    def _program(self, model: AnalogNetwork, t: float) -> None:
        """Set the devices of an analog network."""
        if not model.programmed:
            raise ValueError(
                "`model` must be an analog network that a chip has made: chip.model(t) gives one, "
                "net.on_chip() an empty one. Received: an analog network without devices."
            )
        if (model.tile.rows, model.tile.columns) != self._tile_size:
            raise ValueError(
                f"`model` must have the tiles of this chip, {self._tile_size}. "
                f"Received: tiles of {(model.tile.rows, model.tile.columns)}"
            )
        seeds = np.random.SeedSequence(self._entropy).spawn(len(model.tiles))
        matrices = list(_on_tiles(model).values())
        for matrix, crossbar, tiles, seed in zip(
            matrices, self._crossbars_of(matrices), model.tiles, seeds, strict=True
        ):
            weights, variance = (ops.convert_to_numpy(part) for part in crossbar.held(t))
            shape = tuple(matrix.variable.shape)
            matrix.variable.assign(matrix.unrolling.weight(weights, shape))
            held = {"variance": variance, "unit": crossbar.units, "factor": crossbar.factors(t)}
            held["shift"] = np.zeros_like(held["factor"])
            tiles.set_held(held)
            tiles.restart(seed.generate_state(2))

    def _crossbars_of(self, matrices: list[Matrix]) -> list[Crossbar]:
        """Return the crossbars that hold the matrices of an analog network."""
        return list(self.crossbars.values())

    def calibrate_readout(
        self, model: AnalogNetwork, x: Nested, vectors: int = 512, batch_size: int = 32
    ) -> None:
        """Set gain and offset behind the converter of each column, by regression.

        What data drive the rows with is read out again, and the currents of each column of a tile
        are compared with those of its weights as they were to be programmed. The factor and shift
        that undo gain and offset take the place of the compensation of drift, until the next
        `write`.

        Args:
            model: a model of this chip, of `model` or after `write`.
            x: typical inputs, as for `snukeras.pcm.calibrate`.
            vectors: how many vectors of each matrix are compared, at most.
            batch_size: for arrays.

        Raises:
            ValueError: a model without devices, no data, NaN or infinity in data.
        """
        if not isinstance(model, AnalogNetwork) or not model.programmed:
            raise ValueError(
                "`model` must be one that this chip has made of an analog network. "
                f"Received: {model!r}"
            )
        vectors = _arguments.whole("vectors", vectors)
        targets = [crossbar.matrix for crossbar in self.crossbars.values()]
        calibrate_readout(model, targets, x, vectors, batch_size)

    def model(self, t: float = 0.0) -> keras.Model:
        """Return a copy of the source model with the weights that the chip holds at time t.

        It is compiled like the source, so that `evaluate` works. Of an analog network it is one
        with converters and fresh read noise in each product, and `write` puts other times and chips
        into it. Of a plain model it has the weights of one reading, and no converters: they act
        between matrix products, see `matmul`.
        """
        if self._source is None:
            raise ValueError(self._without_model)
        analog = isinstance(self._source, AnalogNetwork)
        copy = self._source.on_chip(self.seed) if analog else copy_model(self._source)
        self.write(copy, t)
        return copy


def _on_tiles(net: AnalogNetwork) -> dict[str, Matrix]:
    """Return the matrices of an analog network that are on tiles, by path, in their order."""
    products = net.products()
    return {path: matrix for path, matrix in by_path(net).items() if matrix.name in products}


def _check_tile(net: AnalogNetwork, given: Config) -> None:
    """Raise ValueError for what an analog network has and was given another."""
    tile = net.tile
    has = {"tile_size": (tile.rows, tile.columns), "wire_resistance": tile.wire_resistance}
    for name, value in given.items():
        if value is not None and (name not in has or value != has[name]):
            raise ValueError(
                f"`{name}` must be None for an analog network, which has tiles of its own: {tile}. "
                f"Received: {name}={value!r}"
            )


def matrix_names(source: keras.Layer, embeddings: bool = False) -> list[str]:
    """Return how a Chip of a model names its matrices, in their order."""
    return [*_matrices(source, embeddings)[0]]


def _matrices(
    source: keras.Layer | dict[str, Array], embeddings: bool
) -> tuple[dict[str, np.ndarray], dict[str, Unrolling]]:
    """Take the matrices, and how they unroll, out of what a Chip is made from."""
    if isinstance(source, dict):
        arrays = {name: host_array(matrix, name) for name, matrix in source.items()}
        return arrays, dict.fromkeys(arrays, Unrolling())
    if not isinstance(source, keras.Layer):
        raise TypeError(
            "Argument `source` must be a built Keras model or a dict of matrices by name. "
            f"Received: {type(source).__name__}"
        )
    if not source.built:
        raise ValueError(
            "Argument `source` must be a built model. Received: one without weights; call it or "
            "fit it once."
        )
    analog = isinstance(source, AnalogNetwork)
    # An analog network has named them when it was made.
    if not analog and (left := digital_kernels(source, embeddings)):
        warnings.warn(
            f"These weights stay digital: {', '.join(left)}. Name them in `tile_matrices` "
            "of their layer's class to put them on the chip.",
            stacklevel=3,
        )
    found = _on_tiles(source) if analog else by_path(source, embeddings)
    unrollings = {name: matrix.unrolling for name, matrix in found.items()}
    if isinstance(source, AnalogNetwork):
        return {name: source.clipped(matrix) for name, matrix in found.items()}, unrollings
    return {
        name: ops.convert_to_numpy(matrix.variable) for name, matrix in found.items()
    }, unrollings


def _learned_scales(
    source: keras.Layer | dict[str, Array], device: InferencePCM, pair: DifferentialPair | None
) -> dict[str, np.ndarray]:
    """Return the uS per unit of weight of matrices whose limits were learned."""
    if not isinstance(source, AnalogNetwork) or not source.learned_clip:
        return {}
    span = (DifferentialPair(device.g_max) if pair is None else pair).span
    units = {name: tiles.limit for name, tiles in source.products().items()}
    return {
        path: span / np.maximum(ops.convert_to_numpy(units[matrix.name]), 1e-6)
        for path, matrix in _on_tiles(source).items()
    }
