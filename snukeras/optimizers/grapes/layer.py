"""GRAPES: a layer's errors modulated by the weights that come into its units."""

import inspect
from collections.abc import Callable
from typing import NamedTuple, Unpack

import keras
from keras import ops

from snukeras._arguments import LayerArguments
from snukeras._types import Config, Nested, Shape, Tensor


@keras.saving.register_keras_serializable(package="snukeras")
class GRAPES(keras.layers.Wrapper):
    """Wrap a hidden layer and multiply the error of each of its units by the unit's importance.

    Group Responsibility for Adjusting the Propagation of Error Signals (Dellaferrera, Wozniak,
    Indiveri, Pantazi, Eleftheriou, Nature Communications 13, 1885, 2022, doi
    10.1038/s41467-022-29491-2). For unit j of the layer

        I_j = sum of |w| over all weights that come into j
        M_j = 2 * I_j / max(I), clipped to [1, 2]
        delta = M * (error from the layers above) * f'(a)

    The factor is part of the error that goes on to the layers below, so factors compound towards
    the input. M is computed in the forward pass, once per call, from the weights as they are, and
    is a constant in the backward pass. Outputs, and everything outside of training (`training`
    not true), are those of the wrapped layer, bit for bit.

        keras.Sequential([
            keras.Input((784,)),
            snukeras.optimizers.GRAPES(keras.layers.Dense(256, activation="relu")),
            keras.layers.Dense(10),
        ])

    `with_grapes(model)` wraps all hidden layers of a model. The output layer is never wrapped.

    The authors published the form for dense layers. The other forms are ours: a unit of a
    convolution is an output channel, with all the weights of its filter; a recurrent unit has the
    weights of its input and its recurrence, those of all gates together; an embedding is a dense
    layer on one-hot inputs. In a recurrent layer the factor acts at each step on the error that
    comes from outside of the layer, through outputs and last states, and not within the recurrence,
    where its powers would grow with the number of steps.

    Args:
        layer: Dense, Embedding, Conv1D, Conv2D or Conv3D; a recurrent layer (SimpleRNN, LSTM, GRU,
            ConvLSTM, SNU, SSNU, ConvSNU, `keras.layers.RNN` of one cell); a TimeDistributed of one
            of these, or a Bidirectional that concatenates.
        clip: clip M to [1, 2], as the authors do; otherwise it lies in [0, 2].
        propagate: False modulates the gradients of the layer's own weights (kernels, bias,
            threshold, decay) and leaves the error that goes on to the layers below alone.
        uniform: give all units the mean of M. This is a control without any knowledge of single
            units: with SGD, exactly a learning rate for each layer that is matched to GRAPES.

    Call arguments:
        inputs, mask, initial_state, training: those of the wrapped layer.

    Raises:
        ValueError: a layer of another kind; or, without `propagate`, one with an activity
            regularizer.
    """

    def __init__(
        self,
        layer: keras.Layer,
        clip: bool = True,
        propagate: bool = True,
        uniform: bool = False,
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        if isinstance(layer, keras.Layer):
            kwargs.setdefault("dtype", layer.dtype_policy)
        super().__init__(layer, **kwargs)
        units_of(layer)
        if not propagate and layer.activity_regularizer is not None:
            raise ValueError(
                "GRAPES with propagate=False cannot take a layer with an activity regularizer. "
                f"Received: {layer.name!r}; put a keras.layers.ActivityRegularization after it."
            )
        self.clip = bool(clip)
        self.propagate = bool(propagate)
        self.uniform = bool(uniform)
        self.supports_masking = layer.supports_masking

    def importance(self) -> Tensor:
        """Return the sums of |w| over the incoming weights of each unit, shape (units,)."""
        return ops.concatenate([_importance(units) for units in units_of(self.layer)])

    def modulation(self) -> Tensor:
        """Return the factors M on the errors of the units, (units,); 1 where all weights are 0."""
        return ops.concatenate(self._factors())

    def call(
        self,
        inputs: Nested,
        initial_state: list[Tensor] | None = None,
        mask: Nested = None,
        training: bool = False,
    ) -> Nested:
        arguments: dict[str, Nested] = {"training": training}
        if initial_state is not None:
            arguments["initial_state"] = initial_state
        if mask is not None:
            arguments["mask"] = mask
        if not training:
            return self.layer(inputs, **arguments)
        factors = self._factors()
        # Nothing is below an embedding: it propagates to its own weights alone.
        if not self.propagate and not isinstance(self.layer, keras.layers.Embedding):
            return self._call_with_scaled_weights(factors, inputs, arguments)
        axis = units_of(self.layer)[0].axis
        factor = ops.concatenate(factors)
        # Outputs, and last states where the layer returns them.
        return keras.tree.map_structure(
            lambda output: scaled_gradient(output, _along(axis, factor)),
            self.layer(inputs, **arguments),
        )

    def _factors(self) -> list[Tensor]:
        return [self._factor(_importance(units)) for units in units_of(self.layer)]

    def _factor(self, importance: Tensor) -> Tensor:
        top = ops.max(importance)
        some = top > 0
        factor = ops.where(some, 2.0 * importance / ops.where(some, top, 1.0), 1.0)
        if self.clip:
            factor = ops.clip(factor, 1.0, 2.0)
        if self.uniform:
            factor = ops.broadcast_to(ops.mean(factor), ops.shape(factor))
        return ops.stop_gradient(factor)

    def _call_with_scaled_weights(
        self, factors: list[Tensor], inputs: Nested, arguments: dict[str, Nested]
    ) -> Nested:
        """Return the layer's outputs with the gradients of its own weights modulated."""
        factor_of = {
            id(variable): factor
            for units, factor in zip(units_of(self.layer), factors, strict=True)
            for variable in units.owner.trainable_variables
        }
        taken = inspect.signature(self.layer.call).parameters
        outputs, states = self.layer.stateless_call(
            [
                scaled_gradient(ops.convert_to_tensor(v), _repeated(factor_of[id(v)], v.shape[-1]))
                for v in self.layer.trainable_variables
            ],
            [ops.convert_to_tensor(v) for v in self.layer.non_trainable_variables],
            inputs,
            **{name: value for name, value in arguments.items() if name in taken},
        )
        for variable, state in zip(self.layer.non_trainable_variables, states, strict=True):
            variable.assign(state)
        return outputs

    def compute_mask(self, inputs: Nested, mask: Nested = None) -> Nested:
        return self.layer.compute_mask(inputs, mask)

    def compute_output_shape(self, input_shape: Shape, **kwargs: Nested) -> Nested:
        return self.layer.compute_output_shape(input_shape)

    def compute_output_spec(
        self,
        inputs: Nested,
        initial_state: list[Tensor] | None = None,
        mask: Nested = None,
        training: bool = False,
    ) -> Nested:
        arguments = {} if initial_state is None else {"initial_state": initial_state}
        return self.layer.compute_output_spec(inputs, **arguments)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "clip": self.clip,
            "propagate": self.propagate,
            "uniform": self.uniform,
        }


