"""Simulated chips that hold the matrices of a crossbar map."""

import keras
import numpy as np

from snukeras.export.crossbar.map import CrossbarMap
from snukeras.export.crossbar.targets import Target
from snukeras.export.errors import BadInputError
from snukeras.network.weights import assign, collect, digest
from snukeras.pcm import Chip, DifferentialPair, GenericPCM, HermesPCM, StuckDevices

# Devices per polarity and their largest conductance (uS) in the core that HermesPCM describes.
_HERMES = {(1, 10.35), (2, 20.7)}


def device_of(target: Target, seed: int | None = None):
    """The device model for a target.

    HermesPCM for the 14-nm core, GenericPCM for all others. GenericPCM takes the parallel devices
    of a polarity as one device, and its noise grows with the target's g_max.
    """
    if (target.devices_per_polarity, target.g_max) in _HERMES:
        return HermesPCM(target.devices_per_polarity, seed=seed)
    return GenericPCM(target.g_max, seed=seed)


class MappedChip(Chip):
    """A `Chip` with the matrices of a crossbar map, by the map's names.

    Conductance range, levels, scale, tile size and stuck devices are those of the map.

        crossbar = snukeras.export.load_map("crossbar.snumap")
        chip = snukeras.export.MappedChip(crossbar, model, compensation="global", seed=1)
        chip.model(t=86400).predict(x)

    Args:
        crossbar: a `CrossbarMap`.
        model: the Keras model that was exported; needed for `model` alone.
        device: an InferencePCM; by default the one of the map's target (`device_of`).
        seed: int or None; one seed is one chip.
        **options: every other argument of `snukeras.pcm.Crossbar`, such as compensation.

    Raises:
        BadInputError: the map is that of another model.
    """

    _without_model = (
        "This chip was made from a map alone. Give the Keras model as well: "
        "MappedChip(crossbar, model)."
    )

    def __init__(self, crossbar: CrossbarMap, model=None, device=None, seed=None, **options):
        target = crossbar.target
        self._crossbar = crossbar
        if model is not None:
            own = digest(collect(model, self._maps_embeddings()))
            if own != crossbar.description["source"]["weights_sha256"]:
                raise self._refusal(model, "it has other layers or other weights")
        weights = crossbar.weights()
        options.setdefault(
            "pair",
            DifferentialPair(
                target.g_max, target.g_min, target.levels, crossbar.description["scale"]
            ),
        )
        options.setdefault("tile_size", (target.rows, target.bit_lines // 2))
        super().__init__(
            {name: weights[name] for name in crossbar.matrices},
            device_of(target, seed) if device is None else device,
            faults=_faults(crossbar),
            seed=seed,
            **options,
        )
        self._source = model

    def write(self, model: keras.Model, t: float = 0.0) -> None:
        """Puts the weights at time t into `model`, by the names of the map.

        Raises:
            BadInputError: `model` has other matrices, or other parameters beside them.
        """
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

    def _maps_embeddings(self):
        return any(e["role"] == "embeddings" for e in self._crossbar.description["matrices"])

    def _refusal(self, model, what):
        return BadInputError(
            f"The map {self._crossbar.path} is not that of the model {model.name!r}: {what}.",
            "Give the model.keras of the same export, or export the model again.",
        )


def _faults(crossbar):
    """The stuck devices of a map by matrix name, for Chip."""
    held = {}
    entries = crossbar.description["matrices"]
    for fault in crossbar.description["faults"]:
        entry = entries[fault["matrix"]]
        grids = held.setdefault(
            entry["name"],
            {p: np.full((entry["rows"], entry["columns"]), np.nan) for p in ("plus", "minus")},
        )
        grids[fault["polarity"]][fault["row"], fault["column"]] = fault["conductance_uS"]
    return {name: StuckDevices(grids["plus"], grids["minus"]) for name, grids in held.items()}
