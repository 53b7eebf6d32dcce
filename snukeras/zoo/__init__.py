"""The model zoo: pretrained networks that ship with the package, and the recipes behind them."""

from snukeras.zoo import samples
from snukeras.zoo.presets import info, list, load

__all__ = ["info", "list", "load", "samples"]
