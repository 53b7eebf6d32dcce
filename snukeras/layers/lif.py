"""Integrate-and-fire neurons as other libraries of spiking networks step them."""

import math
from typing import ClassVar, Unpack

import keras
import numpy as np
from keras import ops

from snukeras import _arguments, _strategy
from snukeras._arguments import LayerArguments
from snukeras._types import (
    Config,
    Constraint,
    Initializer,
    PerUnit,
    Regularizer,
    Shape,
    Tensor,
)
from snukeras.activations import Arctan, Bump, Step, serialize_pseudo_derivative
from snukeras.layers.memristive.steps import Tensors, over_time
from snukeras.network import products
from snukeras.network.matrices import Unrolling

RESETS = ("subtract", "zero", "silence", None)


@keras.saving.register_keras_serializable(package="snukeras")
class LIFCell(keras.layers.Layer):
    """Cell of the leaky integrate-and-fire neuron, in the forms that other libraries have.

    The cell has no input weights: a Dense or Conv layer before it multiplies. One step is

        i_t = x_t (+ y_{t-1} H) (+ synaptic_decay * i_{t-1})
        d_t = gain * i_t + bias
        v_t = decay * v_{t-1} + d_t - reset_by * y_{t-1}        reset="subtract"
            = decay * v_{t-1} * (1 - y_{t-1}) + d_t             reset="zero", that of `SNU`
            = (decay * v_{t-1} + d_t) * (1 - y_{t-1})           reset="silence"
            = decay * v_{t-1} + d_t                             reset=None
        y_t = 1 if v_t > threshold else 0

    with membrane potential v, synaptic current i and spikes y; i and y are zero at the start. The
    reset shows in the potential of the step after the spike. Spikes are the same if it shows in
    the step of the spike, which other libraries do: a subtraction before the leak is then
    `reset_by = decay * threshold` here. `snukeras.layers.SNU` computes the form "zero" faster.

    Args:
        units: positive integer, number of neurons.
        decay: number or one number per neuron, in [0, 1]; 1 does not leak.
        threshold: number or one number per neuron. None: the neuron does not fire, and puts out
            its potential.
        reset: "subtract", "zero", "silence" (which drops the input of a step as well) or None.
        reset_by: number or one number per neuron, for reset="subtract"; default: the threshold.
        synaptic_decay: None for no synaptic current; else number or one per neuron, in [0, 1].
        gain: number or one number per neuron.
        bias: number or one number per neuron.
        initial_potential: v_0, number or one number per neuron.
        several: a neuron spikes as often in a step as its potential holds the threshold,
            y_t = floor(v_t / threshold); thresholds are positive then, and reached where v_t is
            equal to them. Needs reset="subtract" or None.
        output_delay: put out the spikes of the step before.
        recurrent: add the term y_{t-1} H.
        recurrent_initializer: of H.
        recurrent_regularizer: of H.
        recurrent_constraint: of H.
        pseudo_derivative: of the step, for training; see `SNUCell`.

    Call arguments:
        inputs: shape (batch, units).
        states: [y, v], and i with `synaptic_decay`, each (batch, units).

    Raises:
        ValueError, TypeError: an argument is outside what is allowed, or would not be used; the
            message names it.
    """

    tile_matrices: ClassVar[dict[str, Unrolling]] = {"recurrent_kernel": Unrolling(per="step")}
    tile_products = ("recurrent_kernel",)
    recurrent_kernel: keras.Variable | None = None
    # Set by the layer for a call: what was put out is carried as a first state.
    carries_shown = False

    def __init__(
        self,
        units: int,
        decay: PerUnit = 0.9,
        threshold: PerUnit | None = 1.0,
        reset: str | None = "subtract",
        reset_by: PerUnit | None = None,
        synaptic_decay: PerUnit | None = None,
        gain: PerUnit = 1.0,
        bias: PerUnit = 0.0,
        initial_potential: PerUnit = 0.0,
        several: bool = False,
        output_delay: bool = False,
        recurrent: bool = False,
        recurrent_initializer: Initializer = "glorot_uniform",
        recurrent_regularizer: Regularizer = None,
        recurrent_constraint: Constraint = None,
        pseudo_derivative: str | Config | Bump | None = None,
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        super().__init__(**_arguments.of_keras(type(self), kwargs))
        self.units = _arguments.whole("units", units)
        self.decay = self._numbers("decay", decay, 0.0, 1.0)
        self.threshold = self._perhaps("threshold", threshold)
        self.reset = _arguments.choice("reset", reset, RESETS)
        self.reset_by = self._perhaps("reset_by", reset_by)
        self.synaptic_decay = self._perhaps("synaptic_decay", synaptic_decay, 0.0, 1.0)
        self.gain = self._numbers("gain", gain)
        self.bias = self._numbers("bias", bias)
        self.initial_potential = self._numbers("initial_potential", initial_potential)
        self.several = bool(several)
        self.output_delay = bool(output_delay)
        self.recurrent = bool(recurrent)
        self.recurrent_initializer = keras.initializers.get(recurrent_initializer)
        self.recurrent_regularizer = keras.regularizers.get(recurrent_regularizer)
        self.recurrent_constraint = keras.constraints.get(recurrent_constraint)
        self._check()
        self.output_function = Step(Arctan() if pseudo_derivative is None else pseudo_derivative)
        self.state_size = [self.units] * (2 if synaptic_decay is None else 3)
        self.output_size = self.units

    def _numbers(
        self, name: str, value: PerUnit, low: float = -math.inf, high: float = math.inf
    ) -> PerUnit:
        """Check an argument that has a number for each neuron, or one for all."""
        return _arguments.per_unit(name, value, self.units, low, high)

    def _perhaps(
        self, name: str, value: PerUnit | None, low: float = -math.inf, high: float = math.inf
    ) -> PerUnit | None:
        """Check an argument that may be None as well."""
        return None if value is None else self._numbers(name, value, low, high)

    def _check(self) -> None:
        """Refuse arguments that do not go together.

        Raises:
            ValueError: one of them would not be used, or cannot be.
        """
        if self.reset_by is not None and self.reset != "subtract":
            raise ValueError(
                "Argument `reset_by` must be None where reset is not 'subtract', which leaves it "
                f"without use. Received: reset_by={self.reset_by!r}, reset={self.reset!r}"
            )
        if self.threshold is None and (self.reset is not None or self.several or self.recurrent):
            raise ValueError(
                "A neuron without threshold does not fire: it takes reset=None, several=False and "
                f"recurrent=False. Received: reset={self.reset!r}, several={self.several!r}, "
                f"recurrent={self.recurrent!r}"
            )
        if self.several:
            lowest = np.min(np.asarray(self.threshold))
            if self.reset not in ("subtract", None) or lowest <= 0.0:
                raise ValueError(
                    "With several=True reset must be 'subtract' or None, and thresholds positive. "
                    f"Received: reset={self.reset!r}, threshold={self.threshold!r}"
                )

    @property
    def spiking(self) -> bool:
        """Whether the neurons fire; they put out potentials otherwise."""
        return self.threshold is not None

    def build(self, input_shape: Shape) -> None:
        if len(input_shape) != 2 or input_shape[-1] != self.units:
            raise ValueError(
                f"{type(self).__name__} of {self.units} neurons takes inputs of shape (batch, "
                f"{self.units}): it has no input weights. Put a Dense layer of {self.units} units "
                f"before it. Received: input_shape={tuple(input_shape)}"
            )
        if self.recurrent:
            self.recurrent_kernel = self.add_weight(
                shape=(self.units, self.units),
                name="recurrent_kernel",
                initializer=self.recurrent_initializer,
                regularizer=self.recurrent_regularizer,
                constraint=self.recurrent_constraint,
            )
        self.built = True

    @property
    def compute_dtype(self) -> str:
        """The dtype of the states, never half: a spike is a comparison."""
        return "float64" if self.dtype_policy.compute_dtype == "float64" else "float32"

    def _tensor(self, value: PerUnit) -> Tensor:
        return ops.convert_to_tensor(value, dtype=self.compute_dtype)

    def call(
        self, inputs: Tensor, states: list[Tensor], training: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        before, v, *current = states[-len(self.state_size) :]
        x = ops.cast(inputs, self.compute_dtype)
        if self.recurrent:
            x = x + products.matmul(self, "recurrent_kernel", before)
        if current:
            assert self.synaptic_decay is not None
            x = self._tensor(self.synaptic_decay) * current[0] + x
            current = [x]
        drive = self._tensor(self.gain) * x + self._tensor(self.bias)
        v = self._next(self._tensor(self.decay) * v, drive, before)
        y = before if self.threshold is None else self._spikes(v)
        shown = v if self.threshold is None else before if self.output_delay else y
        after = [y, v, *current]
        return shown, [shown, *after] if self.carries_shown else after

    def _next(self, kept: Tensor, drive: Tensor, y: Tensor) -> Tensor:
        """Return the potential, of what the leak left of the one before, and the last spikes."""
        if self.reset == "zero":
            return kept * (1.0 - y) + drive
        if self.reset == "silence":
            return (kept + drive) * (1.0 - y)
        if self.reset is None:
            return kept + drive
        return kept + drive - self._tensor(self.subtracted) * y

    @property
    def subtracted(self) -> PerUnit:
        """What a spike takes from the potential, where reset="subtract"."""
        amount = self.threshold if self.reset_by is None else self.reset_by
        assert amount is not None
        return amount

    def _spikes(self, v: Tensor) -> Tensor:
        assert self.threshold is not None
        threshold = self._tensor(self.threshold)
        if not self.several:
            return self.output_function(v - threshold)
        # The step gives the gradient; the count is exact.
        first = self.output_function(v - threshold)
        count = ops.maximum(ops.floor(v / threshold), 0.0)
        return first + ops.stop_gradient(count - first)

    def get_initial_state(self, batch_size: int | None = None) -> list[Tensor]:
        # Each in memory of its own: on torch, the states of a stateful layer change in place.
        states = 2 if self.synaptic_decay is None else 3
        shape = (batch_size, self.units)
        begin = [ops.zeros(shape, dtype=self.compute_dtype) for _ in range(states)]
        begin[1] = begin[1] + self._tensor(self.initial_potential)
        return begin

    def get_config(self) -> Config:
        config = super().get_config()
        names = (
            "units", "decay", "threshold", "reset", "reset_by", "synaptic_decay", "gain", "bias",
            "initial_potential", "several", "output_delay", "recurrent",
        )  # fmt: skip
        config |= {name: getattr(self, name) for name in names}
        for kind in ("initializer", "regularizer", "constraint"):
            serialize = getattr(keras, f"{kind}s").serialize
            config[f"recurrent_{kind}"] = serialize(getattr(self, f"recurrent_{kind}"))
        bump = self.output_function.pseudo_derivative
        config["pseudo_derivative"] = serialize_pseudo_derivative(bump)
        return config


@keras.saving.register_keras_serializable(package="snukeras")
class LIF(keras.layers.RNN):
    """Layer of leaky integrate-and-fire neurons, in the forms that other libraries have.

    For networks that come from elsewhere (`snukeras.export.read_nir`): reset by subtraction,
    synaptic currents, read-outs that do not fire. The equations are those of `LIFCell`; networks
    that begin here take `SNU`, which is faster. The layer has no input weights.

    Args:
        units ... pseudo_derivative: see `LIFCell`.
        return_sequences: return the output of every step, not of the last alone.
        return_state: return the last states after the output.
        go_backwards: process the steps in reverse and return them reversed.
        stateful: start each batch from the last states of the one before.
        unroll: unroll the loop over time.
        zero_output_for_mask: put out zeros at masked steps instead of the output before.

    Call arguments:
        sequences: shape (batch, time, units).
        initial_state: [y, v], and i with `synaptic_decay`, each (batch, units).
        mask: shape (batch, time), False at steps to skip.

    Returns:
        Shape (batch, time, units) or (batch, units): spikes, or potentials where threshold is None.

    Raises:
        ValueError, TypeError: see `LIFCell`.

    Example:

        model = keras.Sequential([
            keras.Input((None, 20)),
            keras.layers.Dense(50),
            snukeras.layers.LIF(50, decay=0.9, return_sequences=True),
        ])
    """

    def __init__(
        self,
        units: int,
        decay: PerUnit = 0.9,
        threshold: PerUnit | None = 1.0,
        reset: str | None = "subtract",
        reset_by: PerUnit | None = None,
        synaptic_decay: PerUnit | None = None,
        gain: PerUnit = 1.0,
        bias: PerUnit = 0.0,
        initial_potential: PerUnit = 0.0,
        several: bool = False,
        output_delay: bool = False,
        recurrent: bool = False,
        recurrent_initializer: Initializer = "glorot_uniform",
        recurrent_regularizer: Regularizer = None,
        recurrent_constraint: Constraint = None,
        pseudo_derivative: str | Config | Bump | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        given = _arguments.chosen(LIFCell, locals())
        given |= {name: kwargs[name] for name in ("dtype", "trainable") if name in kwargs}
        super().__init__(
            LIFCell(**given),
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            zero_output_for_mask=zero_output_for_mask,
            **_arguments.of_keras(type(self), kwargs),
        )

    def inner_loop(
        self,
        sequences: Tensor,
        initial_state: list[Tensor],
        mask: Tensor | None,
        training: bool = False,
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        target = _strategy.exporting()
        if self.stateful:
            _strategy.check_states_are_kept(self.name)
            initial_state = _strategy.kept(initial_state)
        if target == "openvino" and not self.unroll:
            raise ValueError(
                f"Layer {self.name!r} cannot be exported by Keras as openvino, which converts no "
                'loop of LIF. Use format="onnx", "litert" or "tf_saved_model", or unroll=True.'
            )
        portable = target == "litert" or (target is not None and self.stateful)
        if portable and self.cell.compute_dtype == "float32":
            return self._portable_loop(sequences, initial_state, mask, training)
        # At masked steps the loop of JAX shows the first state again: it must be what is put out.
        shows_first = self.cell.spiking and not self.cell.output_delay
        if mask is None or shows_first or keras.backend.backend() != "jax":
            return super().inner_loop(sequences, initial_state, mask, training)
        self.cell.carries_shown = True
        try:
            begin = [ops.zeros_like(initial_state[0]), *initial_state]
            last, outputs, states = super().inner_loop(sequences, begin, mask, training)
        finally:
            self.cell.carries_shown = False
        return last, outputs, list(states)[1:]

    def _portable_loop(
        self, sequences: Tensor, states: list[Tensor], mask: Tensor | None, training: bool
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Step through in operators of LiteRT, which has no arrays of tensors."""
        if self.go_backwards:
            sequences = ops.flip(sequences, 1)
            mask = None if mask is None else ops.flip(mask, 1)
        # Cast: LiteRT takes a step neither of booleans nor of half precision.
        steps = ops.swapaxes(ops.cast(sequences, "float32"), 0, 1)
        if states[0].shape[0] is not None:  # the layer is stateful, and export leaves batches open
            steps = ops.reshape(steps, (ops.shape(steps)[0], *states[0].shape))
        on = None
        if mask is not None:
            on = ops.expand_dims(ops.swapaxes(ops.cast(mask, "float32"), 0, 1), -1)

        def step(t: Tensor, before: Tensors) -> tuple[Tensors, Tensors]:
            shown, after = self.cell(steps[t], list(before[1:]), training=training)
            if on is not None:
                taken = on[t] > 0
                last = ops.zeros_like(shown) if self.zero_output_for_mask else before[0]
                shown = ops.where(taken, shown, last)
                pairs = zip(after, before[1:], strict=True)
                after = [ops.where(taken, new, old) for new, old in pairs]
            return (shown,), (shown, *after)

        start = (ops.zeros_like(states[0]), *states)
        blank = (ops.zeros_like(steps),)
        (outputs,), (last, *states) = over_time(step, ops.shape(steps)[0], blank, start)
        return last, ops.swapaxes(outputs, 0, 1), list(states)

    def reset_state(self) -> None:
        if self.states is not None:
            begin = self.get_initial_state(self.states[0].shape[0])
            for state, value in zip(self.states, begin, strict=True):
                state.assign(value)

    def get_config(self) -> Config:
        config = super().get_config()
        del config["cell"]
        of_cell = self.cell.get_config()
        for name in ("name", "trainable", "dtype"):
            del of_cell[name]
        return {**config, **of_cell}

    @classmethod
    def from_config(cls, config: Config) -> "LIF":
        return cls(**config)
