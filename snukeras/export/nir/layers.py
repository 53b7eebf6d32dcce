"""The nodes of NIR that are the same at every step, as Keras layers.

NIR orders maps as (channels, height, width), Keras as (height, width, channels). Sizes are those
of NIR here; the tensors are those of Keras, with batch and time in front.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from typing import Final

import keras
import numpy as np

from snukeras._types import Tensor
from snukeras.export.errors import BadInputError
from snukeras.export.nir.file import MAX_BYTES, Node
from snukeras.export.nir.writers import NEURONS, Writer

Sizes = tuple[int, ...]
Maker = Callable[[Node, Tensor, Sizes, str, Writer], tuple[Tensor, Sizes]]

CONVOLUTIONS: Final = ("Conv1d", "Conv2d")
# Elements of an input or a map, at most.
_LARGEST = 2**22


class NotReadError(Exception):
    """A node has no Keras form; the text is the reason."""


class Names:
    """Names of layers: what Keras takes, each once."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, name: str) -> str:
        """Return a free name like this one."""
        label = re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_")[:100] or "node"
        if not label[0].isalpha():
            label = f"node_{label}"
        free, count = label, 1
        while free in self._taken:
            count += 1
            free = f"{label}_{count}"
        self._taken.add(free)
        return free


def keras_order(sizes: Sizes) -> Sizes:
    """Return sizes with the channels last."""
    return (*sizes[1:], sizes[0]) if len(sizes) > 1 else sizes


def turned(values: np.ndarray) -> np.ndarray:
    """Return numbers of maps with the channels last."""
    return np.moveaxis(values, 0, -1) if values.ndim > 1 else values


def spread(node: Node, name: str, values: np.ndarray, sizes: Sizes) -> np.ndarray:
    """Return one number for each element, (elements,) in the order of Keras.

    Raises:
        BadInputError: There is another number of them.
    """
    values = values[0] if values.shape == (1,) else values
    try:
        return turned(np.broadcast_to(values, sizes)).reshape(-1)
    except ValueError:
        raise BadInputError(
            f"The node {node.name!r} ({node.kind}) has {name!r} of shape {values.shape}, and gets "
            f"{sizes} from the node before it."
        ) from None


def input_sizes(node: Node, readers: Sequence[Node]) -> Sizes:
    """Return the sizes of the input; axes of batch and time, which some writers leave, are cut.

    Raises:
        BadInputError: The file does not say them.
    """
    said = _whole(node, "shape") if "shape" in node.values else ()
    wanted: Sizes = ()
    rank = 0
    for reader in readers:
        if reader.kind in ("Affine", "Linear"):
            weight = reader.number("weight")
            rank, wanted = 1, weight.shape[-1:] if weight.ndim else ()
        elif reader.kind in ("Conv2d", "AvgPool2d", "SumPool2d"):
            rank = 3
        elif reader.kind == "Conv1d":
            rank = 2
        if reader.kind in ("Conv1d", "Conv2d") and "input_shape" in reader.values and not said:
            (groups,) = _whole(reader, "groups", 1)
            channels = [size * groups for size in reader.number("weight").shape[1:2]]
            wanted = (*channels, *_whole(reader, "input_shape"))
        if reader.kind in NEURONS or reader.kind == "Scale":
            shapes = [v.shape for v in reader.values.values() if isinstance(v, np.ndarray)]
            wanted = max(shapes, key=len, default=())
            rank = len(wanted)
        if rank:
            break
    sizes = said[-rank:] if rank and len(said) >= rank else said or wanted
    if (
        not sizes
        or any(size < 1 for size in sizes)
        or math.prod(sizes) > _LARGEST
        or (len(sizes) > 3)
    ):
        raise BadInputError(
            f"The Input node {node.name!r} has the shape {said}; sizes of (features), (channels, "
            "length) or (channels, height, width) are known.",
            "Write the file with an Input of the right shape.",
        )
    return sizes


def product_sizes(node: Node, sizes: Sizes) -> Sizes:
    """Return the sizes behind a matrix.

    Raises:
        NotReadError: It is none.
        BadInputError: It does not fit what it gets.
    """
    weight = node.number("weight")
    if weight.ndim != 2:
        raise NotReadError(f"its weight has {weight.ndim} axes; two are read")
    if sizes != weight.shape[1:]:
        raise BadInputError(
            f"The node {node.name!r} ({node.kind}) has a weight of shape {weight.shape}, and gets "
            f"{sizes} from the node before it."
        )
    bias = node.number("bias")
    if bias.ndim and bias.shape not in (weight.shape[:1], (1,)):
        raise BadInputError(
            f"The node {node.name!r} ({node.kind}) has a bias of shape {bias.shape} for "
            f"{weight.shape[0]} outputs."
        )
    return weight.shape[:1]


def check(node: Node) -> None:
    """Raise NotReadError for a node that no Keras layer computes, whatever it gets."""
    if node.kind in ("Affine", "Linear") and node.number("weight").ndim != 2:
        raise NotReadError(f"its weight has {node.number('weight').ndim} axes; two are read")


