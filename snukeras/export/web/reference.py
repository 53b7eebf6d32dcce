"""What Keras computes of a network, layer by layer: what a page has to show."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from snukeras.export.network import Network
from snukeras.export.onnx.layers.snu import UnitLayer, unit_layers
from snukeras.export.verify.onnx import UnitTwin
from snukeras.export.verify.running import runner


@dataclasses.dataclass(frozen=True)
class Seen:
    """Tensors of a batch.

    Attributes:
        outputs: By name, as the model puts them out.
        layers: Outputs of each layer of units at all steps, (batch, time, units), in the order of
            processing.
        sources: What each layer of units takes, (batch, time, ...).
        starts: Y and s of each before the first step, or ().
    """

    outputs: dict[str, np.ndarray]
    layers: dict[str, np.ndarray]
    sources: dict[str, np.ndarray]
    starts: dict[str, list[np.ndarray]]


class Reference:
    """A network in Keras that shows its layers of units.

    Args:
        network: The network.
    """

    def __init__(self, network: Network) -> None:
        plan = network.topology
        self.outputs, self.units = plan.outputs, unit_layers(plan)
        keys = {ref.key for _, ref in plan.outputs} | {unit.source.key for unit in self.units}
        keys |= {ref.key for unit in self.units for ref in unit.initial}
        keys |= {u.output for u in self.units if u.output and u.layer.return_sequences}
        self._run = runner(plan, network.model, sorted(keys))
        self._twins = {unit.name: UnitTwin(unit) for unit in self.units}

    def unit(self, name: str) -> UnitLayer:
        """Return a layer of units by its name."""
        return next(unit for unit in self.units if unit.name == name)

    def run(self, feeds: Sequence[np.ndarray], masks: Mapping[str, np.ndarray]) -> Seen:
        """Compute a batch.

        Args:
            feeds: An array for each input.
            masks: By layer of units, (batch, time), where it has a mask.
        """
        values = self._run(feeds)
        starts = {u.name: [values[ref.key] for ref in u.initial] for u in self.units}
        layers = {}
        for unit in self.units:
            found = self._twins[unit.name].outputs(values, masks.get(unit.name), starts[unit.name])
            layers[unit.name] = found.reshape(*found.shape[:2], -1)  # places of maps are units
        return Seen(
            outputs={name: values[ref.key] for name, ref in self.outputs},
            layers=layers,
            sources={unit.name: values[unit.source.key] for unit in self.units},
            starts=starts,
        )
