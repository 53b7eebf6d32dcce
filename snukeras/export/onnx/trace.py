"""Let an ONNX file show the membrane potentials and outputs of all steps of its units.

The file itself is looked into, not another graph of the same network: its metadata name the loop
of each layer of units and the tensors inside it (`snukeras.units`), and these become outputs of a
copy.
"""

import dataclasses
import json

import onnx
from onnx import TensorProto, helper

from snukeras._files import JsonObject
from snukeras.export.errors import VerificationError
from snukeras.export.onnx.graph import described

UNITS = "snukeras.units"


@dataclasses.dataclass(frozen=True)
class Traced:
    """Outputs of the copy that show a layer: its input, and s and y of all steps as processed.

    Attributes:
        input, s, y: Names of outputs.
        mask: Name of an output, or None.
    """

    input: str
    s: str
    y: str
    mask: str | None


def add_traces(model: onnx.ModelProto) -> dict[str, Traced]:
    """Add the outputs to a model in place; return them by layer of units.

    Raises:
        VerificationError: The file does not say where its units are.
    """
    units = described(model).get(UNITS, "{}")
    found = {}
    try:
        for name, unit in json.loads(units).items():
            found[name] = _add(model.graph, name, unit["scan"])
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise VerificationError(
            "The ONNX file does not name the loops of its units.",
            "It was altered or written by an earlier version: export the model again.",
        ) from error
    return found


def _add(graph: onnx.GraphProto, name: str, scan: JsonObject) -> Traced:
    node = next(n for n in graph.node if n.op_type == "Scan" and n.name == scan["node"])
    attributes = {attribute.name: attribute for attribute in node.attribute}
    body = attributes["body"].g
    states = len(node.input) - attributes["num_scan_inputs"].i
    scanned = len(node.output) - states
    names = {}
    for key in ("s", "y"):
        if not any(scan[key] in inner.output for inner in body.node):
            raise KeyError(scan[key])
        names[key] = f"{name}/trace/{key}"
        inside = f"{names[key]}/step"
        body.node.append(
            helper.make_node("Cast", [scan[key]], [inside], inside, to=TensorProto.FLOAT)
        )
        body.output.append(helper.make_tensor_value_info(inside, TensorProto.FLOAT, None))
        node.output.append(names[key])
    for key, ours in (("scan_output_axes", 1), ("scan_output_directions", 0)):
        before = list(attributes[key].ints) if key in attributes else [0] * scanned
        if key in attributes:
            node.attribute.remove(attributes[key])
        node.attribute.append(helper.make_attribute(key, [*before, ours, ours]))
    for key, kind in (("input", TensorProto.FLOAT), ("mask", TensorProto.BOOL)):
        if scan.get(key) is not None:
            names[key] = f"{name}/trace/{key}"
            graph.node.append(helper.make_node("Identity", [scan[key]], [names[key]], names[key]))
            graph.output.append(helper.make_tensor_value_info(names[key], kind, None))
    for key in ("s", "y"):
        graph.output.append(helper.make_tensor_value_info(names[key], TensorProto.FLOAT, None))
    return Traced(names["input"], names["s"], names["y"], names.get("mask"))
