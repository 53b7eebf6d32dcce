"""The Spiking Neural Unit: cell and layer."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from snukeras.activations import Step
from snukeras.constraints import UnitInterval

_IMPLEMENTATIONS = ("auto", "fused", "cell")


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
        **kwargs: Any,
    ):
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
            dropout=_fraction("dropout", dropout),
            recurrent_dropout=_fraction("recurrent_dropout", recurrent_dropout),
            seed=seed,
            **kwargs,
        )
        self.state_activation = _activation(state_activation)
        self.decay = _per_unit("decay", decay, self.units, low=0.0, high=1.0)
        self.trainable_decay = bool(trainable_decay)
        self.threshold = _per_unit("threshold", threshold, self.units)
        self.trainable_threshold = bool(trainable_threshold)
        self.recurrent = bool(recurrent)
        self.lateral_inhibition = bool(lateral_inhibition)
        self.output_function: Any = Step(pseudo_derivative)
        self.state_size = [self.units, self.units]
        self.output_size = self.units
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
        return y, [y, s]

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


def _argument_of_cell(name: str) -> property:
    return property(lambda self: getattr(self.cell, name), doc=f"`{name}` of the cell.")


@keras.saving.register_keras_serializable(package="snukeras")
class SNU(keras.layers.RNN):
    """Layer of Spiking Neural Units; it stands wherever a keras.layers.LSTM could.

    The equations and the arguments of the unit are those of `SNUCell`. The layer adds what Keras's
    recurrent layers have, and a fast path on TensorFlow.

    Args:
        units ... seed: see `SNUCell`.
        return_sequences: return the output of every step, not of the last alone.
        return_state: return the last states y and s, each (batch, units), after the output.
        go_backwards: process the steps in reverse and return them reversed.
        stateful: start each batch from the last states of the one before (`reset_state()` clears).
        unroll: unroll the loop over time (plain path).
        zero_output_for_mask: put out zeros at masked steps instead of the output before.
        implementation: "fused" computes the input product for all steps at once and the
            recurrence as one compiled scan with a backward pass of its own (TensorFlow alone);
            "cell" steps through the cell with the loop of Keras; "auto" takes "fused" where it
            can: on TensorFlow, without `unroll`.

    Call arguments:
        sequences: shape (batch, time, features).
        initial_state: [y, s], each (batch, units); zeros by default.
        mask: shape (batch, time), False at steps to skip.
        training: whether dropout is applied, and whether the fast path keeps what gradients need;
            without it they cost a second forward pass.

    Returns:
        Shape (batch, time, units) or (batch, units); with `return_state` a tuple with y and s.

    Raises:
        ValueError, TypeError: an argument is outside what is allowed; the message names it.

    Example:

        model = keras.Sequential([
            snukeras.layers.SNU(150, return_sequences=True),
            keras.layers.Dense(88, activation="sigmoid"),
        ])
    """

    _cell_class: type[SNUCell] = SNUCell

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
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        implementation: str = "auto",
        **kwargs: Any,
    ):
        # Of the convolutional layers, whose cell is this one's but for the products.
        convolution = kwargs.pop("convolution", {})
        if implementation not in _IMPLEMENTATIONS:
            raise ValueError(
                f"Argument `implementation` must be one of {_IMPLEMENTATIONS}. "
                f"Received: implementation={implementation!r}"
            )
        cell_arguments = dict(
            state_activation=state_activation,
            decay=decay,
            trainable_decay=trainable_decay,
            threshold=threshold,
            trainable_threshold=trainable_threshold,
            recurrent=recurrent,
            lateral_inhibition=lateral_inhibition,
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
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            seed=seed,
            dtype=kwargs.get("dtype"),
            trainable=kwargs.get("trainable", True),
            **convolution,
        )
        cell_arguments["filters" if convolution else "units"] = units
        if self._cell_class.spiking:
            cell_arguments["pseudo_derivative"] = pseudo_derivative
        super().__init__(
            self._cell_class(**cell_arguments),
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            zero_output_for_mask=zero_output_for_mask,
            **kwargs,
        )
        self.implementation = implementation
        self.input_spec = [keras.layers.InputSpec(ndim=3)]

    units = _argument_of_cell("units")
    state_activation = _argument_of_cell("state_activation")
    decay = _argument_of_cell("decay")
    trainable_decay = _argument_of_cell("trainable_decay")
    threshold = _argument_of_cell("threshold")
    trainable_threshold = _argument_of_cell("trainable_threshold")
    recurrent = _argument_of_cell("recurrent")
    lateral_inhibition = _argument_of_cell("lateral_inhibition")
    pseudo_derivative = _argument_of_cell("pseudo_derivative")
    use_bias = _argument_of_cell("use_bias")
    kernel_initializer = _argument_of_cell("kernel_initializer")
    recurrent_initializer = _argument_of_cell("recurrent_initializer")
    bias_initializer = _argument_of_cell("bias_initializer")
    kernel_regularizer = _argument_of_cell("kernel_regularizer")
    recurrent_regularizer = _argument_of_cell("recurrent_regularizer")
    bias_regularizer = _argument_of_cell("bias_regularizer")
    kernel_constraint = _argument_of_cell("kernel_constraint")
    recurrent_constraint = _argument_of_cell("recurrent_constraint")
    bias_constraint = _argument_of_cell("bias_constraint")
    dropout = _argument_of_cell("dropout")
    recurrent_dropout = _argument_of_cell("recurrent_dropout")
    seed = _argument_of_cell("seed")

    def build(self, sequences_shape: Any, initial_state_shape: Any = None) -> None:
        """As keras.layers.RNN; from then on a wrong number of features is an error of its own."""
        super().build(sequences_shape, initial_state_shape)
        (spec,) = self.input_spec
        self.input_spec = [keras.layers.InputSpec(ndim=spec.ndim, axes={-1: sequences_shape[-1]})]

    @property
    def variable_dtype(self) -> str:
        """The dtype of the states that a stateful layer carries: that of the cell's states."""
        return self.cell.compute_dtype

    def call(
        self,
        sequences: Any,
        initial_state: Any = None,
        mask: Any = None,
        training: bool = False,
    ) -> Any:
        """As keras.layers.RNN, but for the states, which are never rounded to half precision."""
        if sequences.shape[1] == 0:
            raise ValueError(
                f"Layer {self.name!r} needs sequences of at least one step. "
                f"Received: shape {tuple(sequences.shape)}, which is (batch, time, features)."
            )
        if initial_state is None and self.stateful:
            self._check_batch_size(sequences)
            initial_state = self.states
        if initial_state is not None:
            dtype = self.cell.compute_dtype
            initial_state = [ops.cast(state, dtype) for state in initial_state]
        if self._takes_fused():
            # Imported here: it needs TensorFlow, which the other backends do without.
            from snukeras.layers import fused

            result = fused.run(self, sequences, initial_state, mask, training)
        else:
            result = self._step_through(sequences, initial_state, mask, training)
        last_output, outputs, states = result
        # One dropout mask serves all steps of a call, and no other call.
        self.cell.reset_dropout_mask()
        self.cell.reset_recurrent_dropout_mask()
        if self.stateful:
            for variable, state in zip(self.states, states, strict=True):
                variable.assign(state)
        output = ops.cast(outputs if self.return_sequences else last_output, self.compute_dtype)
        return (output, *states) if self.return_state else output

    def _check_batch_size(self, sequences: Any) -> None:
        expected, received = self.states[0].shape[0], sequences.shape[0]
        if received is not None and received != expected:
            raise ValueError(
                f"Layer {self.name!r} is stateful and holds the states of a batch of {expected}; "
                f"every batch must be of that size. Received: a batch of {received}. "
                "Give the batch size in keras.Input(batch_shape=...) and drop the remainder."
            )

    def _step_through(self, sequences: Any, state: Any, mask: Any, training: bool) -> Any:
        """Run the cell step by step in the loop of Keras; the plain path."""
        if state is None:
            state = self.get_initial_state(batch_size=ops.shape(sequences)[0])
        # Drawn before the loop, so that all steps share them.
        self.cell.get_dropout_mask(sequences[:, 0])
        self.cell.get_recurrent_dropout_mask(state[0])
        return self.inner_loop(sequences, state, mask=mask, training=training)

    def _takes_fused(self) -> bool:
        if self.implementation == "cell":
            return False
        hindrance = None
        if keras.backend.backend() != "tensorflow":
            hindrance = f"the backend is {keras.backend.backend()}, and it needs TensorFlow"
        elif self.unroll:
            hindrance = "the layer has unroll=True"
        if hindrance and self.implementation == "fused":
            raise ValueError(
                f"Layer {self.name!r} cannot use implementation='fused': {hindrance}. "
                "Use implementation='auto' or 'cell'."
            )
        return hindrance is None

    def get_config(self) -> dict:
        config = {**super().get_config(), "implementation": self.implementation}
        del config["cell"]
        of_cell = self.cell.get_config()
        for name in ("name", "trainable", "dtype"):
            del of_cell[name]
        return {**config, **of_cell}

    @classmethod
    def from_config(cls, config: dict) -> "SNU":
        return cls(**config)


