"""Was a spike decided rightly? Potentials in float64, with a bound on what rounding can do.

Spikes are decisions, and two runtimes that add in another order may decide differently where a
membrane potential lies within rounding of the threshold. So every decision of both runtimes is
checked on its own: from the layer's own input and its own spikes so far, the potential is computed
again in float64, together with a bound on what float32 rounding can have done to it. A decision
that contradicts the float64 potential must lie within that bound of the threshold. If this holds
for both, then wherever they differ first, the potential was within rounding of the threshold.
"""

import keras
import numpy as np

ROUNDOFF = 2.0**-24  # of float32
# Every activation that can be exported has a slope below this.
_SLOPE = 2.0
# Runtimes approximate exp, tanh and the like to about this, absolute and relative.
_APPROXIMATION = 2.0**-21
_EXACT = (keras.activations.linear, keras.activations.relu, keras.activations.leaky_relu)


def potentials_of(cell, x, y, mask=None, start=(), backwards=False):
    """Membrane potentials in float64 from a layer's own input and outputs, and their uncertainty.

    Args:
        cell: SNUCell or SSNUCell.
        x: (batch, time, features) in the order of time.
        y: (batch, time, units) outputs in the order of processing.
        mask: bool (batch, time) or None.
        start: y and s before the first step, or ().
        backwards: whether steps are processed from the last to the first.

    Returns:
        s and a bound on the float32 rounding error of s, each (batch, time, units), in the order
        of processing. At masked steps s is that of the step before.
    """
    x = np.asarray(x, "float64")
    if backwards:
        x = x[:, ::-1]
        mask = None if mask is None else mask[:, ::-1]
    weight = np.asarray(cell.kernel, "float64")
    bias = np.zeros(cell.units) if cell.bias is None else np.asarray(cell.bias, "float64")
    loop = cell.recurrent_kernel
    loop = None if loop is None else np.asarray(loop, "float64")
    decay = np.asarray(cell.decay_values(), "float64")
    terms = weight.shape[0] + (0 if loop is None else cell.units) + 8
    gamma = terms * ROUNDOFF
    drive = x @ weight + bias
    size = np.abs(x) @ np.abs(weight) + np.abs(bias)
    shape = (len(x), cell.units)
    before, s = (np.asarray(v, "float64") for v in (start or (np.zeros(shape), np.zeros(shape))))
    error = np.zeros(shape)
    potentials, bounds = np.empty(drive.shape), np.empty(drive.shape)
    for t in range(x.shape[1]):
        gate = before.max(axis=-1, keepdims=True) if cell.lateral_inhibition else before
        carry = decay * (1.0 - gate)
        a, magnitude = drive[:, t] + carry * s, size[:, t] + np.abs(carry * s)
        if loop is not None:
            a, magnitude = a + before @ loop, magnitude + np.abs(before) @ np.abs(loop)
        new = keras.ops.convert_to_numpy(
            cell.state_activation(keras.ops.convert_to_tensor(a, dtype="float64"))
        )
        uncertain = _SLOPE * (gamma * magnitude + np.abs(carry) * error)
        uncertain = uncertain + 8 * ROUNDOFF * np.abs(new)
        if cell.state_activation not in _EXACT:
            uncertain = uncertain + _APPROXIMATION * np.maximum(1.0, np.abs(new))
        if mask is None:
            s, error, before = new, uncertain, np.asarray(y[:, t], "float64")
        else:
            on = mask[:, t, None]
            s, error = np.where(on, new, s), np.where(on, uncertain, error)
            before = np.where(on, y[:, t], before)
        potentials[:, t], bounds[:, t] = s, error
    return potentials, bounds


def contradictions(cell, s, bound, y, mask=None, backwards=False) -> int:
    """Number of spike decisions that contradict the potential by more than rounding."""
    threshold = np.asarray(cell.threshold_values(), "float64")
    wrong = (np.asarray(y) > 0.5) != (s > threshold)
    wrong &= np.abs(s - threshold) > bound + ROUNDOFF * np.abs(threshold)
    if mask is not None:
        wrong &= (mask[:, ::-1] if backwards else mask)[:, :, None]
    return int(wrong.sum())
