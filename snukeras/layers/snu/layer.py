"""The layers of the Spiking Neural Unit, spiking and soft, and what all layers of units share."""

from typing import Self, Unpack

import keras
from keras import ops

from snukeras import _arguments, _strategy
from snukeras._arguments import LayerArguments
from snukeras._types import (
    Activation,
    Config,
    Constraint,
    Initializer,
    Nested,
    PerUnit,
    Regularizer,
    Shape,
    Tensor,
)
from snukeras.activations import Bump
from snukeras.layers.snu import arguments, fused
from snukeras.layers.snu.cell import SNUCell, SSNUCell
from snukeras.network import observers, products

_IMPLEMENTATIONS = ("auto", "fused", "cell")


def argument_of_cell(name: str) -> property:
    """Return a property that reads an argument of a layer where it is kept, in its cell."""
    return property(lambda self: getattr(self.cell, name), doc=f"`{name}` of the cell.")


def cell_of(cell_class: type[SNUCell], given: Config, **more: int) -> SNUCell:
    """Return the cell of a layer.

    Args:
        cell_class: class of the cell.
        given: the `locals()` of the layer's constructor.
        **more: arguments of the cell that the layer does not have.
    """
    kwargs = given["kwargs"]
    taken = _arguments.chosen(cell_class, {**given, **more})
    taken |= {name: kwargs[name] for name in ("dtype", "trainable") if name in kwargs}
    return cell_class(**taken)