def _activation(identifier: Any) -> Any:
    try:
        return keras.activations.get(identifier)
    except (ValueError, TypeError) as error:
        raise ValueError(
            "Argument `state_activation` must be the name of a Keras activation (such as 'relu', "
            "'linear', 'leaky_relu') or a callable. "
            f"Received: state_activation={identifier!r}"
        ) from error


def _fraction(name: str, value: Any) -> float:
    if not isinstance(value, int | float | np.number) or not 0.0 <= value < 1.0:
        raise ValueError(
            f"Argument `{name}` must be a number of at least 0 and below 1. "
            f"Received: {name}={value!r}"
        )
    return float(value)


def _per_unit(
    name: str, value: Any, units: int, low: float = -math.inf, high: float = math.inf
) -> float | list[float]:
    """Check a number, or one number per unit; return it as JSON can hold it."""
    try:
        values = np.asarray(value, dtype="float64")
    except (TypeError, ValueError):
        raise TypeError(
            f"Argument `{name}` must be a number or a list of {units} numbers. "
            f"Received: {name}={value!r}"
        ) from None
    if values.shape not in ((), (units,)):
        raise ValueError(
            f"Argument `{name}` must be a number or a list of {units} numbers, one per unit. "
            f"Received: {name} of shape {values.shape}"
        )
    if not (np.all(np.isfinite(values)) and np.all(values >= low) and np.all(values <= high)):
        allowed = "finite" if math.isinf(low) else f"finite and between {low:g} and {high:g}"
        raise ValueError(f"Argument `{name}` must be {allowed}. Received: {name}={value!r}")
    return values.tolist()
