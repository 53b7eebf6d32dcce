"""Keras's activation functions as ONNX nodes."""

import math
from collections.abc import Callable
from typing import Any

import keras

from snukeras._types import Tensor
from snukeras.export.onnx.graph import GraphBuilder

Emit = Callable[[GraphBuilder, str, str], str]
Function = Callable[[Tensor], Tensor]


def _op(name: str, **attributes: Any) -> Emit:
    return lambda graph, x, hint: graph.node(name, [x], hint, **attributes)


def _relu6(graph: GraphBuilder, x: str, hint: str) -> str:
    bounds = [graph.constant(0.0, f"{hint}/zero"), graph.constant(6.0, f"{hint}/six")]
    return graph.node("Clip", [x, *bounds], hint)


def _silu(graph: GraphBuilder, x: str, hint: str) -> str:
    return graph.node("Mul", [x, graph.node("Sigmoid", [x], f"{hint}/sigmoid")], hint)


def _gelu(graph: GraphBuilder, x: str, hint: str) -> str:
    """Add x/2 (1 + erf(x / sqrt 2)), Keras's gelu with approximate=False."""
    root, one, half = (
        graph.constant(value, f"{hint}/{name}")
        for value, name in ((math.sqrt(0.5), "root_half"), (1.0, "one"), (0.5, "half"))
    )
    erf = graph.node("Erf", [graph.node("Mul", [x, root], f"{hint}/scaled")], f"{hint}/erf")
    whole = graph.node("Mul", [x, graph.node("Add", [erf, one], f"{hint}/sum")], f"{hint}/twice")
    return graph.node("Mul", [whole, half], hint)


def _exponential(graph: GraphBuilder, x: str, hint: str) -> str:
    return graph.node("Exp", [x], hint)


def _mish(graph: GraphBuilder, x: str, hint: str) -> str:
    bent = graph.node("Tanh", [graph.node("Softplus", [x], f"{hint}/softplus")], f"{hint}/tanh")
    return graph.node("Mul", [x, bent], hint)


def _hard_silu(graph: GraphBuilder, x: str, hint: str) -> str:
    gate = graph.node("HardSigmoid", [x], f"{hint}/gate", alpha=1.0 / 6.0, beta=0.5)
    return graph.node("Mul", [x, gate], hint)


def _hard_tanh(graph: GraphBuilder, x: str, hint: str) -> str:
    bounds = [graph.constant(-1.0, f"{hint}/low"), graph.constant(1.0, "one")]
    return graph.node("Clip", [x, *bounds], hint)


def _log_sigmoid(graph: GraphBuilder, x: str, hint: str) -> str:
    """Add -softplus(-x)."""
    turned = graph.node("Neg", [x], f"{hint}/turned")
    return graph.node("Neg", [graph.node("Softplus", [turned], f"{hint}/softplus")], hint)


def _tanh_shrink(graph: GraphBuilder, x: str, hint: str) -> str:
    return graph.node("Sub", [x, graph.node("Tanh", [x], f"{hint}/tanh")], hint)


_BY_FUNCTION: dict[Function, Emit] = {
    keras.activations.linear: lambda graph, x, hint: x,
    keras.activations.relu: _op("Relu"),
    keras.activations.relu6: _relu6,
    keras.activations.leaky_relu: _op("LeakyRelu", alpha=0.2),
    keras.activations.elu: _op("Elu", alpha=1.0),
    # Keras computes scale * alpha * (exp(x) - 1) below zero; these are its constants.
    keras.activations.selu: _op(
        "Selu", alpha=1.6732632423543772848170429916717, gamma=1.0507009873554804934193349852946
    ),
    keras.activations.softplus: _op("Softplus"),
    keras.activations.softsign: _op("Softsign"),
    keras.activations.tanh: _op("Tanh"),
    keras.activations.sigmoid: _op("Sigmoid"),
    keras.activations.hard_sigmoid: _op("HardSigmoid", alpha=1.0 / 6.0, beta=0.5),
    keras.activations.silu: _silu,
    keras.activations.gelu: _gelu,
    keras.activations.exponential: _exponential,
    keras.activations.softmax: _op("Softmax", axis=-1),
    keras.activations.log_softmax: _op("LogSoftmax", axis=-1),
    keras.activations.celu: _op("Celu", alpha=1.0),
    keras.activations.hard_shrink: _op("Shrink", lambd=0.5, bias=0.0),
    keras.activations.hard_silu: _hard_silu,
    keras.activations.hard_tanh: _hard_tanh,
    keras.activations.log_sigmoid: _log_sigmoid,
    keras.activations.mish: _mish,
    keras.activations.soft_shrink: _op("Shrink", lambd=0.5, bias=0.5),
    keras.activations.tanh_shrink: _tanh_shrink,
}


def emitter(activation: keras.Layer | Function | None) -> Emit | None:
    """Return the function that adds an activation's nodes, or None if there is none.

    Args:
        activation: A Keras activation function, or an activation layer without weights.
    """
    if activation is None:
        return _BY_FUNCTION[keras.activations.linear]
    if isinstance(activation, keras.layers.LeakyReLU):
        return _op("LeakyRelu", alpha=float(activation.negative_slope))
    if isinstance(activation, keras.layers.ELU):
        return _op("Elu", alpha=float(activation.alpha))
    if isinstance(activation, keras.layers.ReLU):
        plain = activation.max_value is None and not activation.threshold
        slope = float(activation.negative_slope)
        if not plain:
            return None
        return _op("LeakyRelu", alpha=slope) if slope else _op("Relu")
    if isinstance(activation, keras.layers.Activation):
        return emitter(activation.activation)
    try:
        return _BY_FUNCTION.get(activation)
    except TypeError:  # an object that cannot be hashed
        return None


def supported() -> list[str]:
    """Return the names of the activations that `emitter` knows."""
    return sorted(function.__name__ for function in _BY_FUNCTION)
