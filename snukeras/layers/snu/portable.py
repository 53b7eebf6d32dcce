"""The form of the layers of units that other runtimes take, on TensorFlow.

What Keras exports is converted operator by operator, and converters know neither functions that
XLA compiles nor what XLA alone has. Here the input product is one operator for all steps, and the
recurrence a plain loop. Batch and time stay dynamic.

How a loop hands out its steps depends on the target. ONNX and SavedModel have arrays of tensors,
which convert to the outputs of a loop. LiteRT has none of dynamic shape among its own operators: a
tensor of all steps is carried along and written to.
"""

from typing import TYPE_CHECKING

import keras
import tensorflow as tf

from snukeras.layers.snu.dynamics import started

if TYPE_CHECKING:
    from snukeras.layers.snu.layer import UnitLayer


def run(
    layer: "UnitLayer",
    sequences: tf.Tensor,
    initial_state: list[tf.Tensor] | None,
    mask: tf.Tensor | None,
    membranes: bool,
    target: str,
) -> tuple[tf.Tensor, tf.Tensor | None, list[tf.Tensor]]:
    """Run a layer of units at inference, in operators that converters know.

    Args:
        layer: a layer of units, recurrent convolutions among them; built.
        sequences: shape (batch, time, features), or maps (batch, time, ..., channels).
        initial_state: [y, s], or None for zeros.
        mask: shape (batch, time), or None.
        membranes: whether the membrane potentials of all steps are wanted.
        target: the format of `snukeras._strategy.exporting`.

    Returns:
        The outputs (batch, time, units), the membrane potentials likewise or None, and the last
        states [y, s]; with maps, (..., filters) stands for units.
    """
    if layer.go_backwards:
        sequences = tf.reverse(sequences, [1])
        mask = None if mask is None else tf.reverse(mask, [1])
    drive = tf.cast(layer.cell.project(sequences), layer.cell.compute_dtype)
    mask = None if mask is None else _on_maps(tf.cast(mask, tf.bool), drive)
    if initial_state is None:
        zeros = tf.zeros_like(tf.gather(drive, 0, axis=1))
        initial_state = [zeros, zeros]
    loop = _Loop(layer, drive, mask, membranes, target)
    recorded, states = loop.run(*initial_state)
    if mask is not None:
        shown = mask if layer.zero_output_for_mask else started(mask)
        if not loop.every:
            shown = tf.gather(shown, [loop.length - 1], axis=1)
        recorded = [tf.where(shown, each, tf.zeros_like(each)) for each in recorded]
    return recorded[0], recorded[1] if membranes else None, states


def _on_maps(mask: tf.Tensor, drive: tf.Tensor) -> tf.Tensor:
    """Return a mask (batch, time) with axes of size 1 for what a step has."""
    for _ in range(len(drive.shape) - 2):
        mask = tf.expand_dims(mask, -1)
    return mask


class _Loop:
    """The loop over time, while it is traced.

    Args:
        layer, membranes, target: see `run`.
        drive: the input product of all steps, (batch, time, ...).
        mask: False where a sample keeps its states, (batch, time, 1, ...), or None.
    """

    def __init__(
        self,
        layer: "UnitLayer",
        drive: tf.Tensor,
        mask: tf.Tensor | None,
        membranes: bool,
        target: str,
    ) -> None:
        self.layer, self.cell = layer, layer.cell
        self.drive, self.mask, self.membranes = drive, mask, membranes
        self.arrays = target != "litert"
        static = drive.shape[1]
        self.length = tf.shape(drive)[1] if static is None else static
        # The output of the last step is the last state.
        masked_last = mask is not None and layer.zero_output_for_mask
        self.every = layer.return_sequences or masked_last or membranes

    def run(self, y: tf.Tensor, s: tf.Tensor) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Return outputs (and membranes) of the steps, (batch, time, ...), and the last [y, s].

        Where the layer asks for the last step alone, it is the only one.
        """
        if self.drive.shape[1] == 1:  # one step of a stream
            y, s = self.step(tf.constant(0), y, s)
            return [state[:, None] for state in (y, s)], [y, s]
        records = self._records()

        def body(
            t: tf.Tensor, y: tf.Tensor, s: tf.Tensor, *records: tf.Tensor
        ) -> tuple[tf.Tensor, ...]:
            new_y, new_s = self.step(t, y, s)
            new_y, new_s = tf.ensure_shape(new_y, y.shape), tf.ensure_shape(new_s, s.shape)
            kept = zip(records, (new_y, new_s), strict=False)
            return t + 1, new_y, new_s, *(self._record(each, t, new) for each, new in kept)

        _, y, s, *records = tf.while_loop(
            lambda t, *_: t < self.length, body, (tf.constant(0), y, s, *records)
        )
        if not self.every:
            return [y[:, None]], [y, s]
        return [self._batch_first(each) for each in records], [y, s]

    def step(self, t: tf.Tensor, y: tf.Tensor, s: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return y and s after the step t; the equations are those of the cell."""
        cell = self.cell
        a = tf.gather(self.drive, t, axis=1)
        if cell.recurrent:
            a += cell.recur(y)
        new_s = cell.state_activation(a + cell.remain(s, y))
        # Not called: converters need no gradient, and the step has one of its own.
        new_y = cell.output_function.value(new_s - cell.threshold_tensor())
        if self.mask is not None:
            on = tf.gather(self.mask, t, axis=1)
            new_y, new_s = tf.where(on, new_y, y), tf.where(on, new_s, s)
        return new_y, new_s

    def _records(self) -> list[tf.Tensor]:
        if not self.every:
            return []
        count = 1 + self.membranes
        if self.arrays:
            element = self.drive.shape[:1] + self.drive.shape[2:]
            return [
                tf.TensorArray(self.drive.dtype, self.length, element_shape=element)
                for _ in range(count)
            ]
        return [self._time_first(tf.zeros_like(self.drive)) for _ in range(count)]

    def _record(self, record: tf.Tensor, t: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
        if self.arrays:
            return record.write(t, value)
        start = tf.stack([t, *[0] * (len(self.drive.shape) - 1)])
        return tf.ensure_shape(keras.ops.slice_update(record, start, value[None]), record.shape)

    def _time_first(self, x: tf.Tensor) -> tf.Tensor:
        return tf.transpose(x, [1, 0, *range(2, len(self.drive.shape))])

    def _batch_first(self, record: tf.Tensor) -> tf.Tensor:
        steps = self._time_first(record.stack() if self.arrays else record)
        return tf.ensure_shape(steps, self.drive.shape)
