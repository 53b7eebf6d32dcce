"""Scans over the first axis alone, forwards, with their constants inside: what every runtime has.

ONNX lets a Scan name other axes and directions. ONNX's own reference, for one, has neither; ONNX
Runtime transposes inside. Here they become nodes around the loop, which cost the same. ONNX also
lets the body of a Scan read constants of the graph around it. ONNX's own reference before onnx 1.22
passes none in.
"""

import collections
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto

from snukeras.export.onnx.graph import GraphBuilder, reads, rename_node

# Constants of up to so many bytes are copied into every body that reads them.
_SMALL = 4096
# Batch and time change places: all sequences of our loops have three axes.
_TURN = [1, 0, 2]


def straighten(graph: GraphBuilder) -> None:
    """Put what the Scans of a graph say of axes and directions into nodes around them."""
    nodes = graph.nodes
    graph.nodes = []
    numbers: set[str] = set()  # sequences of bool before, of float now
    for node in nodes:
        if node.op_type != "Scan":
            if node.op_type == "Cast" and node.input[0] in numbers:
                # ONNX Runtime 1.19 to 1.31 crash on a Cast from float to float behind a Transpose.
                node.op_type = "Identity"
                del node.attribute[:]
            graph.nodes.append(node)
            continue
        said = {attribute.name: attribute for attribute in node.attribute}
        count = said["num_scan_inputs"].i
        states = len(node.input) - count
        for index in range(count):
            place = states + index
            if _said(said, "scan_input_axes", index):
                node.input[place] = graph.node(
                    "Transpose", [node.input[place]], f"{node.name}/time_first", perm=_TURN
                )
            if _said(said, "scan_input_directions", index):
                node.input[place] = _reversed(graph, node.name, node.input[place])
        graph.nodes.append(node)
        for index, name in enumerate(node.output[states:]):
            inner = name
            if _said(said, "scan_output_axes", index):
                inner = graph.unique(f"{name}/time_first")
                last = inner
                if _is_bool(said["body"].g.output[states + index]):
                    # ONNX Runtime 1.32 crashes on a chain of loops with bool sequences transposed.
                    last = graph.node("Cast", [inner], f"{name}/numbers", to=TensorProto.FLOAT)
                    numbers.add(name)
                graph.node("Transpose", [last], f"{name}/batch_first", outputs=[name], perm=_TURN)
            if _said(said, "scan_output_directions", index):
                before = graph.unique(f"{name}/as_processed")
                _reversed(graph, node.name, before, [inner])
                graph.nodes.insert(graph.nodes.index(node) + 1, graph.nodes.pop())
                inner = before
            node.output[states + index] = inner
        for name in said:
            if name.endswith(("_axes", "_directions")):
                node.attribute.remove(said[name])


def _is_bool(value: onnx.ValueInfoProto) -> bool:
    return bool(value.type.tensor_type.elem_type == TensorProto.BOOL)


def _said(said: dict[str, onnx.AttributeProto], name: str, index: int) -> int:
    values = said[name].ints if name in said else ()
    return int(values[index]) if index < len(values) else 0


def _reversed(graph: GraphBuilder, name: str, x: str, outputs: list[str] | None = None) -> str:
    """Add x with its first axis reversed."""
    last, before, axis, back = (
        graph.constant([value], f"slice_{value}", "int64")
        for value in (-1, np.iinfo("int64").min, 0, -1)
    )
    hint = f"{name}/backwards"
    return graph.node("Slice", [x, last, before, axis, back], hint, outputs=outputs)


def enclose(graph: onnx.GraphProto) -> None:
    """Put constants into the bodies of the Scans that read them.

    A large one that something else reads as well stays outside.
    """
    readers = collections.Counter(name for node in graph.node for name in reads(node))
    taken = {*readers, *(name for node in graph.node for name in node.output)}
    moved = set()
    for node, body in _bodies(graph):
        inside = {name for inner in body.node for name in reads(inner)}
        for tensor in graph.initializer:
            if tensor.name not in inside:
                continue
            if readers[tensor.name] == 1 and tensor.name not in node.input:
                body.initializer.append(tensor)
                moved.add(tensor.name)
            elif tensor.ByteSize() <= _SMALL:
                name = f"{node.name}/{tensor.name}"
                while name in taken:
                    name += "_2"
                taken.add(name)
                _rename_inside(body, tensor.name, name)
                body.initializer.add().CopyFrom(tensor)
                body.initializer[-1].name = name
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name in moved:
            del graph.initializer[index]


def disclose(graph: onnx.GraphProto) -> None:
    """Put the constants of the bodies of Scans into the graph around them."""
    for _, body in _bodies(graph):
        graph.initializer.extend(body.initializer)
        del body.initializer[:]


def _bodies(graph: onnx.GraphProto) -> Iterator[tuple[onnx.NodeProto, onnx.GraphProto]]:
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Scan" and attribute.name == "body":
                yield node, attribute.g


def _rename_inside(body: onnx.GraphProto, old: str, new: str) -> None:
    for node in body.node:
        rename_node(node, lambda name: new if name == old else name)
