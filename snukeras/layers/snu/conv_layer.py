"""Convolutional Spiking Neural Units: the dynamics of the SNU over feature maps."""

from collections.abc import Sequence
from typing import Unpack

import keras

from snukeras import _arguments
from snukeras._types import (
    Activation,
    Config,
    Constraint,
    Initializer,
    PerUnit,
    Regularizer,
    Shape,
)
from snukeras.activations import Bump
from snukeras.layers.snu.conv_cell import (
    ConvArguments,
    ConvSNUCell,
    ConvSSNUCell,
    of_convolution,
)
from snukeras.layers.snu.layer import SNU, UnitLayer, argument_of_cell, cell_of


class _ConvLayer(SNU):
    """What the convolutional layers share; subclasses make their cell.

    `keras.layers.ConvLSTM2D` is built likewise, but its base is no public class of Keras.
    """

    def _start(self, cell: ConvSNUCell, given: Config) -> None:
        """Construct the layer of a cell from the `locals()` of its constructor."""
        kwargs = of_convolution(type(self), given["kwargs"])
        # Not the constructor of SNU, which makes another cell.
        UnitLayer.__init__(self, cell, **_arguments.chosen(UnitLayer, given), **kwargs)
        self.input_spec = [keras.layers.InputSpec(ndim=cell.rank + 3)]

    rank = argument_of_cell("rank")
    filters = argument_of_cell("filters")
    kernel_size = argument_of_cell("kernel_size")
    strides = argument_of_cell("strides")
    padding = argument_of_cell("padding")
    dilation_rate = argument_of_cell("dilation_rate")

    def _state_shape(self, sequences_shape: Shape) -> Shape:
        return (sequences_shape[0], *self.cell.map_of(sequences_shape[2:-1]), self.filters)

    def _takes_fused(self) -> bool:
        if self.implementation != "cell" and self.recurrent:
            if self.implementation == "fused":
                raise ValueError(
                    f"Layer {self.name!r} cannot use implementation='fused': the compiled scan "
                    "has no recurrent convolution. Use implementation='auto' or 'cell'."
                )
            return False
        return super()._takes_fused()

    def get_config(self) -> Config:
        config = super().get_config()
        del config["rank"]
        return config


@keras.saving.register_keras_serializable(package="snukeras")
class ConvSNU1D(_ConvLayer):
    """Layer of convolutional Spiking Neural Units over maps of one dimension.

    A drop-in replacement for `keras.layers.ConvLSTM1D`. The equations are those of `ConvSNUCell`.
    Without the recurrent term the convolution of all steps is computed at once and the dynamics as
    one scan; with it the layer steps through the cell.

    Args:
        filters: positive integer, number of filters.
        kernel_size, strides, padding, dilation_rate: of the convolution of the input, as in
            `keras.layers.ConvLSTM1D`; channels are last.
        recurrent: add a convolution of the outputs of the step before.
        decay, trainable_decay, threshold, trainable_threshold: as in `snukeras.layers.SNU`, but
            per filter.
        lateral_inhibition: among the filters at one place.
        state_activation ... activity_regularizer: see `snukeras.layers.SNU`.

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

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        dilation_rate: int | Sequence[int] = 1,
        state_activation: Activation = "linear",
        decay: PerUnit | None = 0.8,
        trainable_decay: bool = False,
        threshold: PerUnit | None = 0.2,
        trainable_threshold: bool = True,
        recurrent: bool = False,
        lateral_inhibition: bool = False,
        pseudo_derivative: str | Config | Bump | None = None,
        use_bias: bool = False,
        kernel_initializer: Initializer = "fluctuation_driven",
        recurrent_initializer: Initializer = "fluctuation_driven",
        bias_initializer: Initializer = "zeros",
        kernel_regularizer: Regularizer = None,
        recurrent_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        recurrent_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        return_membrane: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        implementation: str = "auto",
        activity_regularizer: Regularizer = None,
        *,
        decay_initializer: Initializer = None,
        decay_regularizer: Regularizer = None,
        decay_constraint: Constraint = None,
        threshold_initializer: Initializer = None,
        threshold_regularizer: Regularizer = None,
        threshold_constraint: Constraint = None,
        **kwargs: Unpack[ConvArguments],
    ) -> None:
        given = locals()
        self._start(cell_of(ConvSNUCell, given, rank=1), given)


@keras.saving.register_keras_serializable(package="snukeras")
class ConvSNU2D(_ConvLayer):
    """Layer of convolutional Spiking Neural Units over feature maps.

    A drop-in replacement for `keras.layers.ConvLSTM2D`; arguments as in `ConvSNU1D`.

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

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        dilation_rate: int | Sequence[int] = 1,
        state_activation: Activation = "linear",
        decay: PerUnit | None = 0.8,
        trainable_decay: bool = False,
        threshold: PerUnit | None = 0.2,
        trainable_threshold: bool = True,
        recurrent: bool = False,
        lateral_inhibition: bool = False,
        pseudo_derivative: str | Config | Bump | None = None,
        use_bias: bool = False,
        kernel_initializer: Initializer = "fluctuation_driven",
        recurrent_initializer: Initializer = "fluctuation_driven",
        bias_initializer: Initializer = "zeros",
        kernel_regularizer: Regularizer = None,
        recurrent_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        recurrent_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        return_membrane: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        implementation: str = "auto",
        activity_regularizer: Regularizer = None,
        *,
        decay_initializer: Initializer = None,
        decay_regularizer: Regularizer = None,
        decay_constraint: Constraint = None,
        threshold_initializer: Initializer = None,
        threshold_regularizer: Regularizer = None,
        threshold_constraint: Constraint = None,
        **kwargs: Unpack[ConvArguments],
    ) -> None:
        given = locals()
        self._start(cell_of(ConvSNUCell, given, rank=2), given)


