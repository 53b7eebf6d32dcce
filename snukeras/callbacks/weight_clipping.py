"""Clip weights while they are trained, and move their size into output scales."""

import keras
import numpy as np
from keras import ops

from snukeras import _arguments
from snukeras._types import Logs
from snukeras.network.matrices import matrices
from snukeras.pcm.analog_network import AnalogNetwork


class ClipWeights(keras.callbacks.Callback):
    """Clip matrices at so many standard deviations after each training step.

        model.fit(x, y, callbacks=[snukeras.callbacks.ClipWeights(2.5)])

    Few large weights would make all others use little of the range of devices (Joshi et al. 2020,
    doi 10.1038/s41467-020-16108-9, clip at 2 to 2.5 deviations). The deviation is that around 0 of
    the weights as they are. Works on plain models and on analog ones.

    Args:
        deviations: where to clip.
        scale: "column" (each output unit by itself) or "tensor" (all of a matrix together).

    Raises:
        ValueError: deviations not above 0, another word for `scale`; in `fit`, a model without
            matrices.
    """

    def __init__(self, deviations: float = 2.5, scale: str = "column") -> None:
        super().__init__()
        self.deviations = _arguments.number("deviations", deviations, above=0.0)
        self.scale = _arguments.choice("scale", scale, ("tensor", "column"))

    def on_train_begin(self, logs: Logs = None) -> None:
        self._matrices = [m for m in matrices(self.model) if m.variable.trainable]
        if not self._matrices:
            raise ValueError(
                "ClipWeights needs a model with trainable matrices. Received: "
                f"{self.model.name!r}, which has none."
            )

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        # To ask for the model lets JAX put the weights of the step into its variables.
        assert self.model is not None
        for matrix in self._matrices:
            values = ops.convert_to_numpy(matrix.variable)
            flat = matrix.unrolling.matrix(values)
            axis = 0 if self.scale == "column" else None
            limit = self.deviations * np.sqrt(np.mean(np.square(flat), axis=axis))
            if np.any(np.abs(flat) > limit):
                clipped = np.clip(flat, -limit, limit)
                matrix.variable.assign(matrix.unrolling.weight(clipped, values.shape))


class Remap(keras.callbacks.Callback):
    """Move the size of each column into its output scale, every few epochs.

        net = snukeras.pcm.analog(model, output_scales=True)
        net.fit(x, y, callbacks=[snukeras.callbacks.Remap(every=5)])

    See `snukeras.pcm.AnalogNetwork.remap`: the network computes the same.

    Args:
        every: epochs between two times.
        largest: the largest |weight| of each column.

    Raises:
        ValueError: every below 1, largest not above 0; in `fit`, a model without output scales.
    """

    def __init__(self, every: int = 1, largest: float = 1.0) -> None:
        super().__init__()
        self.every = _arguments.whole("every", every, 1)
        self.largest = _arguments.number("largest", largest, above=0.0)

    def on_train_begin(self, logs: Logs = None) -> None:
        if not isinstance(self.model, AnalogNetwork) or not self.model.output_scales:
            raise ValueError(
                "Remap needs a network of snukeras.pcm.analog(..., output_scales=True). Received: "
                f"{self.model.name!r}"
            )

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if (epoch + 1) % self.every == 0:
            self.model.remap(self.largest)
