"""One step of the Spiking Neural Unit, spiking and soft."""

from collections.abc import Mapping
from typing import Any, ClassVar, Unpack

import keras
import numpy as np
from keras import ops

from snukeras import _arguments
from snukeras._arguments import LayerArguments
from snukeras.activations import SoftStep, Step
from snukeras.constraints import UnitInterval
from snukeras.network.matrices import Unrolling

_INSTEAD = {
    "pseudo_derivative": (
        "Its output is the sigmoid, which has a derivative of its own. Use the spiking unit, whose "
        "name has one S: SNU."
    ),
}


def of_unit(owner: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Check the last keyword arguments of a cell or layer of units; see `_arguments.of_keras`."""
    return _arguments.of_keras(owner, given, _INSTEAD)


@keras.saving.register_keras_serializable(package="snukeras")
class SNUCell(keras.layers.SimpleRNNCell):
    """Cell of the Spiking Neural Unit (Wozniak et al., Nature Machine Intelligence 2020).

    One step computes, element-wise in the state:

        a_t = x_t W (+ c) (+ y_{t-1} H) + decay * s_{t-1} * (1 - y_{t-1})
        s_t = g(a_t)
        y_t = step(s_t - threshold)                  step(z) = 1 if z > 0 else 0

    with membrane potential `s` and output spikes `y`, both zero at the start. The gradient flows
    through the reset gate `1 - y` as well; the step's own is the pseudo-derivative. A unit's
    decay is `1 - dt / tau` for a time constant tau. Used in a bare `keras.layers.RNN` the cell is
    exact but slow; `SNU` computes the same faster.

    NaN exceeds no threshold: units with NaN in inputs or weights fall silent, and a loss that is
    computed from their spikes stays finite, so `keras.callbacks.TerminateOnNaN` does not see it.

    Args:
        units: positive integer, number of units.
        state_activation: g, any element-wise Keras activation, by name or object.
        decay: number or one number per unit, in [0, 1].
        trainable_decay: train the decay of each unit, kept inside [0, 1].
        threshold: number or one number per unit.
        trainable_threshold: train the threshold of each unit (the paper's bias b = -threshold).
        recurrent: add the term y_{t-1} H.
        lateral_inhibition: winner takes all: the gate is 1 minus the largest output of the
            sample's layer instead of each unit's own.
        pseudo_derivative: "tanh" (the paper's), "fast_sigmoid", "arctan", "boxcar"
            ("rectangular"), "triangular", or a `snukeras.activations.PseudoDerivative`.
        use_bias: add an input bias c; off in the paper, whose bias is the threshold.
        kernel_initializer, recurrent_initializer, bias_initializer: for W, H, c.
        kernel_regularizer, recurrent_regularizer, bias_regularizer: for W, H, c.
        kernel_constraint, recurrent_constraint, bias_constraint: for W, H, c.
        dropout: fraction of the inputs to drop, the same ones at all steps.
        recurrent_dropout: fraction of y_{t-1} to drop in the term y_{t-1} H, likewise.
        seed: integer seed of the dropout.

    Call arguments:
        inputs: shape (batch, features).
        states: [y, s], each (batch, units); the output comes first, as the loops of Keras expect.
            They are float32 (float64 under that policy) whatever the precision of the layer,
            since a spike is a comparison.
        training: whether dropout is applied.

    Raises:
        ValueError, TypeError: an argument is outside what is allowed; the message names it.
    """

    spiking = True
    tile_matrices: ClassVar[dict[str, Unrolling]] = {
        "kernel": Unrolling(),
        "recurrent_kernel": Unrolling(per="step"),
    }

    def __init__(
        self,
        units: int,
        state_activation: Any = "relu",
        decay: Any = 0.8,
        trainable_decay: bool = False,
        threshold: Any = 1.0,
        trainable_threshold: bool = True,
        recurrent: bool = False,
        lateral_inhibition: bool = False,
        pseudo_derivative: Any = "tanh",
        use_bias: bool = False,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        if isinstance(units, bool) or not isinstance(units, int | np.integer):
            raise TypeError(
                f"Argument `units` must be an integer of at least 1. Received: units={units!r}"
            )
        if units < 1:
            raise ValueError(
                f"Argument `units` must be an integer of at least 1. Received: units={units!r}"
            )
        # SimpleRNNCell keeps the standard arguments and the dropout masks.
        super().__init__(
            int(units),
            activation=None,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            recurrent_regularizer=recurrent_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            recurrent_constraint=recurrent_constraint,
            bias_constraint=bias_constraint,
            dropout=_arguments.fraction("dropout", dropout),
            recurrent_dropout=_arguments.fraction("recurrent_dropout", recurrent_dropout),
            seed=seed,
            **of_unit(type(self), kwargs),
        )
        self.state_activation = _activation(state_activation)
        self.decay = _arguments.per_unit("decay", decay, self.units, low=0.0, high=1.0)
        self.trainable_decay = bool(trainable_decay)
        self.threshold = _arguments.per_unit("threshold", threshold, self.units)
        self.trainable_threshold = bool(trainable_threshold)
        self.recurrent = bool(recurrent)
        self.lateral_inhibition = bool(lateral_inhibition)
        self.output_function: Any = Step(pseudo_derivative)
        self.state_size = [self.units, self.units]
        self.output_size = self.units
        # Set by the layer for a call: the cell then puts out y and s side by side.
        self.shows_membrane = False
        self.recurrent_kernel = None
        self.bias = None
        self.decay_weight = None
        self.threshold_weight = None

    @property
    def pseudo_derivative(self) -> Any:
        return self.output_function.pseudo_derivative

    @property
    def compute_dtype(self) -> str:
        """The dtype of the states; the matrix products use that of the dtype policy."""
        return "float64" if self.dtype_policy.compute_dtype == "float64" else "float32"

    def build(self, input_shape: Any) -> None:
        if len(input_shape) != 2 or input_shape[-1] is None:
            raise ValueError(
                f"{type(self).__name__} takes inputs of shape (batch, features) with a known "
                f"number of features. Received: input_shape={tuple(input_shape)}"
            )
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.units),
            name="kernel",
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        if self.recurrent:
            self.recurrent_kernel = self.add_weight(
                shape=(self.units, self.units),
                name="recurrent_kernel",
                initializer=self.recurrent_initializer,
                regularizer=self.recurrent_regularizer,
                constraint=self.recurrent_constraint,
            )
        self._build_per_unit()
        self.built = True

    def _build_per_unit(self) -> None:
        """Add the weights that have a number for each unit."""
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(self.units,),
                name="bias",
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        if self.trainable_threshold:
            self.threshold_weight = self._add_per_unit("threshold", self.threshold, None)
        if self.trainable_decay:
            self.decay_weight = self._add_per_unit("decay", self.decay, UnitInterval())

    def _add_per_unit(self, name: str, value: Any, constraint: Any) -> keras.Variable:
        return self.add_weight(
            shape=(self.units,),
            name=name,
            dtype=self.compute_dtype,
            autocast=False,
            # Not broadcast: on torch that is a view, which cannot be assigned to.
            initializer=lambda shape, dtype: ops.cast(value, dtype) * ops.ones(shape, dtype),
            constraint=constraint,
        )

    def decay_tensor(self) -> Any:
        """The decay of each unit, shape (units,), in the dtype of the states."""
        return self._tensor(self.decay_weight, self.decay)

    def threshold_tensor(self) -> Any:
        """The threshold of each unit, shape (units,), in the dtype of the states."""
        return self._tensor(self.threshold_weight, self.threshold)

    def _tensor(self, weight: Any, value: Any) -> Any:
        if weight is not None:
            return ops.convert_to_tensor(weight)
        return ops.broadcast_to(ops.cast(value, self.compute_dtype), (self.units,))

    def decay_values(self) -> np.ndarray:
        """The decay of each unit as a NumPy array, shape (units,)."""
        return ops.convert_to_numpy(self.decay_tensor())

    def threshold_values(self) -> np.ndarray:
        """The threshold of each unit as a NumPy array, shape (units,)."""
        return ops.convert_to_numpy(self.threshold_tensor())

    def digital_parameters(self) -> dict[str, tuple[Any, keras.Variable | None]]:
        """Return what the digital neuron computes with: values and variable (or None) by role."""
        parameters: dict[str, tuple[Any, keras.Variable | None]] = {}
        if self.bias is not None:
            parameters["bias"] = (self.bias, self.bias)
        parameters["threshold"] = (self.threshold_values(), self.threshold_weight)
        parameters["decay"] = (self.decay_values(), self.decay_weight)
        return parameters

    def project(self, inputs: Any) -> Any:
        """Return the input product x W (+ c) in the dtype of the policy, for any leading axes."""
        dtype = self.dtype_policy.compute_dtype
        drive = ops.matmul(ops.cast(inputs, dtype), ops.cast(self.kernel, dtype))
        return drive if self.bias is None else ops.add(drive, ops.cast(self.bias, dtype))

    def recur(self, outputs: Any) -> Any:
        """Return the recurrent product y H in the dtype of the states."""
        dtype = self.dtype_policy.compute_dtype
        product = ops.matmul(ops.cast(outputs, dtype), ops.cast(self.recurrent_kernel, dtype))
        return ops.cast(product, self.compute_dtype)

    def remain(self, s: Any, y: Any) -> Any:
        """Return what the gate leaves of the state, decay * s * (1 - gate)."""
        gate = ops.max(y, axis=-1, keepdims=True) if self.lateral_inhibition else y
        return self.decay_tensor() * s * (1.0 - gate)

    def call(self, inputs: Any, states: Any, training: bool = False) -> Any:
        y, s = states
        input_mask = self.get_dropout_mask(inputs)
        recurrent_mask = self.get_recurrent_dropout_mask(y)
        if training and input_mask is not None:
            # The mask has the dtype of the policy, what comes here that of the states.
            inputs = inputs * ops.cast(input_mask, inputs.dtype)
        a = ops.cast(self.project(inputs), self.compute_dtype)
        if self.recurrent:
            dropped = training and recurrent_mask is not None
            a = a + self.recur(y * recurrent_mask if dropped else y)
        s = self.state_activation(a + self.remain(s, y))
        y = self.output_function(s - self.threshold_tensor())
        return (ops.concatenate([y, s], axis=-1) if self.shows_membrane else y), [y, s]

    def get_initial_state(self, batch_size: Any = None) -> list:
        return [ops.zeros((batch_size, self.units), dtype=self.compute_dtype) for _ in range(2)]

    def get_config(self) -> dict:
        config = super().get_config()
        del config["activation"]
        config |= {
            "state_activation": keras.activations.serialize(self.state_activation),
            "decay": self.decay,
            "trainable_decay": self.trainable_decay,
            "threshold": self.threshold,
            "trainable_threshold": self.trainable_threshold,
            "recurrent": self.recurrent,
            "lateral_inhibition": self.lateral_inhibition,
        }
        if self.spiking:
            config["pseudo_derivative"] = keras.saving.serialize_keras_object(
                self.pseudo_derivative
            )
        return config


def _activation(identifier: Any) -> Any:
    try:
        return keras.activations.get(identifier)
    except (ValueError, TypeError) as error:
        raise ValueError(
            "Argument `state_activation` must be the name of a Keras activation (such as 'relu', "
            "'linear', 'leaky_relu') or a callable. "
            f"Received: state_activation={identifier!r}"
        ) from error


@keras.saving.register_keras_serializable(package="snukeras")
class SSNUCell(SNUCell):
    """Cell of the soft SNU: the equations of `SNUCell` with the sigmoid in place of the step.

        y_t = sigmoid(s_t - threshold)

    so that the gate `1 - y` resets the state in part (Wozniak et al. 2020).

    Args:
        units ... seed: see `SNUCell`; there is no `pseudo_derivative`.
    """

    spiking = False

    def __init__(
        self,
        units: int,
        state_activation: Any = "relu",
        decay: Any = 0.8,
        trainable_decay: bool = False,
        threshold: Any = 1.0,
        trainable_threshold: bool = True,
        recurrent: bool = False,
        lateral_inhibition: bool = False,
        use_bias: bool = False,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        given = _arguments.chosen(SNUCell, locals())
        super().__init__(**given, **of_unit(type(self), kwargs))
        self.output_function = SoftStep()

    @property
    def pseudo_derivative(self) -> None:
        return None
