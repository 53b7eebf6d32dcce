"""Train and evaluate language models whose state is carried from batch to batch."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from snukeras.zoo.tasks.sampled_softmax import sampled_nll

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

_EVALUATION_STEPS = 512


class _Chain:
    """A language model taken apart: its layers, and the table at both ends.

    Runs the layers on given states and returns the states they leave, whether or not the layers
    are stateful themselves, and for any batch size.
    """

    def __init__(self, model: "keras.Model") -> None:
        import keras

        from snukeras.layers import TiedEmbedding

        embedding, *between = [
            layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)
        ]
        if not isinstance(embedding, TiedEmbedding) or model.output_shape[-1] != (
            embedding.input_dim
        ):
            raise ValueError(
                "A network for text must begin with a TiedEmbedding and to end with its "
                "projection, its other layers one after the other between them. Received: "
                f"{', '.join(type(layer).__name__ for layer in model.layers)}"
            )
        self.embedding = embedding
        self.between = between
        self.recurrent = [layer for layer in between if isinstance(layer, keras.layers.RNN)]

    def zeros(self, rows: int) -> list["tf.Tensor"]:
        """Return the states of all recurrent layers at the start of a text."""
        return [state for layer in self.recurrent for state in layer.get_initial_state(rows)]

    def features(
        self, words: "tf.Tensor", states: "list[tf.Tensor]"
    ) -> "tuple[tf.Tensor, list[tf.Tensor]]":
        """Return what the last layer before the projection gives, and the states at the end."""
        x = self.embedding(words)
        left: list[tf.Tensor] = []
        for layer in self.between:
            if layer in self.recurrent:
                number = len(layer.get_initial_state(1))
                with _returning_state(layer):
                    x, *after = layer(x, initial_state=states[len(left) : len(left) + number])
                left += after
            else:
                x = layer(x)
        return x, left


@contextmanager
def _returning_state(layer: "keras.layers.RNN") -> Iterator[None]:
    before = layer.return_state
    layer.return_state = True
    try:
        yield
    finally:
        layer.return_state = before


class Evaluation:
    """Measures one network; compiled once."""

    def __init__(self, model: "keras.Model") -> None:
        import tensorflow as tf

        from snukeras.metrics import Perplexity

        self.model = model
        self.chain = chain = _Chain(model)
        self.metric = metric = Perplexity(from_logits=True)

        @tf.function(reduce_retracing=True, autograph=False)
        def step(x: tf.Tensor, y: tf.Tensor, weights: tf.Tensor, states: list) -> list:
            features, states = chain.features(x, states)
            metric.update_state(y, chain.embedding(features, reverse=True), weights)
            return states

        self.step = step

    def perplexity(self, x: np.ndarray, y: np.ndarray) -> float:
        """Return the perplexity of the words y, each predicted from x up to its place."""
        length = -(-len(x) // _EVALUATION_STEPS) * _EVALUATION_STEPS
        weights = np.zeros(length, np.float32)
        weights[: len(x)] = 1.0
        # The last batch is filled up: one length, compiled once.
        x, y = (np.resize(words.astype(np.int32), length) for words in (x, y))
        self.metric.reset_state()
        states = self.chain.zeros(1)
        for at in range(0, length, _EVALUATION_STEPS):
            now = slice(at, at + _EVALUATION_STEPS)
            states = self.step(x[None, now], y[None, now], weights[None, now], states)
        return float(self.metric.result())


def trainer_of(network: "keras.Model", rows: int, precision: str) -> "keras.Model":
    """Make the model that `fit` trains; see `Words.training_data` for what it takes."""
    import keras
    import tensorflow as tf

    chain = _Chain(network)

    class Trainer(keras.Model):
        def __init__(self) -> None:
            super().__init__(name=f"{network.name}trainer_of")
            self.network = network
            self.carried = [
                keras.Variable(state, trainable=False, name=f"carried_{index}")
                for index, state in enumerate(chain.zeros(rows))
            ]
            self.built = True

        def call(self, inputs: "list[tf.Tensor]", training: bool = False) -> "tf.Tensor":
            words, first = inputs[:2]
            states = [tf.convert_to_tensor(state) * (1.0 - first) for state in self.carried]
            features, left = chain.features(words, states)
            for variable, state in zip(self.carried, left, strict=True):
                variable.assign(tf.stop_gradient(state))
            return features

        def compute_loss(
            self,
            x: "list[tf.Tensor]",
            y: "tf.Tensor",
            y_pred: "tf.Tensor",
            sample_weight: None = None,
            training: bool = True,
        ) -> "tf.Tensor":
            table, bias = chain.embedding.embeddings, chain.embedding.bias
            loss = sampled_nll(y_pred, table, bias, y, x[2], x[3], precision)
            return tf.reduce_mean(loss) + sum(self.losses)

    return Trainer()
