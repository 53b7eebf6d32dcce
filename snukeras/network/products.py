"""How layers multiply by their matrices, and how another product takes the place of that.

The counterpart of `snukeras.network.matrices`: that says which weights are matrices, this says how
a layer computes with them. A layer whose products were replaced asks its `Product` for each vector
that drives the rows of a matrix; biases, activations, dropout and all else stay as they were.
Layers of this package call `matmul` and `convolve`; the calls of Keras's own layers are written out
below, for the time that a product is installed.
"""

import re
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import keras
import numpy as np
from keras import ops

from snukeras._types import Tensor
from snukeras.network.matrices import roles


class Product(Protocol):
    """What multiplies vectors by a matrix of a layer."""

    def __call__(self, x: Tensor, weight: Tensor, groups: int = 1) -> Tensor:
        """Return the product.

        Args:
            x: (..., rows); with groups (..., groups, rows), each for columns of its own.
            weight: the weight, in its own shape.
            groups: how many products serve all columns once.

        Returns:
            (..., columns), those of a group side by side.
        """


_products: "weakref.WeakKeyDictionary[keras.Layer, dict[str, Product]]" = (
    weakref.WeakKeyDictionary()
)


def of(layer: keras.Layer, role: str) -> Product | None:
    """Return what multiplies by a weight of a layer, or None: the layer does."""
    return _products.get(layer, {}).get(role)


def install(layer: keras.Layer, products: dict[str, Product]) -> None:
    """Let products take the place of a layer's own.

    Args:
        layer: a layer or cell for which `replaceable` names the roles of the products.
        products: by role of the weight.
    """
    _products[layer] = dict(products)
    call = _call_of(layer)
    if call is not None:
        layer.call = partial(call, layer)


def replaceable(layer: keras.Layer) -> set[str]:
    """Return the roles of a layer's matrices whose products can be replaced.

    A class of this package or of a user names them in `tile_products`, and calls `matmul` or
    `convolve` for them. A subclass of a layer of Keras with a `call` of its own has none.
    """
    own = getattr(type(layer), "tile_products", None)
    if own is not None:
        return {role for role in own if getattr(layer, role, None) is not None}
    if _call_of(layer) is None:
        return set()
    if isinstance(layer, keras.layers.EinsumDense) and _Equation.read(layer) is None:
        return set()
    return set(roles(layer))


def matmul(layer: keras.Layer, role: str, x: Tensor) -> Tensor:
    """Return x (..., rows) times a weight of a layer, (..., columns), in the dtype of x."""
    weight, product = getattr(layer, role), of(layer, role)
    if product is not None:
        return product(x, weight)
    weight = ops.cast(weight, x.dtype)
    if keras.backend.backend() == "torch":
        from snukeras.network import products_torch

        return products_torch.times(x, ops.convert_to_tensor(weight))
    if keras.backend.backend() == "jax" and x.ndim > 2:
        # XLA takes up to twice as long for the gradient of a weight where x has several axes.
        flat = ops.reshape(x, (-1, x.shape[-1]))
        return ops.reshape(ops.matmul(flat, weight), (*x.shape[:-1], weight.shape[1]))
    return ops.matmul(x, weight)


def convolve(
    layer: keras.Layer,
    role: str,
    x: Tensor,
    strides: Sequence[int],
    padding: str,
    dilation: Sequence[int],
) -> Tensor:
    """Return the convolution of maps (batch, ..., channels) with a weight of a layer."""
    weight, product = getattr(layer, role), of(layer, role)
    if product is None:
        return ops.conv(
            x,
            ops.cast(weight, x.dtype),
            strides=list(strides),
            padding=padding,
            data_format="channels_last",
            dilation_rate=list(dilation),
        )
    sizes = tuple(weight.shape[:-2])
    return product(patches(x, sizes, strides, padding, dilation), weight)


