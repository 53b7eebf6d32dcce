"""Training steps at noisy weights: what `PCMNoise` puts in the place of a model's own."""

import contextlib
import functools
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

import keras
import numpy as np
from keras import ops

from snukeras import _strategy
from snukeras._random import Quick
from snukeras._types import Nested, Tensor

if TYPE_CHECKING:
    import tensorflow as tf

_P = ParamSpec("_P")
_R = TypeVar("_R")


class _Steps(Protocol):
    """A replacement of parts of a model's training, until it is removed."""

    model: keras.Model

    def remove(self) -> None:
        """Restore the model as it was."""


class FirstStep:
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
        model.make_train_function = Remover(self)

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
        with _strategy.scope_of(self.model):
            self.model(symbols, training=True)
        self._then()
        return self.model.train_function(iterator)


class NoisySteps:
    """The replacement of a model's training step on TensorFlow and torch; see PCMNoise.

    Args:
        model: the model, built.
        variables: those that get noise.
        noisy: `noisy(variable, factor, seed)` returns one of them with fresh noise.
    """

    # The methods of optimizers that get the gradients.
    APPLY: tuple[str, ...] = ("apply", "apply_gradients")

    def __init__(
        self,
        model: keras.Model,
        variables: list[keras.Variable],
        noisy: Callable[[keras.Variable, Tensor, Quick], Tensor],
    ) -> None:
        self.model = model
        self.variables = variables
        self.noisy = noisy
        # Per thread: tf.distribute traces the replicas in threads that take turns.
        self.trace = threading.local()
        self._originals: list[tuple[object, str, object]] = []
        self.prepare()
        self._install()

    def prepare(self) -> None:
        """Make what the noisy steps need beside the model."""
        with _strategy.scope_of(self.model):
            # Variables of mirrored models must be mirrored as well. All replicas compute the same
            # values, so it does not matter whose is taken.
            self.seed = Quick(keras.random.SeedGenerator(0))
            make = functools.partial(
                keras.Variable, trainable=False, aggregation="only_first_replica"
            )
            self.store = [make(ops.convert_to_numpy(v), dtype=v.dtype) for v in self.variables]
            self.factor = make(1.0, dtype="float32")
            self.dirty = make(0.0, dtype="float32")

    def start(self, state: np.ndarray, factor: float) -> None:
        """Begin an epoch with a state of the random numbers and a factor on the noise."""
        self.seed.generator.state.assign(state)
        self.factor.assign(factor)

    def _install(self) -> None:
        model = self.model
        self._replace(model, "train_step", self.noisy_step)
        for optimizer in _optimizers(model):
            for name in self.APPLY:
                self._replace(optimizer, name, self.clean_first)
        self._plain_function = model.train_function
        model.make_train_function(force=True)
        self._function = self._guarded(self.fed(model.train_function))
        model.train_function = self._function
        self._replace(model, "make_train_function", lambda original: Remover(self))

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
        if float(ops.convert_to_numpy(self.dirty)):
            for variable, kept in zip(self.variables, self.store, strict=True):
                variable.assign(kept)
            self.dirty.assign(0.0)

    def fed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the training function as `fit` calls it."""
        return function

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

    def noisy_step(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Return the training step of a model at noisy weights."""

        @functools.wraps(original)
        def train_step(*args: Any, **kwargs: Any) -> Any:
            self._perturb()
            try:
                return original(*args, **kwargs)
            finally:
                self._restore()  # a step that called no optimizer

        return train_step

    def clean_first(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Return a method of an optimizer that sees clean weights."""

        @functools.wraps(original)
        def clean_first(*args: Any, **kwargs: Any) -> Any:
            self._restore()
            return original(*args, **kwargs)

        return clean_first

    # In a graph only operations on one variable keep their order by themselves; `dirty` has to be
    # raised before the first weight changes and lowered after the last one is back.

    def _perturb(self) -> None:
        for variable, kept in zip(self.variables, self.store, strict=True):
            kept.assign(variable)
        with _after(self.store):
            self.dirty.assign(1.0)
        factor = ops.convert_to_tensor(self.factor)
        with _after([self.dirty]):
            for variable in self.variables:
                variable.assign(ops.cast(self.noisy(variable, factor, self.seed), variable.dtype))
        self.trace.noisy = True

    def _restore(self) -> None:
        if not getattr(self.trace, "noisy", False):
            return
        self.trace.noisy = False
        for variable, kept in zip(self.variables, self.store, strict=True):
            variable.assign(kept)
        with _after(self.variables):
            self.dirty.assign(0.0)


class Remover:
    """Clean up when the next training begins, in place of make_train_function.

    `fit` ends without a word to its callbacks when one of them, or the data, raises an error.
    """

    def __init__(self, steps: _Steps) -> None:
        self._steps = steps

    def __call__(self, force: bool = False) -> Callable[..., Nested]:
        model = self._steps.model
        self._steps.remove()
        return model.make_train_function(force=force)


def _after(variables: list[keras.Variable]) -> contextlib.AbstractContextManager:
    """Return a context whose operations come after the changes of variables so far."""
    if keras.backend.backend() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow as tf

    return tf.control_dependencies([tf.convert_to_tensor(v.value) for v in variables])


def _optimizers(model: keras.Model) -> list[keras.optimizers.Optimizer]:
    """Return the optimizer that `compile` knows, and others that a custom train_step may use."""
    candidates = [model.optimizer, *vars(model).values()]
    found = {id(o): o for o in candidates if isinstance(o, keras.optimizers.Optimizer)}
    return list(found.values())
