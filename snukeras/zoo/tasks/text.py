"""Text as numbers of words: predict the next word from those before it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from snukeras._files import JsonObject
from snukeras.datasets import penn_treebank, wikitext2
from snukeras.zoo.recipes import Recipe
from snukeras.zoo.tasks.language_model import Evaluation, trainer_of
from snukeras.zoo.tasks.sampled_softmax import candidates
from snukeras.zoo.tasks.task import SPLITS, Part, Task

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

_DATA = {"steps": 35, "candidates": None, "exact_epochs": 0, "precision": "float32"}
_GOLDEN_STEPS = 8
_MEASURED_STEPS = 1000
_PART = 500


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
    _evaluation: Evaluation | None = field(default=None, init=False, repr=False)

    metric = "perplexity"
    unit = "perplexity"
    lower_is_better = True
    tolerance = 0.05
    measured_on = "text, the first 1,000 words of the test split"
    intended = (
        "Research on networks of spiking and soft units and on their deployment in analog memory: "
        "it gives logits of the next word of an English text, from all words before."
    )
    limits = (
        "A small vocabulary of one kind of text; what is drawn from it is no sound language, and "
        "may repeat what stands in the text. States are carried from batch to batch."
    )
    tags = ("text-generation",)
    reads = ("data",)

    def label(self, index: int) -> str:
        """Return the number of a word in the vocabulary."""
        return f"word {index}"

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

    def loss(self, arguments: JsonObject) -> "keras.losses.Loss":
        """Return the loss of networks that give logits."""
        import keras

        return keras.losses.SparseCategoricalCrossentropy(from_logits=True, **arguments)

    def metrics(self) -> list["keras.metrics.Metric"]:
        """Return the metrics to compile with, as `weighted_metrics`."""
        from snukeras.metrics import Perplexity

        return [Perplexity(from_logits=True, name=self.metric)]

    def trainer(self, model: "keras.Model", recipe: Recipe) -> "keras.Model":
        """Return a model that trains the network's weights and carries its states."""
        return trainer_of(model, recipe.batch_size, self._data(recipe)["precision"])

    def _data(self, recipe: Recipe) -> JsonObject:
        """Return the recipe's `data` with all defaults filled in."""
        odd = sorted(set(recipe.data) - set(_DATA))
        if odd:
            raise ValueError(
                f"`data` of the task {self.name} may hold {', '.join(_DATA)}. Received: "
                f"{', '.join(odd)}"
            )
        data = {**_DATA, **recipe.data}
        if data["exact_epochs"] and data["candidates"] is None:
            raise ValueError(
                f"`exact_epochs` needs `candidates`. Received: {recipe.data}; without it all "
                "epochs take the whole vocabulary."
            )
        if data["precision"] not in ("float32", "bfloat16"):
            raise ValueError(
                f'`precision` must be "float32" or "bfloat16". Received: {data["precision"]!r}'
            )
        return data

    def example(self) -> tuple[str, ...]:
        """Return lines of Python for the cards, that measure and fine-tune `model`."""
        return (
            f"words, vocabulary = snukeras.datasets.{self.name}.load_data()  # fetched once",
            "text = words[1][: 20 * 35 + 1]                        # of the validation split",
            "x, y = text[:-1].reshape(20, 35), text[1:].reshape(20, 35)",
            "model.compile(",
            "    keras.optimizers.Adam(1e-4),",
            "    keras.losses.SparseCategoricalCrossentropy(from_logits=True),",
            "    weighted_metrics=[snukeras.metrics.Perplexity(from_logits=True)],",
            ")",
            "model.evaluate(x, y)                                  # each row from states of zero",
            "model.fit(x, y)                                       # fine-tune it",
        )

    def steps_per_epoch(self, recipe: Recipe) -> int:
        """Return the number of batches of an epoch; less than one batch of words is left over."""
        batch = recipe.batch_size * self._data(recipe)["steps"]
        steps = (len(self.texts["train"]) - 1) // batch
        if steps < 1:
            raise ValueError(
                f"The training text of {self.name} is shorter than one batch of "
                f"{recipe.batch_size} rows of {self._data(recipe)['steps']} words."
            )
        return int(steps)

    def training_data(self, recipe: Recipe, seed: int, first_epoch: int = 0) -> "tf.data.Dataset":
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
        rows, length = recipe.batch_size, data["steps"]
        steps = self.steps_per_epoch(recipe)
        counts = np.bincount(text, minlength=len(self.vocabulary))
        everything = np.arange(len(counts), dtype=np.int32), np.zeros(len(counts), np.float32)

        def batches() -> Iterator[tuple[tuple[np.ndarray, ...], np.ndarray]]:
            for epoch in range(first_epoch, recipe.epochs):
                random = np.random.default_rng((seed, epoch))
                start = random.integers(len(text) - rows * steps * length)
                part = text[start : start + rows * steps * length + 1]
                x = part[:-1].reshape(rows, -1)
                y = part[1:].reshape(rows, -1)
                exact = not data["candidates"] or epoch >= recipe.epochs - data["exact_epochs"]
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
            self._evaluation = Evaluation(model)
        end = self.vocabulary.index(penn_treebank.END)
        return self._evaluation.perplexity(np.concatenate([[end], text[:-1]]), text)

    def golden_inputs(self) -> list[np.ndarray]:
        """Return candidates for the golden input, each `(1, 8)`: words drawn at random."""
        random = np.random.default_rng(0)
        size = len(self.vocabulary)
        return [random.integers(size, size=(1, _GOLDEN_STEPS), dtype=np.int32) for _ in range(8)]

    def _part(self) -> Part:
        text = self.texts["test"][: _PART + 1]
        what = f"the first {len(text) - 1} words of the test split of {self.title}"
        return Part(what, [text[None, :-1]], [text[None, 1:]], self.metric)

    def measured_inputs(self) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Yield the first 1,000 words of the test split, as one text."""
        yield self.texts["test"][None, :_MEASURED_STEPS], None


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
