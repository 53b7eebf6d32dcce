"""Networks of memristors alone: phase-change neurons and synapses that learn by coincidence."""

import keras
import numpy as np
from keras import ops

from snukeras.pcm import NandakumarPCM, PulsedPCM, PulseState
from snukeras.pcm._arrays import check_number
from snukeras.pcm._random import numbered, quick_uniform

EVENTS = ("synapse_set", "synapse_reset", "neuron_set", "neuron_reset")
# Which random numbers of a step are whose; the neurons take three for each of their pulses.
_READ, _SET, _RESET, _SELECT, _NEURON = 0, 1, 2, 3, 4


def _whole(name, value, minimum=1):
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < minimum:
        raise ValueError(f"`{name}` must be an integer of at least {minimum}. Received: {value!r}")
    return int(value)


def _device(device):
    device = NandakumarPCM() if device is None else device
    if not isinstance(device, PulsedPCM):
        raise TypeError(
            "`device` must be a PulsedPCM, such as snukeras.pcm.NandakumarPCM(). Received: "
            f"{device!r}"
        )
    return device


def _check_steps(name, shape, features="features"):
    if len(shape) != 3 or shape[-1] is None:
        raise ValueError(
            f"{name} takes inputs of shape (batch, steps, {features}) with a known last axis. "
            f"Received: input_shape={tuple(shape)}"
        )


def _over_time(step, length, outputs, state):
    """Calls `step(i, state) -> (outputs, state)` for i = 0 ... length - 1.

    Args:
        step: function of the index and a tuple of tensors.
        length: number of steps.
        outputs: tensors (length, ...), to be written at each step.
        state: tuple of tensors.
    """

    def body(i, outputs, state):
        new, state = step(i, state)
        outputs = tuple(
            ops.slice_update(old, [i] + [0] * (len(old.shape) - 1), ops.expand_dims(value, 0))
            for old, value in zip(outputs, new, strict=True)
        )
        return i + 1, outputs, state

    _, outputs, state = ops.while_loop(
        lambda i, *_: i < length, body, (ops.zeros((), "int32"), tuple(outputs), tuple(state))
    )
    return outputs, state


@keras.saving.register_keras_serializable(package="snukeras")
class LevelTuned:
    """Coupling of a layer's neurons by levels: each works on the inputs of its own level alone.

    The neurons of a layer see each other's postsynaptic potentials s_1 ... s_K (uS, the sums of
    their synapse outputs). Neuron k is enabled where s_k > levels[k]; with `chain` only if all
    neurons before it are enabled too. The highest enabled neuron integrates, alone: it tunes out
    those below it, so that each neuron prefers a band of levels.

    A reconstruction: that the potential of one neuron enables the next comes from the patent
    US 10,755,167; that the highest enabled one works alone is our reading of "level-tuned".

    Args:
        levels: K numbers in uS, not decreasing.
        chain: whether neurons before it must be enabled for a neuron to be enabled.

    Raises:
        ValueError: levels that decrease, are negative or not finite.
    """

    one_winner = False

    def __init__(self, levels, chain=False):
        self.levels = [check_number("levels", level, minimum=0.0) for level in levels]
        if not self.levels or sorted(self.levels) != self.levels:
            raise ValueError(
                "`levels` must be numbers that do not decrease, one a neuron: the last neuron "
                f"takes the highest level. Received: {levels!r}"
            )
        self.chain = bool(chain)

    def check(self, units):
        if len(self.levels) != units:
            raise ValueError(
                f"`levels` must hold one level for each of the {units} neurons. Received: "
                f"{len(self.levels)}"
            )

    def __call__(self, potentials):
        """Returns which neurons integrate, booleans of the shape (..., K) of `potentials`."""
        enabled = ops.cast(potentials > ops.convert_to_tensor(self.levels, "float32"), "int32")
        if self.chain:
            enabled = ops.cumprod(enabled, axis=-1)
        above = ops.flip(ops.cumsum(ops.flip(enabled, axis=-1), axis=-1), axis=-1) - enabled
        return ops.logical_and(enabled > 0, ops.equal(above, 0))

    def get_config(self):
        return {"levels": self.levels, "chain": self.chain}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@keras.saving.register_keras_serializable(package="snukeras")
class WinnerTakesAll:
    """The classic coupling by lateral inhibition: all integrate, the first to fire resets the rest.

    Args:
        level: integration threshold in uS: potentials up to it are not integrated.
    """

    one_winner = True

    def __init__(self, level=0.0):
        self.level = check_number("level", level, minimum=0.0)

    def check(self, units):
        pass

    def __call__(self, potentials):
        """Returns which neurons integrate, booleans of the shape of `potentials`."""
        return potentials > self.level

    def get_config(self):
        return {"level": self.level}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@keras.saving.register_keras_serializable(package="snukeras")
