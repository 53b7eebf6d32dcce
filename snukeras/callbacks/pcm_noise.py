"""Train at the noisy weights that a PCM chip would hold."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops

from snukeras import _arguments
from snukeras._random import Quick, normal
from snukeras._types import Logs, Tensor
from snukeras.callbacks.noisy_steps import FirstStep, NoisySteps, Remover
from snukeras.constraints import PCMConstraint
from snukeras.network.matrices import chip_variables
from snukeras.network.models import all_layers, class_matcher, name_matcher
from snukeras.pcm.devices import InferencePCM
from snukeras.pcm.pairs import DifferentialPair

Layers: TypeAlias = Sequence[str | type] | str | type | None
"""A choice of layers: names, patterns such as "dense_*" and classes; None for all."""


class PCMNoise(keras.callbacks.Callback):
    """Take gradients at noisy weights and apply them to the clean ones.

        model.fit(x, y, callbacks=[snukeras.callbacks.PCMNoise()])

    A network trained so keeps its accuracy on devices with programming and read noise (Joshi et
    al. 2020, doi 10.1038/s41467-020-16108-9, who add Gaussian noise of 3.8 % of the range).

    One training step, in this order, all inside the training function of TensorFlow, JAX or torch:

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
    `train_function` of the model, and `apply` and `apply_gradients` (on JAX `stateless_apply`) of
    its optimizers, on these instances, and undoes all of it at the end, upon an error in a step,
    or at the latest when the next training begins. This works with steps_per_execution,
    jit_compile, run_eagerly, mixed precision and tf.distribute (all replicas get the same noise).
    A custom `train_step` that updates several times is noisy until its first update. One PCMNoise
    serves one `fit` at a time.

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
            have seen. Backends draw the same Gaussian noise, and that of an InferencePCM too.

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
        self._steps: NoisySteps | FirstStep | None = None
        self._entropy: Any = None
        self._epoch = 0

    def on_train_begin(self, logs: Logs = None) -> None:
        if isinstance(vars(self.model).get("make_train_function"), Remover):
            raise ValueError(
                "A model can be fitted with one PCMNoise only. Received: a second one; choose all "
                "layers in the first."
            )
        self._entropy = np.random.SeedSequence(self.seed).entropy
        if all(layer.built for layer in (self.model, *all_layers(self.model))):
            self._install()
        else:
            # A Sequential without Input has no kernels before its first batch.
            self._steps = FirstStep(self.model, self._install)

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
        if keras.backend.backend() == "jax":
            from snukeras.callbacks.noisy_steps_jax import JaxSteps

            self._steps = JaxSteps(self.model, variables, self._noisy)
        else:
            self._steps = NoisySteps(self.model, variables, self._noisy)
        self._start_epoch()

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._epoch = epoch
        self._start_epoch()

    def _start_epoch(self) -> None:
        """Set the random numbers and the factor of the epoch."""
        if not isinstance(self._steps, NoisySteps):
            return
        factor = 1.0
        if self.schedule is not None:
            factor = _arguments.number("schedule", self.schedule(self._epoch), minimum=0.0)
        state = np.random.SeedSequence([self._entropy, self._epoch]).generate_state(2)
        self._steps.start(state, factor)

    def on_train_end(self, logs: Logs = None) -> None:
        if self._steps is not None:
            self._steps.remove()
            self._steps = None

    def _noisy(self, variable: keras.Variable, factor: Tensor, seed: Quick) -> Tensor:
        """Return `variable` with fresh noise, as a tensor."""
        w = ops.cast(ops.stop_gradient(ops.convert_to_tensor(variable)), "float32")
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
