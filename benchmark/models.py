"""The networks as Keras models, on any backend."""

import functools
from typing import Any

import keras

from benchmark.contestants import Contestant
from benchmark.networks import Network
from snukeras.layers import PAPER, SNU, SSNU

_UNITS: dict[str, Any] = {
    "SNU": functools.partial(SNU, **PAPER),
    "SSNU": SSNU,
    "LSTM": keras.layers.LSTM,
    "GRU": keras.layers.GRU,
    "SimpleRNN": keras.layers.SimpleRNN,
    "Dense": lambda units, return_sequences, **arguments: keras.layers.Dense(
        units, activation="relu", **arguments
    ),
}


def model_of(contestant: Contestant, network: Network, **arguments: Any) -> keras.Model:
    """Return the network with the contestant's units; `arguments` go to each recurrent layer."""
    keras.utils.set_random_seed(0)
    if contestant.recurrent:
        arguments["recurrent"] = True
    policy = contestant.precision
    layers = [keras.Input((network.steps, network.sizes[0]))]
    for units in network.sizes[1:-1]:
        unit = _UNITS[contestant.kind]
        layers.append(unit(units, return_sequences=True, dtype=policy, **arguments))
    layers.append(keras.layers.Dense(network.sizes[-1], dtype=policy))
    if network.labels:
        layers.append(keras.layers.GlobalAveragePooling1D(dtype="float32"))
    return keras.Sequential(layers)


def compile_model(
    model: keras.Model, contestant: Contestant, network: Network, optimizer: str, rate: float
) -> None:
    """Compile a model with the contestant's `jit_compile` and the loss of the network."""
    chosen = {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam}[optimizer]
    if network.labels:
        loss: Any = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    else:
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
    jit_compile = "auto" if contestant.jit_compile is None else contestant.jit_compile
    model.compile(chosen(rate), loss, jit_compile=jit_compile)