def patches(
    x: Tensor,
    sizes: Sequence[int],
    strides: Sequence[int],
    padding: str,
    dilation: Sequence[int],
    groups: int = 1,
) -> Tensor:
    """Return what drives the rows of a convolution's matrix at each place of its output.

    Args:
        x: maps (batch, ..., channels).
        sizes, strides, padding, dilation: of the convolution; the padding is "valid" or "same".
        groups: groups of channels, each with rows of its own.

    Returns:
        (batch, ..., rows), or (batch, ..., groups, rows): the places of the kernel, the channels of
        each side by side.
    """
    padded, places = _padded(x, sizes, strides, padding, dilation)
    parts = []
    for offset in np.ndindex(*sizes):
        cut = [slice(None)]
        for start, step, stride, place in zip(offset, dilation, strides, places, strict=True):
            begin = start * step
            cut.append(slice(begin, begin + (place - 1) * stride + 1, stride))
        parts.append(padded[tuple(cut)])
    if len(parts) == 1 and groups == 1:
        return parts[0]
    if groups == 1:
        return ops.concatenate(parts, axis=-1)
    # Channels of one group side by side, behind the places of the kernel.
    channels = x.shape[-1] // groups
    shape = [*ops.shape(parts[0])[:-1], groups, channels]
    return ops.concatenate([ops.reshape(part, shape) for part in parts], axis=-1)


