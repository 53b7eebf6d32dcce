"""A graph of NIR in the making, and where in it each tensor of a network is.

NIR orders maps as (channels, height, width), Keras as (height, width, channels). A layer of Keras
that only gives its numbers another shape makes no node: each tensor here knows which element of the
Keras tensor each element of its node is.
"""

import dataclasses
import math
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import keras
import numpy as np

from snukeras.network.topology import Call, Key

if TYPE_CHECKING:
    from nir import NIRNode

Sizes = tuple[int, ...]
Pads = tuple[tuple[int, int], ...]


class NoNodeError(Exception):
    """NIR has no form for a layer; the text is the reason."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a tensor of the Keras model is in the graph.

    Attributes:
        labels: The nodes that put it out; what several put out is added up.
        shape: Of one step in Keras.
        order: For each element of the nodes the place of the same element in Keras's order.
        pads: Zeros before and behind each axis of places, which the next node has to add.
    """

    labels: tuple[str, ...]
    shape: Sizes
    order: np.ndarray
    pads: Pads = ()

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    def turned(self, values: np.ndarray) -> np.ndarray:
        """Return numbers of the nodes, (batch, time, ...), in the order and shape of Keras."""
        flat = values.reshape(*values.shape[:2], -1)
        found = np.empty_like(flat)
        found[..., self.order.reshape(-1)] = flat
        return found.reshape(*values.shape[:2], *self.shape)


def order_of(shape: Sizes) -> np.ndarray:
    """Return the order of a tensor of Keras as NIR has it: the channels first."""
    places = np.arange(math.prod(shape)).reshape(shape)
    return np.moveaxis(places, -1, 0) if len(shape) > 1 else places


@dataclasses.dataclass
class Layout:
    """The nodes and edges of a graph, and the node for each part of the network.

    Attributes:
        nir: The library.
        dt: Seconds of a step.
        nodes: By label.
        edges: Pairs of labels.
        source: Where each tensor of the Keras model is.
        units: The node of each layer of units, by the name of its call.
        outputs: The Output nodes, in the order of the network.
    """

    nir: ModuleType
    dt: float
    nodes: "dict[str, NIRNode]" = dataclasses.field(default_factory=dict)
    edges: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    source: dict[Key, Place] = dataclasses.field(default_factory=dict)
    units: dict[str, str] = dataclasses.field(default_factory=dict)
    outputs: list[str] = dataclasses.field(default_factory=list)
    vectors: dict[tuple[str, ...], Place] = dataclasses.field(default_factory=dict)

    def label(self, name: str) -> str:
        """Return a free label; "/" would make a group in HDF5, "." a graph in the graph."""
        label = name.replace("/", "_").replace(".", "_")
        while label in self.nodes:
            label += "_"
        return label

    def add(self, label: str, node: "NIRNode", before: Place) -> None:
        """Add a node behind those of a tensor."""
        self.nodes[label] = node
        self.edges += [(source, label) for source in before.labels]

    def vector(self, before: Place, name: str) -> Place:
        """Return a tensor as a vector, behind a Flatten node where it is a map."""
        no_pads(before)
        if before.order.ndim == 1:
            return before
        if before.labels not in self.vectors:
            label = self.label(f"{name}_flatten")
            kind = {"input": np.array(before.order.shape)}
            self.add(label, self.nir.Flatten(input_type=kind, start_dim=0, end_dim=-1), before)
            order = before.order.reshape(-1)
            self.vectors[before.labels] = Place((label,), before.shape, order)
        return dataclasses.replace(self.vectors[before.labels], shape=before.shape)

    def maps(self, before: Place, what: str) -> Place:
        """Return a tensor that is a map of (length) or (height, width) and channels.

        Raises:
            NoNodeError: It is none, or a vector that Keras reads as a map.
        """
        if len(before.shape) not in (2, 3):
            raise NoNodeError(f"it takes {before.shape} in a step, and NIR's {what} maps alone")
        if not np.array_equal(before.order, order_of(before.shape)):
            raise NoNodeError(
                "it reads numbers as a map that are none before it; NIR cannot say so"
            )
        return before


Maker = Callable[[Layout, Call, Any, list[Place]], Place]
MAKERS: Final[dict[type, Maker]] = {}


def makes(*classes: type) -> Callable[[Maker], Maker]:
    def register(maker: Maker) -> Maker:
        for cls in classes:
            MAKERS[cls] = maker
        return maker

    return register


def no_pads(place: Place) -> None:
    if place.pads:
        raise NoNodeError("zeros are padded before it, which NIR does in convolutions alone")


def map_at(label: str, shape: Sizes) -> Place:
    return Place((label,), shape, order_of(shape))


def linear(nir: ModuleType, kernel: Any, bias: Any, order: np.ndarray | None = None) -> "NIRNode":
    """Return Linear or Affine; NIR's matrices are (outputs, inputs).

    Args:
        nir: The library.
        kernel, bias: As Keras has them; bias may be None.
        order: Of the elements before it.
    """
    weight = keras.ops.convert_to_numpy(kernel)
    weight = (weight if order is None else weight[order]).T.copy()
    if bias is None:
        return nir.Linear(weight=weight)
    return nir.Affine(weight=weight, bias=keras.ops.convert_to_numpy(bias))
