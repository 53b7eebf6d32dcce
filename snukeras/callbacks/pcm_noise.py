"""Train at the noisy weights that a PCM chip would hold."""

import functools
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeAlias, TypeVar

import keras
import numpy as np
from keras import ops

from snukeras import _arguments
from snukeras._random import Quick, normal
from snukeras._types import Logs, Nested, Tensor
from snukeras.constraints import PCMConstraint
from snukeras.network.matrices import chip_variables
from snukeras.network.models import all_layers, class_matcher, name_matcher
from snukeras.pcm.devices import InferencePCM
from snukeras.pcm.pairs import DifferentialPair

if TYPE_CHECKING:
    import tensorflow as tf

_P = ParamSpec("_P")
_R = TypeVar("_R")

Layers: TypeAlias = Sequence[str | type] | str | type | None
"""A choice of layers: names, patterns such as "dense_*" and classes; None for all."""


class PCMNoise(keras.callbacks.Callback):
    """Take gradients at noisy weights and apply them to the clean ones.

        model.fit(x, y, callbacks=[snukeras.callbacks.PCMNoise()])

    A network trained so keeps its accuracy on devices with programming and read noise (Joshi et
    al. 2020, doi 10.1038/s41467-020-16108-9, who add Gaussian noise of 3.8 % of the range).

    One training step, in this order, all inside the compiled training function:

    1. The clean weights of the chosen layers are copied to a store beside the model.
    2. Fresh noise is drawn and added to them.
    3. The model's own `train_step` runs: forward pass, loss (with regularizers), gradients. All of
       them, and the loss and metrics shown during training, belong to the noisy weights.
    4. When it hands the gradients to the optimizer, the clean weights are put back first, bit for
       bit. Update, weight decay, moving averages and constraints then see clean weights, once.

    So the weights are clean whenever Python runs: in every callback, whatever their order, in
    checkpoints, in validation, and after an interruption. If a step itself fails halfway, the
    clean weights are put back from the store before the error goes on.

    How it is done: for the duration of `fit`, the callback replaces `train_step` and
    `train_function` of the model, and `apply` and `apply_gradients` of its optimizers, on these
    instances, and undoes all of it at the end, upon an error in a step, or at the latest when the
    next training begins. This works with steps_per_execution, jit_compile, run_eagerly, mixed
    precision and tf.distribute (all replicas get the same noise). A custom `train_step` that
    updates several times is noisy until its first update. One PCMNoise serves one `fit` at a time.

    Args:
        noise: standard deviation of Gaussian noise as a fraction of the range of the weights; or
            an InferencePCM, whose programming, drift and read noise then act on both devices of
            each weight. The range, which stands for the largest conductance, is max |w|, or the
            range of the weights' PCMConstraint.
        scale: "tensor" or "column" (last axis): what shares a range.
        schedule: None or a function of the epoch (from 0) that gives a factor on the noise.
        layers: None (all), or a list of layer names, patterns such as "dense_*", or layer classes.
            Only their trainable kernels get noise; a warning tells what matched nothing.
        embeddings: whether embedding tables get noise too.
        time: for an InferencePCM, s since the reference reading. The mean drift at that time is
            compensated, so that the mean |w| of each tensor, or of each column (`scale`), stays.
        seed: int or None (a random one). The noise of an epoch depends on the seed and on its
            number alone, so that a training that goes on from `initial_epoch` sees what it would
            have seen.

    Raises:
        ValueError: negative noise or time, an unknown word; at `fit`, a second PCMNoise.
    """

    def __init__(
        self,
        noise: float | InferencePCM = 0.038,
        scale: str = "tensor",
        schedule: Callable[[int], float] | None = None,
        layers: Layers = None,
        embeddings: bool = False,
        time: float = 0.0,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(noise, InferencePCM):
            noise = _arguments.number("noise", noise, minimum=0.0)
        if schedule is not None and not callable(schedule):
            raise ValueError(
                "Argument `schedule` must be None or a function of the epoch that gives a factor "
                f"on the noise. Received: schedule={schedule!r}"
            )
        if isinstance(layers, str | type):
            layers = [layers]
        self.noise = noise
        self.scale = _arguments.choice("scale", scale, ("tensor", "column"))
        self.schedule = schedule
        self.layers = layers
        self.embeddings = embeddings
        self.time = _arguments.number("time", time, minimum=0.0)
        self.seed = None if seed is None else _arguments.whole("seed", seed, minimum=0)
        self._steps: _NoisySteps | _FirstStep | None = None
        self._entropy: Any = None
        self._epoch = 0

    def on_train_begin(self, logs: Logs = None) -> None:
        if keras.backend.backend() != "tensorflow":
            raise ValueError(
                "PCMNoise needs the TensorFlow backend. Received: the backend "
                f"{keras.backend.backend()}; set KERAS_BACKEND=tensorflow"
            )
        if isinstance(vars(self.model).get("make_train_function"), _Remover):
            raise ValueError(
                "A model can be fitted with one PCMNoise only. Received: a second one; choose all "
                "layers in the first."
            )
        self._entropy = np.random.SeedSequence(self.seed).entropy
        if all(layer.built for layer in (self.model, *all_layers(self.model))):
            self._install()
        else:
            # A Sequential without Input has no kernels before its first batch.
            self._steps = _FirstStep(self.model, self._install)

    def _install(self) -> None:
        """Replace the steps of the model, which is built, by noisy ones."""
        self._steps = None
        variables = choose_variables(self.model, self.layers, self.embeddings)
        if not variables:
            warnings.warn(
                "PCMNoise found no trainable kernels: this training is without noise.",
                stacklevel=2,
            )
            return
        self._steps = _NoisySteps(self.model, variables, self._noisy)
        self._start_epoch()

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._epoch = epoch
        self._start_epoch()

    def _start_epoch(self) -> None:
        """Set the random numbers and the factor of the epoch."""
        if not isinstance(self._steps, _NoisySteps):
            return
        state = np.random.SeedSequence([self._entropy, self._epoch]).generate_state(2)
        self._steps.seed.generator.state.assign(state)
        if self.schedule is not None:
            factor = _arguments.number("schedule", self.schedule(self._epoch), minimum=0.0)
            self._steps.factor.assign(factor)

    def on_train_end(self, logs: Logs = None) -> None:
        if self._steps is not None:
            self._steps.remove()
            self._steps = None

    def _noisy(self, variable: keras.Variable, factor: keras.Variable, seed: Quick) -> Tensor:
        """Return `variable` with fresh noise, as a tensor."""
        w = ops.cast(ops.convert_to_tensor(variable), "float32")
        constraint = getattr(variable, "constraint", None)
        if isinstance(constraint, PCMConstraint):
            top = constraint.max_weight(w)
        else:
            top = DifferentialPair(scale=self.scale).max_weight(w)
        if not isinstance(self.noise, InferencePCM):
            return w + (factor * self.noise * top) * normal(w.shape, "float32", seed)
        pair = DifferentialPair(self.noise.g_max)
        scales = pair.span / top
        targets = ops.stack(pair.to_conductances(w, scales))
        state = self.noise.program(targets, seed=seed)
        held = self.noise.read(state, self.time, seed=seed)
        held = pair.to_weights(held[0], held[1], scales)
        if self.time:
            # Not the mean of `held`: it would cancel the read noise in part.
            drifted = self.noise.drifted(state, self.time)
            drifted = pair.to_weights(drifted[0], drifted[1], scales)
            axes = tuple(range(len(w.shape) - 1)) if self.scale == "column" else None
            mean, now = (ops.mean(ops.abs(part), axis=axes) for part in (w, drifted))
            # A column of zeros stays as it was read.
            held = held * ops.where(mean > 0, mean / ops.maximum(now, 1e-30), 1.0)
        return w + factor * (held - w)


def choose_variables(
    model: keras.Model, layers: Layers = None, embeddings: bool = False
) -> list[keras.Variable]:
    """Return the trainable kernels of a model.

    Args:
        model: the model, built.
        layers: the layers whose kernels are chosen.
        embeddings: whether embedding tables are among them.
    """
    kernels = [v for v in chip_variables(model, embeddings).values() if v.trainable]
    if layers is None:
        return kernels
    chosen: set[int] = set()
    for wanted in [layers] if isinstance(layers, str | type) else layers:
        matches = name_matcher(wanted) if isinstance(wanted, str) else class_matcher(wanted)
        found = {id(v) for layer in all_layers(model) if matches(layer) for v in layer.weights}
        found &= {id(v) for v in kernels}
        if not found:
            names = sorted({layer.name for layer in all_layers(model)})
            warnings.warn(
                f"PCMNoise: {wanted!r} in `layers` matches no layer with trainable kernels. "
                f"The layers are: {', '.join(names)}.",
                stacklevel=3,
            )
        chosen |= found
    return [v for v in kernels if id(v) in chosen]


class _Steps(Protocol):
    """A replacement of parts of a model's training, until it is removed."""

    model: keras.Model

    def remove(self) -> None:
        """Restore the model as it was."""


class _FirstStep:
    """Build a model by its first batch, before anything is trained, in place of train_function.

    Args:
        model: the model, not built.
        then: called once the model is built; it may replace the training function.
    """

    def __init__(self, model: keras.Model, then: Callable[[], None]) -> None:
        self.model = model
        self._then = then
        self._plain_function = model.train_function
        model.train_function = self
        model.make_train_function = _Remover(self)

    def remove(self) -> None:
        """Restore the model as it was."""
        del self.model.make_train_function
        # A model compiled anew in between has dropped this function already.
        if self.model.train_function is self:
            self.model.train_function = self._plain_function

    def __call__(self, iterator: "tf.data.Iterator") -> Nested:
        self.remove()
        x, *_ = keras.utils.unpack_x_y_sample_weight(iterator.element_spec)
        # Symbolic: no batch is consumed, and initializers run eagerly, as where there is an Input.
        symbols = keras.tree.map_structure(
            lambda spec: keras.KerasTensor((None, *spec.shape[1:]), dtype=spec.dtype.name), x
        )
        with self.model.distribute_strategy.scope():
            self.model(symbols, training=True)
        self._then()
        return self.model.train_function(iterator)


class _NoisySteps:
    """The replacement of a model's training step; see PCMNoise."""

    def __init__(
        self,
        model: keras.Model,
        variables: list[keras.Variable],
        noisy: Callable[[keras.Variable, keras.Variable, Quick], Tensor],
    ) -> None:
        self.model = model
        self.variables = variables
        self.noisy = noisy
        with model.distribute_strategy.scope():
            # Variables of mirrored models must be mirrored as well. All replicas compute the same
            # values, so it does not matter whose is taken.
            self.seed = Quick(keras.random.SeedGenerator(0))
            make = functools.partial(
                keras.Variable, trainable=False, aggregation="only_first_replica"
            )
            self.store = [make(v.numpy(), dtype=v.dtype) for v in variables]
            self.factor = make(1.0, dtype="float32")
            self.dirty = make(0.0, dtype="float32")
        # Per thread: tf.distribute traces the replicas in threads that take turns.
        self._trace = threading.local()
        self._originals: list[tuple[object, str, object]] = []
        self._install()

    def _install(self) -> None:
        model = self.model
        self._replace(model, "train_step", self._train_step)
        for optimizer in _optimizers(model):
            self._replace(optimizer, "apply", self._clean_first)
            self._replace(optimizer, "apply_gradients", self._clean_first)
        self._plain_function = model.train_function
        model.make_train_function(force=True)
        self._function = self._guarded(model.train_function)
        model.train_function = self._function
        self._replace(model, "make_train_function", lambda original: _Remover(self))

    def _replace(self, owner: object, name: str, wrap: Callable[[Callable], Callable]) -> None:
        original = getattr(owner, name)
        self._originals.append((owner, name, vars(owner).get(name)))
        setattr(owner, name, wrap(original))

    def remove(self) -> None:
        """Restore the model and its optimizers as they were."""
        self.clean()
        for owner, name, original in reversed(self._originals):
            if original is None:
                delattr(owner, name)
            else:
                setattr(owner, name, original)
        self._originals = []
        # A model compiled anew in between has dropped the noisy function already.
        if self.model.train_function is self._function:
            self.model.train_function = self._plain_function

    def clean(self) -> None:
        """Put the clean weights back, outside of a step, if one failed before it could."""
        if float(self.dirty.numpy()):
            for variable, kept in zip(self.variables, self.store, strict=True):
                variable.assign(kept)
            self.dirty.assign(0.0)

    def _guarded(self, function: Callable[_P, _R]) -> Callable[_P, _R]:
        @functools.wraps(function)
        def guarded(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            try:
                return function(*args, **kwargs)
            except StopIteration:
                raise
            except BaseException:
                self.remove()
                raise

        return guarded

    def _train_step(self, original: Callable[_P, _R]) -> Callable[_P, _R]:
        @functools.wraps(original)
        def train_step(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            self._perturb()
            try:
                return original(*args, **kwargs)
            finally:
                self._restore()  # a step that called no optimizer

        return train_step

    def _clean_first(self, original: Callable[_P, _R]) -> Callable[_P, _R]:
        @functools.wraps(original)
        def clean_first(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            self._restore()
            return original(*args, **kwargs)

        return clean_first

    # In a graph only operations on one variable keep their order by themselves; `dirty` has to be
    # raised before the first weight changes and lowered after the last one is back.

    def _perturb(self) -> None:
        import tensorflow as tf

        for variable, kept in zip(self.variables, self.store, strict=True):
            kept.assign(variable)
        with tf.control_dependencies([_value(kept) for kept in self.store]):
            self.dirty.assign(1.0)
        with tf.control_dependencies([_value(self.dirty)]):
            for variable in self.variables:
                variable.assign(
                    ops.cast(self.noisy(variable, self.factor, self.seed), variable.dtype)
                )
        self._trace.noisy = True

    def _restore(self) -> None:
        import tensorflow as tf

        if not getattr(self._trace, "noisy", False):
            return
        self._trace.noisy = False
        for variable, kept in zip(self.variables, self.store, strict=True):
            variable.assign(kept)
        with tf.control_dependencies([_value(variable) for variable in self.variables]):
            self.dirty.assign(0.0)


class _Remover:
    """Clean up when the next training begins, in place of make_train_function.

    `fit` ends without a word to its callbacks when one of them, or the data, raises an error.
    """

    def __init__(self, steps: _Steps) -> None:
        self._steps = steps

    def __call__(self, force: bool = False) -> Callable[..., Nested]:
        model = self._steps.model
        self._steps.remove()
        return model.make_train_function(force=force)


def _value(variable: keras.Variable) -> "tf.Tensor":
    import tensorflow as tf

    return tf.convert_to_tensor(variable.value)


def _optimizers(model: keras.Model) -> list[keras.optimizers.Optimizer]:
    """Return the optimizer that `compile` knows, and others that a custom train_step may use."""
    candidates = [model.optimizer, *vars(model).values()]
    found = {id(o): o for o in candidates if isinstance(o, keras.optimizers.Optimizer)}
    return list(found.values())
