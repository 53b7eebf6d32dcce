"""LIF layers as nodes of NIR."""

from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from snukeras.layers import LIF, LIFCell

if TYPE_CHECKING:
    from nir import NIRNode


def problem(layer: LIF) -> str | None:
    """Return why NIR cannot express a LIF layer; None if it can."""
    cell = layer.cell
    if not layer.return_sequences or layer.return_state or layer.go_backwards:
        return "NIR runs forward and puts out every step (return_sequences alone)"
    if cell.several or cell.output_delay:
        return "NIR has neither several spikes a step nor spikes a step late"
    if cell.spiking and cell.reset != "zero":
        return f"NIR resets to v_reset in the step of the spike; reset={cell.reset!r} is another"
    if cell.synaptic_decay is not None and not cell.spiking:
        return "nir 1.0.4 has no CubaLI, a read-out with synaptic currents"
    decay, bias = _of(cell, "decay"), _of(cell, "bias")
    start = _of(cell, "initial_potential")
    leaks = decay < 1.0
    if np.any(leaks) and not np.all(leaks):
        return "a decay of 1 has no finite tau; NIR's IF and I nodes take it if all neurons have it"
    if not np.all(leaks) and (cell.synaptic_decay is not None or np.any(bias) or np.any(start)):
        return "a decay of 1 goes with no bias, initial_potential or synaptic current in NIR"
    if np.all(leaks) and not np.allclose(start * (1.0 - decay), bias):
        return "a neuron of NIR starts at its v_leak, which is bias / (1 - decay) here"
    if cell.synaptic_decay is not None and np.any(_of(cell, "synaptic_decay") == 1.0):
        return "a synaptic_decay of 1 has no finite tau"
    return None


def unit(nir: ModuleType, cell: LIFCell, dt: float, order: np.ndarray) -> "NIRNode":
    """Return the node of a cell that has no `problem`: LIF, IF, CubaLIF, LI or I.

    Args:
        nir: The library.
        cell: The cell.
        dt: Seconds of a step.
        order: The neuron of each element of the node.
    """

    def of(name: str) -> np.ndarray:
        return _of(cell, name)[order]

    decay, gain = of("decay"), of("gain")
    threshold = {"v_threshold": of("threshold")} if cell.spiking else {}
    if np.all(decay == 1.0):
        return (nir.IF if cell.spiking else nir.I)(r=gain / dt, **threshold)
    rate = 1.0 - decay
    shared = {"r": gain / rate, "v_leak": of("bias") / rate, **threshold}
    if cell.synaptic_decay is None:
        return (nir.LIF if cell.spiking else nir.LI)(tau=dt / rate, **shared)
    slow = 1.0 - of("synaptic_decay")
    return nir.CubaLIF(tau_mem=dt / rate, tau_syn=dt / slow, w_in=1.0 / slow, **shared)


def _of(cell: LIFCell, name: str) -> np.ndarray:
    # The numbers as the layer has them, in float32.
    values = np.asarray(getattr(cell, name), "float32").astype("float64")
    return np.broadcast_to(values, (cell.units,)).copy()
