"""Read an NIR file as a Keras model, stepped as the library that wrote it steps it."""

import dataclasses
import math
import re
from pathlib import Path

import keras

from snukeras._types import Tensor
from snukeras.export.errors import BadInputError, UnsupportedLayersError
from snukeras.export.nir import conv_neurons, layers, neurons
from snukeras.export.nir.file import Graph, Node, read_graph
from snukeras.export.nir.graph import Flat, flatten
from snukeras.export.nir.layers import NotReadError, Sizes
from snukeras.export.nir.rating import (
    APPROXIMATE,
    FAITHFUL,
    UNSUPPORTED,
    NirRating,
    NodeRating,
)
from snukeras.export.nir.writers import (
    GUESSED,
    NEURONS,
    RESETS,
    WRITERS,
    Dynamics,
    Writer,
    all_nodes,
    dynamics,
    recognise,
)


def read_nir(
    path: str | Path,
    *,
    writer: str | None = None,
    dt: float | None = None,
    reset: str | None = None,
) -> keras.Model:
    """Read an NIR file as a Keras model with the spikes of the library that wrote it.

    The model takes sequences (batch, time, features), maps as (batch, time, height, width,
    channels). A neuron that resets to a value becomes `snukeras.layers.SNU`, together with the
    product before it; any other becomes `snukeras.layers.LIF`. `rate_nir` says what becomes of
    each node. The library nir is not needed.

    NIR does not hold the step of time, nor all that its writers do in one. `writer` names the
    library whose rules the file follows.

    Args:
        path: The file.
        writer: "snntorch", "norse", "sinabs", "spyx", "spikingjelly" or "snukeras"; "nir" for
            NIR's own equations by Euler's rule, which needs `dt`. By default it is told by the
            numbers of the file, where they leave no doubt.
        dt: Seconds of a step; by default that of the writer: 1e-4 for snntorch and SpikingJelly,
            1e-3 for norse, 1 (a step) for sinabs and spyx, that of the file for snukeras.
        reset: "subtract", "zero" or "none", where the network resets otherwise than its library
            does by default.

    Returns:
        The model, with the name of the file.

    Raises:
        BadInputError: The file cannot be read, does not fit together, or does not tell its writer.
        UnsupportedLayersError: Nodes that have no Keras form; all are named.

    Example:

        model = snukeras.export.read_nir("network.nir")
        spikes = model.predict(x)
    """
    model, rating = read_rated(path, writer=writer, dt=dt, reset=reset)
    return whole(model, rating)


def whole(model: keras.Model | None, rating: NirRating) -> keras.Model:
    """Return the model, or raise UnsupportedLayersError that names all nodes in its way."""
    if model is None:
        raise UnsupportedLayersError(
            {n.name: f"{n.kind}: {n.note}" for n in rating.nodes if n.rating == UNSUPPORTED}
        )
    return model


def rate_nir(
    path: str | Path,
    *,
    writer: str | None = None,
    dt: float | None = None,
    reset: str | None = None,
) -> NirRating:
    """Say what `read_nir` makes of each node of a file: faithful, approximate or unsupported.

    Args:
        path ... reset: See `read_nir`.

    Returns:
        A record; printed, a table.

    Raises:
        BadInputError: See `read_nir`.

    Example:

        print(snukeras.export.rate_nir("network.nir"))
    """
    return read_rated(path, writer=writer, dt=dt, reset=reset)[1]


def read_rated(
    path: str | Path,
    *,
    writer: str | None = None,
    dt: float | None = None,
    reset: str | None = None,
) -> tuple[keras.Model | None, NirRating]:
    """Return the model, or None where nodes are unsupported, and the rating of all nodes."""
    if writer is not None and writer not in WRITERS:
        raise BadInputError(
            f"The writer must be one of {', '.join(WRITERS)}. Received: {writer!r}."
        )
    if reset is not None and reset not in RESETS:
        raise BadInputError(f"The reset must be one of {', '.join(RESETS)}. Received: {reset!r}.")
    if dt is not None and not 1e-12 <= dt <= 1e6:
        raise BadInputError(
            f"dt must be a positive number of seconds, from 1e-12 to 1e6. Received: {dt}."
        )
    graph = read_graph(path)
    told, step, recognised = _conventions(graph, Path(path), writer, dt)
    flat = flatten(graph, told.input_beside_loop)
    name = re.sub(r"[^A-Za-z0-9_]+", "_", Path(path).stem).strip("_") or "network"
    try:
        model, nodes = _Builder(flat, told, step, reset).build(name)
    except BadInputError:
        raise
    except (ValueError, TypeError) as error:  # Keras names what it cannot build
        text = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadInputError(f"{path} cannot be built in Keras: {text[:200]}") from error
    except MemoryError as error:
        raise BadInputError(f"{path} needs more memory than there is.") from error
    return model, NirRating(
        Path(path).name, graph.version, told.name, recognised, step, tuple(nodes)
    )


