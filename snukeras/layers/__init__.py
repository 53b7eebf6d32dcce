"""Layers of Spiking Neural Units."""

from snukeras.layers.snu import SNU, SNUCell
from snukeras.layers.ssnu import SSNU, SSNUCell

__all__ = ["SNU", "SSNU", "SNUCell", "SSNUCell"]
