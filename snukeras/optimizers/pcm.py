"""PCMOptimizer: training with phase-change memory in the loop."""

from collections.abc import Iterable, Sequence
from typing import Self

import keras
import numpy as np
from keras import ops

from snukeras import _arguments
from snukeras._strategy import outside_of_graphs, replicas, widest
from snukeras._types import Config, Tensor
from snukeras.constraints import PCMConstraint
from snukeras.network.matrices import is_kernel
from snukeras.network.models import layer_names, within_layer
from snukeras.pcm.pairs import DifferentialPair
from snukeras.pcm.pulsed_pairs import PairState, PulsedPairs
from snukeras.pcm.pulses import NandakumarPCM, PulsedPCM


@keras.saving.register_keras_serializable(package="snukeras")
class PCMOptimizer(keras.optimizers.Optimizer):
    """Train with simulated PCM devices in the loop, by the rule of any Keras optimizer.

        model.compile(snukeras.optimizers.PCMOptimizer(keras.optimizers.Adam(1e-3)), "mse")
        model.fit(x, y)

    Each weight of the chosen kernels is a differential pair of devices that can only grow by SET
    pulses or start again after RESET. The model holds what the devices read; so the forward and
    the backward pass, `evaluate` and checkpoints see read noise and drift. Everything else (biases,
    thresholds, kernels that were not chosen) trains in float.

    When it is built, each pair is RESET and programmed to the model's weight. One step, in order:

    1. The wrapped optimizer updates all variables by its own rule: clipping, schedule, weight
       decay and regularizers see the weights that were read; a constraint sees the mean of many
       readings with what waits in the accumulator, since it would rectify the noise of one. For
       the float variables that is all.
    2. The change of each chosen weight, times uS per unit of weight, is added to the
       accumulator of the pair (float32, uS). The change is the difference of two float32 weights,
       as exact as training in float.
    3. The clock advances by `step_time`.
    4. Whole multiples n of the granularity, truncated towards zero, leave the accumulator; |n| SET
       pulses go to G+ where n > 0, to G- where n < 0. At most `max_pulses` in one step: the rest
       stays in the accumulator. The pulses are blind: nobody checks what they did.
    5. At every `refresh_every`-th step all devices are read (first draw of read noise). Pairs with
       a device above `refresh_above` and a difference below `refresh_within` are RESET, and the
       difference that was read is programmed again. Accumulators stay.
    6. All devices are read (with fresh read noise), and the model's weights become the result.

    Programming (at build and in 5) is write and verify: pairs are read, and get a SET pulse on G+
    or G- as long as they are more than one granularity off, at most `programming_pulses` times.

    The pulses follow Nandakumar et al. 2020 (doi 10.3389/fnins.2020.00406): mixed precision with
    one accumulator per weight. Left out: converters, wires, and the noise of each single
    matrix-vector product: a reading holds for a whole step. The random numbers of pulses and
    readings are nearly Gaussian, see snukeras/_random.py.

    The state is in `variables`, in this order: `clock` (s), `steps`, `conductance` (uS),
    `pulses_since_reset` and `last_pulse` (s), `accumulator` (uS), `pulse_count`, `refresh_count`,
    the random generator, and those of the wrapped optimizer. So `model.save` keeps all of it, and
    a loaded model trains on bit for bit. Weights that are set by hand later are lost at the next
    step, unless `program()` writes them to the devices.

    A weight that is not finite (a diverged training) makes the model's weight NaN, as without
    devices; `keras.callbacks.TerminateOnNaN` stops there.

    Args:
        inner_optimizer: a Keras optimizer, or its name. Not built, and without `use_ema`: no
            device holds an average. Its calls of `exclude_from_weight_decay` are not saved:
            Keras leaves them out of every config.
        device: a PulsedPCM; default NandakumarPCM(). Its `seed` has no part here.
        layers: None (all kernels), or a list of layer names, of patterns such as "dense_*", or of
            layers; of the last only the names are kept. For a type of layers:
            `[l for l in model.layers if isinstance(l, keras.layers.Dense)]`.
        w_max: weight that the device's g_max stands for. Few devices grow that far by blind
            pulses: the mean NandakumarPCM stops at half of its g_max of 20 uS. A small w_max makes
            pulses and noise small in units of weight, and the range of the weights narrow.
        granularity: uS of accumulated change for which one pulse is given; None: the mean growth
            over the first ten pulses, 0.77 uS for NandakumarPCM.
        max_pulses: most pulses to one device in step 4.
        refresh_every: steps between two checks for saturated pairs; None: no refresh.
        refresh_above: uS; None: three quarters of the mean growth over 40 pulses.
        refresh_within: uS, less than `refresh_above`; None: three quarters of it.
        programming_pulses: most SET pulses to one pair when it is programmed.
        step_time: s that pass in one step; devices drift meanwhile.
        seed: int or None (a random one).
        name: name of the optimizer.

    Raises:
        TypeError: an inner optimizer or a device of another type.
        ValueError: a number out of its range; when built: unknown layers, no kernels, weights that
            are not finite, a PCMConstraint on a chosen kernel, or several replicas.
    """

    def __init__(
        self,
        inner_optimizer: keras.optimizers.Optimizer | str | Config,
        device: PulsedPCM | None = None,
        layers: str | keras.Layer | Sequence[str | keras.Layer] | None = None,
        w_max: float = 1.0,
        granularity: float | None = None,
        max_pulses: int = 10,
        refresh_every: int | None = 10,
        refresh_above: float | None = None,
        refresh_within: float | None = None,
        programming_pulses: int = 20,
        step_time: float = 1.0,
        seed: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(learning_rate=0.0, name=name)
        self.inner_optimizer = _checked_inner(inner_optimizer)
        self.device = NandakumarPCM() if device is None else device
        if not isinstance(self.device, PulsedPCM):
            raise TypeError(
                "Argument `device` must be a PulsedPCM, such as snukeras.pcm.NandakumarPCM(). "
                f"Received: {device!r}"
            )
        self.layers = layer_names(layers)
        self.w_max = _arguments.number("w_max", w_max, above=0.0)
        self.granularity = _optional("granularity", granularity)
        self.max_pulses = _arguments.whole("max_pulses", max_pulses)
        self.refresh_every = (
            None if refresh_every is None else _arguments.whole("refresh_every", refresh_every)
        )
        self.refresh_above = _optional("refresh_above", refresh_above)
        self.refresh_within = _optional("refresh_within", refresh_within)
        self.programming_pulses = _arguments.whole("programming_pulses", programming_pulses)
        self.step_time = _arguments.number("step_time", step_time, minimum=0.0)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self._pair = DifferentialPair(self.device.g_max)
        self._scale = self._pair.span / self.w_max  # uS per unit of weight
        self._pairs = PulsedPairs(
            self.device,
            self.granularity,
            self.refresh_above,
            self.refresh_within,
            self.programming_pulses,
        )

    # The optimizer of Keras. ------------------------------------------------------------------

    def build(self, variables: list[keras.Variable]) -> None:
        if self.inner_optimizer.built:
            raise ValueError(
                "Argument `inner_optimizer` must not have been used before. Received: one that is "
                "built; make a new one."
            )
        if replicas() > 1:
            raise ValueError(
                "PCMOptimizer trains one set of devices. Received: a tf.distribute strategy with "
                f"{replicas()} replicas; use one."
            )
        chosen = _choose(variables, self.layers)
        with outside_of_graphs():
            self.inner_optimizer.build(variables)
            super().build(variables)
            self._matrices = tuple(chosen)
            n = sum(matrix.size for matrix in chosen)
            self.clock = self._state("clock", (), widest("float64"))
            self.steps = self._state("steps", (), widest("int64"))
            self.conductance = self._state("conductance", (2, n))
            self.pulses_since_reset = self._state("pulses_since_reset", (2, n))
            self.last_pulse = self._state("last_pulse", (2, n))
            self.accumulator = self._state("accumulator", (n,))
            self.pulse_count = self._state("pulse_count", (2, n), "int32")
            self.refresh_count = self._state("refresh_count", (n,), "int32")
            self.program()

    def _state(self, name: str, shape: tuple[int, ...], dtype: str = "float32") -> keras.Variable:
        return self.add_variable(shape, dtype=dtype, name=name)

    @property
    def variables(self) -> list[keras.Variable]:
        own = super().variables
        return [*own, self.seed_generator.state, *self.inner_optimizer.variables]

    def apply(
        self, grads: Iterable[Tensor], trainable_variables: Iterable[keras.Variable] | None = None
    ) -> None:
        if trainable_variables is not None:
            trainable_variables = list(trainable_variables)
            if not self.built:
                self.build(trainable_variables)
        if not self.built:
            raise ValueError(
                "The optimizer does not know its variables yet. Call "
                "`optimizer.build(model.trainable_variables)` first."
            )
        before = self._before()
        self.inner_optimizer.apply(list(grads), trainable_variables)
        changes = [
            ops.reshape(_value(matrix.variable) - old, (-1,))
            for matrix, old in zip(self._matrices, before, strict=True)
        ]
        self._step(ops.concatenate(changes) * self._scale)

    def _before(self) -> list[Tensor]:
        """Return the weights from which the wrapped optimizer starts, one array a kernel.

        These are the weights that were read last. For a kernel with a constraint they are the mean
        of many readings plus the accumulated change, and the model's kernel is set to them.
        """
        before = [_value(matrix.variable) for matrix in self._matrices]
        if not any(matrix.variable.constraint for matrix in self._matrices):
            return before
        held = self.device.drifted(self._devices().devices(), self._clock())
        intended = self._split((held[0] - held[1] + self.accumulator) / self._scale)
        for index, matrix in enumerate(self._matrices):
            if matrix.variable.constraint is not None:
                matrix.variable.assign(ops.cast(intended[index], matrix.variable.dtype))
                before[index] = _value(matrix.variable)
        return before

    @property
    def learning_rate(self) -> Tensor:
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Tensor) -> None:
        self.inner_optimizer.learning_rate = learning_rate

    @property
    def iterations(self) -> keras.Variable:
        return self.inner_optimizer.iterations

    def scale_loss(self, loss: Tensor) -> Tensor:
        return self.inner_optimizer.scale_loss(loss)

    def get_config(self) -> Config:
        return {
            "inner_optimizer": keras.saving.serialize_keras_object(self.inner_optimizer),
            "device": keras.saving.serialize_keras_object(self.device),
            "layers": self.layers,
            "w_max": self.w_max,
            "granularity": self.granularity,
            "max_pulses": self.max_pulses,
            "refresh_every": self.refresh_every,
            "refresh_above": self.refresh_above,
            "refresh_within": self.refresh_within,
            "programming_pulses": self.programming_pulses,
            "step_time": self.step_time,
            "seed": self.seed,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: Config, custom_objects: Config | None = None) -> Self:
        config = dict(config)
        for key in ("inner_optimizer", "device"):
            config[key] = keras.saving.deserialize_keras_object(config[key], custom_objects)
        return cls(**config)

    # The devices. -------------------------------------------------------------

    def program(self) -> None:
        """RESET all devices and program the weights that the model holds now.

        For weights that were set by hand after the optimizer was built. The accumulators are
        emptied; pulses are counted on. Not for compiled functions.

        Raises:
            ValueError: not built, or weights that are not finite.
        """
        targets = []
        for matrix in self._built():
            weights = ops.convert_to_numpy(matrix.variable)
            if not np.all(np.isfinite(weights)):
                raise ValueError(
                    f"The weights to be programmed must be finite. Received: NaN or infinity in "
                    f"{matrix.path}; start from finite weights."
                )
            plus, minus = self._pair.to_conductances(weights, self._scale)
            targets.append(np.ravel(plus - minus).astype("float32"))
        seed, clock = self.seed_generator.next(), self._clock()
        target = ops.convert_to_tensor(np.concatenate(targets))
        everywhere = ops.ones_like(target, dtype="bool")
        pairs = self._pairs.program(self._devices(), everywhere, target, clock, seed)
        self._keep(pairs)
        self.accumulator.assign(ops.zeros_like(target))
        self._show(self._reading(pairs, clock, seed))

    def read(self, wait: float = 0.0) -> None:
        """Let `wait` seconds pass and write a fresh reading of the devices into the model."""
        wait = _arguments.number("wait", wait, minimum=0.0)
        self._built()
        self.clock.assign(self.clock + wait)
        seed = self.seed_generator.next()
        self._show(self._reading(self._devices(), self._clock(), seed))

    def conductances(self) -> dict[str, np.ndarray]:
        """Return the conductances in uS after the last pulse, without drift and read noise.

        Returns:
            By path of the kernel, arrays (2, *kernel.shape): G+ and G-.
        """
        return self._by_path(self.conductance if self.built else None)

    def pulse_counts(self) -> dict[str, np.ndarray]:
        """Count the SET pulses so far, with programming: (2, *kernel.shape) by path."""
        return self._by_path(self.pulse_count if self.built else None)

    def refresh_counts(self) -> dict[str, np.ndarray]:
        """Count the refreshes of each pair so far: kernel.shape by path."""
        return self._by_path(self.refresh_count if self.built else None)

    def _built(self) -> "tuple[_Matrix, ...]":
        if not self.built:
            raise ValueError(
                "There are no devices before the optimizer is built. Fit the model, or call "
                "`optimizer.build(model.trainable_variables)`."
            )
        return self._matrices

    def _by_path(self, variable: keras.Variable | None) -> dict[str, np.ndarray]:
        found = {}
        start = 0
        for matrix in self._built():
            part = ops.convert_to_numpy(variable)[..., start : start + matrix.size]
            found[matrix.path] = part.reshape(part.shape[:-1] + matrix.shape)
            start += matrix.size
        return found

    def _step(self, wanted: Tensor) -> None:
        """Take steps 2 to 6 of the class's docstring; `wanted` in uS."""
        seed = self.seed_generator.next()
        wanted = self.accumulator + wanted
        self.clock.assign(self.clock + self.step_time)
        self.steps.assign(self.steps + 1)
        clock = self._clock()

        whole = ops.sign(wanted) * ops.floor(ops.abs(wanted) / self._pairs.granularity)
        # Pulses can be counted only where the accumulator is a number.
        whole = ops.where(ops.isfinite(wanted), whole, 0.0)
        whole = ops.clip(whole, -self.max_pulses, self.max_pulses)
        left = wanted - whole * self._pairs.granularity
        pairs = self._pairs.pulse(self._devices(), whole, clock, seed)

        if self.refresh_every is not None:
            due = ops.equal(self.steps % self.refresh_every, 0)
            kept = pairs
            pairs = PairState(
                *ops.cond(
                    due,
                    lambda: tuple(self._pairs.refresh(kept, clock, seed)),
                    lambda: tuple(kept),
                )
            )
        self._keep(pairs)
        self.accumulator.assign(left)
        weights = self._reading(pairs, clock, seed)
        self._show(ops.where(ops.isfinite(left), weights, np.nan))

    def _reading(self, pairs: PairState, clock: Tensor, seed: Tensor) -> Tensor:
        """Read once, as weights, flat."""
        return self._pair.to_weights(*self._pairs.read(pairs, clock, seed), self._scale)

    def _show(self, weights: Tensor) -> None:
        """Write flat weights into the model."""
        for matrix, part in zip(self._matrices, self._split(weights), strict=True):
            matrix.variable.assign(ops.cast(part, matrix.variable.dtype))

    def _split(self, weights: Tensor) -> list[Tensor]:
        """Cut flat weights into those of the kernels, in their shapes."""
        parts, start = [], 0
        for matrix in self._matrices:
            parts.append(ops.reshape(weights[start : start + matrix.size], matrix.shape))
            start += matrix.size
        return parts

    def _clock(self) -> Tensor:
        return ops.cast(self.clock, "float32")

    def _devices(self) -> PairState:
        return PairState(*(ops.convert_to_tensor(v) for v in self._device_variables()))

    def _keep(self, pairs: PairState) -> None:
        for variable, value in zip(self._device_variables(), pairs, strict=True):
            variable.assign(value)

    def _device_variables(self) -> tuple[keras.Variable, ...]:
        return (
            self.conductance,
            self.pulses_since_reset,
            self.last_pulse,
            self.pulse_count,
            self.refresh_count,
        )


