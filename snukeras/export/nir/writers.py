"""How each library steps the neurons that it writes to NIR.

NIR holds differential equations, and no step of time. Libraries write their parameters into them
each in its own way, and leave out how they reset. So a file becomes the network that its writer ran
only by the writer's own conventions, which stand here, read in the sources of the versions named.
"""

import dataclasses
from collections.abc import Callable
from typing import Final

import numpy as np

from snukeras.export.errors import BadInputError
from snukeras.export.nir.file import Graph, Node

NEURONS: Final = ("CubaLI", "CubaLIF", "I", "IF", "LI", "LIF", "Threshold")
FIRING: Final = ("CubaLIF", "IF", "LIF", "Threshold")
RESETS: Final = ("subtract", "zero", "none")
# Writers that only the size of their time constants tells.
GUESSED: Final = ("norse", "sinabs")


@dataclasses.dataclass(frozen=True)
class Dynamics:
    """A neuron as `snukeras.layers.LIFCell` steps it; numbers for each neuron, or for all.

    Attributes:
        decay ... output_delay: See there.
        note: What the file leaves open, and how it is read; "" where nothing is open.
        approximate: Whether the writer's own run may differ.
    """

    decay: np.ndarray
    gain: np.ndarray
    threshold: np.ndarray | None = None
    reset: str | None = None
    reset_by: np.ndarray | None = None
    synaptic_decay: np.ndarray | None = None
    bias: np.ndarray | None = None
    initial_potential: np.ndarray | None = None
    several: bool = False
    output_delay: bool = False
    note: str = ""
    approximate: bool = False


Step = Callable[[Node, float, str | None, bool], Dynamics]


@dataclasses.dataclass(frozen=True)
class Writer:
    """The conventions of a library.

    Attributes:
        name: Of the library.
        dt: Seconds of a step that its files are written for, unless told otherwise.
        step: Reads a neuron: node, dt, how it resets (None for the default), whether it is
            recurrent.
        channels_last: Whether its Flatten takes maps as (height, width, channels).
        input_beside_loop: Whether it draws the input of a recurrent neuron into the recurrent
            product, while its neurons take it beside that.
        total_padding: Whether the padding of pooling is that of both sides together.
    """

    name: str
    dt: float | None
    step: Step
    channels_last: bool = False
    input_beside_loop: bool = False
    total_padding: bool = False


def _of_nir(node: Node, dt: float, reset: str | None, recurrent: bool) -> Dynamics:
    """Step NIR's own equations by Euler's rule; reset to v_reset in the step of the spike."""
    one = np.ones(())
    name = "tau_mem" if node.kind.startswith("Cuba") else "tau"
    leaks = node.kind in ("CubaLI", "CubaLIF", "LI", "LIF")
    rate = dt / _positive(node, name) if leaks else one * dt
    current, scale = None, one
    if node.kind.startswith("Cuba"):
        slow = dt / _positive(node, "tau_syn")
        current, scale = 1.0 - slow, slow * node.number("w_in", 1.0)
    gain = rate * scale * node.number("r", 1.0)
    decay = 1.0 - rate if leaks else one
    leak = node.number("v_leak")
    if node.kind not in FIRING:
        return Dynamics(
            decay, gain, synaptic_decay=current, bias=rate * leak, initial_potential=leak
        )
    threshold = node.number("v_threshold")
    if reset in (None, "zero"):
        base = node.number("v_reset")  # the potential is counted from there
        return Dynamics(
            decay, gain, threshold - base, "zero", None, current,
            rate * (leak - base) if leaks else None, leak - base if leaks else -base,
        )  # fmt: skip
    return Dynamics(
        decay, gain, threshold, "subtract" if reset == "subtract" else None,
        decay * threshold if reset == "subtract" else None, current,
        rate * leak if leaks else None, leak,
    )  # fmt: skip


def _of_snukeras(node: Node, dt: float, reset: str | None, recurrent: bool) -> Dynamics:
    return _of_nir(node, dt, reset, recurrent)


def _of_euler(node: Node, dt: float, reset: str | None, recurrent: bool) -> Dynamics:
    """Step a file whose writer is not known."""
    note = "" if reset is None else f"reset {reset}"
    if node.kind != "I" and "v_reset" not in node.values and node.kind in FIRING and reset is None:
        note = "the file does not say how it resets: to 0"
    said = "Euler's rule" + (f"; {note}" if note else "")
    return dataclasses.replace(_of_nir(node, dt, reset, recurrent), note=said, approximate=True)