def _conventions(
    graph: Graph, path: Path, name: str | None, dt: float | None
) -> tuple[Writer, float, bool]:
    """Return whose rules a file follows, the step, and whether that was told by its numbers."""
    found = recognise(graph)
    if found is not None and name is None and dt is not None and found[0].name in GUESSED:
        found = None  # somebody who knows the step reads the time constants as seconds
    if name is None and found is not None:
        return found[0], found[1] if dt is None else dt, True
    if name is None:
        name = "nir"
        if dt is None and not any(n.kind in NEURONS[:-1] for n in all_nodes(graph)):
            return WRITERS[name], 1.0, False
    writer = WRITERS[name]
    if dt is None and found is not None and found[0] is writer:
        dt = found[1]
    dt = writer.dt if dt is None else dt
    if dt is None:
        raise BadInputError(
            f"{path} does not say which step of time its neurons take, and its numbers do not tell "
            "which library wrote it.",
            f"Name the library (--writer, writer=): {', '.join(WRITERS)}; or give the seconds of "
            "a step (--dt, dt=).",
        )
    return writer, dt, False


@dataclasses.dataclass(frozen=True)
class _Made:
    """What a node puts out: a Keras tensor, and its sizes as NIR orders them; None: nothing yet."""

    tensor: Tensor | None
    sizes: Sizes


