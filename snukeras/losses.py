"""Losses: the negative log-likelihood of binary frames."""

import keras
from keras import ops

from snukeras import _arguments
from snukeras._strategy import replicas
from snukeras._types import Config, Dtype, Tensor

# The smallest normal float32, and the largest float32 below 1: with them no logarithm is infinite,
# every probability that a float32 sigmoid can give between them is used as it is, and a wrong
# one near 0 keeps its gradient (a clip at 1e-7 would end it).
_SMALLEST = 2.0**-126
_LARGEST = 1.0 - 2.0**-24


@keras.saving.register_keras_serializable(package="snukeras")
def frame_nll(y_true: Tensor, y_pred: Tensor, from_logits: bool = False) -> Tensor:
    """Return the negative log-likelihood of each frame, in nats: the sum over its keys.

    Args:
        y_true: Targets in [0, 1], shape `(..., keys)`.
        y_pred: Probabilities, or logits with `from_logits`; the shape of `y_true`.
        from_logits: Whether `y_pred` holds logits.

    Returns:
        A float32 tensor of shape `(...)`.

    Raises:
        ValueError: The shapes differ.
    """
    y_true = ops.cast(y_true, "float32")
    y_pred = ops.cast(y_pred, "float32")
    if len(y_true.shape) != len(y_pred.shape) or any(
        a is not None and b is not None and a != b
        for a, b in zip(y_true.shape, y_pred.shape, strict=False)
    ):
        raise ValueError(
            "Arguments `y_true` and `y_pred` must be of one shape (..., keys). "
            f"Received: y_true {tuple(y_true.shape)}, y_pred {tuple(y_pred.shape)}"
        )
    if from_logits:
        terms = ops.softplus(y_pred) - y_true * y_pred
    else:
        on = ops.log(ops.maximum(y_pred, _SMALLEST))
        off = ops.log1p(-ops.minimum(y_pred, _LARGEST))
        terms = -(y_true * on + (1.0 - y_true) * off)
    return ops.sum(terms, axis=-1)


# The metric has the same class name; Keras knows one object by a name.
@keras.saving.register_keras_serializable(package="snukeras", name="losses.FrameNLL")
class FrameNLL(keras.losses.Loss):
    """Negative log-likelihood of frames: summed over keys, mean over all predicted steps.

    The figure of the piano-roll tasks: sigmoid cross-entropy summed over the 88 keys and over the
    predicted steps of all songs, divided by the number of these steps. Padding is left out by
    `sample_weight` of shape `(N, T)` (the mask of `snukeras.datasets.piano_roll.pad`) or by a
    Keras mask.

    Over one batch the loss is exactly that. Keras then averages batches weighted by their number
    of songs, and replicas equally, neither by steps; so over several batches or replicas of
    unequal lengths the `loss` that `fit` and `evaluate` print is near the figure, and
    `snukeras.metrics.FrameNLL` is the figure. With `steps_per_sequence` the loss of a batch is
    divided by songs times that constant instead; set it to the mean number of predicted steps of
    a song of the data set, and the loss over the set is the figure too, for any batch size and
    any number of replicas (and each step counts the same in training, in whatever batch it is).

    Args:
        from_logits: Whether the model gives logits. Probabilities are limited only to what
            float32 can tell from 0 and 1.
        label_smoothing: In [0, 1]; targets y become y (1 - s) + s / 2. For training only.
        steps_per_sequence: See above. Default: the steps of the batch itself.
        reduction: As in Keras; with `steps_per_sequence` it has to keep its default.
        name: Name of the loss.
        dtype: Dtype of the result; the terms are computed in float32.

    Raises:
        ValueError: An argument outside its range.
    """

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        steps_per_sequence: float | None = None,
        reduction: str | None = "mean_with_sample_weight",
        name: str = "frame_nll",
        dtype: Dtype = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        _arguments.number("label_smoothing", label_smoothing, minimum=0.0, maximum=1.0)
        if steps_per_sequence is not None:
            _arguments.number("steps_per_sequence", steps_per_sequence, above=0.0)
            if reduction != "mean_with_sample_weight":
                raise ValueError(
                    "Argument `reduction` must keep its default with `steps_per_sequence`. "
                    f"Received: {reduction!r}"
                )
        self.from_logits = from_logits
        self.label_smoothing = label_smoothing
        self.steps_per_sequence = steps_per_sequence

    def __call__(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> Tensor:
        if self.steps_per_sequence is None:
            return super().__call__(y_true, y_pred, sample_weight)
        # Keras's own reductions merge masks and weights; only the divisor is ours.
        total = FrameNLL(self.from_logits, self.label_smoothing, reduction="sum", dtype=self.dtype)
        songs = ops.cast(ops.shape(y_pred)[0], self.dtype)
        return total(y_true, y_pred, sample_weight) / (songs * self.steps_per_sequence * replicas())

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        if self.label_smoothing:
            y_true = y_true * (1.0 - self.label_smoothing) + 0.5 * self.label_smoothing
        return frame_nll(y_true, y_pred, self.from_logits)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "from_logits": self.from_logits,
            "label_smoothing": self.label_smoothing,
            "steps_per_sequence": self.steps_per_sequence,
        }