@keras.saving.register_keras_serializable(package="snukeras")
class ConvSSNU1D(ConvSNU1D):
    """Layer of convolutional soft Spiking Neural Units over maps of one dimension.

    Args:
        filters ... implementation: see `ConvSNU1D`; there is no `pseudo_derivative`.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        dilation_rate: int | Sequence[int] = 1,
        state_activation: Activation = "relu",
        decay: PerUnit | None = 0.8,
        trainable_decay: bool = False,
        threshold: PerUnit | None = 1.0,
        trainable_threshold: bool = True,
        recurrent: bool = False,
        lateral_inhibition: bool = False,
        use_bias: bool = False,
        kernel_initializer: Initializer = "glorot_uniform",
        recurrent_initializer: Initializer = "glorot_uniform",
        bias_initializer: Initializer = "zeros",
        kernel_regularizer: Regularizer = None,
        recurrent_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        recurrent_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        return_membrane: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        implementation: str = "auto",
        activity_regularizer: Regularizer = None,
        *,
        decay_initializer: Initializer = None,
        decay_regularizer: Regularizer = None,
        decay_constraint: Constraint = None,
        threshold_initializer: Initializer = None,
        threshold_regularizer: Regularizer = None,
        threshold_constraint: Constraint = None,
        **kwargs: Unpack[ConvArguments],
    ) -> None:
        given = locals()
        self._start(cell_of(ConvSSNUCell, given, rank=1), given)


@keras.saving.register_keras_serializable(package="snukeras")
class ConvSSNU2D(ConvSNU2D):
    """Layer of convolutional soft Spiking Neural Units over feature maps.

    Args:
        filters ... implementation: see `ConvSNU2D`; there is no `pseudo_derivative`.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        dilation_rate: int | Sequence[int] = 1,
        state_activation: Activation = "relu",
        decay: PerUnit | None = 0.8,
        trainable_decay: bool = False,
        threshold: PerUnit | None = 1.0,
        trainable_threshold: bool = True,
        recurrent: bool = False,
        lateral_inhibition: bool = False,
        use_bias: bool = False,
        kernel_initializer: Initializer = "glorot_uniform",
        recurrent_initializer: Initializer = "glorot_uniform",
        bias_initializer: Initializer = "zeros",
        kernel_regularizer: Regularizer = None,
        recurrent_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        recurrent_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        return_membrane: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        implementation: str = "auto",
        activity_regularizer: Regularizer = None,
        *,
        decay_initializer: Initializer = None,
        decay_regularizer: Regularizer = None,
        decay_constraint: Constraint = None,
        threshold_initializer: Initializer = None,
        threshold_regularizer: Regularizer = None,
        threshold_constraint: Constraint = None,
        **kwargs: Unpack[ConvArguments],
    ) -> None:
        given = locals()
        self._start(cell_of(ConvSSNUCell, given, rank=2), given)
