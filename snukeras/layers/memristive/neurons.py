"""Phase-change neurons: a device integrates the input and fires when it is conductive enough."""

from typing import Self, Unpack

import keras
from keras import ops

from snukeras import _arguments
from snukeras._arguments import LayerArguments
from snukeras._random import numbered
from snukeras._types import Config, Shape, Tensor
from snukeras.layers.memristive.devices import checked_device, with_device
from snukeras.layers.memristive.steps import (
    NEURON,
    RESET,
    Tensors,
    at_step,
    check_steps,
    count,
    over_time,
)
from snukeras.pcm import PulsedPCM, PulseState


@keras.saving.register_keras_serializable(package="snukeras")
class PhaseChangeNeurons(keras.layers.Layer):
    """Neurons whose membrane potential is the crystallised fraction of a phase-change device.

    In a step, a postsynaptic potential s (uS) is worth n = min(floor(s / pulse_input), max_pulses)
    SET pulses, evenly spaced in the step. Each lets the cell crystallise further, by an amount
    that differs from cycle to cycle. When the fraction that is read, G / g_max, reaches
    `threshold`, the neuron fires, its cell is melted by RESET, and it rests until the step ends.

    The neuron follows Tuma et al. 2016 (doi 10.1038/nnano.2016.70) and US 10,949,735; the device
    is that of `snukeras.pcm`. Left out: the shape of pulses; the conductance stands for the
    fraction. Called by itself, the layer starts each sample with cells just RESET.

    Args:
        units: number of neurons.
        device: a PulsedPCM; default NandakumarPCM().
        threshold: fraction of g_max at which a neuron fires.
        pulse_input: uS that cause one SET pulse.
        max_pulses: most SET pulses in a step.
        step_time: s that a step takes.
        seed: int or None.

    Call arguments:
        inputs: postsynaptic potentials, uS, (batch, steps, units).

    Returns:
        Spikes, 0 or 1, (batch, steps, units).
    """

    def __init__(
        self,
        units: int,
        device: PulsedPCM | None = None,
        threshold: float = 0.35,
        pulse_input: float = 50.0,
        max_pulses: int = 4,
        step_time: float = 1e-3,
        seed: int | None = None,
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        given = {"trainable": False, **kwargs}
        super().__init__(**_arguments.of_keras(type(self), given))
        self.units = _arguments.whole("units", units)
        self.device = checked_device(device)
        self.threshold = _arguments.number("threshold", threshold, above=0.0, maximum=1.0)
        self.pulse_input = _arguments.number("pulse_input", pulse_input, above=0.0)
        self.max_pulses = _arguments.whole("max_pulses", max_pulses)
        self.step_time = _arguments.number("step_time", step_time, minimum=0.0)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape: Shape) -> None:
        check_steps(type(self).__name__, input_shape, "units")
        if input_shape[-1] != self.units:
            raise ValueError(
                f"The last axis of the inputs must be the {self.units} units. Received: "
                f"input_shape={tuple(input_shape)}"
            )
        self.built = True

    def fraction(self, conductance: Tensor) -> Tensor:
        """Return the membrane potential: the crystallised fraction for a conductance in uS."""
        return conductance / self.device.g_max

    def advance(
        self, cells: PulseState, drive: Tensor, t: Tensor, seed: Tensor, one_winner: bool = False
    ) -> tuple[PulseState, Tensor, Tensor, Tensor]:
        """Take one step.

        Args:
            cells: PulseState (batch, units).
            drive: uS, (batch, units); 0 for neurons that do not integrate.
            t: s.
            seed: two integers, see `snukeras._random.numbered`.
            one_winner: the first to fire RESETs all others and ends the step.

        Returns:
            cells, spikes (bool), numbers of SET pulses and of RESETs as int32 scalars.
        """
        pulses = ops.clip(ops.floor(drive / self.pulse_input), 0, self.max_pulses)
        pulses = ops.cast(pulses, "int32")
        none, no = ops.zeros((), "int32"), ops.zeros_like(drive, dtype="bool")

        def body(m: Tensor, state: Tensors) -> Tensors:
            cells, (spikes, resting, sets, resets) = PulseState(*state[:3]), state[3:]
            # Spread evenly over the step: otherwise a weak input would be as early as a strong one.
            due = (m * pulses) // self.max_pulses > ((m - 1) * pulses) // self.max_pulses
            due = ops.logical_and(due, ops.logical_not(resting))
            use = NEURON + 3 * m
            cells = self.device.pulse(cells, due, t, numbered(seed, use))
            read = self.fraction(self.device.read(cells, t, numbered(seed, use + 1)))
            fired = ops.logical_and(due, read >= self.threshold)
            ended = fired
            if one_winner:
                first = ops.argmax(ops.where(fired, read, -1.0), axis=-1)
                fired = ops.logical_and(fired, ops.one_hot(first, self.units, dtype="bool"))
                ended = ops.broadcast_to(ops.any(fired, axis=-1, keepdims=True), ops.shape(fired))
            melted = ops.logical_and(ended, cells.pulses > 0)
            cells = self.device.reset_where(cells, melted, t, numbered(seed, use + 2))
            return (
                *cells,
                ops.logical_or(spikes, fired),
                ops.logical_or(resting, ended),
                sets + count(due),
                resets + count(melted),
            )

        # A loop, not unrolled: so compilation takes a third of the time.
        state = ops.fori_loop(1, self.max_pulses + 1, body, (*cells, no, no, none, none))
        spikes, _, sets, resets = state[3:]
        return PulseState(*state[:3]), spikes, sets, resets

    def call(self, inputs: Tensor) -> Tensor:
        seed = ops.cast(self.seed_generator.next(), "uint32")
        shape = (ops.shape(inputs)[0], self.units)
        drive = ops.transpose(ops.cast(inputs, "float32"), (1, 0, 2))
        # Step 0 is the RESET, before the first input.
        cells = self.device.reset(shape, 0.0, numbered(at_step(seed, 0), RESET))

        def step(i: Tensor, state: Tensors) -> tuple[Tensors, Tensors]:
            t = ops.cast(i, "float32") * self.step_time
            cells, spikes, _, _ = self.advance(
                PulseState(*state), drive[i], t, at_step(seed, i + 1)
            )
            return (ops.cast(spikes, "float32"),), tuple(cells)

        (spikes,), _ = over_time(step, ops.shape(drive)[0], (ops.zeros_like(drive),), cells)
        return ops.transpose(spikes, (1, 0, 2))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> Config:
        return super().get_config() | {
            "units": self.units,
            "device": keras.saving.serialize_keras_object(self.device),
            "threshold": self.threshold,
            "pulse_input": self.pulse_input,
            "max_pulses": self.max_pulses,
            "step_time": self.step_time,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(**with_device(config))
