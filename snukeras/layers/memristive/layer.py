"""Networks of memristors alone: phase-change neurons and synapses that learn by coincidence."""

from collections.abc import Callable
from typing import Self, Unpack

import keras
import numpy as np
from keras import ops

from snukeras import _arguments, _strategy
from snukeras._arguments import LayerArguments
from snukeras._random import numbered
from snukeras._types import Config, Initializer, Shape, Tensor
from snukeras.layers.memristive.coupling import LevelTuned, WinnerTakesAll
from snukeras.layers.memristive.neurons import PhaseChangeNeurons
from snukeras.layers.memristive.steps import READ, RESET, Tensors, at_step, check_steps, over_time
from snukeras.layers.memristive.synapses import PhaseChangeSynapses
from snukeras.pcm import PulseState

EVENTS = ("synapse_set", "synapse_reset", "neuron_set", "neuron_reset")


@keras.saving.register_keras_serializable(package="snukeras")
class AllMemristive(keras.layers.Layer):
    """A layer of phase-change synapses and neurons that learns without supervision.

        layer = AllMemristive(3, coupling=LevelTuned([100.0, 200.0, 300.0]), seed=1)
        model = keras.Sequential([keras.Input((None, 64)), layer])
        model.compile()
        model.fit(spikes)

    Each step of its input, in order: the synapses are read and give the potentials s_k; the
    coupling says which neurons integrate; these get SET pulses, and those that reach the threshold
    fire and are RESET; in training, the synapses of neurons that fired learn.

    With `training=True`, as in `fit`, the samples of a batch follow one another in time as one
    stream, since one set of devices can meet them only so, and everything goes on where it stood:
    the result of `fit` does not depend on the batch size. Otherwise the synapses stay, and each
    sample starts with neurons just RESET. All state is in the weights of the model: devices
    (conductance, pulses, time of the last pulse), clock, inputs, random numbers, counters. A saved
    model goes on bit for bit.

    After Pantazi et al., Nanotechnology 27, 355205 (2016); a reconstruction, see
    docs/level_tuned.md.

    Args:
        units: number of neurons K.
        coupling: `LevelTuned`, `WinnerTakesAll` or `Uncoupled`.
        synapses: PhaseChangeSynapses(units, ...); by default with the default arguments.
        neurons: PhaseChangeNeurons(units, ...); likewise.
        return_potentials: return the membrane potentials at the end of each step as well.
        seed: int or None (a random one); for the parts that are not given, and for learning.

    Call arguments:
        inputs: spikes, 0 or 1, (batch, steps, features).
        training: whether to learn.

    Returns:
        Spikes, 0 or 1, (batch, steps, K); with `return_potentials` also the fractions, likewise.

    Raises:
        TypeError, ValueError: parts of another type, or of another number of units.
    """

    def __init__(
        self,
        units: int,
        coupling: LevelTuned | WinnerTakesAll,
        synapses: PhaseChangeSynapses | None = None,
        neurons: PhaseChangeNeurons | None = None,
        return_potentials: bool = False,
        seed: int | None = None,
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        given = {"trainable": False, **kwargs}
        super().__init__(**_arguments.of_keras(type(self), given))
        self.units = _arguments.whole("units", units)
        self.coupling = coupling
        if not isinstance(coupling, LevelTuned | WinnerTakesAll):
            raise TypeError(
                "Argument `coupling` must be LevelTuned([...]), WinnerTakesAll() or Uncoupled(). "
                f"Received: coupling={coupling!r}"
            )
        coupling.check(self.units)
        self.synapses = PhaseChangeSynapses(units, seed=seed) if synapses is None else synapses
        self.neurons = PhaseChangeNeurons(units, seed=seed) if neurons is None else neurons
        self._check_part("synapses", self.synapses, PhaseChangeSynapses)
        self._check_part("neurons", self.neurons, PhaseChangeNeurons)
        self.return_potentials = bool(return_potentials)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def _check_part(
        self,
        name: str,
        part: PhaseChangeSynapses | PhaseChangeNeurons,
        cls: type[PhaseChangeSynapses] | type[PhaseChangeNeurons],
    ) -> None:
        """Refuse a part of another class, or of another number of units."""
        if not isinstance(part, cls):
            raise TypeError(
                f"Argument `{name}` must be a {cls.__name__}. Received: {name}={part!r}"
            )
        if part.units != self.units:
            raise ValueError(
                f"Argument `{name}` must have {self.units} units as the layer has. "
                f"Received: {part.units} units"
            )

    def build(self, input_shape: Shape) -> None:
        check_steps(type(self).__name__, input_shape)
        # Keras may have built the parts already, when it loads a model.
        if not self.synapses.built:
            self.synapses.build(input_shape)
        if not self.neurons.built:
            self.neurons.build((*input_shape[:-1], self.units))
        key = int(np.random.default_rng(self.seed).integers(2**31 - 1))

        def state(
            name: str,
            shape: Shape,
            dtype: str = "float32",
            initializer: "Initializer | Callable[[tuple[int, ...], str], Tensor]" = "zeros",
        ) -> keras.Variable:
            return self.add_weight(
                shape=shape, name=name, dtype=dtype, autocast=False, initializer=initializer,
                trainable=False,
            )  # fmt: skip

        self.key = state("key", (), "int32", lambda shape, dtype: ops.convert_to_tensor(key, dtype))
        self.steps = state("steps", (), "int32")
        self.events = state("events", (len(EVENTS),), "int32")
        self.since = state("since", (input_shape[-1],), "int32", self._long_ago)
        self.cell_conductance = state(
            "cell_conductance",
            (self.units,),
            initializer=lambda shape, dtype: self._cells(shape, key).conductance,
        )
        self.cell_pulses = state("cell_pulses", (self.units,))
        self.cell_time = state("cell_time", (self.units,))
        self.built = True

    def _long_ago(self, shape: Shape, dtype: str) -> Tensor:
        return ops.full(shape, self.synapses.window, dtype)

    def _cells(self, shape: tuple[int, ...], key: int) -> PulseState:
        return self.neurons.device.reset(shape, 0.0, numbered(np.array([key, 0], "uint32"), RESET))

    def call(self, inputs: Tensor, training: bool = False) -> Tensor | Tensors:
        _strategy.check_draws_are_possible(self.name, ("onnx", "openvino", "litert"))
        inputs = ops.cast(inputs, "float32")
        batch, length, features = ops.shape(inputs)
        if training:
            # Keras fits no model without a loss; here the layer learns by itself.
            self.add_loss(ops.zeros(()))
            stream = ops.reshape(inputs, (1, batch * length, features))
            spikes, potentials = self._learn(ops.transpose(stream, (1, 0, 2)))
            shape = (batch, length, self.units)
            outputs: Tensors = (ops.reshape(spikes, shape), ops.reshape(potentials, shape))
        else:
            outputs = self._respond(ops.transpose(inputs, (1, 0, 2)))
            outputs = tuple(ops.transpose(output, (1, 0, 2)) for output in outputs)
        return outputs if self.return_potentials else outputs[0]

    def _respond(self, inputs: Tensor) -> Tensors:
        """Return the response of the synapses as they are; inputs (steps, batch, features)."""
        # The seed generator moves here alone: a prediction does not change how the model learns on.
        seed = ops.cast(self.seed_generator.next(), "uint32")
        devices, clock = self.synapses.devices, ops.convert_to_tensor(self.synapses.clock)
        shape = (ops.shape(inputs)[1], self.units)
        cells = self.neurons.device.reset(shape, clock, numbered(at_step(seed, 0), RESET))

        def step(i: Tensor, state: Tensors) -> tuple[Tensors, Tensors]:
            t = clock + ops.cast(i + 1, "float32") * self.neurons.step_time
            cells, _, spikes, _ = self._step(
                PulseState(*state), devices, inputs[i], t, at_step(seed, i + 1)
            )
            return self._shown(cells, spikes), tuple(cells)

        return over_time(step, ops.shape(inputs)[0], self._blank(inputs), tuple(cells))[0]

    def _learn(self, inputs: Tensor) -> Tensors:
        """Learn from one stream of inputs (steps, 1, features) on; return the outputs."""
        key, first = ops.cast(self.key, "uint32"), ops.convert_to_tensor(self.steps)
        synapses = self.synapses
        own = (self.cell_conductance, self.cell_pulses, self.cell_time)
        start = (
            *(ops.expand_dims(ops.convert_to_tensor(variable), 0) for variable in own),
            *synapses.devices,
            ops.convert_to_tensor(self.since),
            ops.convert_to_tensor(self.events),
        )

        def step(i: Tensor, state: Tensors) -> tuple[Tensors, Tensors]:
            cells, devices = PulseState(*state[:3]), PulseState(*state[3:6])
            since, events = state[6:]
            number = first + i + 1
            t = ops.cast(number, "float32") * self.neurons.step_time
            seed = ops.stack([key, ops.cast(number, "uint32")])
            cells, read, spikes, counts = self._step(cells, devices, inputs[i], t, seed)
            since = ops.where(inputs[i, 0] > 0, 0, ops.minimum(since + 1, synapses.window))
            devices, sets, resets = synapses.learn(
                devices, read, since < synapses.window, spikes[0], t, seed
            )
            events = events + ops.stack([sets, resets, *counts])
            return self._shown(cells, spikes), (*cells, *devices, since, events)

        length = ops.shape(inputs)[0]
        outputs, end = over_time(step, length, self._blank(inputs), start)
        for variable, value in zip(own, end[:3], strict=True):
            variable.assign(value[0])
        steps = first + length
        synapses.keep(PulseState(*end[3:6]), ops.cast(steps, "float32") * self.neurons.step_time)
        self.since.assign(end[6])
        self.events.assign(end[7])
        self.steps.assign(steps)
        return outputs

    def _step(
        self, cells: PulseState, devices: PulseState, inputs: Tensor, t: Tensor, seed: Tensor
    ) -> tuple[PulseState, Tensor, Tensor, list[Tensor]]:
        """Read the synapses once and let the neurons integrate; inputs (batch, features).

        Returns:
            Cells, what the synapses read, spikes, and numbers of SET pulses and of RESETs.
        """
        read = self.synapses.device.read(devices, t, numbered(seed, READ))
        potentials = ops.matmul(inputs, read)
        drive = ops.where(self.coupling(potentials), potentials, 0.0)
        cells, spikes, *counts = self.neurons.advance(
            cells, drive, t, seed, self.coupling.one_winner
        )
        return cells, read, spikes, counts

    def _shown(self, cells: PulseState, spikes: Tensor) -> Tensors:
        return ops.cast(spikes, "float32"), self.neurons.fraction(cells.conductance)

    def _blank(self, inputs: Tensor) -> Tensors:
        shape = (ops.shape(inputs)[0], ops.shape(inputs)[1], self.units)
        return ops.zeros(shape), ops.zeros(shape)

    def programming_events(self) -> dict[str, int]:
        """Return how many pulses training has given to synapses and neurons, by EVENTS."""
        if not self.built:
            raise ValueError("There are no devices before the layer is built. Call or fit it.")
        return dict(zip(EVENTS, ops.convert_to_numpy(self.events).tolist(), strict=True))

    def compute_output_shape(self, input_shape: Shape) -> Shape | tuple[Shape, Shape]:
        shape = (*input_shape[:-1], self.units)
        return (shape, shape) if self.return_potentials else shape

    def get_config(self) -> Config:
        return super().get_config() | {
            "units": self.units,
            "coupling": keras.saving.serialize_keras_object(self.coupling),
            "synapses": keras.saving.serialize_keras_object(self.synapses),
            "neurons": keras.saving.serialize_keras_object(self.neurons),
            "return_potentials": self.return_potentials,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: Config) -> Self:
        config = dict(config)
        for part in ("coupling", "synapses", "neurons"):
            config[part] = keras.saving.deserialize_keras_object(config[part])
        return cls(**config)
