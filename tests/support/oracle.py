"""A slow SNU in plain NumPy, written from the equations alone: the oracle of every fast path."""

from dataclasses import dataclass

import numpy as np

ACTIVATIONS = {
    "relu": (lambda a: np.maximum(a, 0), lambda a: (a > 0) * 1.0),
    "linear": (lambda a: a, np.ones_like),
    "leaky_relu": (lambda a: np.where(a > 0, a, 0.2 * a), lambda a: np.where(a > 0, 1.0, 0.2)),
    "tanh": (np.tanh, lambda a: 1 - np.tanh(a) ** 2),
    "softplus": (lambda a: np.log1p(np.exp(a)), lambda a: 1 / (1 + np.exp(-a))),
}
PSEUDO_DERIVATIVES = {
    "tanh": lambda z: 1 - np.tanh(z) ** 2,
    "fast_sigmoid": lambda z: 1 / (1 + np.abs(z)) ** 2,
    "arctan": lambda z: 1 / (1 + z**2),
    "boxcar": lambda z: (np.abs(z) < 0.5) * 1.0,
    "triangular": lambda z: np.maximum(0, 1 - np.abs(z)),
}


@dataclass
class Unit:
    """The parameters of one layer; arrays are float64."""

    kernel: np.ndarray
    decay: np.ndarray
    threshold: np.ndarray
    recurrent_kernel: np.ndarray | None = None
    bias: np.ndarray | None = None
    g: str = "relu"
    spiking: bool = True
    pseudo_derivative: str = "tanh"
    lateral_inhibition: bool = False
    # Units of feature maps inhibit each other at one place alone; the filters are the inner axis.
    places: int = 1

    def gate(self, y):
        """What closes the gate of each unit: its own output, or the largest at its place."""
        if not self.lateral_inhibition:
            return y
        at_places = y.reshape(len(y), self.places, -1)
        return (at_places.max(axis=2, keepdims=True) + 0 * at_places).reshape(y.shape)

    def gate_gradient(self, upstream, y):
        """The gradient of y from that of the gate; ties of the maximum share it equally."""
        if not self.lateral_inhibition:
            return upstream
        winners = (y == self.gate(y)).reshape(len(y), self.places, -1)
        total = upstream.reshape(winners.shape).sum(axis=2, keepdims=True)
        return (total * winners / winners.sum(axis=2, keepdims=True)).reshape(y.shape)

    def output(self, z):
        return (z > 0) * 1.0 if self.spiking else 1 / (1 + np.exp(-z))

    def output_derivative(self, z):
        if self.spiking:
            return PSEUDO_DERIVATIVES[self.pseudo_derivative](z)
        return self.output(z) * (1 - self.output(z))


def forward(unit, x, mask=None, s=None, y=None):
    """Return the trace of all steps: a list of dicts with s, y before and a, s, y after."""
    batch, steps, _ = x.shape
    n = unit.kernel.shape[1]
    s = np.zeros((batch, n)) if s is None else s
    y = np.zeros((batch, n)) if y is None else y
    trace = []
    for t in range(steps):
        gate = unit.gate(y)
        a = x[:, t] @ unit.kernel + unit.decay * s * (1 - gate)
        if unit.bias is not None:
            a = a + unit.bias
        if unit.recurrent_kernel is not None:
            a = a + y @ unit.recurrent_kernel
        new_s = ACTIVATIONS[unit.g][0](a)
        new_y = unit.output(new_s - unit.threshold)
        keep = np.ones((batch, 1), bool) if mask is None else mask[:, t, None]
        step = {"s_before": s, "y_before": y, "gate": gate, "a": a, "keep": keep}
        s, y = np.where(keep, new_s, s), np.where(keep, new_y, y)
        trace.append({**step, "s": s, "y": y})
    return trace


def outputs(trace, zero_output_for_mask=False, held=0.0):
    """The outputs of keras.layers.RNN: `held` until the first unmasked step, then repeated."""
    shown, held = [], np.zeros_like(trace[0]["y"]) + held
    for step in trace:
        held = np.where(step["keep"], step["y"], held)
        shown.append(np.where(step["keep"], held, 0) if zero_output_for_mask else held)
    return np.stack(shown, axis=1)


def backward(unit, x, trace, to_outputs, to_s=None, to_y=None):
    """Backpropagate through time the gradients of all outputs, and of the last states.

    Returns the gradients of x, the parameters, and the first states, by name.
    """
    batch, steps, _ = x.shape
    n = unit.kernel.shape[1]
    to_s = np.zeros((batch, n)) if to_s is None else to_s
    to_y = np.zeros((batch, n)) if to_y is None else to_y
    # An output held at a masked step is that of the last unmasked one.
    to_own, held = np.zeros_like(to_outputs), np.zeros((batch, n))
    for t in reversed(range(steps)):
        held = held + to_outputs[:, t]
        to_own[:, t] = np.where(trace[t]["keep"], held, 0)
        held = np.where(trace[t]["keep"], 0, held)
    grads = {
        "x": np.zeros_like(x),
        "kernel": np.zeros_like(unit.kernel),
        "recurrent_kernel": np.zeros((n, n)),
        "bias": np.zeros(n),
        "decay": np.zeros(n),
        "threshold": np.zeros(n),
    }
    for t in reversed(range(steps)):
        step = trace[t]
        keep = step["keep"]
        z = step["s"] - unit.threshold
        to_z = np.where(keep, (to_y + to_own[:, t]) * unit.output_derivative(z), 0)
        grads["threshold"] -= to_z.sum(axis=0)
        to_a = np.where(keep, (to_s + to_z) * ACTIVATIONS[unit.g][1](step["a"]), 0)
        grads["x"][:, t] = to_a @ unit.kernel.T
        grads["kernel"] += x[:, t].T @ to_a
        grads["bias"] += to_a.sum(axis=0)
        grads["recurrent_kernel"] += step["y_before"].T @ to_a
        grads["decay"] += (to_a * step["s_before"] * (1 - step["gate"])).sum(axis=0)
        to_gate = unit.gate_gradient(-to_a * unit.decay * step["s_before"], step["y_before"])
        if unit.recurrent_kernel is not None:
            to_gate = to_gate + to_a @ unit.recurrent_kernel.T
        to_s = np.where(keep, to_a * unit.decay * (1 - step["gate"]), to_s)
        to_y = np.where(keep, to_gate, to_y)
    return {**grads, "s": to_s, "y": to_y}
