"""Physics of phase-change memory: devices, pairs, tiles and chips, and networks on them."""

from snukeras.network.matrices import chip_variables
from snukeras.pcm.analog_network import AnalogNetwork, analog
from snukeras.pcm.calibration import calibrate, recalibrate_normalization, spike_agreement
from snukeras.pcm.chip import Chip
from snukeras.pcm.converters import Converter
from snukeras.pcm.crossbar import Crossbar
from snukeras.pcm.devices import DeviceState, GenericPCM, HermesPCM, IdealDevice, InferencePCM
from snukeras.pcm.faults import StuckDevices
from snukeras.pcm.fitted import FittedPCM, WanReRAM, fit_device
from snukeras.pcm.hardware import Hardware, ProgrammingReport, SimulatedHardware
from snukeras.pcm.modifiers import WeightModifier
from snukeras.pcm.monte_carlo import evaluate_chips, summarize
from snukeras.pcm.pairs import DifferentialPair
from snukeras.pcm.programming import targets_for
from snukeras.pcm.pulses import ExpStepPCM, NandakumarPCM, PulsedPCM, PulseState
from snukeras.pcm.refresh import RefreshPlan, refresh_plan
from snukeras.pcm.tiled_product import TiledProduct
from snukeras.pcm.tiles import InputConverter, OutputConverter, Tile, get_tile, tile_names
from snukeras.pcm.wires import with_ir_drop

__all__ = [
    "AnalogNetwork",
    "Chip",
    "Converter",
    "Crossbar",
    "DeviceState",
    "DifferentialPair",
    "ExpStepPCM",
    "FittedPCM",
    "GenericPCM",
    "Hardware",
    "HermesPCM",
    "IdealDevice",
    "InferencePCM",
    "InputConverter",
    "NandakumarPCM",
    "OutputConverter",
    "ProgrammingReport",
    "PulseState",
    "PulsedPCM",
    "RefreshPlan",
    "SimulatedHardware",
    "StuckDevices",
    "Tile",
    "TiledProduct",
    "WanReRAM",
    "WeightModifier",
    "analog",
    "calibrate",
    "chip_variables",
    "evaluate_chips",
    "fit_device",
    "get_tile",
    "recalibrate_normalization",
    "refresh_plan",
    "spike_agreement",
    "summarize",
    "targets_for",
    "tile_names",
    "with_ir_drop",
]
