"""A chip: all matrices of a Keras model on PCM, read at any time, given back as a Keras model."""

import warnings

import keras
import numpy as np
from keras import ops

from snukeras._arrays import host_array
from snukeras._types import Array, Tensor
from snukeras.network.matrices import Unrolling, by_path, digital_kernels
from snukeras.network.models import copy_model
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

    Args:
        source: a built Keras model, or a dict of matrices by name.
        device: an InferencePCM; default GenericPCM().
        embeddings: whether embedding tables go on the chip too.
        faults: dict of StuckDevices by matrix name (shaped like the unrolled matrix), or None.
        seed: int or None; one seed is one chip.
        pair, tile_size, input_converter, output_converter, wire_resistance, compensation,
            avoid_faults, hardware: as for Crossbar. By default each column has a scale of its own.
        scales: dict of scales by matrix name (see Crossbar), or None.

    Raises:
        ValueError: the model has no kernels or is not built; a matrix is not finite.
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
        tile_size: tuple[int, int] = (256, 256),
        input_converter: Converter | None = None,
        output_converter: Converter | None = None,
        wire_resistance: float = 0.0,
        compensation: str | None = None,
        avoid_faults: bool = True,
        hardware: Hardware | None = None,
        scales: dict[str, Array] | None = None,
    ) -> None:
        self.device = GenericPCM() if device is None else device
        self.seed = seed
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
        self.crossbars = {
            name: Crossbar(
                self._unrollings[name].matrix(array),
                self.device,
                faults=faults.get(name),
                name=name,
                seed=generator,
                pair=pair,
                tile_size=tile_size,
                input_converter=input_converter,
                output_converter=output_converter,
                wire_resistance=wire_resistance,
                compensation=compensation,
                avoid_faults=avoid_faults,
                hardware=hardware,
                scales=None if scales is None else scales.get(name),
            )
            for name, array in arrays.items()
        }

    @property
    def devices(self) -> int:
        """Number of PCM devices in use (pairs count twice)."""
        return sum(2 * crossbar.matrix.size for crossbar in self.crossbars.values())

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

        Raises:
            ValueError: `model` has other kernels than this chip.
        """
        variables = [matrix.variable for matrix in by_path(model, self.embeddings).values()]
        shapes = [tuple(v.shape) for v in variables]
        if shapes != list(self._shapes.values()):
            raise ValueError(
                "Argument `model` must have the kernels of this chip, in this order: "
                f"{list(self._shapes.values())}. Received: {shapes}; is it another model?"
            )
        for variable, weights in zip(variables, self.weights(t).values(), strict=True):
            variable.assign(weights)

    def model(self, t: float = 0.0) -> keras.Model:
        """Return a copy of the source model with the weights that the chip holds at time t.

        It is compiled like the source, so that `evaluate` works. The converters are not in it:
        they act between matrix products, see `matmul`.
        """
        if self._source is None:
            raise ValueError(self._without_model)
        copy = copy_model(self._source)
        self.write(copy, t)
        return copy


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
    if left := digital_kernels(source, embeddings):
        warnings.warn(
            f"These weights stay digital: {', '.join(left)}. Name them in `tile_matrices` "
            "of their layer's class to put them on the chip.",
            stacklevel=3,
        )
    found = by_path(source, embeddings)
    return (
        {name: ops.convert_to_numpy(matrix.variable) for name, matrix in found.items()},
        {name: matrix.unrolling for name, matrix in found.items()},
    )