def _whole(node: Node, name: str, count: int | None = None) -> Sizes:
    """Return integers; with `count` so many, of which the file may hold one for all.

    Raises:
        BadInputError: They are none, or another number.
    """
    values = node.number(name).reshape(-1)
    if count is not None and len(values) == 1:
        values = np.repeat(values, count)
    if (
        (count is not None and len(values) != count)
        or np.any(values != np.round(values))
        or (np.any(np.abs(values) > 2**40))
    ):
        wanted = "integers" if count is None else f"{count} integers"
        raise BadInputError(
            f"The node {node.name!r} ({node.kind}) must have {wanted} for {name!r}. "
            f"Received: {values[:6].tolist()}."
        )
    return tuple(int(value) for value in values)


def _dense(node: Node, x: Tensor, sizes: Sizes, label: str, writer: Writer) -> tuple[Tensor, Sizes]:
    (units,) = product_sizes(node, sizes)
    bias = np.broadcast_to(node.number("bias"), (units,))
    layer = keras.layers.Dense(units, use_bias=bool(np.any(bias)), name=label)
    out = layer(x)
    layer.set_weights([node.number("weight").T, *([bias] if layer.use_bias else [])])
    return out, (units,)


def _scale(node: Node, x: Tensor, sizes: Sizes, label: str, writer: Writer) -> tuple[Tensor, Sizes]:
    scale = spread(node, "scale", node.number("scale"), sizes)
    if np.all(scale == scale[0]):
        return keras.layers.Rescaling(float(scale[0]), name=label)(x), sizes
    values = scale.reshape(keras_order(sizes)).tolist()
    return keras.layers.Rescaling(values, name=label)(x), sizes


def _at_each_step(layer: keras.Layer, x: Tensor, label: str) -> Tensor:
    return keras.layers.TimeDistributed(layer, name=label)(x)


def padded(x: Tensor, pads: Sequence[tuple[int, int]], label: str) -> Tensor:
    """Add zeros around maps: the numbers before and behind each axis of places."""
    if not any(before or behind for before, behind in pads):
        return x
    one = len(pads) == 1
    kind = keras.layers.ZeroPadding1D if one else keras.layers.ZeroPadding2D
    return _at_each_step(kind(pads[0] if one else tuple(pads)), x, f"{label}_padding")


@dataclasses.dataclass(frozen=True)
class Convolution:
    """The numbers of a Conv1d or Conv2d node for maps of known sizes.

    Attributes:
        kernel: In the order of Keras, (..., channels, filters); over all channels.
        bias: (filters,).
        strides, dilation: By axis.
        pads: Zeros before and behind each axis.
        same: Whether the zeros are those of padding="same" instead.
        places: The sizes of the map that it makes.
    """

    kernel: np.ndarray
    bias: np.ndarray
    strides: Sizes
    dilation: Sizes
    pads: tuple[tuple[int, int], ...]
    same: bool
    places: Sizes


