"""A quicker loop for training keras.layers.LSTM with recurrent dropout.

With recurrent dropout Keras's layer multiplies eight times a step: the input by the four parts of
its kernel, and the previous output, under four masks, by the four parts of the recurrent kernel.
Here one product before the loop serves the inputs of all steps, and one product per step serves the
four masks. Masks and their seeds are those of the layer; results differ by rounding alone.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import keras
from keras import ops

from snukeras._types import Tensor


@contextmanager
def quick_lstm(model: keras.Model) -> Iterator[list[str]]:
    """Let the LSTM layers of a model take the quicker loop within the block.

    It serves training without masks and without `unroll`; all other calls take Keras's own loop.
    The model, its weights and its configuration do not change.

    Args:
        model: A Keras model.

    Yields:
        Names of the layers that have the quicker loop.
    """
    layers = served(model)
    for layer in layers:
        layer.inner_loop = functools.partial(_inner_loop, layer)
    try:
        yield [layer.name for layer in layers]
    finally:
        for layer in layers:
            del layer.inner_loop


def served(model: keras.Model) -> list[keras.layers.LSTM]:
    """Return the layers of a model that the quicker loop serves."""
    return [
        layer
        for layer in model.layers
        if type(layer) is keras.layers.LSTM and layer.recurrent_dropout and not layer.unroll
    ]


def _inner_loop(
    layer: keras.layers.LSTM,
    sequences: Tensor,
    initial_state: list[Tensor],
    mask: Tensor | None,
    training: bool = False,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Run the steps of a layer.

    Args:
        layer: The layer.
        sequences: Shape (batch, time, features).
        initial_state: Output and carry before the first step, each (batch, units).
        mask: Steps to skip, or None.
        training: Whether dropout is applied.

    Returns:
        The last output, all outputs (batch, time, units), and the last states.
    """
    if not training or mask is not None:
        return keras.layers.LSTM.inner_loop(layer, sequences, initial_state, mask, training)
    cell = layer.cell
    if layer.go_backwards:
        sequences = ops.flip(sequences, axis=1)
    # (4, units, units), (4, batch, units): input gate, forget gate, candidate, output gate.
    kernels = ops.stack(ops.split(ops.convert_to_tensor(cell.recurrent_kernel), 4, axis=1))
    masks = ops.stack(cell.get_recurrent_dropout_mask(initial_state[0]))

    # keras.ops.scan on TensorFlow wants outputs of the shape of the states.
    def step(states: Tensor, drive: Tensor) -> tuple[Tensor, Tensor]:
        h, c = ops.unstack(states, 2)
        i, f, candidate, o = ops.unstack(drive + ops.matmul(h * masks, kernels), 4)
        c = cell.recurrent_activation(f) * c + cell.recurrent_activation(i) * cell.activation(
            candidate
        )
        h = cell.recurrent_activation(o) * cell.activation(c)
        states = ops.stack([h, c])
        return states, states

    last, all_states = ops.scan(step, ops.stack(initial_state), _drives(cell, sequences))
    h, c = ops.unstack(last, 2)
    return h, ops.swapaxes(all_states[:, 0], 0, 1), [h, c]


def _drives(cell: keras.layers.LSTMCell, sequences: Tensor) -> Tensor:
    """Return what the inputs add to the four gates at each step, (time, 4, batch, units)."""
    kernels = ops.split(ops.convert_to_tensor(cell.kernel), 4, axis=1)
    if cell.dropout:
        masks = cell.get_dropout_mask(sequences[:, 0, :])
        products = [
            ops.matmul(sequences * ops.expand_dims(mask, 1), kernel)
            for mask, kernel in zip(masks, kernels, strict=True)
        ]
    else:
        products = ops.split(ops.matmul(sequences, cell.kernel), 4, axis=-1)
    if cell.use_bias:
        biases = ops.split(ops.convert_to_tensor(cell.bias), 4)
        products = [product + bias for product, bias in zip(products, biases, strict=True)]
    return ops.transpose(ops.stack(products), (2, 0, 1, 3))
