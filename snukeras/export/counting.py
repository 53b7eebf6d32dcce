"""Count the spikes and operations of a network on data, by the calls of its topology.

An operation is a weight that meets an input: a multiply-accumulate of dense arithmetic. Arithmetic
that skips zeros, as that of spikes, only makes those whose input is not 0. Counted are the weights
of matrices; biases, decay and other element-wise work are not.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import keras
import numpy as np

from snukeras._types import Nested, Tensor
from snukeras.export.network import Network, Use
from snukeras.network import observers, topology
from snukeras.network.matrices import matrices
from snukeras.network.topology import Call, Key, Ref, Topology


@dataclasses.dataclass
class Share:
    """How many of the values that were seen are not 0."""

    active: int = 0
    seen: int = 0

    def add(self, values: np.ndarray, silent: int = 0) -> None:
        """Count values, and `silent` zeros beside them."""
        self.active += int(np.count_nonzero(values))
        self.seen += values.size + silent

    def __float__(self) -> float:
        return self.active / self.seen if self.seen else 1.0


@dataclasses.dataclass
class Units(observers.Observer):
    """What a layer of units did on data.

    Attributes:
        spikes: Sum of its outputs.
        values: Number of its outputs, at steps that are not masked.
        inputs: Share of its inputs that are not 0.
        before: Share of the outputs that are fed back and not 0; at the first step there are none.
        steps: Share of the steps that are not masked.
    """

    spikes: float = 0.0
    values: int = 0
    inputs: Share = dataclasses.field(default_factory=Share)
    before: Share = dataclasses.field(default_factory=Share)
    steps: Share = dataclasses.field(default_factory=Share)

    def observe(self, run: observers.Run) -> None:
        """Count a call."""
        x, y = observers.values(run.sequences), observers.values(run.spikes)
        mask = (
            np.ones(y.shape[:2], bool)
            if run.mask is None
            else observers.values(run.mask).astype(bool)
        )
        self.spikes += float(y[mask].sum())
        self.values += y[mask].size
        self.steps.add(mask)
        self.inputs.add(x[mask])
        before = y[:, :-1][mask[:, 1:]]
        self.before.add(before, y[mask].size - before.size)


@dataclasses.dataclass(frozen=True)
class Counts:
    """What was counted of a network; of a subclassed one the units alone.

    Attributes:
        samples: Number of samples.
        units: By the id of its layer, what each layer of units did.
        uses: How often each call uses each matrix for a sample; None without a topology.
        active: Share of the operations of a use that are left when zeros are skipped.
    """

    samples: int
    units: dict[int, Units]
    uses: tuple[Use, ...] | None
    active: dict[Use, float]


def count(model: keras.Model, network: Network | None, x: Nested, batch_size: int = 32) -> Counts:
    """Run a network on data, and count.

    Args:
        model: The model.
        network: What the exporter knows of it; None where it has no topology.
        x: Inputs as `predict` takes them in arrays, (samples, ...).
        batch_size: Samples computed at once.

    Raises:
        ValueError: There are no data, or they are not finite.
    """
    samples = observers.samples(x)
    layers = observers.units_of(model)
    units = {id(layer): Units() for layer in layers.values()}
    shares: dict[str, Share] = {}
    uses: tuple[Use, ...] | None = None
    for layer in layers.values():
        observers.attach(units[id(layer)], [layer])
    try:
        for first in range(0, samples, batch_size):
            part = keras.tree.map_structure(lambda a: a[first : first + batch_size], x)  # noqa: B023
            if network is None:
                model(part, training=False)
                continue
            values = topology.run(network.topology, _in_order(network.topology, part))
            for call in network.topology.calls:
                _share(call, values, shares)
            if uses is None:
                seen = dataclasses.replace(network, topology=_with_shapes(network, values))
                steps = seen.steps or 1
                uses = tuple(Use(u.matrix, u.call, u.per_step * steps) for u in seen.uses)
    finally:
        for layer in layers.values():
            observers.detach(units[id(layer)], [layer])
    active = {} if network is None else dict(_active(network, uses or (), units, shares))
    return Counts(samples, units, uses, active)


def _active(
    network: Network, uses: Sequence[Use], units: dict[int, Units], shares: dict[str, Share]
) -> Iterator[tuple[Use, float]]:
    """Yield, for each use, the share of its operations that are left when zeros are skipped."""
    calls = {call.name: call for call in network.topology.calls}
    owners = {id(m.variable): m for m in matrices(network.model, network.embedding)}
    names = {w.name: owners.get(id(w.variable)) for w in network.weights if w.matrix}
    cells = {id(layer.cell): units[id(layer)] for layer in _watched(network.model)}
    for use in uses:
        matrix, call = names[use.matrix], calls.get(use.call)
        if matrix is None or call is None:
            yield use, 1.0
            continue
        seen = cells.get(id(matrix.layer))
        recurrent = "recurrent" in matrix.role
        if seen is not None:
            yield use, float(seen.before if recurrent else seen.inputs) * float(seen.steps)
        else:
            inner = getattr(call.op, "layer", None)
            own = matrix.layer in (call.op, inner, getattr(call.op, "cell", None))
            share = shares.get(f"{use.call}/fed back" if recurrent else use.call)
            # What drives a matrix inside a layer is not seen, so all of it counts.
            yield use, float(share) if own and share is not None else 1.0


def _watched(model: keras.Model) -> list[keras.Layer]:
    return [*observers.units_of(model).values()]


def _share(call: Call, values: dict[Key, Tensor], shares: dict[str, Share]) -> None:
    """Count the inputs of a call that are not 0, and the outputs that it feeds back."""
    given = call.inputs
    if not given:
        return
    shares.setdefault(call.name, Share()).add(observers.values(values[given[0].key]))
    leaving = values.get((call.name, 0))
    if isinstance(call.op, keras.layers.RNN) and call.op.return_sequences and leaving is not None:
        y = observers.values(leaving)
        shares.setdefault(f"{call.name}/fed back", Share()).add(y[:, :-1], y[:, :1].size)


def _with_shapes(network: Network, values: dict[Key, Tensor]) -> Topology:
    """Return the topology with the shapes that its tensors had on data."""

    def seen(ref: Nested) -> Nested:
        if not isinstance(ref, Ref) or ref.key not in values:
            return ref
        return dataclasses.replace(ref, shape=tuple(values[ref.key].shape))

    plan = network.topology
    calls = []
    for call in plan.calls:
        args, kwargs = keras.tree.map_structure(seen, (call.args, call.kwargs))
        calls.append(dataclasses.replace(call, args=args, kwargs=kwargs))
    return Topology(
        [(name, seen(ref)) for name, ref in plan.inputs],
        [(name, seen(ref)) for name, ref in plan.outputs],
        calls,
    )


def _in_order(plan: Topology, x: Nested) -> list[np.ndarray]:
    """Return the arrays in the order of the network's inputs."""
    if isinstance(x, dict):
        return [x[name] for name, _ in plan.inputs]
    return keras.tree.flatten(x)