class Uncoupled(WinnerTakesAll):
    """No coupling: each neuron integrates what exceeds `level` (uS). The control."""

    one_winner = False


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
        units,
        device=None,
        threshold=0.35,
        pulse_input=50.0,
        max_pulses=4,
        step_time=1e-3,
        seed=None,
        **kwargs,
    ):
        super().__init__(**{"trainable": False, **kwargs})
        self.units = _whole("units", units)
        self.device = _device(device)
        self.threshold = check_number("threshold", threshold, above=0.0, maximum=1.0)
        self.pulse_input = check_number("pulse_input", pulse_input, above=0.0)
        self.max_pulses = _whole("max_pulses", max_pulses)
        self.step_time = check_number("step_time", step_time, minimum=0.0)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape):
        _check_steps(type(self).__name__, input_shape, "units")
        if input_shape[-1] != self.units:
            raise ValueError(
                f"The last axis of the inputs must be the {self.units} units. Received: "
                f"input_shape={tuple(input_shape)}"
            )
        self.built = True

    def fraction(self, conductance):
        """The membrane potential: the crystallised fraction for a conductance in uS."""
        return conductance / self.device.g_max

    def advance(self, cells, drive, t, seed, one_winner=False):
        """One step.

        Args:
            cells: PulseState (batch, units).
            drive: uS, (batch, units); 0 for neurons that do not integrate.
            t: s.
            seed: two integers, see `snukeras.pcm._random.numbered`.
            one_winner: the first to fire RESETs all others and ends the step.

        Returns:
            cells, spikes (bool), numbers of SET pulses and of RESETs as int32 scalars.
        """
        pulses = ops.clip(ops.floor(drive / self.pulse_input), 0, self.max_pulses)
        pulses = ops.cast(pulses, "int32")
        none, no = ops.zeros((), "int32"), ops.zeros_like(drive, dtype="bool")

        def body(m, state):
            cells, (spikes, resting, sets, resets) = PulseState(*state[:3]), state[3:]
            # Spread evenly over the step: otherwise a weak input would be as early as a strong one.
            due = (m * pulses) // self.max_pulses > ((m - 1) * pulses) // self.max_pulses
            due = ops.logical_and(due, ops.logical_not(resting))
            use = _NEURON + 3 * m
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
                sets + _count(due),
                resets + _count(melted),
            )

        # A loop, not unrolled: so compilation takes a third of the time.
        state = ops.fori_loop(1, self.max_pulses + 1, body, (*cells, no, no, none, none))
        spikes, _, sets, resets = state[3:]
        return PulseState(*state[:3]), spikes, sets, resets

    def call(self, inputs):
        seed = ops.cast(self.seed_generator.next(), "uint32")
        shape = (ops.shape(inputs)[0], self.units)
        drive = ops.transpose(ops.cast(inputs, "float32"), (1, 0, 2))
        # Step 0 is the RESET, before the first input.
        cells = self.device.reset(shape, 0.0, numbered(_at(seed, 0), _RESET))

        def step(i, state):
            t = ops.cast(i, "float32") * self.step_time
            cells, spikes, _, _ = self.advance(PulseState(*state), drive[i], t, _at(seed, i + 1))
            return (ops.cast(spikes, "float32"),), tuple(cells)

        (spikes,), _ = _over_time(step, ops.shape(drive)[0], (ops.zeros_like(drive),), cells)
        return ops.transpose(spikes, (1, 0, 2))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
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
    def from_config(cls, config):
        return cls(**_with_device(config))


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
        units,
        device=None,
        initial_pulses=20,
        depression=0.3,
        depress_above=1.0,
        window=1,
        seed=None,
        **kwargs,
    ):
        super().__init__(**{"trainable": False, **kwargs})
        self.units = _whole("units", units)
        self.device = _device(device)
        self.initial_pulses = _whole("initial_pulses", initial_pulses, 0)
        self.depression = check_number("depression", depression, minimum=0.0, maximum=1.0)
        self.depress_above = check_number("depress_above", depress_above, minimum=0.0)
        self.window = _whole("window", window)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape):
        _check_steps(type(self).__name__, input_shape)
        # Hashed, so that the numbers of neighbouring seeds have nothing in common.
        key = int(np.random.default_rng(self.seed).integers(2**31 - 1))
        shape = (input_shape[-1], self.units)

        def state(name, index):
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

    def _initial(self, shape, key):
        seed = np.array([key, 0], "uint32")
        devices = self.device.reset(shape, 0.0, numbered(seed, 0))
        for n in range(self.initial_pulses):
            where = ops.ones(shape, "bool")
            devices = self.device.pulse(devices, where, 0.0, numbered(seed, n + 1))
        return devices

    @property
    def devices(self):
        """The devices as a PulseState of tensors (features, units)."""
        return PulseState(
            *(ops.convert_to_tensor(v) for v in (self.conductance, self.pulses, self.last_pulse))
        )

    def keep(self, devices, t):
        """Makes `devices` the state at time t (s)."""
        self.conductance.assign(devices.conductance)
        self.pulses.assign(devices.pulses)
        self.last_pulse.assign(devices.time)
        self.clock.assign(t)

    def learn(self, devices, read, recent, spikes, t, seed):
        """Applies the rule for the spikes of one step.

        Args:
            devices: PulseState (features, units).
            read: uS, what the devices read in this step.
            recent: bool (features,), inputs whose write portion is there.
            spikes: bool (units,).
            t: s.
            seed: two integers, see `snukeras.pcm._random.numbered`.

        Returns:
            devices, numbers of SET pulses and of RESETs as int32 scalars.
        """
        pre, post = ops.expand_dims(recent, 1), ops.expand_dims(spikes, 0)
        grow = ops.logical_and(pre, post)
        chosen = quick_uniform(read.shape, numbered(seed, _SELECT).generator) < self.depression
        melt = ops.logical_and(ops.logical_not(pre), post)
        melt = ops.logical_and(ops.logical_and(melt, chosen), read > self.depress_above)
        devices = self.device.pulse(devices, grow, t, numbered(seed, _SET))
        devices = self.device.reset_where(devices, melt, t, numbered(seed, _RESET))
        return devices, _count(grow), _count(melt)

    def call(self, inputs):
        seed = ops.cast(self.seed_generator.next(), "uint32")
        inputs = ops.cast(inputs, "float32")
        spikes = ops.transpose(inputs, (1, 0, 2))
        devices, clock = self.devices, ops.convert_to_tensor(self.clock)

        def step(i, state):
            read = self.device.read(devices, clock, numbered(_at(seed, i), _READ))
            return (ops.matmul(spikes[i], read),), state

        shape = (ops.shape(spikes)[0], ops.shape(spikes)[1], self.units)
        (potentials,), _ = _over_time(step, shape[0], (ops.zeros(shape),), ())
        return ops.transpose(potentials, (1, 0, 2))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
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
    def from_config(cls, config):
        return cls(**_with_device(config))


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

    After Pantazi et al., Nanotechnology 27, 355205 (2016). A reconstruction: the text of the paper
    was not at hand, see docs/level_tuned.md.

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
        units,
        coupling,
        synapses=None,
        neurons=None,
        return_potentials=False,
        seed=None,
        **kwargs,
    ):
        super().__init__(**{"trainable": False, **kwargs})
        self.units = _whole("units", units)
        self.coupling = coupling
        if not isinstance(coupling, LevelTuned | WinnerTakesAll):
            raise TypeError(
                "`coupling` must be LevelTuned([...]), WinnerTakesAll() or Uncoupled(). "
                f"Received: {coupling!r}"
            )
        coupling.check(self.units)
        self.synapses = PhaseChangeSynapses(units, seed=seed) if synapses is None else synapses
        self.neurons = PhaseChangeNeurons(units, seed=seed) if neurons is None else neurons
        for name, part, cls in (
            ("synapses", self.synapses, PhaseChangeSynapses),
            ("neurons", self.neurons, PhaseChangeNeurons),
        ):
            if not isinstance(part, cls):
                raise TypeError(f"`{name}` must be a {cls.__name__}. Received: {part!r}")
            if part.units != self.units:
                raise ValueError(
                    f"`{name}` must have {self.units} units as the layer has. Received: "
                    f"{part.units}"
                )
        self.return_potentials = bool(return_potentials)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape):
        _check_steps(type(self).__name__, input_shape)
        # Keras may have built the parts already, when it loads a model.
        if not self.synapses.built:
            self.synapses.build(input_shape)
        if not self.neurons.built:
            self.neurons.build((*input_shape[:-1], self.units))
        key = int(np.random.default_rng(self.seed).integers(2**31 - 1))

        def state(name, shape, dtype="float32", initializer="zeros"):
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

    def _long_ago(self, shape, dtype):
        return ops.full(shape, self.synapses.window, dtype)

    def _cells(self, shape, key):
        return self.neurons.device.reset(shape, 0.0, numbered(np.array([key, 0], "uint32"), _RESET))

    def call(self, inputs, training=False):
        inputs = ops.cast(inputs, "float32")
        batch, length, features = ops.shape(inputs)
        if training:
            # Keras fits no model without a loss; here the layer learns by itself.
            self.add_loss(ops.zeros(()))
            stream = ops.reshape(inputs, (1, batch * length, features))
            spikes, potentials = self._learn(ops.transpose(stream, (1, 0, 2)))
            shape = (batch, length, self.units)
            outputs = ops.reshape(spikes, shape), ops.reshape(potentials, shape)
        else:
            outputs = self._respond(ops.transpose(inputs, (1, 0, 2)))
            outputs = tuple(ops.transpose(output, (1, 0, 2)) for output in outputs)
        return outputs if self.return_potentials else outputs[0]

    def _respond(self, inputs):
        """The response of the synapses as they are; inputs (steps, batch, features)."""
        # The seed generator moves here alone: what is asked of a model does not change how it
        # learns on.
        seed = ops.cast(self.seed_generator.next(), "uint32")
        devices, clock = self.synapses.devices, ops.convert_to_tensor(self.synapses.clock)
        shape = (ops.shape(inputs)[1], self.units)
        cells = self.neurons.device.reset(shape, clock, numbered(_at(seed, 0), _RESET))

        def step(i, state):
            t = clock + ops.cast(i + 1, "float32") * self.neurons.step_time
            cells, _, spikes, _ = self._step(
                PulseState(*state), devices, inputs[i], t, _at(seed, i + 1)
            )
            return self._shown(cells, spikes), tuple(cells)

        return _over_time(step, ops.shape(inputs)[0], self._blank(inputs), tuple(cells))[0]

    def _learn(self, inputs):
        """Learns from one stream of inputs (steps, 1, features) on."""
        key, first = ops.cast(self.key, "uint32"), ops.convert_to_tensor(self.steps)
        synapses = self.synapses
        cells = (self.cell_conductance, self.cell_pulses, self.cell_time)
        cells = tuple(ops.expand_dims(ops.convert_to_tensor(v), 0) for v in cells)
        start = (
            *cells,
            *synapses.devices,
            ops.convert_to_tensor(self.since),
            ops.convert_to_tensor(self.events),
        )

        def step(i, state):
            cells, devices, (since, events) = PulseState(*state[:3]), state[3:6], state[6:]
            devices = PulseState(*devices)
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
        outputs, end = _over_time(step, length, self._blank(inputs), start)
        for variable, value in zip(
            (self.cell_conductance, self.cell_pulses, self.cell_time), end[:3], strict=True
        ):
            variable.assign(value[0])
        steps = first + length
        synapses.keep(PulseState(*end[3:6]), ops.cast(steps, "float32") * self.neurons.step_time)
        self.since.assign(end[6])
        self.events.assign(end[7])
        self.steps.assign(steps)
        return outputs

    def _step(self, cells, devices, inputs, t, seed):
        """Reads the synapses once, lets the neurons integrate; inputs (batch, features)."""
        read = self.synapses.device.read(devices, t, numbered(seed, _READ))
        potentials = ops.matmul(inputs, read)
        drive = ops.where(self.coupling(potentials), potentials, 0.0)
        cells, spikes, *counts = self.neurons.advance(
            cells, drive, t, seed, self.coupling.one_winner
        )
        return cells, read, spikes, counts

    def _shown(self, cells, spikes):
        return ops.cast(spikes, "float32"), self.neurons.fraction(cells.conductance)

    def _blank(self, inputs):
        shape = (ops.shape(inputs)[0], ops.shape(inputs)[1], self.units)
        return ops.zeros(shape), ops.zeros(shape)

    def programming_events(self) -> dict[str, int]:
        """Numbers of pulses that training has given to synapses and neurons, by EVENTS."""
        if not self.built:
            raise ValueError("There are no devices before the layer is built. Call or fit it.")
        return dict(zip(EVENTS, ops.convert_to_numpy(self.events).tolist(), strict=True))

    def compute_output_shape(self, input_shape):
        shape = (*input_shape[:-1], self.units)
        return (shape, shape) if self.return_potentials else shape

    def get_config(self):
        return super().get_config() | {
            "units": self.units,
            "coupling": keras.saving.serialize_keras_object(self.coupling),
            "synapses": keras.saving.serialize_keras_object(self.synapses),
            "neurons": keras.saving.serialize_keras_object(self.neurons),
            "return_potentials": self.return_potentials,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        for part in ("coupling", "synapses", "neurons"):
            config[part] = keras.saving.deserialize_keras_object(config[part])
        return cls(**config)


def _at(seed, step):
    """The two integers of a step: `seed` counts calls, here spread so that steps fit between."""
    # The multiplier is odd: the calls of one seed do not meet before 2**32 of them.
    calls = seed[1] * ops.convert_to_tensor(0x85EBCA6B, dtype="uint32")
    return ops.stack([seed[0], calls + ops.cast(step, "uint32")])


def _count(where):
    return ops.sum(ops.cast(where, "int32"))


def _with_device(config):
    return {**config, "device": keras.saving.deserialize_keras_object(config["device"])}
