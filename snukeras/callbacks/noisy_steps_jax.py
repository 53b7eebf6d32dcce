"""Training steps at noisy weights on JAX, where a step is a function of the weights."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import keras
import numpy as np

from snukeras._random import Quick
from snukeras._types import Nested
from snukeras.callbacks.noisy_steps import NoisySteps


class JaxSteps(NoisySteps):
    """The replacement of a model's training step on JAX; see PCMNoise.

    The step gets its weights in the state that `fit` hands on, and these are always clean. What
    the noise needs, two integers and the factor, comes with each batch.
    """

    APPLY = ("stateless_apply",)

    def prepare(self) -> None:
        """Find the weights in the state, and how many random numbers a step starts with."""
        places = {id(v): number for number, v in enumerate(self.model.trainable_variables)}
        self.places = [places[id(v)] for v in self.variables]
        self.generator = keras.random.SeedGenerator(0)
        # A step counts on from the last one; how far, one draw of noise tells.
        self.number, before = 0, np.asarray(self.generator.state.value)
        for variable in self.variables:
            self.noisy(variable, jnp.float32(0.0), Quick(self.generator))
        self.draws = (np.asarray(self.generator.state.value) - before).astype("uint32")
        self.start(np.zeros(2, "uint32"), 1.0)

    def start(self, state: np.ndarray, factor: float) -> None:
        self.state, self.factor, self.number = state.astype("uint32"), factor, 0

    def clean(self) -> None:
        """Do nothing: the variables of the model are never noisy."""

    def fed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def train_function(state: Nested, iterator: Iterator[Nested]) -> Nested:
            return function(state, self._numbered(iterator))

        return train_function

    def _numbered(self, iterator: Iterator[Nested]) -> Iterator[Nested]:
        for data in iterator:
            # 32 bits: they wrap around.
            seed = self.state + np.uint32(self.number) * self.draws
            self.number += 1
            yield data, (seed, np.float32(self.factor))

    def noisy_step(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def train_step(state: tuple, given: tuple) -> tuple[Nested, tuple]:
            data, (seed, factor) = given
            clean, *others = state
            noisy = list(clean)
            mapping = [(v, clean[i]) for v, i in zip(self.variables, self.places, strict=True)]
            mapping.append((self.generator.state, seed))
            with keras.StatelessScope(state_mapping=mapping):
                for variable, i in zip(self.variables, self.places, strict=True):
                    found = self.noisy(variable, factor, Quick(self.generator))
                    noisy[i] = found.astype(clean[i].dtype)
            self.trace.clean = clean
            try:
                logs, (trained, *others) = original((noisy, *others), data)
                # A step that called no optimizer.
                trained = trained if self.trace.clean is None else clean
            finally:
                self.trace.clean = None
            return logs, (trained, *others)

        return train_step

    def clean_first(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def stateless_apply(optimizer_variables: Any, grads: Any, trainable: Any) -> Any:
            # A second update of a custom step goes on from the first.
            clean = getattr(self.trace, "clean", None)
            self.trace.clean = None
            return original(optimizer_variables, grads, trainable if clean is None else clean)

        return stateless_apply
