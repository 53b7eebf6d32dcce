"""The soft Spiking Neural Unit: cell and layer."""

from typing import Any

import keras

from snukeras.activations import SoftStep
from snukeras.layers.snu import SNU, SNUCell


@keras.saving.register_keras_serializable(package="snukeras")
class SSNUCell(SNUCell):
    """Cell of the soft SNU: the equations of `SNUCell` with the sigmoid in place of the step.

        y_t = sigmoid(s_t - threshold)

    so that the gate `1 - y` resets the state in part (Wozniak et al. 2020).

    Args:
        units ... seed: see `SNUCell`; there is no `pseudo_derivative`.
    """

    spiking = False

    def __init__(self, units: int, **kwargs: Any):
        if "pseudo_derivative" in kwargs:
            raise TypeError(_NO_PSEUDO_DERIVATIVE.format(type(self).__name__))
        super().__init__(units, **kwargs)
        self.output_function = SoftStep()

    @property
    def pseudo_derivative(self) -> None:
        return None


@keras.saving.register_keras_serializable(package="snukeras")
class SSNU(SNU):
    """Layer of soft Spiking Neural Units.

    Args:
        units ... implementation: see `snukeras.layers.SNU`; there is no `pseudo_derivative`.
    """

    _cell_class = SSNUCell

    def __init__(self, units: int, **kwargs: Any):
        if "pseudo_derivative" in kwargs:
            raise TypeError(_NO_PSEUDO_DERIVATIVE.format(type(self).__name__))
        super().__init__(units, **kwargs)


_NO_PSEUDO_DERIVATIVE = (
    "{} has no argument `pseudo_derivative`: its output is the sigmoid, which has a derivative "
    "of its own. Use SNU for the spiking unit."
)
