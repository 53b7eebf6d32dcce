"""The fast path of SNU and SSNU on TensorFlow: one compiled scan, with a backward scan of its own.

The input product of all steps is one matrix product. The recurrence is compiled by XLA as one loop
over time whose body is a fused kernel; the backward pass is a second such loop. The only sequence
kept between the two beside the outputs is the membrane potential s; spikes are computed from it
again. An activation g whose derivative cannot be read off its value keeps its argument as well.
Where no backward pass is to be expected nothing is kept: y alone is written. What is written of a
step takes the place of its input product, where the types agree.

All sequences are laid out as Keras has them, (batch, time, units): a step reads and writes rows of
each sample, which costs less than to transpose whole sequences.
"""

from typing import Any

import tensorflow as tf

from snukeras.layers.snu.maps import _Maps
from snukeras.layers.snu.scan import Dynamics, _started, scan


def run(
    layer: Any,
    sequences: tf.Tensor,
    initial_state: list | None,
    mask: Any,
    training: bool,
    membranes: bool = False,
) -> tuple[tf.Tensor, tf.Tensor | None, list[tf.Tensor]]:
    """Run an SNU layer; the counterpart of keras.layers.RNN.inner_loop.

    Args:
        layer: an SNU or SSNU, or a convolutional one that is not recurrent; built, with the
            dropout masks of this call drawn.
        sequences: shape (batch, time, features), or maps (batch, time, ..., channels).
        initial_state: [y, s], or None for zeros.
        mask: shape (batch, time), or None.
        training: whether dropout is applied.
        membranes: whether the membrane potentials of all steps are wanted.

    Returns:
        The outputs (batch, time, units), the membrane potentials likewise or None, and the last
        states [y, s]; with maps, (..., filters) stands for units.
    """
    cell = layer.cell
    if layer.go_backwards:
        sequences = tf.reverse(sequences, [1])
        mask = None if mask is None else tf.reverse(mask, [1])
    recurrent_dropout = None
    if training and cell.dropout:
        dropout = cell.get_dropout_mask(sequences[:, 0])
        sequences = sequences * tf.cast(dropout, sequences.dtype)[:, None]
    drive = cell.project(sequences)
    maps = _Maps(drive.shape[2:], apart=cell.lateral_inhibition)
    drive = maps.flatten(drive)
    zeros = tf.zeros((tf.shape(drive)[0], drive.shape[-1]), cell.compute_dtype)
    if training and cell.recurrent and cell.recurrent_dropout:
        recurrent_dropout = tf.cast(cell.get_recurrent_dropout_mask(zeros), zeros.dtype)
    first = [zeros, zeros]
    if initial_state is not None:
        first = [maps.flatten(state[:, None])[:, 0] for state in initial_state]
    if mask is not None:
        mask = maps.of_samples(tf.cast(mask, tf.bool))
    decay, threshold = (
        maps.of_filters(cell.decay_tensor()),
        maps.of_filters(cell.threshold_tensor()),
    )
    kernel = cell.recurrent_kernel if cell.recurrent else tf.zeros((0, 0))
    outputs, last, potentials = scan(
        Dynamics(
            state_activation=cell.state_activation,
            output=cell.output_function,
            recurrent=cell.recurrent,
            carries_output=cell.recurrent or initial_state is not None,
            lateral_inhibition=cell.lateral_inhibition,
            trainable_decay=cell.trainable_decay,
            trainable_threshold=cell.trainable_threshold,
        ),
        drive,
        decay,
        threshold,
        tf.cast(kernel, drive.dtype),
        first[0],
        first[1],
        recurrent_dropout,
        mask,
        keep=training,
        membranes=membranes,
    )
    states = first
    if layer.return_state or layer.stateful:
        states = [cell.output_function(last - threshold), last]
    if mask is not None:
        started = _started(mask)
        shown = mask if layer.zero_output_for_mask else started
        outputs = tf.where(shown[:, :, None], outputs, tf.zeros_like(outputs))
        if potentials is not None:
            potentials = tf.where(shown[:, :, None], potentials, tf.zeros_like(potentials))
        any_step = started[:, -1, None]
        states = [tf.where(any_step, new, old) for new, old in zip(states, first, strict=True)]
    potentials = None if potentials is None else maps.unflatten(potentials)
    states = [maps.unflatten(state[:, None])[:, 0] for state in states]
    return maps.unflatten(outputs), potentials, states


def checked_at_run_time(sequences: tf.Tensor, layer: str) -> tf.Tensor:
    """Return sequences whose number of steps is not known yet; at run time none is an error.

    XLA leaves the check out.

    Args:
        sequences: shape (batch, time, ...).
        layer: name of the layer that takes them.
    """
    message = f"Layer {layer!r} needs sequences of at least one step. Received: an empty sequence"
    check = tf.debugging.assert_positive(tf.shape(sequences)[1], message)
    with tf.control_dependencies([check]):
        return tf.identity(sequences)
