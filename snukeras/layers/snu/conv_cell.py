"""One step of convolutional Spiking Neural Units, spiking and soft."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Unpack

import keras
from keras import ops

from snukeras import _arguments
from snukeras._arguments import LayerArguments
from snukeras._types import (
    Activation,
    Config,
    Constraint,
    Initializer,
    PerUnit,
    Regularizer,
    Shape,
    Tensor,
)
from snukeras.activations import Bump, SoftStep
from snukeras.layers.snu import arguments
from snukeras.layers.snu.cell import SNUCell
from snukeras.network import products
from snukeras.network.matrices import Unrolling

_PADDINGS = ("valid", "same")


class ConvArguments(LayerArguments, total=False):
    """The last keyword arguments of convolutional units."""

    data_format: str | None


def of_convolution(owner: type, given: Mapping[str, object]) -> Config:
    """Check the last keyword arguments of a convolutional unit and return Keras's own.

    Raises:
        ValueError: channels are not to be last.
        TypeError: an unknown argument.
    """
    rest = dict(given)
    if rest.pop("data_format", None) not in (None, "channels_last"):
        raise ValueError(
            "Argument `data_format` must be 'channels_last': feature maps have their channels "
            "last. Move the channels with keras.layers.Permute. "
            f"Received: data_format={given['data_format']!r}"
        )
    return arguments.of_unit(owner, rest)


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
        state_activation ... seed: see `SNUCell`.

    Call arguments:
        inputs: shape (batch, ..., channels), e.g. (batch, height, width, channels) for rank 2.
        states: [y, s], each of the shape of the output.
        training: whether dropout is applied.

    Raises:
        ValueError, TypeError: an argument is outside what is allowed; the message names it.
    """

    tile_matrices: ClassVar[dict[str, Unrolling]] = {
        "kernel": Unrolling(per="output"),
        "recurrent_kernel": Unrolling(per="output"),
    }

    def __init__(
        self,
        rank: int,
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
        super().__init__(
            arguments.number_of("filters", filters),
            **_arguments.chosen(SNUCell, given),
            **of_convolution(type(self), kwargs),
        )
        self.rank = _arguments.choice("rank", rank, (1, 2))
        self.kernel_size = _arguments.sizes("kernel_size", kernel_size, rank)
        self.strides = _arguments.sizes("strides", strides, rank)
        self.padding = _arguments.choice("padding", padding, _PADDINGS)
        self.dilation_rate = _arguments.sizes("dilation_rate", dilation_rate, rank)
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ValueError(
                "Arguments `strides` and `dilation_rate` cannot both be above 1. Received: "
                f"strides={strides!r}, dilation_rate={dilation_rate!r}"
            )
        self.map_shape: tuple[int, ...] | None = None

    @property
    def filters(self) -> int:
        return self.units

    def build(self, input_shape: Shape) -> None:
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
        channels = input_shape[-1]
        assert channels is not None
        self._build_kernels(
            (*self.kernel_size, channels, self.filters),
            (*self.kernel_size, self.filters, self.filters),
        )
        self._build_per_unit()
        self.built = True

    def map_of(self, sizes: Any) -> tuple[int, ...]:
        """Return the size of the output maps for input maps of some size, without channels.

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

    def project(self, inputs: Tensor) -> Tensor:
        """Return the convolution x * W (+ c) in the dtype of the policy, for any leading axes."""
        dtype = self.dtype_policy.compute_dtype
        maps = inputs.shape[-self.rank - 1 :]
        lead = ops.shape(inputs)[: -self.rank - 1]
        # Time, if there is any, is folded into the batch: one convolution for all steps.
        drive = products.convolve(
            self,
            "kernel",
            ops.reshape(ops.cast(inputs, dtype), (-1, *maps)),
            self.strides,
            self.padding,
            self.dilation_rate,
        )
        if self.bias is not None:
            drive = ops.add(drive, ops.cast(self.bias, dtype))
        return ops.reshape(drive, (*lead, *drive.shape[1:]))

    def recur(self, outputs: Tensor) -> Tensor:
        """Return the recurrent convolution y * H in the dtype of the states."""
        dtype = self.dtype_policy.compute_dtype
        ones = (1,) * self.rank
        product = products.convolve(
            self, "recurrent_kernel", ops.cast(outputs, dtype), ones, "same", ones
        )
        return ops.cast(product, self.compute_dtype)

    def get_initial_state(self, batch_size: int | None = None) -> list[Tensor]:
        if self.map_shape is None:
            raise ValueError(
                f"{type(self).__name__} does not know the size of its maps yet: build it first."
            )
        shape = (batch_size, *self.map_shape, self.filters)
        return [ops.zeros(shape, dtype=self.compute_dtype) for _ in range(2)]

    def get_config(self) -> Config:
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


@keras.saving.register_keras_serializable(package="snukeras")
class ConvSSNUCell(ConvSNUCell):
    """Cell of the convolutional soft SNU: `ConvSNUCell` with the sigmoid in place of the step.

    Args:
        rank ... seed: see `ConvSNUCell`; there is no `pseudo_derivative`.
    """

    spiking = False

    def __init__(
        self,
        rank: int,
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
        *,
        decay_initializer: Initializer = None,
        decay_regularizer: Regularizer = None,
        decay_constraint: Constraint = None,
        threshold_initializer: Initializer = None,
        threshold_regularizer: Regularizer = None,
        threshold_constraint: Constraint = None,
        **kwargs: Unpack[ConvArguments],
    ) -> None:
        given = _arguments.chosen(ConvSNUCell, locals())
        super().__init__(**given, **of_convolution(type(self), kwargs))
        self.output_function = SoftStep()
