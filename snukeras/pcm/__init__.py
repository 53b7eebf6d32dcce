"""Physics of phase-change memory: devices, differential pairs, tiles and a chip."""

from snukeras.network.matrices import chip_variables
from snukeras.pcm.chip import Chip
from snukeras.pcm.converters import Converter
from snukeras.pcm.crossbar import Crossbar
from snukeras.pcm.devices import DeviceState, GenericPCM, HermesPCM, IdealDevice, InferencePCM
from snukeras.pcm.faults import StuckDevices
from snukeras.pcm.hardware import Hardware, ProgrammingReport, SimulatedHardware
from snukeras.pcm.monte_carlo import evaluate_chips, summarize
from snukeras.pcm.pairs import DifferentialPair
from snukeras.pcm.pulses import ExpStepPCM, NandakumarPCM, PulsedPCM, PulseState
from snukeras.pcm.wires import with_ir_drop

__all__ = [
    "Chip",
    "Converter",
    "Crossbar",
    "DeviceState",
    "DifferentialPair",
    "ExpStepPCM",
    "GenericPCM",
    "Hardware",
    "HermesPCM",
    "IdealDevice",
    "InferencePCM",
    "NandakumarPCM",
    "ProgrammingReport",
    "PulseState",
    "PulsedPCM",
    "SimulatedHardware",
    "StuckDevices",
    "chip_variables",
    "evaluate_chips",
    "summarize",
    "with_ir_drop",
]
