"""Scans over the first axis alone, forwards: the form that every runtime has.

ONNX lets a Scan name other axes and directions. ONNX's own reference, for one, has neither; ONNX
Runtime transposes inside. Here they become nodes around the loop, which cost the same.
"""

import numpy as np
import onnx
from onnx import TensorProto

from snukeras.export.onnx.graph import GraphBuilder

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
