"""One step of the Spiking Neural Unit, spiking and soft."""

import math
from typing import ClassVar, Self, Unpack

import keras
import numpy as np
from keras import ops

from snukeras import _arguments
from snukeras._arguments import LayerArguments
from snukeras._types import (
    Activation,
    Array,
    Config,
    Constraint,
    Initializer,
    PerUnit,
    Regularizer,
    Shape,
    Tensor,
)
from snukeras.activations import Arctan, Bump, SoftStep, Step, serialize_pseudo_derivative
from snukeras.constraints import UnitInterval
from snukeras.initializers import FluctuationDriven
from snukeras.layers.snu import arguments
from snukeras.layers.snu.reduced import ReducedKernels
from snukeras.network import products
from snukeras.network.matrices import Unrolling

# The settings of Wozniak et al. 2020, whose equations hold for the defaults as well.
PAPER: Config = {
    "state_activation": "relu",
    "decay": 0.8,
    "threshold": 1.0,
    "pseudo_derivative": "tanh",
    "kernel_initializer": "glorot_uniform",
    "recurrent_initializer": "glorot_uniform",
}
# Of the drive of a unit, what recurrent weights add at first, by default.
_RECURRENT_SHARE = 0.25
# Of the default pseudo-derivative, in thresholds.
_SLOPE = 1.2

# The arguments that SimpleRNNCell checks and keeps as they are.
_KEPT_BY_KERAS = (
    "use_bias",
    "bias_initializer",
    *(
        f"{weight}_{kind}"
        for weight in ("kernel", "recurrent", "bias")
        for kind in ("regularizer", "constraint")
    ),
    "seed",
)


