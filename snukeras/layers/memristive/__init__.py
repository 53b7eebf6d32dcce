"""Networks of memristors alone: phase-change neurons and synapses that learn by coincidence."""

from snukeras.layers.memristive.coupling import LevelTuned, Uncoupled, WinnerTakesAll
from snukeras.layers.memristive.layer import AllMemristive
from snukeras.layers.memristive.neurons import PhaseChangeNeurons
from snukeras.layers.memristive.synapses import PhaseChangeSynapses

__all__ = [
    "AllMemristive",
    "LevelTuned",
    "PhaseChangeNeurons",
    "PhaseChangeSynapses",
    "Uncoupled",
    "WinnerTakesAll",
]
