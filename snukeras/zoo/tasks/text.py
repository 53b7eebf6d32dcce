"""Text as numbers of words: predict the next word from those before it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from snukeras.datasets import penn_treebank, wikitext2
from snukeras.zoo.tasks.task import SPLITS, Task

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

_DATA = {"steps": 35, "candidates": None, "exact_epochs": 0, "precision": "float32"}
_EVALUATION_STEPS = 512
_GOLDEN_STEPS = 8
_MEASURED_STEPS = 1000


@dataclass
class Words(Task):
    """Predict each word of a text from all words before it.

    Figure: perplexity, exp of the mean negative log-likelihood of all words of a split
    (`snukeras.metrics.Perplexity`). The split is one stream: the states are zero at its start and
    are carried through to its end. The first word is predicted from `<eos>`, so that every word
    counts, once.

    A recipe's `data` may say:

    - `steps`: words a batch row; the states are carried from batch to batch, the gradient is not.
    - `candidates`: null, or the number of words that a training batch compares each right word
      with, instead of the whole vocabulary: a sampled softmax (see `candidates`).
    - `exact_epochs`: the last epochs, trained with the whole vocabulary all the same.
    - `precision`: of the products with the table in the loss, "float32" or "bfloat16". Figures
      are measured in float32.

    Args:
        name: The task's name in recipes.
        title: What people call the data set.
        load: Returns `((train, valid, test), vocabulary)`.
        data_sha256: sha256 of the data files, for the results.
        data_licence: What its licence is, for the cards.
    """

    name: str
    title: str
    load: Callable[[], tuple[tuple[np.ndarray, np.ndarray, np.ndarray], list[str]]]
    data_sha256: str
    data_licence: str
    _evaluation: Any = field(default=None, init=False, repr=False)

    metric = "perplexity"
    unit = "perplexity"
    lower_is_better = True
    tolerance = 0.05
    measured_on = "text, the first 1,000 words of the test split"

    @cached_property
    def _loaded(self) -> tuple[dict[str, np.ndarray], list[str]]:
        splits, vocabulary = self.load()
        return dict(zip(SPLITS, splits, strict=True)), vocabulary

    @property
    def texts(self) -> dict[str, np.ndarray]:
        """The words of each split, int32 arrays; loaded once."""
        return self._loaded[0]

    @property
    def vocabulary(self) -> list[str]:
        """The words, the most frequent first."""
        return self._loaded[1]

    def loss(self, arguments: dict[str, Any]) -> "keras.losses.Loss":
        """Return the loss of networks that give logits."""
        import keras

        return keras.losses.SparseCategoricalCrossentropy(from_logits=True, **arguments)

    def metrics(self) -> list["keras.metrics.Metric"]:
        """Return the metrics to compile with, as `weighted_metrics`."""
        from snukeras.metrics import Perplexity

        return [Perplexity(from_logits=True, name=self.metric)]

    def trainer(self, model: "keras.Model", recipe: dict[str, Any]) -> "keras.Model":
        """Return a model that trains the network's weights and carries its states."""
        return _trainer(model, recipe["batch_size"], self._data(recipe)["precision"])

    def _data(self, recipe: dict[str, Any]) -> dict[str, Any]:
        """The recipe's `data` with all defaults filled in."""
        odd = sorted(set(recipe["data"]) - set(_DATA))
        if odd:
            raise ValueError(
                f"`data` of the task {self.name} may hold {', '.join(_DATA)}. Received: "
                f"{', '.join(odd)}"
            )
        data = {**_DATA, **recipe["data"]}
        if data["precision"] not in ("float32", "bfloat16"):
            raise ValueError(
                f'`precision` has to be "float32" or "bfloat16". Received: {data["precision"]!r}'
            )
        return data

    def steps_per_epoch(self, recipe: dict[str, Any]) -> int:
        """Return the number of batches of an epoch; less than one batch of words is left over."""
        batch = recipe["batch_size"] * self._data(recipe)["steps"]
        steps = (len(self.texts["train"]) - 1) // batch
        if steps < 1:
            raise ValueError(
                f"The training text of {self.name} is shorter than one batch of "
                f"{recipe['batch_size']} rows of {self._data(recipe)['steps']} words."
            )
        return int(steps)

    def training_data(
        self, recipe: dict[str, Any], seed: int, first_epoch: int = 0
    ) -> "tf.data.Dataset":
        """Return the batches of all epochs from `first_epoch` on, one after the other.

        Row r of a batch goes on where row r of the batch before ended. Each epoch begins at
        another word, by less than a batch, so that other words are left over and rows are cut
        elsewhere. A batch is `((words, first, candidates, log_chances), next_words)`: words
        `(batch, steps)`; `first` is 1 in the first batch of an epoch, where states start at zero;
        and what `candidates` gives.
        """
        import tensorflow as tf

        data = self._data(recipe)
        text = self.texts["train"]
        rows, length = recipe["batch_size"], data["steps"]
        steps = self.steps_per_epoch(recipe)
        counts = np.bincount(text, minlength=len(self.vocabulary))
        everything = np.arange(len(counts), dtype=np.int32), np.zeros(len(counts), np.float32)

        def batches() -> Iterator[tuple[Any, np.ndarray]]:
            for epoch in range(first_epoch, recipe["epochs"]):
                random = np.random.default_rng((seed, epoch))
                start = random.integers(len(text) - rows * steps * length)
                part = text[start : start + rows * steps * length + 1]
                x = part[:-1].reshape(rows, -1)
                y = part[1:].reshape(rows, -1)
                exact = not data["candidates"] or epoch >= recipe["epochs"] - data["exact_epochs"]
                for step in range(steps):
                    now = slice(step * length, (step + 1) * length)
                    words = everything if exact else candidates(counts, data["candidates"], random)
                    yield (x[:, now], np.array([step == 0], np.float32), *words), y[:, now]

        words = tf.TensorSpec((rows, length), tf.int32)
        signature = (
            words,
            tf.TensorSpec((1,), tf.float32),
            tf.TensorSpec((None,), tf.int32),
            tf.TensorSpec((None,), tf.float32),
        )
        dataset = tf.data.Dataset.from_generator(batches, output_signature=(signature, words))
        return dataset.prefetch(2)

    def evaluate(self, model: "keras.Model", split: str) -> float:
        """Return the perplexity of a split, in float32, as one stream of words.

        Args:
            model: A network that gives logits. Its own states, if any, are not used.
            split: "train", "valid" or "test".
        """
        text = self.texts[split]
        if self._evaluation is None or self._evaluation.model is not model:
            self._evaluation = _Evaluation(model)
        end = self.vocabulary.index(penn_treebank.END)
        return self._evaluation.perplexity(np.concatenate([[end], text[:-1]]), text)

    def golden_inputs(self) -> list[np.ndarray]:
        """Return candidates for the golden input, each `(1, 8)`: words drawn at random."""
        random = np.random.default_rng(0)
        size = len(self.vocabulary)
        return [random.integers(size, size=(1, _GOLDEN_STEPS), dtype=np.int32) for _ in range(8)]

    def measured_inputs(self) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Yield the first 1,000 words of the test split, as one text."""
        yield self.texts["test"][None, :_MEASURED_STEPS], None


def candidates(
    counts: np.ndarray, number: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw words for a sampled softmax, without replacement, frequent ones more likely.

    The chance of a word is proportional to its count to the power of 3/4, and 1 at most: the most
    frequent words are always there. A sum over the vocabulary is then estimated without bias by
    the sum over the drawn words of each term divided by its word's chance (Horvitz and Thompson,
    1952); the words are drawn systematically, at equal distances along a random order.

    Args:
        counts: Count of each word in the training text.
        number: Words to draw.
        random: Generator.

    Returns:
        Numbers of the drawn words, increasing, int32; and the logarithms of their chances.
    """
    number = min(number, len(counts))
    share = np.maximum(counts, 1).astype(np.float64) ** 0.75
    chances = np.zeros(len(counts))
    certain = np.zeros(len(counts), bool)
    while True:
        chances = share * ((number - certain.sum()) / share[~certain].sum())
        chances[certain] = 1.0
        above = (chances > 1.0) & ~certain
        if not above.any():
            break
        certain |= above
        if certain.all():
            chances[:] = 1.0
            break
    order = random.permutation(len(counts))
    ends = np.cumsum(chances[order])
    # The last end is the number but for rounding.
    places = np.searchsorted(ends, random.random() + np.arange(number), side="right")
    drawn = np.sort(order[np.minimum(places, len(order) - 1)])
    return drawn.astype(np.int32), np.log(chances[drawn]).astype(np.float32)


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
                "A network for text has to begin with a TiedEmbedding and to end with its "
                "projection, its other layers one after the other between them. Received: "
                f"{', '.join(type(layer).__name__ for layer in model.layers)}"
            )
        self.embedding = embedding
        self.between = between
        self.recurrent = [layer for layer in between if isinstance(layer, keras.layers.RNN)]

    def zeros(self, rows: int) -> list["tf.Tensor"]:
        """States of all recurrent layers at the start of a text."""
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


