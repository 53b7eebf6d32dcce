"""Convolutional Spiking Neural Units: the dynamics of the SNU over feature maps."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from snukeras.layers.snu import SNU, SNUCell

_PADDINGS = ("valid", "same")


@keras.saving.register_keras_serializable(package="snukeras")
class ConvSNUCell(SNUCell):
    """Cell of the convolutional SNU: `SNUCell` with convolutions in place of its matrix products.

        a_t = x_t * W (+ c) (+ y_{t-1} * H) + decay * s_{t-1} * (1 - y_{t-1})
        s_t = g(a_t)
        y_t = step(s_t - threshold)

    where `*` before a kernel is a convolution. Every place of a feature map is a unit with a state
    of its own; decay, threshold and bias c belong to a filter, the same at all places. With
    `lateral_inhibition` the filters at one place compete: the gate is 1 minus the largest output
    among them, and places do not know of each other.

    Args:
        rank: number of dimensions of a map, 1 or 2.
        filters: positive integer, number of filters; it takes the place of `units`.
        kernel_size: integer, or one per dimension.
        strides: integer, or one per dimension, of the convolution of the input. A stride above 1
            is incompatible with a dilation above 1.
        padding: "valid" or "same", of the convolution of the input.
        dilation_rate: integer, or one per dimension, of the convolution of the input.
        recurrent: add the term y_{t-1} * H, a convolution of the same kernel size with padding
            "same", without strides or dilation.
        **kwargs: the other arguments of `SNUCell`.

    Call arguments:
        inputs: shape (batch, ..., channels), e.g. (batch, height, width, channels) for rank 2.
        states: [y, s], each of the shape of the output.
        training: whether dropout is applied.

    Raises:
        ValueError, TypeError: an argument is outside what is allowed; the message names it.
    """

    def __init__(
        self,
        rank: int,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        dilation_rate: Any = 1,
        **kwargs: Any,
    ):
        if rank not in (1, 2):
            raise ValueError(f"Argument `rank` must be 1 or 2. Received: rank={rank!r}")
        if kwargs.pop("data_format", "channels_last") not in (None, "channels_last"):
            raise ValueError(
                "Feature maps must have their channels last; `data_format` can only be "
                "'channels_last'. Move the channels with keras.layers.Permute."
            )
        super().__init__(filters, **kwargs)
        self.rank = rank
        self.kernel_size = _sizes("kernel_size", kernel_size, rank)
        self.strides = _sizes("strides", strides, rank)
        if padding not in _PADDINGS:
            raise ValueError(
                f"Argument `padding` must be one of {_PADDINGS}. Received: padding={padding!r}"
            )
        self.padding = padding
        self.dilation_rate = _sizes("dilation_rate", dilation_rate, rank)
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ValueError(
                "Arguments `strides` and `dilation_rate` cannot both be above 1. Received: "
                f"strides={strides!r}, dilation_rate={dilation_rate!r}"
            )
        self.map_shape: tuple[int, ...] | None = None

    @property
    def filters(self) -> int:
        return self.units

    def build(self, input_shape: Any) -> None:
        if len(input_shape) != self.rank + 2 or any(size is None for size in input_shape[1:]):
            raise ValueError(
                f"{type(self).__name__} takes inputs of shape (batch, {'height, width'}, channels) "
                "with known sizes but for the batch. "
                f"Received: input_shape={tuple(input_shape)}"
                if self.rank == 2
                else f"{type(self).__name__} takes inputs of shape (batch, length, channels) with "
                f"known sizes but for the batch. Received: input_shape={tuple(input_shape)}"
            )
        self.map_shape = self.map_of(input_shape[1:-1])
        # The weights of the parent, in the shapes of convolutions.
        self.kernel = self.add_weight(
            shape=(*self.kernel_size, input_shape[-1], self.filters),
            name="kernel",
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        if self.recurrent:
            self.recurrent_kernel = self.add_weight(
                shape=(*self.kernel_size, self.filters, self.filters),
                name="recurrent_kernel",
                initializer=self.recurrent_initializer,
                regularizer=self.recurrent_regularizer,
                constraint=self.recurrent_constraint,
            )
        self._build_per_unit()
        self.built = True

    def map_of(self, sizes: Any) -> tuple[int, ...]:
        """The size of the output maps for input maps of some size, without channels.

        Raises:
            ValueError: the kernel is larger than the map.
        """
        found = []
        for size, kernel, stride, dilation in zip(
            sizes, self.kernel_size, self.strides, self.dilation_rate, strict=True
        ):
            reach = 1 if self.padding == "same" else dilation * (kernel - 1) + 1
            found.append((size - reach) // stride + 1)
        if min(found) < 1:
            raise ValueError(
                f"{type(self).__name__} with kernel_size={self.kernel_size} and padding='valid' "
                f"leaves nothing of a map of size {tuple(sizes)}. Use padding='same'."
            )
        return tuple(found)

    def project(self, inputs: Any) -> Any:
        """Return the convolution x * W (+ c) in the dtype of the policy, for any leading axes."""
        dtype = self.dtype_policy.compute_dtype
        maps = inputs.shape[-self.rank - 1 :]
        lead = ops.shape(inputs)[: -self.rank - 1]
        # Time, if there is any, is folded into the batch: one convolution for all steps.
        drive = ops.conv(
            ops.reshape(ops.cast(inputs, dtype), (-1, *maps)),
            ops.cast(self.kernel, dtype),
            strides=self.strides,
            padding=self.padding,
            data_format="channels_last",
            dilation_rate=self.dilation_rate,
        )
        if self.bias is not None:
            drive = ops.add(drive, ops.cast(self.bias, dtype))
        return ops.reshape(drive, (*lead, *drive.shape[1:]))

    def recur(self, outputs: Any) -> Any:
        """Return the recurrent convolution y * H in the dtype of the states."""
        dtype = self.dtype_policy.compute_dtype
        product = ops.conv(
            ops.cast(outputs, dtype),
            ops.cast(self.recurrent_kernel, dtype),
            strides=1,
            padding="same",
            data_format="channels_last",
        )
        return ops.cast(product, self.compute_dtype)

    def get_initial_state(self, batch_size: Any = None) -> list:
        if self.map_shape is None:
            raise ValueError(
                f"{type(self).__name__} does not know the size of its maps yet: build it first."
            )
        shape = (batch_size, *self.map_shape, self.filters)
        return [ops.zeros(shape, dtype=self.compute_dtype) for _ in range(2)]

    def get_config(self) -> dict:
        config = super().get_config()
        del config["units"]
        return {
            **config,
            "rank": self.rank,
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "dilation_rate": self.dilation_rate,
        }


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


def _sizes(name: str, value: Any, rank: int) -> tuple[int, ...]:
    values = (value,) * rank if isinstance(value, int | np.integer) else value
    if (
        not isinstance(values, tuple | list)
        or len(values) != rank
        or not all(isinstance(v, int | np.integer) and not isinstance(v, bool) for v in values)
        or not all(1 <= v < math.inf for v in values)
    ):
        raise ValueError(
            f"Argument `{name}` must be a positive integer, or {rank} of them. "
            f"Received: {name}={value!r}"
        )
    return tuple(int(v) for v in values)