def _of_snntorch(node: Node, dt: float, reset: str | None, recurrent: bool) -> Dynamics:
    """Read snntorch 1.0: mem = beta mem + x - reset threshold, beta = 1 - dt / tau.

    r and w_in are such that the input counts as it is. Leaky resets to zero by leaving out what
    was left of its potential; Synaptic, RLeaky and RSynaptic leave out the new input as well.
    """
    name = "tau_mem" if node.kind.startswith("Cuba") else "tau"
    decay = np.ones(()) if node.kind in ("I", "IF") else 1.0 - dt / _positive(node, name)
    current = None
    if node.kind.startswith("Cuba"):
        current = 1.0 - dt / _positive(node, "tau_syn")
    if node.kind not in FIRING:
        return Dynamics(decay, np.ones(()), synaptic_decay=current)
    how = {None: "subtract", "none": None}.get(reset, reset)
    if how == "zero" and (recurrent or current is not None):
        how = "silence"
    note = "" if reset else "reset_mechanism='subtract', as by default; it is not in the file"
    return Dynamics(
        decay, np.ones(()), node.number("v_threshold"), how, synaptic_decay=current, note=note
    )


def _of_norse(node: Node, dt: float, reset: str | None, recurrent: bool) -> Dynamics:
    """Read norse 1.1, which writes tau = dt * dt / tau, and takes currents as they jump in."""
    one = np.ones(())
    cuba = node.kind.startswith("Cuba")
    leaks = node.kind not in ("I", "IF")
    rate = dt * dt / _positive(node, "tau_mem" if cuba else "tau") if leaks else one
    current = 1.0 - dt * dt / _positive(node, "tau_syn") if cuba else None
    decay, leak = (1.0 - rate, node.number("v_leak")) if leaks else (one, np.zeros(()))
    bias = rate * leak if leaks else None
    if node.kind not in FIRING:
        return Dynamics(decay, rate, synaptic_decay=current, bias=bias, initial_potential=leak)
    how = {None: "zero", "none": None}.get(reset, reset)
    threshold = node.number("v_threshold")
    return Dynamics(
        decay, rate, threshold, how, decay * threshold if how == "subtract" else None, current,
        bias, leak, note="" if reset else "v_reset = 0, as by default; it is not in the file",
    )  # fmt: skip


def _of_sinabs(node: Node, dt: float, reset: str | None, recurrent: bool) -> Dynamics:
    """Read sinabs 3.1: decay exp(-1 / tau), tau in steps; several spikes a step; subtraction."""
    one = np.ones(())
    leaks = node.kind in ("LI", "LIF")
    decay = np.exp(-dt / _positive(node, "tau")) if leaks else one
    if node.kind not in FIRING:
        return Dynamics(decay, one, note="norm_input=False, as by default; it is not in the file")
    gain = 1.0 - decay if leaks else one
    threshold = node.number("v_threshold")
    note = "MultiSpike, MembraneSubtract, min_v_mem=None"
    note += ", norm_input=True" if leaks else ""
    if reset == "zero":
        return Dynamics(decay, gain, threshold, "zero", note="one spike a step")
    return Dynamics(
        decay, gain, threshold, "subtract" if reset != "none" else None,
        decay * threshold if reset != "none" else None, several=True,
        note=f"{note}: by default; not in the file",
    )  # fmt: skip


def _of_spyx(node: Node, dt: float, reset: str | None, recurrent: bool) -> Dynamics:
    """Read spyx 1.0: V = beta V + x - spikes threshold; spikes come out a step late."""
    cuba = node.kind.startswith("Cuba")
    leaks = node.kind not in ("I", "IF")
    decay = 1.0 - dt / _positive(node, "tau_mem" if cuba else "tau") if leaks else np.ones(())
    current = 1.0 - dt / _positive(node, "tau_syn") if cuba else None
    if node.kind not in FIRING:
        return Dynamics(decay, np.ones(()), synaptic_decay=current)
    threshold = node.number("v_threshold")
    how = {None: "subtract", "none": None}.get(reset, reset)
    amount = decay * threshold if cuba and how == "subtract" else None
    return Dynamics(decay, np.ones(()), threshold, how, amount, current, output_delay=True)


def _of_spikingjelly(node: Node, dt: float, reset: str | None, recurrent: bool) -> Dynamics:
    """Read SpikingJelly 2: NIR's equations by Euler's rule; a spike where v reaches the threshold.

    Version 2 refuses to write soft resets (v_reset=None); before it wrote them as a reset to 0.
    """
    found = _of_nir(node, dt, reset, recurrent)
    if found.threshold is None:
        return found
    # The number before it in float32, so that "exceeds" is "reaches".
    below = np.nextafter(found.threshold.astype("float32"), np.float32(-np.inf))
    note = "" if reset else "hard reset; soft reset (v_reset=None) is not in the file"
    start = None if reset in (None, "zero") else found.initial_potential
    return dataclasses.replace(
        found, threshold=below.astype("float64"), initial_potential=start, note=note
    )


WRITERS: Final[dict[str, Writer]] = {
    "snukeras": Writer("snukeras", None, _of_snukeras),
    "snntorch": Writer("snntorch", 1e-4, _of_snntorch),
    "norse": Writer("norse", 1e-3, _of_norse),
    "sinabs": Writer("sinabs", 1.0, _of_sinabs),
    "spyx": Writer(
        "spyx", 1.0, _of_spyx,
        channels_last=True, input_beside_loop=True, total_padding=True,
    ),
    "spikingjelly": Writer("spikingjelly", 1e-4, _of_spikingjelly),
    "nir": Writer("nir", None, _of_euler),
}  # fmt: skip