def _padded(
    x: Tensor,
    sizes: Sequence[int],
    strides: Sequence[int],
    padding: str,
    dilation: Sequence[int],
) -> tuple[Tensor, list[Any]]:
    """Return padded maps, and the number of places of the output along each of their axes."""
    padded, places, widths = x, [], [[0, 0]]
    for size, kernel, stride, step in zip(
        ops.shape(x)[1:-1], sizes, strides, dilation, strict=True
    ):
        reach = step * (kernel - 1) + 1
        if padding == "valid":
            places.append((size - reach) // stride + 1)
            continue
        place = -(-size // stride)
        total = (place - 1) * stride + reach - size
        total = max(total, 0) if isinstance(total, int) else ops.maximum(total, 0)
        places.append(place)
        widths.append([total // 2, total - total // 2])
    if padding == "same":
        padded = ops.pad(x, [*widths, [0, 0]])
    return padded, places


# The calls of Keras's layers, with products in place of their own. ------------------------------


def _call_of(layer: keras.Layer) -> Callable[..., Any] | None:
    """Return the call that stands for a layer's own, or None if there is none for it."""
    if type(layer).__name__ == "ConvLSTMCell":  # Keras does not publish this cell.
        return _conv_lstm if getattr(layer, "data_format", "") == "channels_last" else None
    for cls in type(layer).__mro__:
        if cls in _CALLS:
            # A subclass that computes something else must not lose it.
            same = getattr(type(layer), "call", None) is getattr(cls, "call", None)
            return _CALLS[cls] if same else None
    return None


def _finished(layer: Any, outputs: Tensor, channels_first: bool = False) -> Tensor:
    """Add the bias and apply the activation of a layer to outputs with their channels last."""
    if layer.bias is not None:
        outputs = ops.add(outputs, ops.cast(layer.bias, outputs.dtype))
    if channels_first:
        outputs = ops.moveaxis(outputs, -1, 1)
    return outputs if layer.activation is None else layer.activation(outputs)


def _multiplied(layer: Any, role: str, x: Tensor, groups: int = 1) -> Tensor:
    product = of(layer, role)
    weight = getattr(layer, role)
    if product is None:
        return ops.matmul(x, ops.cast(weight, x.dtype))
    return product(x, weight, groups)


def _dense(layer: Any, inputs: Tensor, training: bool | None = None) -> Tensor:
    return _finished(layer, _multiplied(layer, "kernel", inputs))


class _Equation:
    """An equation of EinsumDense as products of vectors with a matrix.

    Attributes:
        order: Axes of the input: those that stay, those of groups, those of rows.
        lead: Number of axes that stay.
        groups: Number of axes of groups.
        back: Axes of the output, of (those that stay, groups, other columns).
    """

    def __init__(self, order: list[int], lead: int, groups: int, back: list[int]) -> None:
        self.order, self.lead, self.groups, self.back = order, lead, groups, back

    @classmethod
    def read(cls, layer: Any, rank: int | None = None) -> "_Equation | None":
        """Read the equation of a layer for inputs of a rank; None if it is another computation."""
        inputs, kernel, output = re.split(",|->", layer.equation.replace(" ", ""))
        if "..." in inputs:
            rank = len(inputs) if rank is None else rank
            free = [chr(0x100 + i) for i in range(rank - len(inputs) + 3)]
            inputs, output = (part.replace("...", "".join(free)) for part in (inputs, output))
        rows = [letter for letter in kernel if letter not in output]
        shared = [letter for letter in kernel if letter in output and letter in inputs]
        others = [letter for letter in kernel if letter in output and letter not in inputs]
        lead = [letter for letter in inputs if letter not in kernel]
        columns = [letter for letter in kernel if letter in output]
        usual = (
            len(set(kernel)) == len(kernel)
            and len(set(inputs)) == len(inputs)
            and all(letter in inputs for letter in rows)
            and all(letter in output for letter in lead)
            and columns == [*shared, *others]
            and sorted(output) == sorted([*lead, *shared, *others])
        )
        if not usual:
            return None
        order = [inputs.index(letter) for letter in (*lead, *shared, *rows)]
        back = [[*lead, *shared, *others].index(letter) for letter in output]
        return cls(order, len(lead), len(shared), back)


def _einsum(layer: Any, inputs: Tensor, training: bool | None = None) -> Tensor:
    equation = _Equation.read(layer, len(inputs.shape))
    assert equation is not None
    unrolling = roles(layer)["kernel"]
    rows, columns = unrolling.axes(len(layer.kernel.shape))
    sizes = [layer.kernel.shape[axis] for axis in columns]
    height = int(np.prod([layer.kernel.shape[axis] for axis in rows]))
    groups = int(np.prod(sizes[: equation.groups]))
    x = ops.transpose(inputs, equation.order)
    lead = list(ops.shape(x)[: equation.lead])
    x = ops.reshape(x, [*lead, *([groups] if groups > 1 else []), height])
    y = ops.reshape(_multiplied(layer, "kernel", x, groups), [*lead, *sizes])
    y = ops.transpose(y, equation.back)
    if layer.bias is not None:
        y = ops.add(y, ops.cast(layer.bias, y.dtype))
    return y if layer.activation is None else layer.activation(y)


def _channels_last(layer: Any, inputs: Tensor) -> tuple[Tensor, bool]:
    first = layer.data_format == "channels_first"
    return (ops.moveaxis(inputs, 1, -1) if first else inputs), first


def _convolution(layer: Any, inputs: Tensor) -> Tensor:
    x, first = _channels_last(layer, inputs)
    padding = layer.padding
    if padding == "causal":
        left = layer.dilation_rate[0] * (layer.kernel_size[0] - 1)
        x, padding = ops.pad(x, [[0, 0], [left, 0], [0, 0]]), "valid"
    x = patches(x, layer.kernel_size, layer.strides, padding, layer.dilation_rate, layer.groups)
    return _finished(layer, _multiplied(layer, "kernel", x, layer.groups), first)


def _depthwise(layer: Any, inputs: Tensor) -> Tensor:
    x, first = _channels_last(layer, inputs)
    return _finished(layer, _of_each_channel(layer, "kernel", x), first)


def _of_each_channel(layer: Any, role: str, x: Tensor) -> Tensor:
    channels = x.shape[-1]
    x = patches(x, layer.kernel_size, layer.strides, layer.padding, layer.dilation_rate, channels)
    return _multiplied(layer, role, x, channels)


def _separable(layer: Any, inputs: Tensor) -> Tensor:
    x, first = _channels_last(layer, inputs)
    x = _of_each_channel(layer, "depthwise_kernel", x)
    return _finished(layer, _multiplied(layer, "pointwise_kernel", x), first)


def _transposed(layer: Any, inputs: Tensor) -> Tensor:
    x, first = _channels_last(layer, inputs)
    x = _multiplied(layer, "kernel", x)
    # What leaves each place of the input is laid over the output, and sums up digitally.
    sizes = tuple(layer.kernel.shape[:-1])
    spread = np.eye(int(np.prod(sizes)), dtype="float32").reshape(*sizes, -1)
    outputs = ops.conv_transpose(
        x,
        ops.cast(spread, x.dtype),
        strides=list(layer.strides),
        padding=layer.padding,
        output_padding=layer.output_padding,
        dilation_rate=layer.dilation_rate,
        data_format="channels_last",
    )
    return _finished(layer, outputs, first)


def _gated(multiply: Callable[[Tensor], Tensor], x: Tensor, masks: Any) -> Tensor:
    """Return a product for all gates of a cell; with a mask for each gate, it takes as many."""
    if masks is None:
        return multiply(x)
    if not isinstance(masks, list | tuple):
        return multiply(x * masks)
    parts = [ops.split(multiply(x * mask), len(masks), axis=-1) for mask in masks]
    return ops.concatenate([part[gate] for gate, part in enumerate(parts)], axis=-1)


def _masks(cell: Any, inputs: Tensor, before: Tensor, training: bool) -> tuple[Any, Any]:
    """Return the dropout masks of inputs and of outputs fed back, or None where there are none."""
    if not training:
        return None, None
    return (
        cell.get_dropout_mask(inputs) if cell.dropout else None,
        cell.get_recurrent_dropout_mask(before) if cell.recurrent_dropout else None,
    )


def _simple_rnn(cell: Any, sequence: Tensor, states: Any, training: bool = False) -> Any:
    listed = isinstance(states, list | tuple)
    before = states[0] if listed else states
    masks = _masks(cell, sequence, before, training)
    h = _gated(partial(_multiplied, cell, "kernel"), sequence, masks[0])
    if cell.bias is not None:
        h = ops.add(h, cell.bias)
    output = h + _gated(partial(_multiplied, cell, "recurrent_kernel"), before, masks[1])
    if cell.activation is not None:
        output = cell.activation(output)
    return output, [output] if listed else output


def _lstm(cell: Any, inputs: Tensor, states: Any, training: bool = False) -> Any:
    before, carried = states
    masks = _masks(cell, inputs, before, training)
    recurrent = masks[1] if cell.implementation == 1 else None
    z = _gated(partial(_multiplied, cell, "kernel"), inputs, masks[0])
    z = ops.add(z, _gated(partial(_multiplied, cell, "recurrent_kernel"), before, recurrent))
    return _long_short(cell, ops.add(z, cell.bias) if cell.use_bias else z, carried)


def _long_short(cell: Any, z: Tensor, carried: Tensor) -> Any:
    """Return output and states of an LSTM, of the sums of its four gates."""
    i, f, c, o = ops.split(z, 4, axis=-1)
    carry = cell.recurrent_activation(f) * carried
    carry = carry + cell.recurrent_activation(i) * cell.activation(c)
    h = cell.recurrent_activation(o) * cell.activation(carry)
    return h, [h, carry]


def _gru(cell: Any, inputs: Tensor, states: Any, training: bool = False) -> Any:
    nested = keras.tree.is_nested(states)
    before = states[0] if nested else states
    masks = _masks(cell, inputs, before, training)
    recurrent = masks[1] if cell.implementation == 1 else None
    x = _gated(partial(_multiplied, cell, "kernel"), inputs, masks[0])
    h = _gated(partial(_multiplied, cell, "recurrent_kernel"), before, recurrent)
    if cell.use_bias:
        bias = ops.convert_to_tensor(cell.bias)
        x = ops.add(x, bias[0] if cell.reset_after else bias)
        h = ops.add(h, bias[1]) if cell.reset_after else h
    units = cell.units
    z = cell.recurrent_activation(x[..., :units] + h[..., :units])
    r = cell.recurrent_activation(x[..., units : 2 * units] + h[..., units : 2 * units])
    if cell.reset_after:
        candidate = r * h[..., 2 * units :]
    else:
        # The reset gate comes before the product: the candidate takes a product of its own.
        candidate = _gated(partial(_multiplied, cell, "recurrent_kernel"), r * before, recurrent)[
            ..., 2 * units :
        ]
    new = z * before + (1 - z) * cell.activation(x[..., 2 * units :] + candidate)
    return new, [new] if nested else new


def _conv_lstm(cell: Any, inputs: Tensor, states: Any, training: bool = False) -> Any:
    before, carried = states
    masks = _masks(cell, inputs, before, training)
    ones = (1,) * cell.rank

    def project(x: Tensor) -> Tensor:
        x = patches(x, cell.kernel_size, cell.strides, cell.padding, cell.dilation_rate)
        return _multiplied(cell, "kernel", x)

    def recur(x: Tensor) -> Tensor:
        return _multiplied(
            cell, "recurrent_kernel", patches(x, cell.kernel_size, ones, "same", ones)
        )

    x = _gated(project, inputs, masks[0])
    x = ops.add(x, cell.bias) if cell.use_bias else x
    return _long_short(cell, x + _gated(recur, before, masks[1]), carried)


# Layers of Keras -> their calls with replaced products.
_CALLS: dict[type, Callable[..., Any]] = {
    keras.layers.Dense: _dense,
    keras.layers.EinsumDense: _einsum,
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
    keras.layers.SimpleRNNCell: _simple_rnn,
    keras.layers.GRUCell: _gru,
    keras.layers.LSTMCell: _lstm,
}
