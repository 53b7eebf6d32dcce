"""Contestants on Keras with JAX or torch in the place of TensorFlow: this package and Keras's LSTM.

The models, data and optimizers are those of `in_keras`.
"""

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

    A training step is `train_on_batch`, which does what `fit` does for each batch. An inference
    step calls the model compiled by `jax.jit`, or under `torch.inference_mode`.
    """
    x, y = network.data()
    model = model_of(contestant, network)
    if work == "train":
        compile_model(model, contestant, network, optimizer, rate)
        x, y = (keras.ops.convert_to_tensor(each) for each in (x, y))

        def step() -> Any:
            return model.train_on_batch(x, y, return_dict=True)["loss"]

        step.reset = model.reset_metrics  # type: ignore[attr-defined]
        return step
    if keras.backend.backend() == "jax":
        return _in_jax(model, x)
    import torch

    inputs = torch.as_tensor(x)

    def infer() -> Any:
        with torch.inference_mode():
            return model(inputs, training=False)

    return infer


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
    getattr(result, "block_until_ready", lambda: None)()


def value(result: Any) -> float:
    """Return the mean of a step's result: for training, the loss."""
    return float(np.mean(np.asarray(keras.ops.convert_to_numpy(result), "float32")))