class Units(NamedTuple):
    """The units of a layer, or of one direction of a Bidirectional.

    Attributes:
        owner: the layer or cell whose variables are theirs.
        number: how many they are.
        axis: their axis in the outputs, counted from the end.
    """

    owner: keras.Layer
    number: int
    axis: int


def units_of(layer: keras.Layer) -> list[Units]:
    """Return the units that GRAPES modulates in a layer.

    Raises:
        ValueError: GRAPES is not defined for the layer.
    """
    if isinstance(layer, keras.layers.Dense):
        return [Units(layer, layer.units, -1)]
    if isinstance(layer, keras.layers.Embedding):
        return [Units(layer, layer.output_dim, -1)]
    if isinstance(layer, keras.layers.Conv1D | keras.layers.Conv2D | keras.layers.Conv3D):
        return [Units(layer, layer.filters, _channels(layer))]
    if isinstance(layer, keras.layers.TimeDistributed):
        return units_of(layer.layer)
    if isinstance(layer, keras.layers.Bidirectional):
        if layer.merge_mode == "concat" and not layer.return_state:
            return [*units_of(layer.forward_layer), *units_of(layer.backward_layer)]
    elif isinstance(layer, keras.layers.RNN):
        number = getattr(layer.cell, "units", getattr(layer.cell, "filters", None))
        if isinstance(number, int):
            return [Units(layer.cell, number, _channels(layer.cell))]
    raise ValueError(
        "GRAPES takes Dense, Embedding, Conv1D, Conv2D, Conv3D, recurrent layers of one cell, "
        "TimeDistributed ones, and Bidirectional ones that concatenate and return no states. "
        f"Received: {layer.name!r}, a {type(layer).__name__}; leave it as it is and wrap others."
    )


def scaled_gradient(x: Tensor, factor: Tensor) -> Tensor:
    """Return `x` itself; its gradient is multiplied by a constant."""

    @ops.custom_gradient
    def identity(x: Tensor, factor: Tensor) -> tuple[Tensor, Callable]:
        def grad(*args: Tensor, upstream: Tensor | None = None) -> tuple[Tensor, Tensor]:
            if upstream is None:
                (upstream,) = args
            return ops.multiply(upstream, factor), ops.zeros_like(factor)

        return x, grad

    return identity(x, ops.cast(factor, x.dtype))


def _channels(layer: keras.Layer) -> int:
    """Return the axis of the units, from the end; with channels_first the image axes follow it."""
    if getattr(layer, "data_format", None) == "channels_first":
        return -1 - len(layer.kernel_size)
    return -1


def _along(axis: int, factor: Tensor) -> Tensor:
    """Reshape the factors so that they meet the units along an axis counted from the end."""
    return ops.reshape(factor, (-1,) + (1,) * (-1 - axis))


def _importance(units: Units) -> Tensor:
    names = ("kernel", "recurrent_kernel", "embeddings")
    incoming = [getattr(units.owner, name, None) for name in names]
    # The last axis of a kernel holds the units; in recurrent layers those of each gate in turn.
    return sum(
        ops.sum(ops.reshape(ops.abs(_precise(w)), (-1, units.number)), axis=0)
        for w in incoming
        if w is not None
    )


def _precise(weight: keras.Variable) -> Tensor:
    dtype = "float64" if weight.dtype == "float64" else "float32"
    return ops.cast(ops.convert_to_tensor(weight), dtype)


def _repeated(factor: Tensor, size: int) -> Tensor:
    """Repeat the factor of each unit for each gate that a variable holds."""
    return ops.tile(factor, size // factor.shape[0])
