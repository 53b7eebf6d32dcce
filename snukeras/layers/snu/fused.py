"""The fast path of SNU and SSNU on TensorFlow: one compiled scan, with a backward scan of its own.

The input product of all steps is one matrix product. The recurrence is compiled by XLA as one loop
over time whose body is a fused kernel; the backward pass is a second such loop. The only sequence
kept between the two beside the outputs is the membrane potential s; spikes are computed from it
again. An activation g whose derivative cannot be read off its value keeps its argument as well.
Where no backward pass is expected nothing is kept: y alone is written. Where the types agree, each
step overwrites its own input product with what it writes.

All sequences are laid out as Keras has them, (batch, time, units): a step reads and writes rows of
each sample, which costs less than to transpose whole sequences.
"""

from typing import TYPE_CHECKING

import keras
import tensorflow as tf

from snukeras.layers.snu.cell import SNUCell
from snukeras.layers.snu.higher_derivatives import Source
from snukeras.layers.snu.kernels import Call, Dynamics, started
from snukeras.layers.snu.maps import Maps
from snukeras.layers.snu.scan import scan

if TYPE_CHECKING:
    from snukeras.layers.snu.layer import UnitLayer


def run(
    layer: "UnitLayer",
    sequences: tf.Tensor,
    initial_state: list[tf.Tensor] | None,
    mask: tf.Tensor | None,
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
    if training and cell.dropout:
        dropout = cell.get_dropout_mask(sequences[:, 0])
        sequences = sequences * tf.cast(dropout, sequences.dtype)[:, None]
    drive = cell.project(sequences)
    maps = Maps(drive.shape[2:], apart=cell.lateral_inhibition)
    drive = maps.flatten(drive)
    call = _call(cell, drive, maps, initial_state, mask, training)
    outputs, last, potentials = scan(
        _dynamics(cell, carries_output=cell.recurrent or initial_state is not None),
        drive,
        call,
        keep=training,
        membranes=membranes,
        source=_source(cell, sequences, maps),
    )
    states = [call.y, call.s]
    if layer.return_state or layer.stateful:
        states = [cell.output_function(last - call.threshold), last]
    if call.mask is not None:
        begun = started(call.mask)
        shown = call.mask if layer.zero_output_for_mask else begun
        outputs = tf.where(shown[:, :, None], outputs, tf.zeros_like(outputs))
        if potentials is not None:
            potentials = tf.where(shown[:, :, None], potentials, tf.zeros_like(potentials))
        any_step = begun[:, -1, None]
        states = [
            tf.where(any_step, new, old) for new, old in zip(states, (call.y, call.s), strict=True)
        ]
    potentials = None if potentials is None else maps.unflatten(potentials)
    states = [maps.unflatten(state[:, None])[:, 0] for state in states]
    return maps.unflatten(outputs), potentials, states


def _dynamics(cell: SNUCell, carries_output: bool) -> Dynamics:
    return Dynamics(
        state_activation=cell.state_activation,
        output=cell.output_function,
        recurrent=cell.recurrent,
        carries_output=carries_output,
        lateral_inhibition=cell.lateral_inhibition,
        trainable_decay=cell.trainable_decay,
        trainable_threshold=cell.trainable_threshold,
    )


def _call(
    cell: SNUCell,
    drive: tf.Tensor,
    maps: Maps,
    initial_state: list[tf.Tensor] | None,
    mask: tf.Tensor | None,
    training: bool,
) -> Call:
    """Return what the scan is given beside the drive; arguments as in `run`."""
    zeros = tf.zeros((tf.shape(drive)[0], drive.shape[-1]), cell.compute_dtype)
    dropout = None
    if training and cell.recurrent and cell.recurrent_dropout:
        dropout = tf.cast(cell.get_recurrent_dropout_mask(zeros), zeros.dtype)
    y, s = zeros, zeros
    if initial_state is not None:
        y, s = (maps.flatten(state[:, None])[:, 0] for state in initial_state)
    kernel = cell.recurrent_kernel if cell.recurrent else tf.zeros((0, 0))
    return Call(
        decay=maps.of_filters(cell.decay_tensor()),
        threshold=maps.of_filters(cell.threshold_tensor()),
        kernel=tf.cast(kernel, drive.dtype),
        y=y,
        s=s,
        dropout=dropout,
        mask=None if mask is None else maps.of_samples(tf.cast(mask, tf.bool)),
        length=None,
    )


def _source(cell: SNUCell, sequences: tf.Tensor, maps: Maps) -> Source:
    """Return the inputs and weights that the drive is made of, and how."""
    others = {id(v) for v in (cell.decay_weight, cell.threshold_weight)}
    others |= {id(weight) for weight in cell.held("recurrent_kernel")}
    weights = [
        weight
        for weight in cell.weights
        if id(weight) not in others and keras.backend.is_float_dtype(weight.dtype)
    ]

    def project(sequences: tf.Tensor, *values: tf.Tensor) -> tf.Tensor:
        with keras.StatelessScope(state_mapping=list(zip(weights, values, strict=True))):
            return maps.flatten(cell.project(sequences))

    # Numbers that are no floats have no derivatives.
    sequences = sequences if sequences.dtype.is_floating else tf.cast(sequences, cell.compute_dtype)
    return Source([sequences, *(tf.convert_to_tensor(weight) for weight in weights)], project)


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
