"""Phase-change synapses: devices that learn by coincidence of input and output spikes."""

from typing import Self, Unpack

import keras
import numpy as np
from keras import ops

from snukeras import _arguments
from snukeras._arguments import LayerArguments
from snukeras._random import numbered, quick_uniform
from snukeras._types import Config, Shape, Tensor
from snukeras.layers.memristive.devices import checked_device, with_device
from snukeras.layers.memristive.steps import (
    READ,
    RESET,
    SELECT,
    SET,
    Tensors,
    at_step,
    check_steps,
    count,
    over_time,
)
from snukeras.pcm import PulsedPCM, PulseState


@keras.saving.register_keras_serializable(package="snukeras")
class PhaseChangeSynapses(keras.layers.Layer):
    """Synapses of one phase-change device each, with the simplified STDP.

    A spike of input i has a read portion, which adds the synapse's conductance as it is read,
    noise and drift included, to the neuron's postsynaptic potential: s_k = sum_i G_ik x_i (uS).
    Its write portion stays for `window` steps. When neuron k fires, its write portion meets
    those that are there: these synapses get a SET pulse. The other synapses of the neuron are
    depressed selectively: each is RESET with probability `depression`, and only if it read above
    `depress_above`, since RESET is abrupt where SET is gradual, and amorphous devices need none.

    The coincidence rule is that of US 2016/0125287; which synapses selective depression selects
    is a reconstruction. Called by itself, the layer reads its devices and does not learn.

    Args:
        units: number of neurons.
        device: a PulsedPCM; default NandakumarPCM().
        initial_pulses: SET pulses that each device has got when the network starts.
        depression: probability of a RESET, 0 to 1.
        depress_above: uS.
        window: steps for which the write portion of an input lasts.
        seed: int or None (a random one).

    Call arguments:
        inputs: spikes, 0 or 1, (batch, steps, features).

    Returns:
        Postsynaptic potentials, uS, (batch, steps, units).
    """

    def __init__(
        self,
        units: int,
        device: PulsedPCM | None = None,
        initial_pulses: int = 20,
        depression: float = 0.3,
        depress_above: float = 1.0,
        window: int = 1,
        seed: int | None = None,
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        given = {"trainable": False, **kwargs}
        super().__init__(**_arguments.of_keras(type(self), given))
        self.units = _arguments.whole("units", units)
        self.device = checked_device(device)
        self.initial_pulses = _arguments.whole("initial_pulses", initial_pulses, 0)
        self.depression = _arguments.number("depression", depression, minimum=0.0, maximum=1.0)
        self.depress_above = _arguments.number("depress_above", depress_above, minimum=0.0)
        self.window = _arguments.whole("window", window)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape: Shape) -> None:
        check_steps(type(self).__name__, input_shape)
        # Hashed, so that the numbers of neighbouring seeds have nothing in common.
        key = int(np.random.default_rng(self.seed).integers(2**31 - 1))
        shape = (input_shape[-1], self.units)

        def state(name: str, index: int) -> keras.Variable:
            return self.add_weight(
                shape=shape,
                name=name,
                dtype="float32",
                autocast=False,
                initializer=lambda shape, dtype: self._initial(shape, key)[index],
                trainable=False,
            )

        self.conductance = state("conductance", 0)
        self.pulses = state("pulses_since_reset", 1)
        self.last_pulse = state("last_pulse", 2)
        self.clock = self.add_weight(
            shape=(), name="clock", dtype="float32", autocast=False, initializer="zeros",
            trainable=False,
        )  # fmt: skip
        self.built = True

    def _initial(self, shape: tuple[int, ...], key: int) -> PulseState:
        seed = np.array([key, 0], "uint32")
        devices = self.device.reset(shape, 0.0, numbered(seed, 0))
        for n in range(self.initial_pulses):
            where = ops.ones(shape, "bool")
            devices = self.device.pulse(devices, where, 0.0, numbered(seed, n + 1))
        return devices

    @property
    def devices(self) -> PulseState:
        """The devices as a PulseState of tensors (features, units)."""
        return PulseState(
            *(ops.convert_to_tensor(v) for v in (self.conductance, self.pulses, self.last_pulse))
        )

    def keep(self, devices: PulseState, t: Tensor) -> None:
        """Make `devices` the state at time t (s)."""
        self.conductance.assign(devices.conductance)
        self.pulses.assign(devices.pulses)
        self.last_pulse.assign(devices.time)
        self.clock.assign(t)

    def learn(
        self,
        devices: PulseState,
        read: Tensor,
        recent: Tensor,
        spikes: Tensor,
        t: Tensor,
        seed: Tensor,
    ) -> tuple[PulseState, Tensor, Tensor]:
        """Apply the rule for the spikes of one step.

        Args:
            devices: PulseState (features, units).
            read: uS, what the devices read in this step.
            recent: bool (features,), inputs whose write portion is there.
            spikes: bool (units,).
            t: s.
            seed: two integers, see `snukeras._random.numbered`.

        Returns:
            devices, numbers of SET pulses and of RESETs as int32 scalars.
        """
        pre, post = ops.expand_dims(recent, 1), ops.expand_dims(spikes, 0)
        grow = ops.logical_and(pre, post)
        chosen = quick_uniform(read.shape, numbered(seed, SELECT).generator) < self.depression
        melt = ops.logical_and(ops.logical_not(pre), post)
        melt = ops.logical_and(ops.logical_and(melt, chosen), read > self.depress_above)
        devices = self.device.pulse(devices, grow, t, numbered(seed, SET))
        devices = self.device.reset_where(devices, melt, t, numbered(seed, RESET))
        return devices, count(grow), count(melt)

    def call(self, inputs: Tensor) -> Tensor:
        seed = ops.cast(self.seed_generator.next(), "uint32")
        inputs = ops.cast(inputs, "float32")
        spikes = ops.transpose(inputs, (1, 0, 2))
        devices, clock = self.devices, ops.convert_to_tensor(self.clock)

        def step(i: Tensor, state: Tensors) -> tuple[Tensors, Tensors]:
            read = self.device.read(devices, clock, numbered(at_step(seed, i), READ))
            return (ops.matmul(spikes[i], read),), state

        shape = (ops.shape(spikes)[0], ops.shape(spikes)[1], self.units)
        (potentials,), _ = over_time(step, shape[0], (ops.zeros(shape),), ())
        return ops.transpose(potentials, (1, 0, 2))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> Config:
        return super().get_config() | {
            "units": self.units,
            "device": keras.saving.serialize_keras_object(self.device),
            "initial_pulses": self.initial_pulses,
            "depression": self.depression,
            "depress_above": self.depress_above,
            "window": self.window,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(**with_device(config))
