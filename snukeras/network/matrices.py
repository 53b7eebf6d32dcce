"""Which weights of a network are matrices, and how each unrolls into rows and columns.

This is the one answer to that question: chip, crossbar map, costs, noise, constraint, optimizer and
cards ask here. A layer of this package, or of a user, says it of itself in its attribute
`tile_matrices`; the layers of Keras are listed below.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterator
from typing import Literal

import keras
import numpy as np

from snukeras._types import Array

Per = Literal["input", "output", "step"]


@dataclasses.dataclass(frozen=True)
class Unrolling:
    """How a weight of any rank lies on tiles as one matrix.

    Attributes:
        rows: Axes that the input is contracted with; None stands for all axes but `columns`.
        columns: Axes that lead to outputs.
        per: What the number of products goes by: each vector of "input" drives the rows once, each
            place of the "output" does (convolutions), or each "step" of time (recurrent kernels).
        groups: How many products it takes to serve all columns once. A depthwise convolution
            drives the rows with one channel after the other, each for columns of its own.
        channels: Channels of the output, where they are not the columns.
    """

    rows: tuple[int, ...] | None = None
    columns: tuple[int, ...] = (-1,)
    per: Per = "input"
    groups: int = 1
    channels: int | None = None

    def axes(self, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the axes of rows and columns of a weight of this rank, counted from 0."""
        columns = tuple(axis % rank for axis in self.columns)
        if self.rows is None:
            return tuple(axis for axis in range(rank) if axis not in columns), columns
        return tuple(axis % rank for axis in self.rows), columns

    def natural(self, rank: int) -> bool:
        """Return whether the matrix is the weight reshaped to (-1, last axis)."""
        rows, columns = self.axes(rank)
        return (*rows, *columns) == tuple(range(rank)) and len(columns) == 1

    def matrix(self, weight: np.ndarray) -> np.ndarray:
        """Return the weight as a matrix (rows, columns)."""
        rows, columns = self.axes(weight.ndim)
        height = math.prod(weight.shape[axis] for axis in rows)
        return weight.transpose(*rows, *columns).reshape(height, -1)

    def weight(self, matrix: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Return a matrix in the shape of its weight: the inverse of `matrix`."""
        rows, columns = self.axes(len(shape))
        order = (*rows, *columns)
        return matrix.reshape([shape[axis] for axis in order]).transpose(np.argsort(order))


@dataclasses.dataclass(frozen=True)
class Matrix:
    """A weight of a network that multiplies vectors.

    Attributes:
        name: Layer names and role, joined by "/": "snu/kernel".
        layer: The layer or cell that owns it.
        role: Name of the layer's attribute: "kernel", "recurrent_kernel", ...
        variable: The Keras variable.
        unrolling: How it lies on tiles.
    """

    name: str
    layer: keras.Layer
    role: str
    variable: keras.Variable
    unrolling: Unrolling

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        sizes = tuple(self.variable.shape)
        rows, columns = self.unrolling.axes(len(sizes))
        return math.prod(sizes[a] for a in rows), math.prod(sizes[a] for a in columns)

    def products(self, inputs: int, outputs: int, steps: int = 1) -> int:
        """Return how many vectors drive the rows in one call of the layer.

        Args:
            inputs: Number of elements of the layer's input, of all samples together.
            outputs: Number of elements of its output, with all steps of time.
            steps: Samples times steps of time, for recurrent kernels.
        """
        rows, columns = self.shape
        if self.unrolling.per == "input":
            return inputs // rows * self.unrolling.groups
        if self.unrolling.per == "output":
            return outputs // (self.unrolling.channels or columns) * self.unrolling.groups
        return steps * self.unrolling.groups


def roles(layer: keras.Layer, embeddings: bool = False) -> dict[str, Unrolling]:
    """Return the matrices of a layer by role, without those of layers inside it.

    Args:
        layer: A layer or cell.
        embeddings: Whether tables of words count; a `TiedEmbedding`, which projects, always does.
    """
    if isinstance(layer, keras.layers.Embedding) and not embeddings:
        return {}
    own = getattr(type(layer), "tile_matrices", None)
    if own is None:
        said = next((_OF_KERAS[cls] for cls in type(layer).__mro__ if cls in _OF_KERAS), None)
        # Keras does not publish this cell.
        said = _convolutional_lstm if type(layer).__name__ == "ConvLSTMCell" else said
        own = said(layer) if said else ()
    if not isinstance(own, dict):
        own = {role: Unrolling() for role in own}
    return {role: how for role, how in own.items() if getattr(layer, role, None) is not None}


def mapped_layers() -> list[str]:
    """Return the names of all known layers and cells that have matrices for tiles."""
    registered = keras.saving.get_custom_objects().values()
    own = [cls for cls in registered if getattr(cls, "tile_matrices", None)]
    return sorted({cls.__name__ for cls in (*_OF_KERAS, *own)})


def parameters(layer: keras.Layer) -> dict[str, tuple[Array, keras.Variable | None]]:
    """Return the digital parameters of a layer, by role: values, and the variable if there is one.

    A layer of this package may have constants that are no weights; it says so in its method
    `digital_parameters`.
    """
    own = getattr(layer, "digital_parameters", None)
    return own() if callable(own) else {}


def leaves(layer: keras.Layer, name: str = "") -> Iterator[tuple[str, keras.Layer]]:
    """Yield each layer inside a layer with its path of names, inner ones first, then itself.

    Wrappers, recurrent layers and their cells bear one name.
    """
    yield from _leaves(layer, name, set())


def matrices(model: keras.Layer, embeddings: bool = False) -> list[Matrix]:
    """Return the matrices of a built model or layer, each once, in the order of its layers.

    Args:
        model: A built Keras model or layer.
        embeddings: Whether tables of words count.

    Raises:
        ValueError: A kernel is quantised, or changed by LoRA.
    """
    found: list[Matrix] = []
    seen: set[int] = set()
    names: set[str] = set()
    root = "" if isinstance(model, keras.Model) else model.name
    for path, layer in leaves(model, root):
        for role, unrolling in roles(layer, embeddings).items():
            variable = getattr(layer, role)
            if not isinstance(variable, keras.Variable) or "float" not in str(variable.dtype):
                raise ValueError(
                    f"{path}/{role} is not one variable of floating-point numbers. Merge LoRA "
                    "weights (save and load) and use the layer before its quantisation."
                )
            if id(variable) in seen:
                continue
            seen.add(id(variable))
            name = unused(f"{path}/{role}", names)
            found.append(Matrix(name, layer, role, variable, unrolling))
    return found


def digital_kernels(model: keras.Layer, embeddings: bool = False) -> list[str]:
    """Return the paths of weights that bear a kernel's name but that no layer calls a matrix."""
    known = {id(matrix.variable) for matrix in matrices(model, embeddings)}
    return [v.path for v in model.weights if is_kernel(v) and id(v) not in known]


def is_kernel(variable: keras.Variable) -> bool:
    """Return whether a variable bears the name and rank of a kernel.

    Only for optimizers, which see variables without their layers; for all layers of Keras and of
    this package it agrees with `matrices`.
    """
    return variable.name.endswith("kernel") and len(variable.shape) >= 2


def chip_variables(model: keras.Layer, embeddings: bool = False) -> dict[str, keras.Variable]:
    """Return the variables of a model that belong on crossbars, by path.

    These are the kernels: of dense, recurrent, convolution and attention layers. Biases,
    thresholds, decays and normalisation stay digital.

    Args:
        model: A built Keras model or layer.
        embeddings: Whether embedding tables go on the chip too.
    """
    return {path: matrix.variable for path, matrix in by_path(model, embeddings).items()}


def by_path(model: keras.Layer, embeddings: bool = False) -> dict[str, Matrix]:
    """Return the matrices of a model by the path of their variables, made unique by "_"."""
    found: dict[str, Matrix] = {}
    for matrix in matrices(model, embeddings):
        path = matrix.variable.path
        while path in found:
            path += "_"
        found[path] = matrix
    return found


def unused(name: str, names: set[str]) -> str:
    """Return the name, with a number behind it if it is taken, and take it."""
    free, count = name, 1
    while free in names:
        count += 1
        free = f"{name}_{count}"
    names.add(free)
    return free


def _leaves(layer: keras.Layer, name: str, seen: set[int]) -> Iterator[tuple[str, keras.Layer]]:
    def under(child: keras.Layer) -> str:
        return f"{name}/{child.name}" if name else child.name

    if id(layer) in seen:
        return
    seen.add(id(layer))
    if isinstance(layer, keras.layers.Wrapper) and not isinstance(
        layer, keras.layers.Bidirectional
    ):
        yield from _leaves(layer.layer, name, seen)
    elif isinstance(layer, keras.layers.RNN):
        yield from _leaves(layer.cell, name, seen)
    else:
        for child in _children(layer):
            yield from _leaves(child, under(child), seen)
    yield name or layer.name, layer


def _children(layer: keras.Layer) -> list[keras.Layer]:
    """Return the layers right inside a layer, in the order in which it holds them."""
    if isinstance(layer, keras.Model):
        return list(layer.layers)
    if isinstance(layer, keras.layers.Bidirectional):
        return [layer.forward_layer, layer.backward_layer]
    if isinstance(layer, keras.layers.StackedRNNCells):
        return list(layer.cells)
    held = keras.tree.flatten(
        [
            list(value.values()) if isinstance(value, dict) else value
            for value in vars(layer).values()
            if isinstance(value, keras.Layer | list | tuple | dict)
        ]
    )
    return [child for child in held if isinstance(child, keras.Layer)]


def _einsum(layer: keras.layers.EinsumDense) -> dict[str, Unrolling]:
    """Read rows and columns from the equation: an axis of the kernel that the output has is one."""
    _, kernel, output = re.split(",|->", layer.equation.replace("...", "").replace(" ", ""))
    columns = tuple(i for i, letter in enumerate(kernel) if letter in output)
    rows = tuple(i for i, letter in enumerate(kernel) if letter not in output)
    return {"kernel": Unrolling(rows, columns)}


def _convolution(layer: keras.Layer) -> dict[str, Unrolling]:
    return {"kernel": Unrolling(per="output", groups=getattr(layer, "groups", 1))}


def _transposed(layer: keras.Layer) -> dict[str, Unrolling]:
    # The kernel is (*sizes, filters, channels); a channel of the input is a row.
    return {"kernel": Unrolling((-1,), tuple(range(len(layer.kernel.shape) - 1)))}


def _depthwise(layer: keras.Layer) -> dict[str, Unrolling]:
    return {"kernel": _per_channel(layer.kernel)}


def _per_channel(kernel: keras.Variable, filters: int | None = None) -> Unrolling:
    rank = len(kernel.shape)
    # The kernel is (*sizes, channels, multiplier); each channel has columns of its own.
    return Unrolling(
        tuple(range(rank - 2)), (rank - 2, rank - 1), "output", int(kernel.shape[-2]), filters
    )


def _separable(layer: keras.Layer) -> dict[str, Unrolling]:
    return {
        "depthwise_kernel": _per_channel(layer.depthwise_kernel, layer.filters),
        "pointwise_kernel": Unrolling(per="output"),
    }


def _dense(layer: keras.Layer) -> dict[str, Unrolling]:
    return {"kernel": Unrolling()}


def _table(layer: keras.Layer) -> dict[str, Unrolling]:
    return {"embeddings": Unrolling()}


def _recurrent(layer: keras.Layer) -> dict[str, Unrolling]:
    return {"kernel": Unrolling(), "recurrent_kernel": Unrolling(per="step")}


def _convolutional_lstm(layer: keras.Layer) -> dict[str, Unrolling]:
    how = Unrolling(per="output", channels=layer.filters)
    return {"kernel": how, "recurrent_kernel": how}


# Layers of Keras -> their matrices. Subclasses go by their nearest base.
_OF_KERAS: dict[type, Callable[[keras.Layer], dict[str, Unrolling]]] = {
    keras.layers.Dense: _dense,
    keras.layers.EinsumDense: _einsum,
    keras.layers.Embedding: _table,
    keras.layers.Conv1D: _convolution,
    keras.layers.Conv2D: _convolution,
    keras.layers.Conv3D: _convolution,
    keras.layers.Conv1DTranspose: _transposed,
    keras.layers.Conv2DTranspose: _transposed,
    keras.layers.Conv3DTranspose: _transposed,
    keras.layers.DepthwiseConv1D: _depthwise,
    keras.layers.DepthwiseConv2D: _depthwise,
    keras.layers.SeparableConv1D: _separable,
    keras.layers.SeparableConv2D: _separable,
    keras.layers.SimpleRNNCell: _recurrent,
    keras.layers.GRUCell: _recurrent,
    keras.layers.LSTMCell: _recurrent,
}