class _Evaluation:
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


def _trainer(network: "keras.Model", rows: int, precision: str) -> "keras.Model":
    """Make the model that `fit` trains; see `Words.training_data` for what it takes."""
    import keras
    import tensorflow as tf

    chain = _Chain(network)

    class Trainer(keras.Model):
        def __init__(self) -> None:
            super().__init__(name=f"{network.name}_trainer")
            self.network = network
            self.carried = [
                keras.Variable(state, trainable=False, name=f"carried_{index}")
                for index, state in enumerate(chain.zeros(rows))
            ]
            self.built = True

        def call(self, inputs: Any, training: bool = False) -> Any:
            words, first = inputs[:2]
            states = [tf.convert_to_tensor(state) * (1.0 - first) for state in self.carried]
            features, left = chain.features(words, states)
            for variable, state in zip(self.carried, left, strict=True):
                variable.assign(tf.stop_gradient(state))
            return features

        def compute_loss(
            self,
            x: Any = None,
            y: Any = None,
            y_pred: Any = None,
            sample_weight: Any = None,
            training: bool = True,
        ) -> Any:
            table, bias = chain.embedding.embeddings, chain.embedding.bias
            loss = sampled_nll(y_pred, table, bias, y, x[2], x[3], precision)
            return tf.reduce_mean(loss) + sum(self.losses)

    return Trainer()


