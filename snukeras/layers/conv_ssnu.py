"""Convolutional soft Spiking Neural Units."""

from typing import Any

import keras

from snukeras.activations import SoftStep
from snukeras.layers.conv_snu import ConvSNU1D, ConvSNU2D, ConvSNUCell


@keras.saving.register_keras_serializable(package="snukeras")
class ConvSSNUCell(ConvSNUCell):
    """Cell of the convolutional soft SNU: `ConvSNUCell` with the sigmoid in place of the step.

    Args:
        rank ... **kwargs: see `ConvSNUCell`; there is no `pseudo_derivative`.
    """

    spiking = False

    def __init__(self, rank: int, filters: int, kernel_size: Any, **kwargs: Any):
        if "pseudo_derivative" in kwargs:
            raise TypeError(
                f"{type(self).__name__} has no argument `pseudo_derivative`: its output is the "
                "sigmoid, which has a derivative of its own. Use ConvSNUCell for the spiking unit."
            )
        super().__init__(rank, filters, kernel_size, **kwargs)
        self.output_function = SoftStep()

    @property
    def pseudo_derivative(self) -> None:
        return None


@keras.saving.register_keras_serializable(package="snukeras")
class ConvSSNU1D(ConvSNU1D):
    """Layer of convolutional soft Spiking Neural Units over maps of one dimension.

    Args:
        filters ... **kwargs: see `ConvSNU1D`; there is no `pseudo_derivative`.
    """

    _cell_class = ConvSSNUCell


@keras.saving.register_keras_serializable(package="snukeras")
class ConvSSNU2D(ConvSNU2D):
    """Layer of convolutional soft Spiking Neural Units over feature maps.

    Args:
        filters ... **kwargs: see `ConvSNU2D`; there is no `pseudo_derivative`.
    """

    _cell_class = ConvSSNUCell
