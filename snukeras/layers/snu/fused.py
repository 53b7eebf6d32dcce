"""The fast path of SNU and SSNU: one scan over time, with a backward scan of its own.

The input product of all steps is one matrix product. The scan is the backend's: `scan.py` on
TensorFlow and `scan_jax.py` are loops that XLA compiles, `scan_torch.py` is a loop of few
operations a step. The backward pass is a second such loop, not the derivative of the first. The
only sequence that it needs beside the outputs is the membrane potential s; spikes are computed from
it again. An activation g whose derivative cannot be read off its value keeps its argument as well.
Where no backward pass is expected nothing is kept: y alone is written.

All sequences come as Keras has them, (batch, time, units).
"""

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import keras
from keras import ops

from snukeras._types import Tensor
from snukeras.layers.snu.cell import SNUCell
from snukeras.layers.snu.dynamics import Call, Dynamics, Source, started
from snukeras.layers.snu.maps import Maps

if TYPE_CHECKING:
    from snukeras.layers.snu.layer import UnitLayer


# Backend -> the module whose `scan` runs on it.
_SCANS = {
    "tensorflow": "snukeras.layers.snu.scan",
    "jax": "snukeras.layers.snu.scan_jax",
    "torch": "snukeras.layers.snu.scan_torch",
}


def serves() -> bool:
    """Return whether the backend has a scan."""
    return keras.backend.backend() in _SCANS


def _scan() -> Callable[..., tuple[Tensor, Tensor, Tensor | None]]:
    """Return the scan of the backend, whose framework is imported no earlier."""
    return importlib.import_module(_SCANS[keras.backend.backend()]).scan


def run(
    layer: "UnitLayer",
    sequences: Tensor,
    initial_state: list[Tensor] | None,
    mask: Tensor | None,
    training: bool,
    membranes: bool = False,
) -> tuple[Tensor, Tensor | None, list[Tensor]]:
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
        sequences = ops.flip(sequences, axis=1)
        mask = None if mask is None else ops.flip(mask, axis=1)
    if training and cell.dropout:
        dropout = cell.get_dropout_mask(sequences[:, 0])
        sequences = sequences * ops.cast(dropout, sequences.dtype)[:, None]
    drive = cell.project(sequences)
    maps = Maps(drive.shape[2:], apart=cell.lateral_inhibition)
    drive = maps.flatten(drive)
    call = _call(cell, drive, maps, initial_state, mask, training)
    outputs, last, potentials = _scan()(
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
        outputs = ops.where(shown[:, :, None], outputs, ops.zeros_like(outputs))
        if potentials is not None:
            potentials = ops.where(shown[:, :, None], potentials, ops.zeros_like(potentials))
        any_step = begun[:, -1, None]
        states = [
            ops.where(any_step, new, old) for new, old in zip(states, (call.y, call.s), strict=True)
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
    drive: Tensor,
    maps: Maps,
    initial_state: list[Tensor] | None,
    mask: Tensor | None,
    training: bool,
) -> Call:
    """Return what the scan is given beside the drive; arguments as in `run`."""
    zeros = ops.zeros((ops.shape(drive)[0], drive.shape[-1]), cell.compute_dtype)
    dropout = None
    if training and cell.recurrent and cell.recurrent_dropout:
        dropout = ops.cast(cell.get_recurrent_dropout_mask(zeros), zeros.dtype)
    y, s = zeros, zeros
    if initial_state is not None:
        y, s = (maps.flatten(state[:, None])[:, 0] for state in initial_state)
    kernel = cell.recurrent_kernel if cell.recurrent else ops.zeros((0, 0))
    return Call(
        decay=maps.of_filters(cell.decay_tensor()),
        threshold=maps.of_filters(cell.threshold_tensor()),
        kernel=ops.cast(kernel, drive.dtype),
        y=y,
        s=s,
        dropout=dropout,
        mask=None if mask is None else maps.of_samples(ops.cast(mask, "bool")),
        length=None,
    )


def _source(cell: SNUCell, sequences: Tensor, maps: Maps) -> Source:
    """Return the inputs and weights that the drive is made of, and how."""
    others = {id(v) for v in (cell.decay_weight, cell.threshold_weight)}
    others |= {id(weight) for weight in cell.held("recurrent_kernel")}
    weights = [
        weight
        for weight in cell.weights
        if id(weight) not in others and keras.backend.is_float_dtype(weight.dtype)
    ]

    def project(sequences: Tensor, *values: Tensor) -> Tensor:
        with keras.StatelessScope(state_mapping=list(zip(weights, values, strict=True))):
            return maps.flatten(cell.project(sequences))

    # Numbers that are no floats have no derivatives.
    if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(sequences.dtype)):
        sequences = ops.cast(sequences, cell.compute_dtype)
    return Source([sequences, *(ops.convert_to_tensor(weight) for weight in weights)], project)
