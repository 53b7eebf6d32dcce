"""The network that is exported, read once: its topology, its weights, how often it uses them."""

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence

import keras

from snukeras._types import Shape
from snukeras.layers import ConvSNUCell, TiedEmbedding
from snukeras.network import topology
from snukeras.network.matrices import Matrix, digital_kernels, matrices
from snukeras.network.topology import Call, Ref, Topology
from snukeras.network.weights import Weight, collect, digest
from snukeras.pcm.analog_network import AnalogNetwork


@dataclasses.dataclass(frozen=True)
class Use:
    """How often one call of a layer uses a matrix.

    Attributes:
        matrix: Name of the matrix.
        call: Name of the call.
        per_step: Matrix-vector products in a step of the network: the output positions of a
            convolution, 1 for the matrices of a recurrent layer.
    """

    matrix: str
    call: str
    per_step: float


@dataclasses.dataclass(frozen=True)
class Network:
    """A Keras model as the exporter sees it.

    Attributes:
        model: The model.
        topology: Its inputs, outputs and calls of layers.
        weights: Its weights, matrices and others, in the order of its layers.
        embedding: Whether tables of Embedding layers count as matrices.
    """

    model: keras.Model
    topology: Topology
    weights: tuple[Weight, ...]
    embedding: bool = False

    @classmethod
    def read(cls, model: keras.Model, embedding: bool = False) -> "Network":
        """Read a model; of an analog network the plain model, whose weights the tiles hold.

        Raises:
            BadInputError: The model has no topology to read, or weights that are not finite.
        """
        if isinstance(model, AnalogNetwork):
            model = model.digital()
        return cls(model, topology.read(model), tuple(collect(model, embedding)), embedding)

    @functools.cached_property
    def digest(self) -> str:
        """The sha256 over names, shapes and values of all weights."""
        return digest(list(self.weights))

    @functools.cached_property
    def uses(self) -> tuple[Use, ...]:
        """Every use of every matrix in a step.

        A step is one of the first recurrent layer. A network without recurrent layers takes a
        sample in one step. Sizes that are not known count as 1, so a layer behind the last step
        of a sequence of unknown length counts as if it were used at each step.
        """
        return tuple(_uses(self))

    @property
    def steps(self) -> int | None:
        """Steps of time of a sample; None where they are not known, 1 without recurrent layers."""
        return _steps(self.topology)

    @property
    def digital_kernels(self) -> list[str]:
        """Paths of weights that bear a kernel's name but stay digital."""
        return digital_kernels(self.model, self.embedding)

    @property
    def plays_chorales(self) -> bool:
        """Whether it has the ends of the JSB task: 88 keys in, 88 keys out, one song or many."""
        ends = [*self.topology.inputs, *self.topology.outputs]
        return len(ends) == 2 and all(
            len(ref.shape) == 3
            and ref.shape[0] in (None, 1)
            and ref.shape[-1] == 88
            and ref.dtype == "float32"
            for _, ref in ends
        )


def _uses(network: Network) -> Iterator[Use]:
    names = {
        id(weight.variable): weight.name
        for weight in network.weights
        if weight.matrix and weight.variable is not None
    }
    held = {id(m.variable): m for m in matrices(network.model, network.embedding)}
    steps = _steps(network.topology)
    for call, output, factor in _calls(network.topology, 1.0):
        for variable in getattr(call.op, "weights", ()):
            matrix = held.get(id(variable))
            if matrix is not None:
                count = factor * _products(matrix, call, output)
                if count:
                    yield Use(names[id(variable)], call.name, count / (steps or 1))


def _calls(plan: Topology, factor: float) -> Iterator[tuple[Call, Ref | None, float]]:
    """Iterate over calls of layers, with the tensor that each puts out, and its repetitions."""
    refs = [ref for call in plan.calls for ref in call.inputs] + [r for _, r in plan.outputs]
    outputs = {ref.key: ref for ref in refs}
    for call in plan.calls:
        inner = call.op.layer if isinstance(call.op, keras.layers.TimeDistributed) else None
        if isinstance(inner, keras.Model):
            times = call.inputs[0].shape[1] or 1
            for part, output, count in _calls(topology.read(inner), factor * times):
                yield dataclasses.replace(part, name=f"{call.name}/{part.name}"), output, count
        else:
            yield call, outputs.get((call.name, 0)), factor


def _steps(plan: Topology) -> int | None:
    """Return the steps of the first recurrent layer; 1 without one, None if not known."""
    for call in plan.calls:
        if isinstance(call.op, keras.layers.RNN | keras.layers.Bidirectional):
            return call.inputs[0].shape[1]
    return 1


def _products(matrix: Matrix, call: Call, output: Ref | None) -> int:
    """Return how many vectors drive the rows of a matrix when a call takes one sample."""
    layer = call.op.layer if isinstance(call.op, keras.layers.TimeDistributed) else call.op
    given = call.inputs[0].shape[1:]
    if isinstance(layer, TiedEmbedding) and not call.kwargs.get("reverse"):
        return 0  # the call reads a row; only the projection is a product
    if isinstance(layer, keras.layers.Embedding):
        return _size(given)
    if isinstance(layer, keras.layers.RNN | keras.layers.Bidirectional):
        times = given[0] or 1
        return matrix.products(_size(given), times * _outputs(matrix.layer, given), times)
    if matrix.layer is layer and output is not None and not isinstance(layer, TiedEmbedding):
        return matrix.products(_size(given), _size(output.shape[1:]))
    return _size(given[:-1])  # of a layer inside: once for each vector of the input


def _outputs(cell: keras.Layer, given: Shape) -> int:
    """Return the number of elements that a cell puts out in a step."""
    if isinstance(cell, ConvSNUCell):
        return math.prod(cell.map_of(given[1:-1])) * cell.filters
    return _size(getattr(cell, "output_size", None) or (1,))


def _size(shape: int | Sequence[int | None] | None) -> int:
    """Return the number of elements; sizes that are not known count as 1."""
    sizes = shape if isinstance(shape, tuple | list) else (shape,)
    return math.prod(size or 1 for size in keras.tree.flatten(sizes))