def dynamics(writer: Writer, node: Node, dt: float, reset: str | None, recurrent: bool) -> Dynamics:
    """Return how a writer steps a neuron.

    Raises:
        BadInputError: A time constant is not positive, or shorter than a step.
    """
    if node.kind == "Threshold":
        zero = np.zeros(())
        return Dynamics(zero, np.ones(()), node.number("threshold"))
    found = writer.step(node, dt, reset, recurrent)
    for decay in (found.decay, found.synaptic_decay):
        if decay is not None and not np.all((decay >= -1e-9) & (decay <= 1.0 + 1e-9)):
            raise BadInputError(
                f"The node {node.name!r} ({node.kind}) has a time constant below the step of "
                f"{dt:g} s.",
                "Give the dt, or the writer, that the file was written with.",
            )
    return found


def _positive(node: Node, name: str) -> np.ndarray:
    values = node.number(name)
    if not np.all(values > 0.0):
        raise BadInputError(
            f"The node {node.name!r} ({node.kind}) must have positive time constants {name!r}."
        )
    return values


def recognise(graph: Graph) -> tuple[Writer, float] | None:
    """Return the writer of a file, and its dt, where its numbers leave no doubt; else None.

    A file of this package says so. snntorch writes r dt / tau = 1 for dt = 1e-4, spyx
    r = 1 - dt / tau, which hold for all neurons at once by nobody else's rules. norse and sinabs
    write r = 1 and v_leak in the same way; norse's time constants are squares of times in seconds,
    sinabs's are whole steps. All these write float32, and SpikingJelly float64; only snntorch's
    recurrent neurons, which bear the name lif, have more.
    """
    if "snukeras" in graph.metadata:
        dt = graph.metadata.get("dt")
        if isinstance(dt, np.ndarray) and dt.shape == () and 1e-12 <= dt <= 1e6:
            return WRITERS["snukeras"], float(dt)
    neurons = [n for n in all_nodes(graph) if n.kind in ("LIF", "LI", "CubaLIF", "CubaLI")]
    numbers = [_Numbers.of(node) for node in neurons]
    if not numbers or any(np.any(n.tau <= 0) or n.tau.shape != n.r.shape for n in numbers):
        return None
    single = all(n.single for n in numbers)
    rests = all(n.rests for n in numbers)
    if rests and single and all(n.input_as_it_is(1e-4) for n in numbers):
        return WRITERS["snntorch"], 1e-4
    steps = [n.tau * (1.0 - n.r) for n in numbers if n.node.kind in FIRING]
    together = np.concatenate(steps) if steps else np.zeros(0)
    if rests and len(together) > 1 and together[0] > 0 and np.ptp(together) < 1e-4 * together[0]:
        return WRITERS["spyx"], float(np.round(together[0], 9))
    if single and all(np.all(n.r == 1.0) for n in numbers):
        times = np.concatenate([n.tau for n in numbers])
        if np.all((times >= 1e-6) & (times < 2e-4)):
            return WRITERS["norse"], 1e-3
        if rests and np.all(times >= 1.0) and not any(n.cuba for n in numbers):
            return WRITERS["sinabs"], 1.0
    return None


@dataclasses.dataclass(frozen=True)
class _Numbers:
    """What of a neuron tells its writer: time constant and resistance, each as a vector."""

    node: Node
    cuba: bool
    tau: np.ndarray
    r: np.ndarray

    @classmethod
    def of(cls, node: Node) -> "_Numbers":
        cuba = node.kind.startswith("Cuba")
        tau = node.number("tau_mem" if cuba else "tau").ravel()
        return cls(node, cuba, tau, node.number("r").ravel())

    @property
    def single(self) -> bool:
        """Whether the numbers are of float32, but for the recurrent neurons of snntorch."""
        inner = self.node.name.split(".")[-1] == "lif"
        return inner or np.array_equal(self.tau, self.tau.astype("float32"))

    @property
    def rests(self) -> bool:
        """Whether it leaks to 0."""
        return not np.any(self.node.number("v_leak"))

    def input_as_it_is(self, dt: float) -> bool:
        """Whether r and w_in make up for dt / tau."""
        same = bool(np.allclose(self.r * dt, self.tau, rtol=1e-4, atol=0.0))
        if self.cuba:
            slow, scale = self.node.number("tau_syn"), self.node.number("w_in", 1.0)
            same = same and bool(np.allclose(scale.ravel() * dt, slow.ravel(), 1e-4, 0.0))
        return same


def all_nodes(graph: Graph) -> list[Node]:
    """Return the nodes of a graph and of the graphs inside it."""
    found: list[Node] = []
    for node in graph.nodes.values():
        found += all_nodes(node) if isinstance(node, Graph) else [node]
    return found