class _Builder:
    """Makes the layers of a graph, node by node, and rates each."""

    def __init__(self, flat: Flat, writer: Writer, dt: float, reset: str | None) -> None:
        self.flat, self.writer = flat, writer
        self.ratings: dict[str, NodeRating] = {}
        self.made: dict[str, _Made | None] = {}
        self.names = layers.Names()
        self.inside = {n for names in flat.loops.values() for n in names}
        self.steps: dict[str, Dynamics] = {
            name: dynamics(writer, node, dt, reset, name in flat.loops)
            for name, node in flat.nodes.items()
            if node.kind in NEURONS
        }
        self.folded = {n: u for u in self.steps if (n := self._product_of(u)) is not None}

    def build(self, name: str) -> tuple[keras.Model | None, list[NodeRating]]:
        """Make the model, or None where a node cannot be read, and rate all nodes."""
        for node in (self.flat.nodes[name] for name in self.flat.order):
            if node.name in self.flat.dead:
                self._rate(node, FAITHFUL, "", "left out: it leads to no output")
            elif node.name not in self.inside and node.name not in self.folded:
                self._read(node)
        nodes = [self.ratings[name] for name in self.flat.order]
        if any(node.rating == UNSUPPORTED for node in nodes):
            return None, nodes
        (given,) = self._ends("Input")
        outputs = self._ends("Output")
        return keras.Model(given, outputs[0] if len(outputs) == 1 else outputs, name=name), nodes

    def _ends(self, kind: str) -> list[Tensor]:
        """Return the tensors of the nodes of a kind."""
        made = (self.made.get(n) for n, node in self.flat.nodes.items() if node.kind == kind)
        return [part.tensor for part in made if part is not None]

    def _rate(self, node: Node, rating: str, layer: str, note: str = "") -> None:
        self.ratings[node.name] = NodeRating(node.name, node.kind, rating, layer, note)

    def _read(self, node: Node) -> None:
        """Make what a node puts out, and rate it; where it cannot be read, say why."""
        self.made[node.name] = None
        try:
            if node.name in self.flat.problems:
                raise NotReadError(self.flat.problems[node.name])
            if node.kind in NEURONS:
                self._neuron(node)
            elif node.kind == "Input":
                self._input(node)
            else:
                self._plain(node)
        except NotReadError as error:
            self._rate(node, UNSUPPORTED, "", str(error))
            for other in (*self.flat.loops.get(node.name, ()), *self._folded_into(node.name)):
                self._rate(self.flat.nodes[other], FAITHFUL, "", f"part of {node.name}")

    def _folded_into(self, unit: str) -> list[str]:
        return [name for name, other in self.folded.items() if other == unit]

    def _input(self, node: Node) -> None:
        readers = [self.flat.nodes[n] for n in self.flat.behind(node.name)]
        sizes = layers.input_sizes(node, readers)
        shape = layers.keras_order(sizes)
        tensor = keras.Input((None, *shape), name=self.names.take(node.name))
        self.made[node.name] = _Made(tensor, sizes)
        self._rate(node, FAITHFUL, "", f"(batch, time, {', '.join(map(str, shape))})")

    def _plain(self, node: Node) -> None:
        """Make a node that is the same at every step."""
        if node.kind not in layers.MAKERS:
            raise NotReadError("snukeras has no form for it")
        given = self._given(node)
        if given is None:
            layers.check(node)
            self._rate(node, FAITHFUL, "", "behind a node that cannot be read")
            return
        label = self.names.take(node.name) if node.kind != "Output" else ""
        tensor, sizes = layers.MAKERS[node.kind](
            node, given.tensor, given.sizes, label, self.writer
        )
        self.made[node.name] = _Made(tensor, sizes)
        self._rate(node, FAITHFUL, label)

    def _given(self, node: Node) -> _Made | None:
        """Return what a node is given: what feeds it, added up; None where that cannot be read."""
        inside = self.flat.inner(node.name) if node.name in self.flat.loops else set()
        sources = [n for n in self.flat.before[node.name] if n not in inside]
        if not sources:
            raise NotReadError("no edge leads to it from outside its loop")
        parts = [self.made.get(source) for source in sources]
        if any(part is None for part in parts):
            return None
        first, *others = (part for part in parts if part is not None)
        for source, part in zip(sources[1:], others, strict=True):
            if part.sizes != first.sizes:
                raise BadInputError(
                    f"The node {node.name!r} ({node.kind}) gets {first.sizes} from {sources[0]!r} "
                    f"and {part.sizes} from {source!r}, which cannot be added."
                )
        if not others:
            return first
        total = keras.layers.Add(name=self.names.take(f"{node.name}_sum"))
        return _Made(total([part.tensor for part in (first, *others)]), first.sizes)

    def _product_of(self, unit: str) -> str | None:
        """Return the product that an SNU takes as its kernel together with a neuron, or None."""
        if not neurons.is_snu(self.steps[unit]) or unit in self.flat.problems:
            return None
        inside = self.flat.inner(unit) if unit in self.flat.loops else set()
        sources = [name for name in self.flat.before[unit] if name not in inside]
        if len(sources) != 1:
            return None
        node = self.flat.nodes[sources[0]]
        alone = self.flat.behind(node.name) == [unit] and node.name not in self.inside
        if not alone:
            return None
        if node.kind in layers.CONVOLUTIONS:
            loop = [self.flat.nodes[name] for name in self.flat.loops.get(unit, ())]
            fits = conv_neurons.is_conv_snu(node, self.steps[unit], loop)
            fits = fits and (bool(loop) or unit not in self.flat.loops)
            return node.name if fits else None
        flat = node.kind in ("Affine", "Linear") and node.number("weight").ndim == 2
        return node.name if flat else None

    def _neuron(self, node: Node) -> None:
        found = self.steps[node.name]
        loop = [self.flat.nodes[name] for name in self.flat.loops.get(node.name, ())]
        products = [self.flat.nodes[name] for name in self._folded_into(node.name)]
        given = self._given(products[0] if products else node)
        rating = APPROXIMATE if found.approximate else FAITHFUL
        label = self.names.take(node.name)
        if given is None:
            kind = "behind a node that cannot be read"
        elif products and products[0].kind in layers.CONVOLUTIONS:
            tensor, kind, sizes = conv_neurons.conv_snu(
                found, given.tensor, given.sizes, products[0], loop, label
            )
            self.made[node.name] = _Made(tensor, sizes)
        else:
            sizes = layers.product_sizes(products[0], given.sizes) if products else given.sizes
            back = None
            if strange := [part for part in loop if part.kind in layers.CONVOLUTIONS]:
                raise NotReadError(
                    f"its recurrence leads through {strange[0].kind} {strange[0].name!r}, which is "
                    "read behind a convolution, of neurons that reset to a value and are the same "
                    "at all places"
                )
            if node.name in self.flat.loops:
                back = neurons.recurrence(node, self.flat, math.prod(sizes))
            make = neurons.snu if products else neurons.lif
            tensor, kind = make(node, found, given.tensor, sizes, back, products, label)
            self.made[node.name] = _Made(tensor, sizes)
        self._rate(node, rating, kind if given is None else f"{kind} {label}", found.note)
        for other in (*products, *loop):
            self._rate(other, FAITHFUL, self.ratings[node.name].layer, f"part of {node.name}")