def sampled_nll(
    features: "tf.Tensor",
    table: Any,
    bias: Any,
    words: "tf.Tensor",
    drawn: "tf.Tensor",
    log_chances: "tf.Tensor",
    precision: str = "float32",
) -> "tf.Tensor":
    """Negative log-likelihood of words, with the partition function estimated from drawn words.

    The right word counts with its own term; each drawn word that is not the right one with its
    term divided by its chance. With the whole vocabulary drawn it is exact.

    Args:
        features: Shape (..., width).
        table: Shape (vocabulary, width).
        bias: Shape (vocabulary,), or None.
        words: The right words, shape (...).
        drawn, log_chances: As `candidates` gives them.
        precision: Dtype of the products with the drawn words.

    Returns:
        float32, shape (number of words,).
    """
    import tensorflow as tf

    table = _dense_gradient(tf.convert_to_tensor(table))
    bias = tf.zeros(tf.shape(table)[:1]) if bias is None else tf.convert_to_tensor(bias)
    bias = _dense_gradient(bias)
    features = tf.reshape(features, (-1, features.shape[-1]))
    words = tf.cast(tf.reshape(words, (-1,)), tf.int32)
    right = tf.reduce_sum(features * tf.gather(table, words), axis=-1) + tf.gather(bias, words)
    logits = tf.matmul(
        tf.cast(features, precision), tf.cast(tf.gather(table, drawn), precision), transpose_b=True
    )
    others = _log_sum(logits, tf.gather(bias, drawn) - log_chances, words, drawn)
    return tf.nn.softplus(others - right)


def _dense_gradient(x: "tf.Tensor") -> "tf.Tensor":
    """Pass a tensor through; its gradient comes out as a tensor, each row summed up once."""
    import tensorflow as tf

    @tf.custom_gradient
    def through(value: Any) -> Any:
        return tf.identity(value), tf.convert_to_tensor

    return through(x)


def _log_sum(logits: Any, shifts: Any, words: Any, drawn: Any) -> Any:
    """log of the sum of exp(logits + shifts) over the drawn words other than the right one."""
    import tensorflow as tf

    @tf.custom_gradient
    def apply(logits: Any, shifts: Any) -> Any:
        logits, shifts = tf.stop_gradient(logits), tf.stop_gradient(shifts)
        total = _forward(logits, shifts, words, drawn)

        def gradient(upstream: Any) -> Any:
            return _backward(logits, shifts, words, drawn, total, upstream)

        return total, gradient

    return apply(logits, shifts)


def _compiled(function: Callable) -> Callable:
    """Compile with XLA, at the first call: TensorFlow is not imported before."""

    @cache
    def made() -> Callable:
        import tensorflow as tf

        return tf.function(function, jit_compile=True, reduce_retracing=True, autograph=False)

    return lambda *arguments: made()(*arguments)


@_compiled
def _forward(logits: Any, shifts: Any, words: Any, drawn: Any) -> Any:
    import tensorflow as tf

    z = tf.cast(logits, tf.float32) + shifts
    z = tf.where(words[:, None] == drawn, tf.float32.min, z)
    return tf.reduce_logsumexp(z, axis=-1)


@_compiled
def _backward(logits: Any, shifts: Any, words: Any, drawn: Any, total: Any, upstream: Any) -> Any:
    import tensorflow as tf

    z = tf.cast(logits, tf.float32) + shifts - total[:, None]
    z = tf.where(words[:, None] == drawn, 0.0, tf.exp(z) * upstream[:, None])
    return tf.cast(z, logits.dtype), tf.reduce_sum(z, axis=0)


PENN_TREEBANK = Words(
    "penn_treebank",
    "Penn Treebank",
    penn_treebank.load_data,
    " ".join(source.sha256 for source in penn_treebank.SOURCES),
    "LDC material: measure with it, do not pass it on",
)
WIKITEXT2 = Words(
    "wikitext2",
    "WikiText-2",
    wikitext2.load_data,
    " ".join(source.sha256 for source in wikitext2.SOURCES),
    "CC BY-SA 3.0",
)
