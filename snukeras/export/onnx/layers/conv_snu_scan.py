"""Convolutional units in ONNX: every place of every map is a unit of the same Scan.

The states are flattened, (batch, places * filters), so that the loop is that of the other units;
the convolution of the input stands before it, for all steps at once. Keras has channels last, ONNX
has them first.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from snukeras.export.onnx.graph import GraphBuilder
from snukeras.export.onnx.layers.snu_scan import Unit, fields_of
from snukeras.layers import SNUCell


@dataclasses.dataclass(frozen=True)
class ConvUnit(Unit):
    """The numbers of a ConvSNU or ConvSSNU cell.

    Attributes:
        maps: Sizes of the output maps, filters last.
        sizes: Sizes of the input maps, without channels.
        strides, dilations, pads: Of the convolution of the input, `pads` as ONNX has them.
    """

    maps: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()

    @classmethod
    def of(cls, cell: SNUCell, name: str, sizes: Sequence[int] = ()) -> Self:
        """Read a convolutional cell that has been built.

        Args:
            cell: The cell.
            name: Name of its layer in the graph.
            sizes: Sizes of its input maps, without channels.
        """
        fields = fields_of(cell, name, "* ")
        maps = (*cell.map_of(sizes), cell.filters)
        places = math.prod(maps[:-1])
        pads = [0] * (2 * cell.rank)
        if cell.padding == "same":
            pads = _same(sizes, cell.kernel_size, cell.strides, cell.dilation_rate)
        fields["units"] = places * cell.filters
        for key in ("decay", "threshold"):
            fields[key] = np.tile(fields[key], places)
        return cls(
            **fields,
            maps=maps,
            sizes=tuple(sizes),
            strides=cell.strides,
            dilations=cell.dilation_rate,
            pads=tuple(pads),
        )

    def product(self, graph: GraphBuilder, x: str) -> str:
        """Add the convolution of the input, (..., units), for all leading axes."""
        name, rank = self.name, len(self.sizes)
        maps = graph.constant([-1, *self.sizes, self.kernel.shape[-2]], f"{name}/maps", "int64")
        folded = graph.node("Reshape", [x, maps], f"{name}/folded")
        z = self._convolve(
            graph,
            folded,
            self.kernel,
            "kernel",
            strides=self.strides,
            dilations=self.dilations,
            pads=self.pads,
        )
        lead = graph.node("Shape", [x], f"{name}/lead", end=-rank - 1)
        units = graph.constant([self.units], f"{name}/units", "int64")
        shape = graph.node("Concat", [lead, units], f"{name}/drive_shape", axis=0)
        return graph.node("Reshape", [z, shape], f"{name}/drive")

    def recur(self, graph: GraphBuilder, y: str, a: str) -> str:
        """Add a and the convolution of the outputs y of the step before."""
        assert self.recurrent_kernel is not None
        window = self.recurrent_kernel.shape[: len(self.sizes)]
        ones = [1] * len(self.sizes)
        product = self._convolve(
            graph,
            self.shaped(graph, y, 1),
            self.recurrent_kernel,
            "recurrent_kernel",
            pads=_same(self.maps[:-1], window, ones, ones),
        )
        return graph.node("Add", [a, self.flat(graph, product)], f"{self.name}/recur")

    def winner(self, graph: GraphBuilder, y: str) -> str:
        """Let filters compete at each place on its own."""
        largest = super().winner(graph, self.shaped(graph, y, 1))
        repeats = [1] * len(self.maps) + [self.maps[-1]]
        repeated = graph.constant(repeats, f"{self.name}/repeats", "int64")
        return self.flat(graph, graph.node("Tile", [largest, repeated], f"{self.name}/winners"))

    def flat(self, graph: GraphBuilder, state: str) -> str:
        """Add maps as states, (batch, units)."""
        shape = graph.constant([0, self.units], f"{self.name}/flat_shape", "int64")
        return graph.node("Reshape", [state, shape], f"{self.name}/flat")

    def shaped(self, graph: GraphBuilder, y: str, lead: int) -> str:
        """Add outputs (..., units) as maps, behind `lead` axes."""
        # A zero keeps the axis as it is.
        shape = graph.constant([0] * lead + list(self.maps), f"{self.name}/map_shape", "int64")
        return graph.node("Reshape", [y, shape], f"{self.name}/maps_of")

    def _convolve(
        self,
        graph: GraphBuilder,
        x: str,
        kernel: np.ndarray,
        role: str,
        **attributes: Any,
    ) -> str:
        """Add a convolution of maps with their channels last; that of the input has the bias."""
        name, rank = self.name, len(self.sizes)
        first = graph.node(
            "Transpose", [x], f"{name}/{role}_in", perm=[0, rank + 1, *range(1, rank + 1)]
        )
        weight = np.transpose(kernel, (rank + 1, rank, *range(rank)))
        operands = [first, graph.constant(weight, f"{name}/{role}")]
        if role == "kernel" and self.bias is not None:
            operands.append(graph.constant(self.bias, f"{name}/bias"))
        z = graph.node("Conv", operands, f"{name}/{role}_product", **attributes)
        return graph.node("Transpose", [z], f"{name}/{role}_out", perm=[0, *range(2, rank + 2), 1])


def _same(
    sizes: Sequence[int], window: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> list[int]:
    """Return ONNX's pads, all beginnings and then all ends, for Keras's padding "same"."""
    totals = [
        max((math.ceil(size / stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
        for size, kernel, stride, dilation in zip(sizes, window, strides, dilations, strict=True)
    ]
    return [total // 2 for total in totals] + [total - total // 2 for total in totals]
