"""Layers of Spiking Neural Units, what surrounds them, and layers of memristors alone."""

from snukeras.layers.coding import RateCoding
from snukeras.layers.conv_snu import ConvSNU1D, ConvSNU2D, ConvSNUCell
from snukeras.layers.conv_ssnu import ConvSSNU1D, ConvSSNU2D, ConvSSNUCell
from snukeras.layers.distortion import ElasticDistortion
from snukeras.layers.memristive import (
    AllMemristive,
    LevelTuned,
    PhaseChangeNeurons,
    PhaseChangeSynapses,
    Uncoupled,
    WinnerTakesAll,
)
from snukeras.layers.snu import SNU, SNUCell
from snukeras.layers.spatial import Spatial
from snukeras.layers.ssnu import SSNU, SSNUCell
from snukeras.layers.tied_embedding import TiedEmbedding

__all__ = [
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
    "LevelTuned",
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
