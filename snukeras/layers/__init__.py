"""Layers of Spiking Neural Units, and what images need to become their input."""

from snukeras.layers.coding import RateCoding
from snukeras.layers.conv_snu import ConvSNU1D, ConvSNU2D, ConvSNUCell
from snukeras.layers.conv_ssnu import ConvSSNU1D, ConvSSNU2D, ConvSSNUCell
from snukeras.layers.distortion import ElasticDistortion
from snukeras.layers.snu import SNU, SNUCell
from snukeras.layers.ssnu import SSNU, SSNUCell
from snukeras.layers.tied_embedding import TiedEmbedding

__all__ = [
    "SNU",
    "SSNU",
    "ConvSNU1D",
    "ConvSNU2D",
    "ConvSNUCell",
    "ConvSSNU1D",
    "ConvSSNU2D",
    "ConvSSNUCell",
    "ElasticDistortion",
    "RateCoding",
    "SNUCell",
    "SSNUCell",
    "TiedEmbedding",
]