class _Matrix:
    """A kernel that lives on devices. Not a list of variables: Keras would adopt those."""

    def __init__(self, variable: keras.Variable, taken: set[str]) -> None:
        self.variable = variable
        self.path = variable.path
        while self.path in taken:
            self.path += "_"
        self.shape = tuple(variable.shape)
        self.size = int(np.prod(self.shape))


def _choose(variables: Iterable[keras.Variable], layers: list[str] | None) -> list[_Matrix]:
    """Find the kernels among `variables` that belong to layers of these names or patterns."""
    kernels: list[_Matrix] = []
    for variable in variables:
        if is_kernel(variable):
            kernels.append(_Matrix(variable, {kernel.path for kernel in kernels}))
    if layers is not None:
        chosen = set()
        for pattern in layers:
            found = {k.path for k in kernels if within_layer(k.path, pattern)}
            if not found:
                paths = ", ".join(k.path for k in kernels) or "none"
                raise ValueError(
                    "Argument `layers` must name layers with trainable kernels. Received: "
                    f"{pattern!r}, which matches none of {paths}"
                )
            chosen |= found
        kernels = [k for k in kernels if k.path in chosen]
    if not kernels:
        raise ValueError(
            "PCMOptimizer needs kernels to put on devices. Received: a model without trainable "
            "ones among its variables; use the inner optimizer alone."
        )
    for kernel in kernels:
        if isinstance(kernel.variable.constraint, PCMConstraint):
            raise ValueError(
                "A kernel on devices must not have a PCMConstraint: the devices are what limits "
                f"it. Received: one at {kernel.path}; remove it or choose other `layers`."
            )
    return kernels


def _checked_inner(
    optimizer: keras.optimizers.Optimizer | str | Config,
) -> keras.optimizers.Optimizer:
    if isinstance(optimizer, str | dict):
        optimizer = keras.optimizers.get(optimizer)
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise TypeError(
            "Argument `inner_optimizer` must be a Keras optimizer or the name of one. Received: "
            f"{optimizer!r}"
        )
    if isinstance(optimizer, PCMOptimizer):
        raise TypeError("Argument `inner_optimizer` must train in float. Received: a PCMOptimizer")
    if optimizer.use_ema:
        raise ValueError(
            "Argument `inner_optimizer` must not average weights: no device holds the average. "
            "Received: one with use_ema=True"
        )
    return optimizer


def _optional(name: str, value: float | None) -> float | None:
    return None if value is None else _arguments.number(name, value, above=0.0)


def _value(variable: keras.Variable) -> Tensor:
    return ops.cast(ops.convert_to_tensor(variable), "float32")
