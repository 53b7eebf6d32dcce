"""Potentials of LIF neurons in float64, with a bound on rounding; see `spikes`."""

import numpy as np

from snukeras.layers import LIFCell

_ROUNDOFF = 2.0**-24  # of float32


def potentials(
    cell: LIFCell,
    x: np.ndarray,
    y: np.ndarray,
    mask: np.ndarray | None = None,
    backwards: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Compute potentials from a layer's own input and outputs.

    Args:
        cell: The cell.
        x: (batch, time, units) in the order of time.
        y: (batch, time, units) outputs in the order of processing.
        mask: Bool (batch, time) in the order of time, or None.
        backwards: Whether steps are processed from the last to the first.

    Returns:
        Potentials and a bound on the float32 rounding error of each, (batch, time, units), in the
        order of processing. At masked steps they are those of the step before.
    """
    on = _taken(x, mask, backwards)
    x = np.asarray(x, "float64")[:, :: -1 if backwards else 1]
    y = np.asarray(y, "float64")
    step = _Step(cell)
    state = np.broadcast_to(_of(cell.initial_potential, cell.units), x[:, 0].shape)
    zeros = np.zeros(state.shape)
    error = current = slack = zeros
    found, bounds = np.empty(x.shape), np.empty(x.shape)
    fired = zeros
    for t in range(x.shape[1]):
        # A layer that shows its spikes a step late shows those before this step now.
        before = y[:, t] if cell.output_delay else fired
        charge = step.current(x[:, t], before, current, slack)
        potential = step.potential(*charge, before, state, error)
        now = on[:, t, None]
        current, slack, state, error = (
            np.where(now, value, old)
            for value, old in zip(
                (*charge, *potential), (current, slack, state, error), strict=True
            )
        )
        fired = np.where(now, y[:, t], fired)
        found[:, t], bounds[:, t] = state, error
    return found, bounds


def contradictions(
    cell: LIFCell,
    v: np.ndarray,
    bound: np.ndarray,
    y: np.ndarray,
    mask: np.ndarray | None = None,
    backwards: bool = False,
) -> int:
    """Count the outputs at steps that are not masked that contradict the potential by more than
    rounding; arguments as in `potentials`."""
    y = np.asarray(y, "float64")
    on = _taken(y, mask, backwards)
    # A layer that shows its spikes a step late shows them at the next step that is not masked.
    late = int(cell.output_delay)
    steps = [np.flatnonzero(row) for row in on]
    v, bound = (
        np.concatenate([each[i, at[: len(at) - late]] for i, at in enumerate(steps)])
        for each in (v, bound)
    )
    y = np.concatenate([y[i, at[late:]] for i, at in enumerate(steps)])
    threshold = _of(cell.threshold, cell.units)
    bound = bound + _ROUNDOFF * (4.0 * np.abs(v) + np.abs(threshold))

    def fired(potential: np.ndarray) -> np.ndarray:
        if cell.several:
            return np.maximum(np.floor(potential / threshold), 0.0)
        return (potential > threshold).astype("float64")

    return int(((y < fired(v - bound)) | (y > fired(v + bound))).sum())


def _taken(x: np.ndarray, mask: np.ndarray | None, backwards: bool) -> np.ndarray:
    """Return which steps of x, (batch, time, ...), are not masked, in the order of processing."""
    if mask is None:
        return np.ones(x.shape[:2], bool)
    return np.asarray(mask, bool)[:, :: -1 if backwards else 1]


def _of(values: object, units: int) -> np.ndarray:
    # The numbers as the layer has them, in float32.
    return np.broadcast_to(np.asarray(values, "float32").astype("float64"), (units,))


class _Step:
    """One step of a cell: values, and the rounding errors that they may carry."""

    def __init__(self, cell: LIFCell) -> None:
        self.cell = cell
        self.decay, self.gain, self.bias = (
            _of(values, cell.units) for values in (cell.decay, cell.gain, cell.bias)
        )
        kernel = cell.recurrent_kernel
        self.kernel = None if kernel is None else np.asarray(kernel, "float64")

    def current(
        self, x: np.ndarray, y: np.ndarray, before: np.ndarray, slack: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the synaptic current, or the input, and its error."""
        size, terms = np.abs(x), 2
        if self.kernel is not None:
            x, size = x + y @ self.kernel, size + np.abs(y) @ np.abs(self.kernel)
            terms += len(self.kernel)
        if self.cell.synaptic_decay is None:
            return x, terms * _ROUNDOFF * size
        left = _of(self.cell.synaptic_decay, self.cell.units)
        size = size + np.abs(left * before)
        return left * before + x, left * slack + (terms + 2) * _ROUNDOFF * size

    def potential(
        self, i: np.ndarray, slack: np.ndarray, y: np.ndarray, v: np.ndarray, error: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the next potential and its error."""
        cell = self.cell
        drive = self.gain * i + self.bias
        size = np.abs(self.gain * i) + np.abs(self.bias)
        kept, carried = self.decay * v, self.decay * error
        size = size + np.abs(kept)
        gate = 1.0 - y
        if cell.reset == "zero":
            kept, carried = kept * gate, carried * np.abs(gate)
        v = kept + drive
        error = carried + np.abs(self.gain) * slack
        if cell.reset == "silence":
            v, error = v * gate, error * np.abs(gate)
        elif cell.reset == "subtract":
            taken = _of(cell.subtracted, cell.units) * y
            v, size = v - taken, size + np.abs(taken)
        return v, error + 8 * _ROUNDOFF * size