@keras.saving.register_keras_serializable(package="snukeras")
class SNUCell(ReducedKernels, keras.layers.SimpleRNNCell):
    """Cell of the Spiking Neural Unit (Wozniak et al., Nature Machine Intelligence 2020).

    One step computes, element-wise in the state:

        a_t = x_t W (+ c) (+ y_{t-1} H) + decay * s_{t-1} * (1 - y_{t-1})
        s_t = g(a_t)
        y_t = step(s_t - threshold)                  step(z) = 1 if z > 0 else 0

    with membrane potential `s` and output spikes `y`, both zero at the start. The gradient flows
    through the reset gate `1 - y` as well; the step's own is the pseudo-derivative. A unit's
    decay is `1 - dt / tau` for a time constant tau. Used in a bare `keras.layers.RNN` the cell is
    exact but slow; `SNU` computes the same faster.

    The defaults are those at which stacks of such layers learn with nothing else set (experiments,
    `defaults`). The paper's own are `snukeras.layers.PAPER`: SNU(256, **snukeras.layers.PAPER).

    NaN exceeds no threshold: units with NaN in inputs or weights fall silent, and a loss that is
    computed from their spikes stays finite, so `keras.callbacks.TerminateOnNaN` does not see it.

    Args:
        units: positive integer, number of units.
        state_activation: g, any element-wise Keras activation, by name or object. A layer with
            weights, such as `keras.layers.PReLU()`, is trained with the unit, on the plain path.
        decay: number or one number per unit, in [0, 1].
        trainable_decay: train the decay of each unit, kept inside [0, 1].
        threshold: number or one number per unit.
        trainable_threshold: train the threshold of each unit (the paper's bias b = -threshold).
        recurrent: add the term y_{t-1} H.
        lateral_inhibition: winner takes all: the gate is 1 minus the largest output of the
            sample's layer instead of each unit's own.
        pseudo_derivative: None for `snukeras.activations.Arctan(1.2 / threshold)`, as wide as the
            threshold is high; "tanh" (the paper's), "fast_sigmoid", "arctan", "boxcar"
            ("rectangular"), "triangular", a `snukeras.activations.PseudoDerivative`, or a function
            of s - threshold; see `snukeras.activations.get_pseudo_derivative` for saving one.
        use_bias: add an input bias c; off in the paper, whose bias is the threshold.
        kernel_initializer, recurrent_initializer, bias_initializer: for W, H, c. Beside those of
            Keras the first two may be "fluctuation_driven", which is
            `snukeras.initializers.FluctuationDriven` for the unit's decay, threshold and g, with a
            share of 0.25 for H.
        kernel_regularizer, recurrent_regularizer, bias_regularizer: for W, H, c.
        kernel_constraint, recurrent_constraint, bias_constraint: for W, H, c.
        dropout: fraction of the inputs to drop, the same ones at all steps.
        recurrent_dropout: fraction of y_{t-1} to drop in the term y_{t-1} H, likewise.
        seed: integer seed of the dropout.
        decay_initializer, threshold_initializer: draw the number of each unit, in the place of
            `decay` or `threshold`; decays are cut to [0, 1]. They are weights then, also where
            they are not trained.
        decay_regularizer, threshold_regularizer: for those that are trained.
        decay_constraint, threshold_constraint: for those that are trained. The decay's stands in
            the place of the one to [0, 1].

    Call arguments:
        inputs: shape (batch, features).
        states: [y, s], each (batch, units); the output comes first, as the loops of Keras expect.
            They are float32 (float64 under that policy) whatever the precision of the layer,
            since a spike is a comparison.
        training: whether dropout is applied.

    Raises:
        ValueError, TypeError: an argument is outside what is allowed, or would not be used (such as
            `recurrent_dropout` where `recurrent` is False); the message names it.
    """

    spiking = True
    tile_matrices: ClassVar[dict[str, Unrolling]] = {
        "kernel": Unrolling(),
        "recurrent_kernel": Unrolling(per="step"),
    }
    tile_products = ("kernel", "recurrent_kernel")
    bias: keras.Variable | None = None
    decay_weight: keras.Variable | None = None
    threshold_weight: keras.Variable | None = None
    # Set by the layer for a call: the cell then puts out y and s side by side.
    shows_membrane = False
    # Set likewise: what was put out is carried as a first state.
    carries_shown = False

    def __init__(
        self,
        units: int,
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
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        given = locals()
        arguments.check_used(SNUCell, given)
        own = recurrent_initializer == "fluctuation_driven"
        super().__init__(
            arguments.number_of("units", units),
            activation=None,
            dropout=_arguments.number("dropout", dropout, minimum=0.0, below=1.0),
            recurrent_dropout=_arguments.number(
                "recurrent_dropout", recurrent_dropout, minimum=0.0, below=1.0
            ),
            **{name: given[name] for name in _KEPT_BY_KERAS},
            recurrent_initializer="glorot_uniform" if own else recurrent_initializer,
            **arguments.of_unit(type(self), kwargs),
        )
        self.state_activation = arguments.activation(state_activation)
        self._keep_per_unit("decay", given, low=0.0, high=1.0)
        self._keep_per_unit("threshold", given)
        self.recurrent = bool(recurrent)
        self.lateral_inhibition = bool(lateral_inhibition)
        self.output_function: Step | SoftStep = Step(
            self._scaled_bump() if pseudo_derivative is None else pseudo_derivative
        )
        self.kernel_initializer = (
            self._fluctuation_driven()
            if kernel_initializer == "fluctuation_driven"
            else keras.initializers.get(kernel_initializer)
        )
        if own and self.recurrent:
            self.recurrent_initializer = self._fluctuation_driven(_RECURRENT_SHARE)
        self.state_size = [self.units, self.units]
        self.output_size = self.units

    def _scaled_bump(self) -> Arctan:
        """Return the default pseudo-derivative, as wide as the threshold is high."""
        return Arctan(round(_SLOPE / float(np.mean(self._typical("threshold"))), 6))

    def _fluctuation_driven(self, share: float = 1.0) -> FluctuationDriven:
        """Return the default initializer of the kernel, or of H by its share, for this unit."""
        return FluctuationDriven(
            decay=self._typical("decay"),
            threshold=self._typical("threshold"),
            rectified=keras.activations.serialize(self.state_activation) == "relu",
            share=share,
        )

    def _typical(self, role: str) -> PerUnit:
        """Return the decay or threshold that weights are to fit; a usual one for drawn ones."""
        values = getattr(self, role)
        if values is None:
            return PAPER[role]
        if role == "threshold" and np.any(np.asarray(values) <= 0):
            # Such units spike without input, whatever their weights.
            return np.where(np.asarray(values) > 0, values, PAPER["threshold"]).tolist()
        return values

    def _keep_per_unit(
        self, role: str, given: Config, low: float = -math.inf, high: float = math.inf
    ) -> None:
        """Check and keep the arguments of the decay or of the threshold.

        Args:
            role: "decay" or "threshold".
            given: the arguments of the constructor.
            low, high: the range of the values.
        """
        initializer = keras.initializers.get(given[f"{role}_initializer"])
        kept = {
            # An initializer stands in the place of values.
            role: _arguments.per_unit(role, given[role], self.units, low, high)
            if initializer is None
            else None,
            f"trainable_{role}": bool(given[f"trainable_{role}"]),
            f"{role}_initializer": initializer,
            f"{role}_regularizer": keras.regularizers.get(given[f"{role}_regularizer"]),
            f"{role}_constraint": keras.constraints.get(given[f"{role}_constraint"]),
        }
        for name, value in kept.items():
            setattr(self, name, value)

    @property
    def pseudo_derivative(self) -> Bump | None:
        """The pseudo-derivative of the step; None where the output has a derivative."""
        return self.output_function.pseudo_derivative

    @property
    def compute_dtype(self) -> str:
        """The dtype of the states; the matrix products use that of the dtype policy."""
        return "float64" if self.dtype_policy.compute_dtype == "float64" else "float32"

    def build(self, input_shape: Shape) -> None:
        if len(input_shape) != 2 or input_shape[-1] is None:
            raise ValueError(
                f"{type(self).__name__} takes inputs of shape (batch, features) with a known "
                f"number of features. Received: input_shape={tuple(input_shape)}"
            )
        self._build_kernels((input_shape[-1], self.units), (self.units, self.units))
        self._build_per_unit()
        self.built = True

    def _build_kernels(self, kernel: tuple[int, ...], recurrent_kernel: tuple[int, ...]) -> None:
        """Add the weights W and, for recurrent units, H, of these shapes."""
        self.add_kernel(
            "kernel",
            kernel,
            self.kernel_initializer,
            self.kernel_regularizer,
            self.kernel_constraint,
        )
        if self.recurrent:
            self.add_kernel(
                "recurrent_kernel",
                recurrent_kernel,
                self.recurrent_initializer,
                self.recurrent_regularizer,
                self.recurrent_constraint,
            )

    def quantized_call(
        self, inputs: Tensor, states: list[Tensor], training: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """Call like any other cell: the kernels are floats that integers make."""
        return self.call(inputs, states, training=training)

    def _build_per_unit(self) -> None:
        """Add the weights that have a number for each unit, and those of the activation."""
        g = self.state_activation
        if isinstance(g, keras.layers.Layer) and not g.built:
            g.build(tuple(self.get_initial_state(1)[1].shape))
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(self.units,),
                name="bias",
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        self.threshold_weight = self._add_per_unit("threshold", None)
        self.decay_weight = self._add_per_unit("decay", UnitInterval())

    def _add_per_unit(
        self, role: str, range_of_role: keras.constraints.Constraint | None
    ) -> keras.Variable | None:
        """Add the weight of the decay or of the threshold, if it is one.

        Args:
            role: "decay" or "threshold".
            range_of_role: what keeps its values where they belong, unless a constraint is given.
        """
        value, trainable = getattr(self, role), getattr(self, f"trainable_{role}")
        draw = getattr(self, f"{role}_initializer")
        if draw is None and not trainable:
            return None

        def initial(shape: Shape, dtype: str) -> Tensor:
            if draw is None:
                # Not broadcast: on torch that is a view, which cannot be assigned to.
                return ops.cast(value, dtype) * ops.ones(shape, dtype)
            drawn = draw(shape, dtype)
            return drawn if range_of_role is None else range_of_role(drawn)

        return self.add_weight(
            shape=(self.units,),
            name=role,
            dtype=self.compute_dtype,
            autocast=False,
            initializer=initial,
            regularizer=getattr(self, f"{role}_regularizer"),
            constraint=getattr(self, f"{role}_constraint") or range_of_role,
            trainable=trainable,
        )

    def decay_tensor(self) -> Tensor:
        """Return the decay of each unit, shape (units,), in the dtype of the states."""
        return self._tensor(self.decay_weight, self.decay)

    def threshold_tensor(self) -> Tensor:
        """Return the threshold of each unit, shape (units,), in the dtype of the states."""
        return self._tensor(self.threshold_weight, self.threshold)

    def _tensor(self, weight: keras.Variable | None, value: PerUnit) -> Tensor:
        if weight is not None:
            return ops.convert_to_tensor(weight)
        return ops.broadcast_to(ops.cast(value, self.compute_dtype), (self.units,))

    def decay_values(self) -> np.ndarray:
        """Return the decay of each unit as a NumPy array, shape (units,)."""
        return ops.convert_to_numpy(self.decay_tensor())

    def threshold_values(self) -> np.ndarray:
        """Return the threshold of each unit as a NumPy array, shape (units,)."""
        return ops.convert_to_numpy(self.threshold_tensor())

    def digital_parameters(self) -> dict[str, tuple[Array, keras.Variable | None]]:
        """Return what the digital neuron computes with: values and variable (or None) by role."""
        parameters: dict[str, tuple[Array, keras.Variable | None]] = {}
        if self.bias is not None:
            parameters["bias"] = (self.bias, self.bias)
        parameters["threshold"] = (self.threshold_values(), self.threshold_weight)
        parameters["decay"] = (self.decay_values(), self.decay_weight)
        return parameters

    def project(self, inputs: Tensor) -> Tensor:
        """Return the input product x W (+ c) in the dtype of the policy, for any leading axes."""
        dtype = self.dtype_policy.compute_dtype
        drive = products.matmul(self, "kernel", ops.cast(inputs, dtype))
        return drive if self.bias is None else ops.add(drive, ops.cast(self.bias, dtype))

    def recur(self, outputs: Tensor) -> Tensor:
        """Return the recurrent product y H in the dtype of the states."""
        dtype = self.dtype_policy.compute_dtype
        product = products.matmul(self, "recurrent_kernel", ops.cast(outputs, dtype))
        return ops.cast(product, self.compute_dtype)

    def remain(self, s: Tensor, y: Tensor) -> Tensor:
        """Return what the gate leaves of the state, decay * s * (1 - gate)."""
        gate = ops.max(y, axis=-1, keepdims=True) if self.lateral_inhibition else y
        return self.decay_tensor() * s * (1.0 - gate)

    def call(
        self, inputs: Tensor, states: list[Tensor], training: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        y, s = states[-2:]
        input_mask = self.get_dropout_mask(inputs)
        recurrent_mask = self.get_recurrent_dropout_mask(y)
        if training and input_mask is not None:
            # The mask has the dtype of the policy, the inputs that of the states.
            inputs = inputs * ops.cast(input_mask, inputs.dtype)
        a = ops.cast(self.project(inputs), self.compute_dtype)
        if self.recurrent:
            dropped = training and recurrent_mask is not None
            a = a + self.recur(y * recurrent_mask if dropped else y)
        s = self.state_activation(a + self.remain(s, y))
        y = self.output_function(s - self.threshold_tensor())
        shown = ops.concatenate([y, s], axis=-1) if self.shows_membrane else y
        return shown, [shown, y, s] if self.carries_shown else [y, s]

    def get_initial_state(self, batch_size: int | None = None) -> list[Tensor]:
        return [ops.zeros((batch_size, self.units), dtype=self.compute_dtype) for _ in range(2)]

    def get_config(self) -> Config:
        config = super().get_config()
        del config["activation"]
        config |= {
            "state_activation": keras.activations.serialize(self.state_activation),
            "recurrent": self.recurrent,
            "lateral_inhibition": self.lateral_inhibition,
        }
        for role in ("decay", "threshold"):
            for name in (role, f"trainable_{role}"):
                config[name] = getattr(self, name)
            for kind in ("initializer", "regularizer", "constraint"):
                serialize = getattr(keras, f"{kind}s").serialize
                config[f"{role}_{kind}"] = serialize(getattr(self, f"{role}_{kind}"))
        if self.pseudo_derivative is not None:
            config["pseudo_derivative"] = serialize_pseudo_derivative(self.pseudo_derivative)
        return config

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(**arguments.used(config))


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
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        given = _arguments.chosen(SNUCell, locals())
        super().__init__(**given, **arguments.of_unit(type(self), kwargs))
        self.output_function = SoftStep()
