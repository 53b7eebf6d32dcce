"""Metrics that are exact over batches: likelihood of frames, perplexity of words, spike rates."""

import keras
from keras import ops

from snukeras._types import Config, Dtype, Tensor
from snukeras.losses import frame_nll

# The smallest normal float32: with it no logarithm is infinite.
_SMALLEST = 2.0**-126


class _MeanOverSteps(keras.metrics.Metric):
    """The weighted mean of the cost of a step, over all steps of all batches."""

    # The arguments of `update_state` that may not be None.
    _needed: tuple[str, ...] = ("y_true", "y_pred")

    def __init__(self, from_logits: bool, name: str, dtype: Dtype) -> None:
        super().__init__(name=name, dtype=dtype)
        self.from_logits = from_logits
        self.total = self.add_variable(shape=(), initializer="zeros", name="total")
        self.steps = self.add_variable(shape=(), initializer="zeros", name="steps")

    def _values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Return the cost of each step, `(N, T)` or `(N,)`."""
        raise NotImplementedError

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        """Add a batch, by its weights and by the Keras mask of `y_pred`.

        Args:
            y_true, y_pred: See the class.
            sample_weight: Weights of the steps, `(N, T)` or `(N, T, 1)`, or of whole sequences,
                `(N,)` or `(N, 1)`.

        Raises:
            ValueError: `y_true` or `y_pred` is missing; `sample_weight` has another shape.
        """
        for name, given in (("y_true", y_true), ("y_pred", y_pred)):
            if given is None and name in self._needed:
                raise ValueError(
                    f"Argument `{name}` must be an array of the shape that the docstring of "
                    f"{type(self).__name__} names. Received: {name}=None"
                )
        # Keras has no public reader for the mask that its layers leave on a tensor.
        mask = getattr(y_pred, "_keras_mask", None)
        values = ops.cast(self._values(y_true, y_pred), self.dtype)
        weights = ops.ones_like(values)
        for given in (mask, sample_weight):
            if given is not None:
                weights = weights * self._aligned(given, values)
        # A step of weight 0 may hold anything, NaN too.
        values = ops.where(weights == 0, ops.zeros_like(values), values)
        self.total.assign_add(ops.sum(values * weights))
        self.steps.assign_add(ops.sum(weights))

    def _aligned(self, weights: Tensor, values: Tensor) -> Tensor:
        """Bring `weights` to the rank of `values`, aligned from the left."""
        weights = ops.cast(weights, self.dtype)
        if len(weights.shape) == len(values.shape) + 1 and weights.shape[-1] == 1:
            weights = ops.squeeze(weights, axis=-1)
        pairs = list(zip(weights.shape, values.shape, strict=False))
        fits = all(
            None in (w, v) or w == v or (axis and w == 1) for axis, (w, v) in enumerate(pairs)
        )
        if len(weights.shape) > len(values.shape) or not fits:
            raise ValueError(
                "Argument `sample_weight` must have a weight for each step or sequence of "
                f"{tuple(values.shape)}. Received: {tuple(weights.shape)}"
            )
        while len(weights.shape) < len(values.shape):
            weights = ops.expand_dims(weights, axis=-1)
        return weights

    def result(self) -> Tensor:
        return ops.divide_no_nan(self.total, self.steps)

    def reset_state(self) -> None:
        self.total.assign(0.0)
        self.steps.assign(0.0)

    def get_config(self) -> Config:
        return {**super().get_config(), "from_logits": self.from_logits}


# The loss has the same class name; Keras knows one object by a name.
@keras.saving.register_keras_serializable(package="snukeras", name="metrics.FrameNLL")
class FrameNLL(_MeanOverSteps):
    """Negative log-likelihood in nats per step, over all steps of all songs.

    Sums sigmoid cross-entropy over the keys and over all predicted steps and divides by the
    number of these steps, whatever the batches and replicas they come in. It is not the mean of
    the means of songs or batches, and not a mean over keys.

    Steps of weight 0 do not count: give the mask `(N, T)` of
    `snukeras.datasets.piano_roll.pad` as `sample_weight`. Keras hands `sample_weight` only to
    the metrics under `weighted_metrics`, so compile with
    `model.compile(..., weighted_metrics=[snukeras.metrics.FrameNLL()])`; under `metrics` padding
    would count. A Keras mask (of a Masking or Embedding layer) is used in both. Replicas of
    tf.distribute need Keras 3.10: before, it added up all metrics of replicas wrongly.

    `y_true` are targets `(N, T, keys)`, `y_pred` probabilities or logits of the same shape.

    Args:
        from_logits: Whether the model gives logits.
        name: Name of the metric.
        dtype: Dtype of the sums.
    """

    def __init__(
        self, from_logits: bool = False, name: str = "frame_nll", dtype: Dtype = None
    ) -> None:
        super().__init__(from_logits, name, dtype)

    def _values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return frame_nll(y_true, y_pred, self.from_logits)


@keras.saving.register_keras_serializable(package="snukeras")
class Perplexity(_MeanOverSteps):
    """Perplexity of words: exp of the mean negative log-likelihood of all words of all batches.

    The negative log-likelihoods are added up and divided by the number of words, whatever the
    batches and replicas they come in, and only then comes the exp; the mean of the perplexities
    of batches would be larger. Words count by `sample_weight`; compile with
    `weighted_metrics=[snukeras.metrics.Perplexity(from_logits=True)]` (see `FrameNLL`).

    `y_true` are the numbers of the words that follow, `(N, T)` or `(N,)`, `y_pred` probabilities or
    logits of all words, `(N, T, words)` or `(N, words)`.

    Args:
        from_logits: Whether the model gives logits.
        name: Name of the metric.
        dtype: Dtype of the sums.
    """

    def __init__(
        self, from_logits: bool = False, name: str = "perplexity", dtype: Dtype = None
    ) -> None:
        super().__init__(from_logits, name, dtype)

    def _values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        logits = ops.cast(y_pred, "float32")
        if not self.from_logits:
            logits = ops.log(ops.maximum(logits, _SMALLEST))
        words = ops.cast(y_true, "int32")
        if len(words.shape) == len(logits.shape) and words.shape[-1] == 1:
            words = ops.squeeze(words, axis=-1)
        came = ops.take_along_axis(logits, words[..., None], axis=-1)[..., 0]
        return -came if not self.from_logits else ops.logsumexp(logits, axis=-1) - came

    def result(self) -> Tensor:
        return ops.exp(super().result())


# The regularizer has the same class name; Keras knows one object by a name.
@keras.saving.register_keras_serializable(package="snukeras", name="metrics.SpikeRate")
class SpikeRate(_MeanOverSteps):
    """The rate of spikes: their number for a unit and step, from 0 to 1.

    For the layer whose spikes a model puts out, among the metrics of that output:

        model = keras.Model(x, {"digits": digits, "hidden": hidden})
        model.compile(loss={"digits": "mse"}, metrics={"hidden": snukeras.metrics.SpikeRate()})

    and by hand, `metric.update_state(None, spikes)`. `snukeras.callbacks.SpikeMonitor` watches the
    layers that a model does not put out. Steps that a Keras mask or `sample_weight` leaves out do
    not count.

    `y_true` is ignored; `y_pred` are spikes 0 and 1, `(N, T, units)`, `(N, units)`, or maps
    `(N, T, ..., filters)`.

    Args:
        name: Name of the metric.
        dtype: Dtype of the sums.
    """

    _needed = ("y_pred",)

    def __init__(self, name: str = "spike_rate", dtype: Dtype = None) -> None:
        super().__init__(False, name, dtype)

    def _values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        spikes = ops.convert_to_tensor(y_pred)
        if not len(spikes.shape):
            raise ValueError(
                "Argument `y_pred` must hold spikes, an array (samples, units) or "
                f"(samples, steps, ..., units). Received: y_pred={y_pred!r}"
            )
        spikes = ops.cast(spikes, "float32")
        first = min(2, len(spikes.shape) - 1)
        return ops.mean(spikes, axis=tuple(range(first, len(spikes.shape))))

    def get_config(self) -> Config:
        config = super().get_config()
        del config["from_logits"]
        return config
