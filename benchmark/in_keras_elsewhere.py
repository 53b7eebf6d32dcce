"""Contestants on Keras with JAX or torch in the place of TensorFlow: this package and Keras's LSTM.

The models, data and optimizers are those of `in_keras`.
"""

import itertools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from benchmark.contestants import Contestant
from benchmark.models import compile_model, model_of
from benchmark.networks import Network


def build(
    contestant: Contestant, network: Network, work: str, optimizer: str, rate: float
) -> Callable[[], Any]:
    """Return a function that does one step; the counterpart of `in_keras.build`.

    A training step is the function that `fit` calls for each batch, without the callbacks. An
    inference step calls the model compiled by `jax.jit`, or under `torch.inference_mode`.
    """
    x, y = network.data()
    model = model_of(contestant, network)
    if work == "train":
        compile_model(model, contestant, network, optimizer, rate)
        batch = tuple(keras.ops.convert_to_tensor(each) for each in (x, y))
        model.train_on_batch(*batch)
        return _trained_by_jax(model, batch) if _on_jax() else _trained_by_torch(model, batch)
    if _on_jax():
        return _in_jax(model, x)
    import torch

    inputs = keras.ops.convert_to_tensor(x)  # where Keras has the weights

    def infer() -> Any:
        with torch.inference_mode():
            return model(inputs, training=False)

    return infer


def _on_jax() -> bool:
    return keras.backend.backend() == "jax"


def _trained_by_torch(model: keras.Model, batch: tuple) -> Callable[[], Any]:
    def step() -> Any:
        return model.train_function([batch])["loss"]

    # The loss that Keras reports is the mean since the last reset.
    step.reset = model.reset_metrics  # type: ignore[attr-defined]
    return step


def _trained_by_jax(model: keras.Model, batch: tuple) -> Callable[[], Any]:
    parts = (*_parts(model), model.optimizer.variables, model.metrics_variables)
    # Copied: the step takes the memory of its state.
    state = tuple([v.value.copy() for v in part] for part in parts)
    batches = itertools.repeat(batch)

    def step() -> Any:
        nonlocal state
        logs, state = model.train_function(state, batches)
        return logs["loss"]

    def reset() -> None:
        nonlocal state
        state = (*state[:3], [jax.numpy.zeros_like(v) for v in state[3]])

    import jax

    step.reset = reset  # type: ignore[attr-defined]
    return step


def _in_jax(model: keras.Model, x: np.ndarray) -> Callable[[], Any]:
    import jax

    weights = [[v.value for v in part] for part in _parts(model)]
    function = jax.jit(lambda weights, x: model.stateless_call(*weights, x, training=False)[0])
    inputs = jax.numpy.asarray(x)
    return lambda: function(weights, inputs)


def _parts(model: keras.Model) -> tuple[list[keras.Variable], list[keras.Variable]]:
    return model.trainable_variables, model.non_trainable_variables


def wait(result: Any) -> None:
    """Wait for a step to end."""
    if _on_jax():
        result.block_until_ready()
        return
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def value(result: Any) -> float:
    """Return the mean of a step's result: for training, the loss."""
    return float(np.mean(np.asarray(keras.ops.convert_to_numpy(result), "float32")))