def convolution(node: Node, sizes: Sizes) -> Convolution:
    """Read a convolution of maps of some sizes.

    Raises:
        BadInputError: Its numbers make no convolution of such maps.
        NotReadError: Keras has no such convolution.
    """
    weight, rank = node.number("weight"), 1 if node.kind == "Conv1d" else 2
    stride, dilation = _whole(node, "stride", rank), _whole(node, "dilation", rank)
    (groups,) = _whole(node, "groups", 1)
    given = node.values["padding"]
    pads = (0,) * rank if isinstance(given, str) else _whole(node, "padding", rank)
    if isinstance(given, str) and given not in ("same", "valid"):
        raise BadInputError(f"The node {node.name!r} ({node.kind}) has the padding {given[:20]!r}.")
    if (
        len(sizes) != rank + 1
        or weight.ndim != rank + 2
        or groups < 1
        or (sizes[0] != weight.shape[1] * groups or weight.shape[0] % groups)
    ):
        raise BadInputError(
            f"The node {node.name!r} ({node.kind}) has a weight of shape {weight.shape} in "
            f"{groups} groups, and gets {sizes} from the node before it."
        )
    if min(stride) < 1 or min(dilation) < 1 or min(pads) < 0:
        raise BadInputError(
            f"The node {node.name!r} ({node.kind}) must have positive strides and dilations and no "
            f"negative padding. Received: {stride}, {dilation}, {pads}."
        )
    if max(stride) > 1 and max(dilation) > 1:
        raise NotReadError("Keras has no convolution with strides and dilation together")
    same = isinstance(given, str) and given == "same"
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, weight.shape[2:], strict=True)]
    if weight.size * groups * 8 > MAX_BYTES:
        raise BadInputError(
            f"The node {node.name!r} ({node.kind}) has {groups} groups, too many for one weight."
        )
    places = [
        -(-n // s) if same else (n + 2 * p - span) // s + 1
        for n, p, s, span in zip(sizes[1:], pads, stride, spans, strict=True)
    ]
    _check_map(node, sizes, (weight.shape[0], *places))
    bias = np.broadcast_to(node.number("bias"), weight.shape[:1])
    kernel = np.moveaxis(_ungrouped(weight, groups), (0, 1), (-1, -2))
    both = tuple((p, p) for p in pads)
    return Convolution(kernel, bias, stride, dilation, both, same, tuple(places))


def _conv(node: Node, x: Tensor, sizes: Sizes, label: str, writer: Writer) -> tuple[Tensor, Sizes]:
    found = convolution(node, sizes)
    *size, _, filters = found.kernel.shape
    kind = keras.layers.Conv1D if len(size) == 1 else keras.layers.Conv2D
    layer = kind(
        filters, size, strides=found.strides, dilation_rate=found.dilation,
        padding="same" if found.same else "valid", use_bias=bool(np.any(found.bias)),
    )  # fmt: skip
    out = _at_each_step(layer, padded(x, found.pads, label), label)
    layer.set_weights([found.kernel, *([found.bias] if layer.use_bias else [])])
    return out, (filters, *found.places)


def _check_map(node: Node, sizes: Sizes, made: Sizes) -> None:
    if min(made) < 1:
        raise BadInputError(
            f"The node {node.name!r} ({node.kind}) has a kernel larger than the map {sizes}."
        )
    if math.prod(made) > _LARGEST:
        raise BadInputError(
            f"The node {node.name!r} ({node.kind}) makes a map of {made}; {_LARGEST:,} elements "
            "are the most that is read."
        )


def _ungrouped(weight: np.ndarray, groups: int) -> np.ndarray:
    """Return a weight over all channels, with zeros for those of other groups."""
    if groups == 1:
        return weight
    outputs, inputs = weight.shape[0] // groups, weight.shape[1]
    whole = np.zeros((weight.shape[0], inputs * groups, *weight.shape[2:]))
    for group in range(groups):
        rows = slice(group * outputs, (group + 1) * outputs)
        whole[rows, group * inputs : (group + 1) * inputs] = weight[rows]
    return whole


def _pool(node: Node, x: Tensor, sizes: Sizes, label: str, writer: Writer) -> tuple[Tensor, Sizes]:
    size, stride, pad = (_whole(node, name, 2) for name in ("kernel_size", "stride", "padding"))
    if len(sizes) != 3 or min(size) < 1 or min(stride) < 1 or min(pad) < 0:
        raise BadInputError(
            f"The node {node.name!r} ({node.kind}) of kernel {size}, stride {stride} and padding "
            f"{pad} gets {sizes} from the node before it; it takes (channels, height, width)."
        )
    pads = [(p // 2, p - p // 2) if writer.total_padding else (p, p) for p in pad]
    whole = [n + sum(p) for n, p in zip(sizes[1:], pads, strict=True)]
    places = [(n - k) // s + 1 for n, k, s in zip(whole, size, stride, strict=True)]
    _check_map(node, sizes, (sizes[0], *places))
    x = padded(x, pads, label)
    x = _at_each_step(keras.layers.AveragePooling2D(size, stride), x, label)
    if node.kind == "SumPool2d":
        x = keras.layers.Rescaling(float(math.prod(size)), name=f"{label}_sum")(x)
    return x, (sizes[0], *places)


def _flatten(
    node: Node, x: Tensor, sizes: Sizes, label: str, writer: Writer
) -> tuple[Tensor, Sizes]:
    (start,), (end,) = _whole(node, "start_dim", 1), _whole(node, "end_dim", 1)
    rank = len(sizes)
    start, end = (axis + rank if axis < 0 else axis for axis in (start, end))
    if rank == 1:
        return x, sizes
    joined = (*sizes[:start], math.prod(sizes[start : end + 1]), *sizes[end + 1 :])
    if math.prod(joined) != max(joined):
        raise NotReadError(f"it makes {joined} of {sizes}; vectors alone are read")
    return flat(x, sizes, label, channels_first=not writer.channels_last), (math.prod(sizes),)


def flat(x: Tensor, sizes: Sizes, label: str, channels_first: bool) -> Tensor:
    """Return maps as vectors (batch, time, elements)."""
    if channels_first and sizes[0] > 1:
        axes = (len(sizes), *range(1, len(sizes)))
        x = _at_each_step(keras.layers.Permute(axes), x, f"{label}_order")
    return reshaped(x, (math.prod(sizes),), label)


def reshaped(x: Tensor, shape: Sizes, label: str) -> Tensor:
    """Return what each step holds in another shape."""
    return _at_each_step(keras.layers.Reshape(shape), x, label)


def _output(
    node: Node, x: Tensor, sizes: Sizes, label: str, writer: Writer
) -> tuple[Tensor, Sizes]:
    return x, sizes


MAKERS: Final[dict[str, Maker]] = {
    "Affine": _dense,
    "AvgPool2d": _pool,
    "Conv1d": _conv,
    "Conv2d": _conv,
    "Flatten": _flatten,
    "Linear": _dense,
    "Output": _output,
    "Scale": _scale,
    "SumPool2d": _pool,
}
