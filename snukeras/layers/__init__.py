"""Layers of Spiking Neural Units, what surrounds them, and layers of memristors alone."""

from snukeras.layers.elastic_distortion import ElasticDistortion
from snukeras.layers.level_crossing import LevelCrossing
from snukeras.layers.lif import LIF, LIFCell
from snukeras.layers.log_mel import LogMel
from snukeras.layers.memristive.coupling import LevelTuned, Uncoupled, WinnerTakesAll
from snukeras.layers.memristive.layer import AllMemristive
from snukeras.layers.memristive.neurons import PhaseChangeNeurons
from snukeras.layers.memristive.synapses import PhaseChangeSynapses
from snukeras.layers.rate_coding import RateCoding
from snukeras.layers.snu.cell import PAPER, SNUCell, SSNUCell
from snukeras.layers.snu.conv_cell import ConvSNUCell, ConvSSNUCell
from snukeras.layers.snu.conv_layer import ConvSNU1D, ConvSNU2D, ConvSSNU1D, ConvSSNU2D
from snukeras.layers.snu.layer import SNU, SSNU
from snukeras.layers.spatial import Spatial
from snukeras.layers.tied_embedding import TiedEmbedding

__all__ = [
    "LIF",
    "PAPER",
    "SNU",
    "SSNU",
    "AllMemristive",
    "ConvSNU1D",
    "ConvSNU2D",
    "ConvSNUCell",
    "ConvSSNU1D",
    "ConvSSNU2D",
    "ConvSSNUCell",
    "ElasticDistortion",
    "LIFCell",
    "LevelCrossing",
    "LevelTuned",
    "LogMel",
    "PhaseChangeNeurons",
    "PhaseChangeSynapses",
    "RateCoding",
    "SNUCell",
    "SSNUCell",
    "Spatial",
    "TiedEmbedding",
    "Uncoupled",
    "WinnerTakesAll",
]
