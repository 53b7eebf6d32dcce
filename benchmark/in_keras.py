"""Contestants on Keras and TensorFlow: this package, Keras's own units, the bare products."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from benchmark.contestants import Contestant
from benchmark.models import compile_model, model_of
from benchmark.networks import Network
from snukeras.layers import PAPER, SNU


def build(
    contestant: Contestant, network: Network, work: str, optimizer: str, rate: float
) -> Callable[[], Any]:
    """Return a function that does one step.

    A training step is the very function that `fit` calls for each batch, fed by a tf.data
    iterator, without the callbacks; it returns the loss. An inference step calls the model inside
    a concrete function, as the signature of a saved model is called, and returns the outputs.
    """
    if contestant.is_floor:
        return products(contestant, network, work)
    if contestant.kind in ("call", "scans"):
        return part(contestant, network)
    x, y = network.data()
    model = model_of(contestant, network)
    if work == "inference":
        function = tf.function(
            lambda x: model(x, training=False), jit_compile=contestant.jit_compile, autograph=False
        )
        inputs = tf.constant(x)
        # tf.function itself takes 0.05 ms more, in Python, to see that the arguments are as before.
        concrete = function.get_concrete_function(inputs)
        return lambda: concrete(inputs)
    compile_model(model, contestant, network, optimizer, rate)
    data = tf.data.Dataset.from_tensors((x, y)).repeat()
    model.fit(data, steps_per_epoch=1, epochs=1, verbose=0)
    iterator = iter(data)

    def step() -> tf.Tensor:
        return model.train_function(iterator)["loss"]

    # The loss that Keras reports is the mean since the last reset.
    step.reset = model.reset_metrics  # type: ignore[attr-defined]
    return step


def products(contestant: Contestant, network: Network, work: str) -> Callable[[], Any]:
    """Return a function that does the products of a step and nothing else."""
    dtype = "bfloat16" if contestant.precision == "mixed_bfloat16" else "float32"
    rng = np.random.default_rng(0)
    shapes = network.products(work, contestant.recurrent)
    factors = [
        (
            tf.cast(rng.normal(size=(rows, inner)).astype("float32"), dtype),
            tf.cast(rng.normal(size=(inner, columns)).astype("float32") / inner**0.5, dtype),
        )
        for rows, inner, columns, _ in shapes
    ]

    @tf.function(jit_compile=contestant.jit_compile, autograph=False)
    def function(factors: list[tuple[tf.Tensor, tf.Tensor]]) -> list[tf.Tensor]:
        results = []
        for (left, right), (_, _, _, times) in zip(factors, shapes, strict=True):
            for _ in range(times):
                # Products that repeat are square, and each waits for the one before.
                left = tf.matmul(left, right)
            results.append(left)
        return results

    concrete = function.get_concrete_function(factors)
    return lambda: concrete(factors)[-1]


def part(contestant: Contestant, network: Network) -> Callable[[], Any]:
    """Return a function that does a part of an inference step of SNUs: "call" or "scans"."""
    rng = np.random.default_rng(0)
    shapes = [(network.batch, network.steps, units) for units in network.sizes[1:-1]]
    drives = [tf.constant(rng.normal(size=shape), "float32") for shape in shapes]
    layers = [SNU(units, return_sequences=True, **PAPER) for units in network.sizes[1:-1]]
    for layer in layers:
        layer.cell.project = lambda drive: drive

    def scans(drives: list[tf.Tensor]) -> list[tf.Tensor]:
        return [layer(drive) for layer, drive in zip(layers, drives, strict=True)]

    def call(drives: list[tf.Tensor]) -> list[tf.Tensor]:
        return [drive[0, 0] for drive in drives]

    function = tf.function(
        {"scans": scans, "call": call}[contestant.kind],
        jit_compile=contestant.jit_compile,
        autograph=False,
    )
    concrete = function.get_concrete_function(drives)
    return lambda: concrete(drives)[-1]


def wait(result: Any) -> None:
    """Wait for a step to end."""
    result.numpy()


def value(result: Any) -> float:
    """Return the mean of a step's result: for training, the loss."""
    return float(np.mean(np.float32(result)))


def train_a_little(contestant: Contestant, network: Network, arguments: dict) -> None:
    """Do two training steps; `arguments` go to the recurrent layers."""
    model = model_of(contestant, network, **arguments)
    compile_model(model, contestant, network, "sgd", 0.1)
    data = tf.data.Dataset.from_tensors(network.data()).repeat()
    model.fit(data, steps_per_epoch=2, epochs=1, verbose=0)


def stored_bytes(contestant: Contestant, network: Network) -> int | None:
    """Return what the first layer holds between its passes with its output; None if untold.

    Measured within a graph, as in `fit`, where what the forward pass alone needs is free by then.
    The figure holds for a process that did nothing before, since freed memory stays with it.
    """
    layer = model_of(contestant, network).layers[0]
    readings: list[int | None] = []

    def read() -> float:
        readings.append(_resident_bytes())
        return 0.0

    @tf.function(autograph=False)
    def step(inputs: tf.Tensor) -> list[list[tf.Tensor]]:
        tapes: list[tf.GradientTape] = []
        outputs: list[tf.Tensor] = []
        done: list[tf.Tensor] = []
        # Later passes reuse scratch memory; only tensors kept for the backward pass accumulate.
        for _ in range(4):
            with tf.control_dependencies(done), tf.GradientTape() as tape:
                outputs.append(layer(tf.identity(inputs), training=True))
            tapes.append(tape)
            with tf.control_dependencies(outputs):
                done = [tf.py_function(read, [], "float32")]
        with tf.control_dependencies(done):
            upstream = [0.5 * output for output in outputs]
        return [
            tape.gradient(output, layer.trainable_variables, gradient)
            for tape, output, gradient in zip(tapes, outputs, upstream, strict=True)
        ]

    step(tf.constant(network.data()[0]))
    second, fourth = readings[1], readings[3]
    return None if second is None or fourth is None else (fourth - second) // 2


def _resident_bytes() -> int | None:
    """Return the memory of this process, where the system tells it."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("VmRSS:"):
                    return 1024 * int(line.split()[1])
    except OSError:
        pass
    return None
