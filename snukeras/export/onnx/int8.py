"""An ONNX file with weights in int8: a third of the size, and products of integers.

Products with a constant matrix become products of integers: the weights have a scale for each
column, the input of a product one scale and zero point, found at each run ("dynamic") or on samples
beforehand ("static"). Between products all stays float: membrane potentials, thresholds, spikes.
Other weights (of convolutions, recurrent products and tables) are held as int8 and made float when
the file is loaded. Operators that not every runtime has, such as DequantizeLinear, are left out.

Weights of products are held as uint8 with the zero point 128. With int8 weights ONNX Runtime adds
two products of 8 bits in 16 bits on processors without VNNI, where two spikes, 255 each, times 127
exceed 32,767 and are cut off there: the sums would be wrong, and differ from machine to machine.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from snukeras.export.errors import BadInputError
from snukeras.export.onnx.graph import described

MODES = ("dynamic", "static")
# In the file's metadata: how it was quantised.
INT8 = "snukeras.int8"
# What a weight of 0 is as uint8.
_RAISED = 128
# Smaller weights would save less than their scales cost.
_LEAST = 256
# Operators that take a weight: place of the weight among the inputs, its axis of channels.
_WEIGHTS = {
    "MatMul": {1: -1},
    "Gemm": {1: -1},
    "Conv": {1: 0},
    "ConvTranspose": {1: 1},
    "LSTM": {1: 1, 2: 1},
    "GRU": {1: 1, 2: 1},
    "RNN": {1: 1, 2: 1},
    "Gather": {0: 0},
    "Einsum": {1: -1},
    "Transpose": {0: 0},
}

# Inputs of more features than this are too wide for their moments.
_MOST = 4096


@dataclasses.dataclass
class Seen:
    """What the input of a product was on samples.

    Attributes:
        low, high: Its smallest and largest value; zero lies between them.
        moments: Sum of x x^T, (features, features); None where there are too many features.
    """

    low: float = 0.0
    high: float = 0.0
    moments: np.ndarray | None = None

    def add(self, values: np.ndarray) -> None:
        """Add values (..., features)."""
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))
        if values.shape[-1] <= _MOST:
            rows = values.reshape(-1, values.shape[-1]).astype("float32")
            product = (rows.T @ rows).astype("float64")
            self.moments = product if self.moments is None else self.moments + product


def quantise(
    model: onnx.ModelProto, mode: str = "dynamic", seen: dict[str, Seen] | None = None
) -> onnx.ModelProto:
    """Return a copy of a model with int8 weights.

    Args:
        model: A model of this exporter.
        mode: "dynamic" or "static"; "static" needs `seen`.
        seen: By tensor that a product takes what it was on samples: weights are then rounded so
            that products of such inputs change least.

    Raises:
        BadInputError: The model has no weights to quantise.
    """
    found = onnx.ModelProto()
    found.CopyFrom(model)
    work = _Work(found.graph, mode == "static", seen or {})
    if not work.axes:
        raise BadInputError(
            f"The network has no matrix of {_LEAST} weights or more, so int8 saves nothing.",
            "Leave int8 out.",
        )
    work.run()
    texts = described(model) | {INT8: mode}
    del found.metadata_props[:]
    helper.set_model_props(found, texts)
    onnx.checker.check_model(found, full_check=True)
    return found


def products(model: onnx.ModelProto) -> list[str]:
    """Return the tensors that products with constant matrices take."""
    work = _Work(model.graph, False, {})
    return list(dict.fromkeys(n.input[0] for n in model.graph.node if work.is_product(n)))


def calibrate(
    model: onnx.ModelProto,
    batches: Sequence[Any],
    run: Callable[[bytes, Any], dict[str, np.ndarray]],
) -> dict[str, Seen]:
    """Return what the inputs of products are on samples.

    Args:
        model: A model of this exporter.
        batches: The samples.
        run: Runs the bytes of a model on a batch and returns all outputs by name.
    """
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    labels = {}
    for number, name in enumerate(products(model)):
        labels[name] = f"range/{number}"
        shown.graph.node.append(helper.make_node("Identity", [name], [labels[name]]))
        shown.graph.output.append(
            helper.make_tensor_value_info(labels[name], TensorProto.FLOAT, None)
        )
    data = shown.SerializeToString()
    seen = {name: Seen() for name in labels}
    for batch in batches:
        values = run(data, batch)
        for name, label in labels.items():
            seen[name].add(values[label])
    return seen


def rounded(weight: np.ndarray, moments: np.ndarray | None) -> np.ndarray:
    """Round a matrix (rows, columns) of multiples of its scales to integers.

    With the moments of its input the error of each row is made up for by the rows after it, so that
    products change least (Frantar et al., ICLR 2023, GPTQ).
    """
    if moments is None:
        return np.clip(np.rint(weight), -127, 127)
    size = len(moments)
    damped = moments + np.eye(size) * (0.01 * np.trace(moments) / size + 1e-9)
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    left, integers = weight.astype("float64"), np.empty_like(weight)
    for row in range(size):
        integers[row] = np.clip(np.rint(left[row]), -127, 127)
        error = (left[row] - integers[row]) / upper[row, row]
        left[row + 1 :] -= upper[row, row + 1 :, None] * error
    return integers


class _Work:
    """The quantisation of one graph."""

    def __init__(self, graph: onnx.GraphProto, static: bool, seen: dict[str, Seen]) -> None:
        self.graph, self.static, self.seen = graph, static, seen
        self.tensors = {tensor.name: tensor for tensor in graph.initializer}
        self.axes = self._axes()
        self.nodes: list[onnx.NodeProto] = []
        self.made: dict[str, onnx.TensorProto] = {}
        self.held: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self.entered: dict[str, tuple[str, str, str]] = {}

    def _axes(self) -> dict[str, int]:
        """Return the axis of channels of each weight that is worth it."""
        found: dict[str, int] = {}

        def look(nodes: Any) -> None:
            for node in nodes:
                for attribute in node.attribute:
                    if attribute.HasField("g"):
                        look(attribute.g.node)
                for place, axis in _WEIGHTS.get(node.op_type, {}).items():
                    name = node.input[place] if place < len(node.input) else ""
                    tensor = self.tensors.get(name)
                    if (
                        tensor is not None
                        and tensor.data_type == TensorProto.FLOAT
                        and len(tensor.dims) > 1
                        and int(np.prod(tensor.dims)) >= _LEAST
                    ):
                        found.setdefault(tensor.name, axis % len(tensor.dims))

        look(self.graph.node)
        return found

    def is_product(self, node: onnx.NodeProto) -> bool:
        """Return whether a node is a product of integers when quantised."""
        return (
            node.op_type == "MatMul"
            and node.input[1] in self.axes
            and len(self.tensors[node.input[1]].dims) == 2
            and self.axes[node.input[1]] == 1
            and node.input[0] not in self.tensors
        )

    def run(self) -> None:
        """Change the graph."""
        nodes = list(self.graph.node)
        for node in nodes:
            if self.is_product(node):
                self._product(node)
            else:
                self.nodes.append(node)
        # Weights that something else takes as well are made float.
        left = self._read(self.nodes)
        first = [node for name in self.axes if name in left for node in self._made_float(name)]
        del self.graph.node[:]
        self.graph.node.extend([*first, *self.nodes])
        kept = [t for t in self.graph.initializer if t.name not in self.axes]
        del self.graph.initializer[:]
        self.graph.initializer.extend([*kept, *self.made.values()])

    def _constant(self, name: str, values: np.ndarray) -> str:
        self.made[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def _add(self, op: str, inputs: list[str], outputs: list[str], **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, outputs, name=outputs[0], **attributes))
        return outputs[0]

    def _read(self, nodes: Any) -> set[str]:
        names: set[str] = set()
        for node in nodes:
            names.update(node.input)
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    names |= self._read(attribute.g.node)
        return names

    def _integers(
        self, name: str, moments: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return a weight as int8, and its scales; `moments` are those of its input."""
        if name not in self.held:
            weight = numpy_helper.to_array(self.tensors[name]).astype("float32")
            axis = self.axes[name]
            others = tuple(a for a in range(weight.ndim) if a != axis)
            scale = np.abs(weight).max(axis=others, keepdims=True) / 127.0
            scale = np.where(scale > 0, scale, 1.0).astype("float32")
            self.held[name] = rounded(weight / scale, moments).astype("int8"), scale.reshape(-1)
        return self.held[name]

    def _made_float(self, name: str) -> list[onnx.NodeProto]:
        """Return nodes that make a weight float; ONNX Runtime runs them once, on loading."""
        integers, scales = self._integers(name)
        values = self._constant(f"{name}/int8", integers)
        shape = [1] * len(self.tensors[name].dims)
        shape[self.axes[name]] = -1
        scale = self._constant(f"{name}/scales", scales.reshape(shape))
        number = f"{name}/number"
        return [
            helper.make_node("Cast", [values], [number], name=number, to=TensorProto.FLOAT),
            helper.make_node("Mul", [number, scale], [name], name=f"{name}/float"),
        ]

    def _product(self, node: onnx.NodeProto) -> None:
        """Put a product of integers in the place of a MatMul."""
        out = node.output[0]
        known = self.seen.get(node.input[0])
        integers, scales = self._integers(node.input[1], known.moments if known else None)
        raised = (integers.astype("int16") + _RAISED).astype("uint8")
        weights = self._constant(f"{node.input[1]}/uint8", raised)
        middle = self._constant("uint8/middle", np.array(_RAISED, "uint8"))
        x, scale, zero = self._enter(node.input[0])
        product = self._add("MatMulInteger", [x, weights, zero, middle], [f"{out}/integers"])
        number = self._add("Cast", [product], [f"{out}/number"], to=TensorProto.FLOAT)
        columns = self._constant(f"{out}/scales", scales)
        both = self._add("Mul", [columns, scale], [f"{out}/scale"])
        self._add("Mul", [number, both], [out])

    def _enter(self, x: str) -> tuple[str, str, str]:
        """Return an input as uint8, with its scale and zero point."""
        if x in self.entered:
            return self.entered[x]
        names = (f"{x}/uint8", f"{x}/scale", f"{x}/zero_point")
        if self.static:
            self._enter_fixed(x, *names)
        else:
            self._add("DynamicQuantizeLinear", [x], list(names))
        self.entered[x] = names
        return names

    def _enter_fixed(self, x: str, out: str, scale: str, zero: str) -> None:
        """Add x / scale + zero point as uint8, with the range seen on samples."""
        seen = self.seen.get(x, Seen(0.0, 1.0))
        step = (seen.high - seen.low) / 255.0 or 1.0
        place = int(np.clip(round(-seen.low / step), 0, 255))
        self._constant(scale, np.array(step, "float32"))
        self._constant(zero, np.array(place, "uint8"))
        shift = self._constant(f"{x}/shift", np.array(place, "float32"))
        bounds = [
            self._constant(f"uint8/{label}", np.array(value, "float32"))
            for label, value in (("low", 0.0), ("high", 255.0))
        ]
        ratio = self._add("Div", [x, scale], [f"{x}/ratio"])
        whole = self._add("Round", [ratio], [f"{x}/whole"])
        moved = self._add("Add", [whole, shift], [f"{x}/moved"])
        cut = self._add("Clip", [moved, *bounds], [f"{x}/cut"])
        self._add("Cast", [cut], [out], to=TensorProto.UINT8)
