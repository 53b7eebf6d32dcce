"""Convolutional Spiking Neural Units: the dynamics of the SNU over feature maps."""

from typing import Any

import keras

from snukeras.layers.snu.cell import SNUCell
from snukeras.layers.snu.conv_cell import ConvSNUCell, ConvSSNUCell
from snukeras.layers.snu.layer import SNU


def _of_cell(name: str) -> property:
    return property(lambda self: getattr(self.cell, name), doc=f"`{name}` of the cell.")


class _ConvLayer(SNU):
    """What the convolutional layers share; subclasses say rank and cell.

    `keras.layers.ConvLSTM2D` is built likewise, but its base is no public class of Keras.
    """

    _cell_class: type[SNUCell] = ConvSNUCell
    rank: int

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        dilation_rate: Any = 1,
        **kwargs: Any,
    ):
        if "pseudo_derivative" in kwargs and not self._cell_class.spiking:
            raise TypeError(
                f"{type(self).__name__} has no argument `pseudo_derivative`: its output is the "
                "sigmoid, which has a derivative of its own. Use ConvSNU for the spiking unit."
            )
        if kwargs.pop("data_format", "channels_last") not in (None, "channels_last"):
            raise ValueError(
                "Feature maps must have their channels last; `data_format` can only be "
                "'channels_last'. Move the channels with keras.layers.Permute."
            )
        super().__init__(
            filters,
            convolution={
                "rank": self.rank,
                "kernel_size": kernel_size,
                "strides": strides,
                "padding": padding,
                "dilation_rate": dilation_rate,
            },
            **kwargs,
        )
        self.input_spec = [keras.layers.InputSpec(ndim=self.rank + 3)]

    filters = _of_cell("filters")
    kernel_size = _of_cell("kernel_size")
    strides = _of_cell("strides")
    padding = _of_cell("padding")
    dilation_rate = _of_cell("dilation_rate")

    def compute_output_shape(self, sequences_shape: Any, initial_state_shape: Any = None) -> Any:
        batch, steps, *sizes, _ = sequences_shape
        state = (batch, *self.cell.map_of(sizes), self.filters)
        output = (batch, steps, *state[1:]) if self.return_sequences else state
        return (output, state, state) if self.return_state else output

    def _takes_fused(self) -> bool:
        if self.implementation != "cell" and self.recurrent:
            if self.implementation == "fused":
                raise ValueError(
                    f"Layer {self.name!r} cannot use implementation='fused': the compiled scan "
                    "has no recurrent convolution. Use implementation='auto' or 'cell'."
                )
            return False
        return super()._takes_fused()

    def get_config(self) -> dict:
        config = super().get_config()
        del config["rank"]
        return config


@keras.saving.register_keras_serializable(package="snukeras")
class ConvSNU1D(_ConvLayer):
    """Layer of convolutional Spiking Neural Units over maps of one dimension.

    It stands where a `keras.layers.ConvLSTM1D` could. The equations are those of `ConvSNUCell`.
    Without the recurrent term the convolution of all steps is computed at once and the dynamics as
    one compiled scan on TensorFlow; with it, and on other backends, the layer steps through the
    cell.

    Args:
        filters: positive integer, number of filters.
        kernel_size, strides, padding, dilation_rate: of the convolution of the input, as in
            `keras.layers.ConvLSTM1D`; channels are last.
        recurrent: add a convolution of the outputs of the step before.
        **kwargs: the other arguments of `snukeras.layers.SNU`: state_activation, decay,
            trainable_decay, threshold, trainable_threshold (these per filter),
            lateral_inhibition (among the filters at one place), pseudo_derivative, use_bias,
            initializers, regularizers, constraints, dropout, recurrent_dropout, seed,
            return_sequences, return_state, go_backwards, stateful, unroll,
            zero_output_for_mask, implementation.

    Call arguments:
        sequences: shape (batch, time, length, channels).
        initial_state: [y, s], each (batch, new length, filters); zeros by default.
        mask: shape (batch, time), False at steps to skip.
        training: whether dropout is applied.

    Returns:
        Shape (batch, time, new length, filters) or (batch, new length, filters); with
        `return_state` a tuple with y and s.

    Raises:
        ValueError, TypeError: an argument is outside what is allowed; the message names it.
    """

    rank = 1


@keras.saving.register_keras_serializable(package="snukeras")
class ConvSNU2D(_ConvLayer):
    """Layer of convolutional Spiking Neural Units over feature maps.

    It stands where a `keras.layers.ConvLSTM2D` could; arguments as in `ConvSNU1D`.

    Call arguments:
        sequences: shape (batch, time, height, width, channels).
        initial_state: [y, s], each (batch, new height, new width, filters); zeros by default.
        mask: shape (batch, time), False at steps to skip.
        training: whether dropout is applied.

    Returns:
        Shape (batch, time, new height, new width, filters), or without time; with `return_state`
        a tuple with y and s.

    Raises:
        ValueError, TypeError: an argument is outside what is allowed; the message names it.

    Example:

        model = keras.Sequential([
            keras.Input((28, 28, 1)),
            snukeras.layers.RateCoding(20),
            snukeras.layers.ConvSNU2D(16, 5, return_sequences=True),
            keras.layers.MaxPooling3D((1, 2, 2)),
            keras.layers.Reshape((-1, 12 * 12 * 16)),
            snukeras.layers.SNU(10, return_sequences=True),
            keras.layers.GlobalAveragePooling1D(),
        ])
    """

    rank = 2


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
