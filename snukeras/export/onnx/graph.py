"""A small builder for ONNX graphs: unique names, shared constants, merging of other graphs."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import helper, numpy_helper

OPSET = 17
IR_VERSION = 8

_Content = tuple[str, tuple[int, ...], bytes]  # dtype, shape and bytes of a constant


class GraphBuilder:
    """Collects nodes and constants of one graph.

    Args:
        parent: The graph around a loop body, which keeps the constants and the names.
    """

    def __init__(self, parent: "GraphBuilder | None" = None) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.parent = parent
        self.initializers: dict[str, onnx.TensorProto] = {}
        self._names: set[str] = set() if parent is None else parent._names
        self._constants: dict[_Content | None, str] = {} if parent is None else parent._constants
        self.opsets: dict[str, int] = {"": OPSET}

    def unique(self, hint: str) -> str:
        """Return `hint`, or `hint_2`, `hint_3`, ... if that name is taken."""
        name, count = hint, 1
        while name in self._names:
            count += 1
            name = f"{hint}_{count}"
        self._names.add(name)
        return name

    def constant(self, values: ArrayLike, hint: str, dtype: str = "float32") -> str:
        """Return the name of an initializer; equal small ones are shared."""
        if self.parent is not None:
            return self.parent.constant(values, hint, dtype)
        array = np.asarray(values, dtype=dtype, order="C")
        key = (array.dtype.str, array.shape, array.tobytes()) if array.size <= 1024 else None
        if key in self._constants:
            return self._constants[key]
        name = self.unique(hint)
        self.initializers[name] = numpy_helper.from_array(array, name)
        if key is not None:
            self._constants[key] = name
        return name

    def node(
        self,
        op: str,
        inputs: Sequence[str],
        hint: str,
        *,
        doc: str = "",
        outputs: Sequence[str] | None = None,
        **attributes: Any,
    ) -> str:
        """Add a node named `hint`; return the name of its (first) output."""
        name = self.unique(hint)
        names = list(outputs) if outputs is not None else [name]
        self.nodes.append(
            helper.make_node(
                op, list(inputs), names, name=name, doc_string=doc or None, **attributes
            )
        )
        return names[0]

    def merge(self, model: onnx.ModelProto, prefix: str, inputs: Sequence[str]) -> list[str]:
        """Add another model's graph under a prefix, fed with `inputs`; return its outputs."""
        graph = model.graph
        for opset in model.opset_import:
            known = self.opsets.setdefault(opset.domain, opset.version)
            if known != opset.version:
                raise ValueError(f"opset {opset.domain or 'ai.onnx'} {opset.version}, not {known}")
        names = {value.name: name for value, name in zip(graph.input, inputs, strict=True)}

        def rename(name: str) -> str:
            if name and name not in names:
                names[name] = self.unique(f"{prefix}/{name}")
            return names.get(name, "")

        for tensor in graph.initializer:
            tensor.name = rename(tensor.name)
            self.initializers[tensor.name] = tensor
        for node in graph.node:
            _rename_node(node, rename, lambda name: self.unique(f"{prefix}/{name}"))
            self.nodes.append(node)
        outputs = []
        for value in graph.output:
            name = rename(value.name)
            # A graph may hand an input through; the caller may then rename it, so copy.
            outputs.append(
                self.node("Identity", [name], f"{prefix}/Identity") if name in inputs else name
            )
        return outputs

    def rename(self, old: str, new: str) -> bool:
        """Rename the result `old` of a node; return False if no node of ours makes it."""
        if not any(old in node.output for node in self.nodes):
            return False

        def swap(name: str) -> str:
            return new if name == old else name

        for node in self.nodes:
            _rename_node(node, swap, None)
        return True

    def prune(self, wanted: Sequence[str]) -> None:
        """Drop nodes and constants that none of the `wanted` results depends on."""
        needed, kept = set(wanted), []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                kept.append(node)
                needed.update(_reads(node))
        self.nodes = kept[::-1]
        self.initializers = {n: t for n, t in self.initializers.items() if n in needed}


def _reads(node: onnx.NodeProto) -> set[str]:
    """Return all names a node reads, those inside its subgraphs too."""
    names = set(node.input)
    for attribute in node.attribute:
        for graph in [attribute.g] if attribute.HasField("g") else list(attribute.graphs):
            names.update(value.name for value in graph.output)
            for inner in graph.node:
                names |= _reads(inner)
    return names


def _rename_node(
    node: onnx.NodeProto,
    rename: Callable[[str], str],
    rename_node: Callable[[str], str] | None,
) -> None:
    for index, name in enumerate(node.input):
        node.input[index] = rename(name)
    for index, name in enumerate(node.output):
        node.output[index] = rename(name)
    if rename_node is not None:
        node.name = rename_node(node.name)
    for attribute in node.attribute:
        for graph in [attribute.g] if attribute.HasField("g") else list(attribute.graphs):
            for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
                value.name = rename(value.name)
            for inner in graph.node:
                _rename_node(inner, rename, rename_node)


def subgraph(
    body: GraphBuilder,
    name: str,
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
) -> onnx.GraphProto:
    """Return the graph of a loop body, with value infos for its inputs and outputs."""
    return helper.make_graph(body.nodes, name, list(inputs), list(outputs))


def described(model: onnx.ModelProto) -> dict[str, str]:
    """Return the texts in the metadata of a model."""
    return {entry.key: entry.value for entry in model.metadata_props}


def element_type(dtype: str) -> int:
    """Return ONNX's number for a dtype name such as "float32"."""
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