@keras.saving.register_keras_serializable(package="snukeras")
class UnitLayer(keras.layers.RNN):
    """Layer of any units of this package: `keras.layers.RNN` with a fast path.

    Subclasses make their cell.

    Args:
        cell: SNUCell, or a subclass of it.
        return_sequences ... activity_regularizer: see `SNU`.
    """

    return_sequences: bool

    def __init__(
        self,
        cell: SNUCell,
        return_sequences: bool = False,
        return_state: bool = False,
        return_membrane: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        implementation: str = "auto",
        activity_regularizer: Regularizer = None,
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        _arguments.choice("implementation", implementation, _IMPLEMENTATIONS)
        super().__init__(
            cell,
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            zero_output_for_mask=zero_output_for_mask,
            **arguments.of_unit(type(self), kwargs),
        )
        self.implementation = implementation
        self.return_membrane = bool(return_membrane)
        # Not Keras's attribute: Keras would apply it to returned states and membranes too.
        self.output_regularizer = keras.regularizers.get(activity_regularizer)
        self.input_spec = [keras.layers.InputSpec(ndim=3)]

    # Calls are handed to snukeras.network.observers.
    has_observers = True

    units = argument_of_cell("units")
    state_activation = argument_of_cell("state_activation")
    decay = argument_of_cell("decay")
    trainable_decay = argument_of_cell("trainable_decay")
    threshold = argument_of_cell("threshold")
    trainable_threshold = argument_of_cell("trainable_threshold")
    recurrent = argument_of_cell("recurrent")
    lateral_inhibition = argument_of_cell("lateral_inhibition")
    pseudo_derivative = argument_of_cell("pseudo_derivative")
    use_bias = argument_of_cell("use_bias")
    kernel_initializer = argument_of_cell("kernel_initializer")
    recurrent_initializer = argument_of_cell("recurrent_initializer")
    bias_initializer = argument_of_cell("bias_initializer")
    kernel_regularizer = argument_of_cell("kernel_regularizer")
    recurrent_regularizer = argument_of_cell("recurrent_regularizer")
    bias_regularizer = argument_of_cell("bias_regularizer")
    kernel_constraint = argument_of_cell("kernel_constraint")
    recurrent_constraint = argument_of_cell("recurrent_constraint")
    bias_constraint = argument_of_cell("bias_constraint")
    dropout = argument_of_cell("dropout")
    recurrent_dropout = argument_of_cell("recurrent_dropout")
    seed = argument_of_cell("seed")
    decay_initializer = argument_of_cell("decay_initializer")
    decay_regularizer = argument_of_cell("decay_regularizer")
    decay_constraint = argument_of_cell("decay_constraint")
    threshold_initializer = argument_of_cell("threshold_initializer")
    threshold_regularizer = argument_of_cell("threshold_regularizer")
    threshold_constraint = argument_of_cell("threshold_constraint")

    def build(self, sequences_shape: Shape, initial_state_shape: Nested = None) -> None:
        """Build like keras.layers.RNN, then pin the features so that a mismatch is named."""
        super().build(sequences_shape, initial_state_shape)
        (spec,) = self.input_spec
        self.input_spec = [keras.layers.InputSpec(ndim=spec.ndim, axes={-1: sequences_shape[-1]})]

    @property
    def variable_dtype(self) -> str:
        """The dtype of the states that a stateful layer carries: that of the cell's states."""
        return self.cell.compute_dtype

    def call(
        self,
        sequences: Tensor,
        initial_state: list[Tensor] | None = None,
        mask: Tensor | None = None,
        training: bool = False,
    ) -> Tensor | tuple[Tensor, ...]:
        """Run like keras.layers.RNN, but never round the states to half precision."""
        sequences = self._checked(sequences, initial_state, mask)
        if _strategy.torch_traces_onnx():
            _strategy.needs_tensorflow(f"Keras's ONNX export of {type(self).__name__}")
        if self.stateful:
            _strategy.check_states_are_kept(self.name)
            initial_state = self.states if initial_state is None else initial_state
        if initial_state is not None:
            dtype = self.cell.compute_dtype
            initial_state = [ops.cast(state, dtype) for state in initial_state]
            if self.stateful:
                initial_state = _strategy.kept(initial_state)
        watching = observers.of(self)
        membranes = self.return_membrane or any(each.wants_membranes for each in watching)
        every = bool(watching) or self.output_regularizer is not None
        target = None if self.unroll or training else _strategy.exporting()
        if target is not None and not (target == "tf_saved_model" and self._wants_fused()):
            from snukeras.layers.snu import portable

            result = portable.run(self, sequences, initial_state, mask, membranes, target)
        elif self._takes_fused():
            result = fused.run(self, sequences, initial_state, mask, training, membranes)
        else:
            result = self._step_through(sequences, initial_state, mask, training, membranes, every)
        outputs, potentials, states = result
        # One dropout mask serves all steps of a call, and no other call.
        self.cell.reset_dropout_mask()
        self.cell.reset_recurrent_dropout_mask()
        if self.stateful:
            for variable, state in zip(self.states, states, strict=True):
                variable.assign(state)
        if self.output_regularizer is not None:
            self.add_loss(self.output_regularizer(outputs))
        if watching:
            run = observers.Run(
                self, sequences, initial_state, outputs, potentials, mask, bool(training)
            )
            for observer in watching:
                observer.observe(run)
        return self._returned(outputs, potentials, states)

    def quantized_call(
        self,
        sequences: Tensor,
        initial_state: list[Tensor] | None = None,
        mask: Tensor | None = None,
        training: bool = False,
    ) -> Tensor | tuple[Tensor, ...]:
        """Call like any other layer: what is quantised lies in the cell."""
        return self.call(sequences, initial_state, mask, training)

    def quantize(
        self,
        mode: str | None = None,
        type_check: bool = True,
        config: "keras.quantizers.QuantizationConfig | None" = None,
    ) -> None:
        """Hold the kernels in "int8" or "int4"; see `keras.layers.Dense.quantize`.

        Raises:
            NotImplementedError: another mode.
        """
        self.cell.quantize(mode, type_check=type_check, config=config)

    def enable_lora(
        self,
        rank: int,
        lora_alpha: float | None = None,
        a_initializer: Initializer = "he_uniform",
        b_initializer: Initializer = "zeros",
    ) -> None:
        """Freeze the kernels and train additions of low rank; see `keras.layers.Dense`.

        Args:
            rank: of the additions.
            lora_alpha: their factor is lora_alpha / rank; default: `rank`.
            a_initializer, b_initializer: of their two matrices.

        Raises:
            ValueError: the layer is not built, has LoRA already, or constrains its kernels.
        """
        if not self.built:
            raise ValueError(f"Layer {self.name!r} must be built before LoRA is enabled.")
        self.cell.enable_lora(rank, lora_alpha, a_initializer, b_initializer)

    def _returned(
        self, outputs: Tensor, potentials: Tensor | None, states: list[Tensor]
    ) -> Tensor | tuple[Tensor, ...]:
        """Return what a call returns, of outputs and potentials at all steps and last states."""
        returned = [outputs, potentials] if self.return_membrane else [outputs]
        if not self.return_sequences:
            returned = [sequence[:, -1] for sequence in returned]
        returned = [ops.cast(sequence, self.compute_dtype) for sequence in returned]
        if self.return_state:
            returned += states
        return returned[0] if len(returned) == 1 else tuple(returned)

    def compute_mask(self, sequences: Tensor, previous_mask: Tensor | None) -> Nested:
        mask = super().compute_mask(sequences, previous_mask)
        return self._with_membrane(mask) if self.return_membrane else mask

    def _with_membrane(self, of_output: Nested) -> Nested:
        """Repeat the mask of the output, the first of several, for the membrane."""
        if self.return_state:
            return type(of_output)([of_output[0], *of_output])
        return (of_output, of_output)

    def _checked(
        self, sequences: Tensor, initial_state: list[Tensor] | None, mask: Tensor | None
    ) -> Tensor:
        """Check the arguments of a call and return the sequences.

        Raises:
            ValueError: an argument does not fit the layer or the others; the message names it.
        """
        shape = tuple(sequences.shape)
        if shape[1] == 0:
            raise ValueError(
                f"Layer {self.name!r} needs sequences of at least one step. "
                f"Received: shape {shape}, which is (batch, time, features)."
            )
        if self.unroll and shape[1] is None:
            raise ValueError(
                f"Layer {self.name!r} with unroll=True needs sequences of a known number of steps. "
                f"Received: shape {shape}. Give the number in keras.Input, or unroll=False."
            )
        if initial_state is not None:
            shapes = keras.tree.map_structure(lambda state: tuple(state.shape), initial_state)
            arguments.check_states(self.name, shapes, self._state_shape(shape))
        elif self.stateful and shape[0] not in (None, self.states[0].shape[0]):
            size = self.states[0].shape[0]
            raise ValueError(
                f"Layer {self.name!r} is stateful and holds the states of a batch of {size}; "
                f"every batch must be of that size. Received: a batch of {shape[0]}. "
                "Give the batch size in keras.Input(batch_shape=...) and drop the remainder."
            )
        if mask is not None:
            arguments.check_mask(self.name, tuple(mask.shape), shape[:2])
        if shape[1] is None and keras.backend.backend() == "tensorflow":
            from snukeras.layers.snu import scan

            return scan.checked_at_run_time(sequences, self.name)
        return sequences

    def _state_shape(self, sequences_shape: Shape) -> Shape:
        """Return the shape of y and of s."""
        return (sequences_shape[0], self.units)

    def compute_output_shape(
        self, sequences_shape: Shape, initial_state_shape: Nested = None
    ) -> Shape | tuple[Shape, ...]:
        state = self._state_shape(sequences_shape)
        if initial_state_shape is not None:
            arguments.check_states(self.name, initial_state_shape, state)
        output = (*sequences_shape[:2], *state[1:]) if self.return_sequences else state
        shapes = [output, output] if self.return_membrane else [output]
        shapes += [state, state] if self.return_state else []
        return shapes[0] if len(shapes) == 1 else tuple(shapes)

    def _step_through(
        self,
        sequences: Tensor,
        state: list[Tensor] | None,
        mask: Tensor | None,
        training: bool,
        membranes: bool,
        every: bool,
    ) -> tuple[Tensor, Tensor | None, list[Tensor]]:
        """Run the cell step by step in the loop of Keras; the plain path.

        Returns:
            Outputs and membranes (or None) of all steps, where `every` or the layer asks for them,
            else of the last step as the only one; and the last states.
        """
        if state is None:
            state = self.get_initial_state(batch_size=ops.shape(sequences)[0])
        # Drawn before the loop, so that all steps share them.
        self.cell.get_dropout_mask(sequences[:, 0])
        self.cell.get_recurrent_dropout_mask(state[0])
        asked = self.return_sequences
        # At masked steps the loop of JAX shows the first state again: it must be what is put out.
        carried = mask is not None and keras.backend.backend() == "jax"
        if carried:
            shown = ops.concatenate(state, axis=-1) if membranes else state[0]
            state = [ops.zeros_like(shown), *state]
        self.cell.shows_membrane, self.cell.carries_shown = membranes, carried
        self.return_sequences = asked or every
        try:
            last, outputs, states = self.inner_loop(sequences, state, mask=mask, training=training)
        finally:
            self.cell.shows_membrane = self.cell.carries_shown = False
            self.return_sequences = asked
        states = list(states)[1:] if carried else states
        if not (asked or every):
            outputs = last[:, None]
        if not membranes:
            return outputs, None, states
        units = outputs.shape[-1] // 2
        return outputs[..., :units], outputs[..., units:], states

    def _wants_fused(self) -> bool:
        """Return whether the compiled scan is asked for by name."""
        return self.implementation == "fused" and self._takes_fused()

    def _takes_fused(self) -> bool:
        if self.implementation == "cell":
            return False
        hindrance = None
        if not fused.serves():
            hindrance = (
                f"the backend is {keras.backend.backend()}, and it needs TensorFlow, JAX or torch"
            )
        elif self.unroll:
            hindrance = "the layer has unroll=True"
        elif getattr(self.state_activation, "variables", None):
            hindrance = "its state_activation is a layer with weights"
        elif self.recurrent and products.of(self.cell, "recurrent_kernel"):
            hindrance = "its recurrent product is computed elsewhere, as on tiles"
        if hindrance and self.implementation == "fused":
            raise ValueError(
                f"Layer {self.name!r} cannot use implementation='fused': {hindrance}. "
                "Use implementation='auto' or 'cell'."
            )
        return hindrance is None

    def get_config(self) -> Config:
        config = {**super().get_config(), "implementation": self.implementation}
        config["return_membrane"] = self.return_membrane
        if self.output_regularizer is not None:
            config["activity_regularizer"] = keras.regularizers.serialize(self.output_regularizer)
        del config["cell"]
        of_cell = self.cell.get_config()
        if self.cell.quantization_mode is not None:
            config["dtype"] = of_cell["dtype"]
        for name in ("name", "trainable", "dtype"):
            del of_cell[name]
        return {**config, **of_cell}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(**arguments.used(config))


@keras.saving.register_keras_serializable(package="snukeras")
class SNU(UnitLayer):
    """Layer of Spiking Neural Units, a drop-in replacement for `keras.layers.LSTM`.

    The equations and the arguments of the unit are those of `SNUCell`. The layer adds what Keras's
    recurrent layers have, and a fast path.

    Args:
        units ... seed: see `SNUCell`.
        return_sequences: return the output of every step, not of the last alone.
        return_state: return the last states y and s, each (batch, units), after the output.
        return_membrane: return the membrane potential s after the output and in its shape: of
            every step with `return_sequences`, else of the last. Gradients flow through it.
        go_backwards: process the steps in reverse and return them reversed.
        stateful: start each batch from the last states of the one before (`reset_state()` clears).
        unroll: unroll the loop over time (plain path).
        zero_output_for_mask: put out zeros at masked steps instead of the output before.
        implementation: "fused" computes the input product for all steps at once and the
            recurrence as one scan with a backward pass of its own; "cell" steps through the cell
            with the loop of Keras; "auto" takes "fused" where it can, which is without `unroll`.
        activity_regularizer: of the outputs of all steps, (batch, time, units), whatever the layer
            returns; see `snukeras.regularizers.SpikeRate`.

    Call arguments:
        sequences: shape (batch, time, features).
        initial_state: [y, s], each (batch, units); zeros by default.
        mask: shape (batch, time), False at steps to skip.
        training: whether dropout is applied, and whether the fast path keeps what gradients need;
            without it they cost a second forward pass.

    Returns:
        Shape (batch, time, units) or (batch, units). With `return_membrane` or `return_state` a
        tuple: the output, the membrane potential, the last y and s.

    Raises:
        ValueError, TypeError: an argument is outside what is allowed; the message names it.

    Example:

        model = keras.Sequential([
            snukeras.layers.SNU(150, return_sequences=True),
            keras.layers.Dense(88, activation="sigmoid"),
        ])
    """

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
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        given = locals()
        given |= {"cell": cell_of(SNUCell, given)}
        super().__init__(**_arguments.chosen(UnitLayer, given), **kwargs)


@keras.saving.register_keras_serializable(package="snukeras")
class SSNU(SNU):
    """Layer of soft Spiking Neural Units.

    Args:
        units ... activity_regularizer: see `snukeras.layers.SNU`; there is no `pseudo_derivative`.
    """

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
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        given = locals()
        given |= {"cell": cell_of(SSNUCell, given)}
        # Not the constructor of SNU, which makes another cell.
        UnitLayer.__init__(self, **_arguments.chosen(UnitLayer, given), **kwargs)
