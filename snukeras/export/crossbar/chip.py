"""Simulated chips that hold the matrices of a crossbar map."""

from collections.abc import Sequence
from typing import TypedDict

import keras
import numpy as np

from snukeras.export.crossbar.map import CrossbarMap
from snukeras.export.crossbar.targets import Target
from snukeras.export.errors import BadInputError
from snukeras.network.matrices import Matrix, Unrolling, matrices
from snukeras.network.weights import assign, collect, digest
from snukeras.pcm import (
    AnalogNetwork,
    Chip,
    Converter,
    Crossbar,
    DifferentialPair,
    GenericPCM,
    Hardware,
    HermesPCM,
    InferencePCM,
    StuckDevices,
)

# Devices per polarity and their largest conductance (uS) in the core that HermesPCM describes.
_HERMES = {(1, 10.35), (2, 20.7)}


def device_of(target: Target, seed: int | None = None) -> InferencePCM:
    """Return the device model for a target.

    HermesPCM stands for the 14-nm core, GenericPCM for all others, whose noise grows with the
    target's g_max. Parallel devices of a polarity are as many pairs (`slices_of`).
    """
    if (target.devices_per_polarity, target.g_max) in _HERMES:
        return HermesPCM(target.devices_per_polarity, seed=seed)
    return GenericPCM(target.g_max, seed=seed)


def slices_of(target: Target, planes: Sequence[float] = (1.0,)) -> tuple[float, ...]:
    """Return the significances of the pairs that hold a weight of a target together.

    The curves of HermesPCM hold for all devices of a polarity together, so they count as one.

    Args:
        target: The target.
        planes: The significances of the planes of each tile.
    """
    together = (target.devices_per_polarity, target.g_max) in _HERMES
    each = 1 if together else target.devices_per_polarity
    return tuple(significance for significance in planes for _ in range(each))


class Contents(TypedDict):
    """What an `UnrolledChip` holds of a map."""

    weights: dict[str, np.ndarray]
    unrollings: dict[str, Unrolling]
    scales: dict[str, np.ndarray]
    pair: DifferentialPair
    tile_size: tuple[int, int]
    faults: dict[str, StuckDevices]


