"""Spiking Neural Units: cells, layers, convolutions, and the compiled scan behind them."""

from snukeras.layers.snu.cell import PAPER, SNUCell, SSNUCell
from snukeras.layers.snu.conv_cell import ConvSNUCell, ConvSSNUCell
from snukeras.layers.snu.conv_layer import ConvSNU1D, ConvSNU2D, ConvSSNU1D, ConvSSNU2D
from snukeras.layers.snu.layer import SNU, SSNU

__all__ = [
    "PAPER",
    "SNU",
    "SSNU",
    "ConvSNU1D",
    "ConvSNU2D",
    "ConvSNUCell",
    "ConvSSNU1D",
    "ConvSSNU2D",
    "ConvSSNUCell",
    "SNUCell",
    "SSNUCell",
]