def contents(crossbar: CrossbarMap) -> Contents:
    """Return the matrices of a map as a chip takes them, with their places and stuck devices."""
    target, description, weights = crossbar.target, crossbar.description, crossbar.weights()
    return {
        "weights": {name: weights[name] for name in crossbar.matrices},
        "unrollings": {entry.name: entry.unrolling for entry in description.matrices},
        "scales": {name: crossbar.scales(name).astype("float32") for name in crossbar.matrices},
        # The weights have been rounded to the levels of the map.
        "pair": DifferentialPair(target.g_max, target.g_min, None, description.scale),
        "tile_size": (target.rows, target.bit_lines // 2),
        "faults": _faults(crossbar),
    }


class UnrolledChip(Chip):
    """A `Chip` of weights of any rank, each with its unrolling.

    Args:
        weights: By name.
        unrollings: By name.
        device, faults, seed, pair, tile_size, input_converter, output_converter, wire_resistance,
            compensation, avoid_faults, hardware, scales, slices, programmed_for, planned_with: As
            for `Chip`.
    """

    def __init__(
        self,
        weights: dict[str, np.ndarray],
        unrollings: dict[str, Unrolling],
        device: InferencePCM | None = None,
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
        scales: dict[str, np.ndarray] | None = None,
        slices: Sequence[float] = (1.0,),
        programmed_for: float | None = None,
        planned_with: InferencePCM | None = None,
    ) -> None:
        super().__init__(
            {name: unrollings[name].matrix(values) for name, values in weights.items()},
            device,
            faults=faults,
            seed=seed,
            pair=pair,
            tile_size=tile_size,
            input_converter=input_converter,
            output_converter=output_converter,
            wire_resistance=wire_resistance,
            compensation=compensation,
            avoid_faults=avoid_faults,
            hardware=hardware,
            scales=scales,
            slices=slices,
            programmed_for=programmed_for,
            planned_with=planned_with,
        )
        self._shapes = {name: values.shape for name, values in weights.items()}
        self._unrollings = dict(unrollings)

    def write(self, model: keras.Layer, t: float = 0.0) -> None:
        """Put the weights at time t into `model`; into a network on tiles by their names."""
        if not isinstance(model, AnalogNetwork):
            super().write(model, t)
            return
        products = model.products()
        shapes = {
            matrix.name: tuple(matrix.variable.shape)
            for matrix in matrices(model)
            if matrix.name in products
        }
        if any(self._shapes.get(name) != shape for name, shape in shapes.items()):
            raise BadInputError(
                f"The network {model.name!r} has other matrices than this chip.",
                "Make it from the model that was exported.",
            )
        self._program(model, t)
        left = [name for name in self.crossbars if name not in products]
        if left:
            weights = self.weights(t)
            assign(model, {name: weights[name] for name in left})

    def _crossbars_of(self, matrices: list[Matrix]) -> list[Crossbar]:
        return [self.crossbars[matrix.name] for matrix in matrices]


class MappedChip(UnrolledChip):
    """A `Chip` with the matrices of a crossbar map, by the map's names.

    Conductance range, levels, scales, tile size, stuck devices, planes and the time that devices
    are programmed for are those of the map. So is what is programmed for that time, whatever the
    device: the map has planned it with the curves of its target.

        crossbar = snukeras.export.load_map("crossbar.snumap")
        chip = snukeras.export.MappedChip(crossbar, model, compensation="global", seed=1)
        chip.model(t=86400).predict(x)

    Args:
        crossbar: A `CrossbarMap`.
        model: The Keras model that was exported, plain or on tiles; needed for `model` alone.
        device: An InferencePCM; by default the one of the map's target (`device_of`).
        seed: int or None; one seed is one chip.
        input_converter, output_converter, wire_resistance, compensation, avoid_faults, hardware:
            As for `snukeras.pcm.Crossbar`.

    Raises:
        BadInputError: The map is that of another model, or was planned with the curves of a device
            that this package does not take for its target.
    """

    _without_model = (
        "This chip was made from a map alone. Give the Keras model as well: "
        "MappedChip(crossbar, model)."
    )

    def __init__(
        self,
        crossbar: CrossbarMap,
        model: keras.Model | None = None,
        device: InferencePCM | None = None,
        seed: int | None = None,
        input_converter: Converter | None = None,
        output_converter: Converter | None = None,
        wire_resistance: float = 0.0,
        compensation: str | None = None,
        avoid_faults: bool = True,
        hardware: Hardware | None = None,
    ) -> None:
        target, description = crossbar.target, crossbar.description
        self._crossbar = crossbar
        if model is not None:
            plain = model.network if isinstance(model, AnalogNetwork) else model
            own = digest(collect(plain, self._maps_embeddings()))
            if own != description.source.weights_sha256:
                raise self._refusal(model, "it has other layers or other weights")
        planes, own_device = crossbar.significances, device_of(target, seed)
        later, programming = crossbar.programmed_for is not None, description.programming
        curves = type(own_device).__name__
        if later and programming is not None and programming.device != curves:
            raise BadInputError(
                f"What {crossbar.path} plans for later must follow the curves of {curves}, the "
                f"device of its target. Received: those of {programming.device}.",
                "Export the model again, with --programmed-for.",
            )
        # A stuck device is one of a single pair, and so is what a real chip programs.
        single = (bool(description.faults) or hardware is not None) and len(planes) == 1
        super().__init__(
            **contents(crossbar),
            device=own_device if device is None else device,
            seed=seed,
            input_converter=input_converter,
            output_converter=output_converter,
            wire_resistance=wire_resistance,
            compensation=compensation,
            avoid_faults=avoid_faults,
            hardware=hardware,
            slices=(1.0,) if single else slices_of(target, planes),
            programmed_for=crossbar.programmed_for,
            planned_with=own_device if later else None,
        )
        self._source = model

    def write(self, model: keras.Model, t: float = 0.0) -> None:
        """Put the weights at time t into `model`, by the names of the map.

        Raises:
            BadInputError: `model` has other matrices, or other parameters beside them.
        """
        if isinstance(model, AnalogNetwork):
            super().write(model, t)
            return
        weights = collect(model, self._maps_embeddings())
        shapes = {weight.name: weight.values.shape for weight in weights if weight.matrix}
        if shapes != self._shapes:
            raise self._refusal(model, "it has other matrices")
        digital = {weight.name: weight.values for weight in weights if not weight.matrix}
        parameters = self._crossbar.parameters()
        if digital.keys() != parameters.keys() or not all(
            np.array_equal(values, parameters[name]) for name, values in digital.items()
        ):
            raise self._refusal(model, "its biases, thresholds or other digital parameters differ")
        assign(model, self.weights(t))

    def _maps_embeddings(self) -> bool:
        return any(e.role == "embeddings" for e in self._crossbar.description.matrices)

    def _refusal(self, model: keras.Model, what: str) -> BadInputError:
        return BadInputError(
            f"The map {self._crossbar.path} is not that of the model {model.name!r}: {what}.",
            "Give the model.keras of the same export, or export the model again.",
        )


def _faults(crossbar: CrossbarMap) -> dict[str, StuckDevices]:
    """Return the stuck devices of a map by matrix name, as Chip takes them."""
    held: dict[str, dict[str, np.ndarray]] = {}
    for fault in crossbar.description.faults:
        entry = crossbar.description.matrices[fault.matrix]
        grids = held.setdefault(
            entry.name,
            {p: np.full((entry.rows, entry.columns), np.nan) for p in ("plus", "minus")},
        )
        grids[fault.polarity][fault.row, fault.column] = fault.conductance_uS
    return {name: StuckDevices(grids["plus"], grids["minus"]) for name, grids in held.items()}
