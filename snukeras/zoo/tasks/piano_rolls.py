"""Music as piano rolls: predict the next frame from those before it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from snukeras._files import JsonObject
from snukeras.datasets import jsb_chorales, nottingham, piano_roll
from snukeras.zoo import samples
from snukeras.zoo.recipes import Recipe
from snukeras.zoo.tasks.task import SPLITS, Part, Task

# The songs of a part: at most so many, with at most so many steps in all.
_SONGS, _STEPS = 8, 600

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


@dataclass
class PianoRolls(Task):
    """Predict the next frame of a piano roll from those before it.

    Figure: negative log-likelihood in nats per step, over all predicted steps of all songs of a
    split (`snukeras.metrics.FrameNLL`).

    Args:
        name: The task's name in recipes.
        title: What people call the data set.
        load: Returns `(train, valid, test)`, lists of uint8 arrays `(T, 88)`.
        data_sha256: sha256 of the data file, for the results.
        data_licence: What its licence is, for the cards.
    """

    name: str
    title: str
    load: Callable[[], piano_roll.Splits]
    data_sha256: str
    data_licence: str
    _padded: dict[str, tuple[np.ndarray, ...]] = field(default_factory=dict, init=False, repr=False)

    metric = "frame_nll"
    unit = "nats per step"
    lower_is_better = True
    measured_on = "songs of the test split"
    intended = (
        "Research on networks of spiking and soft units and on their deployment in analog memory: "
        "it gives the probability of each of 88 keys at the next quarter note, from those before."
    )
    limits = (
        "Keys are predicted independently of each other, so what is drawn from them is no chord. "
        "Music of other styles, tempos and more voices was not measured."
    )
    tags = ("music", "time-series-forecasting")
    reads = ("data", "loss", "padding", "teacher")

    @cached_property
    def songs(self) -> dict[str, list[piano_roll.Roll]]:
        """The songs of each split; loaded once."""
        return dict(zip(SPLITS, self.load(), strict=True))

    def loss(self, arguments: JsonObject) -> "keras.losses.Loss":
        """Return the loss, `snukeras.losses.FrameNLL` with the arguments that a recipe gives."""
        from snukeras.losses import FrameNLL

        return FrameNLL(**arguments)

    def metrics(self) -> list["keras.metrics.Metric"]:
        """Return the metrics to compile with, as `weighted_metrics`."""
        from snukeras.metrics import FrameNLL

        return [FrameNLL(name=self.metric)]

    def example(self) -> tuple[str, ...]:
        """Return lines of Python for the cards, that measure and fine-tune `model`."""
        return (
            "songs = snukeras.zoo.samples.read()[1]    # or your own: arrays (steps, 88) of 0, 1",
            "x, y, mask = snukeras.datasets.piano_roll.pad(songs)  # each step predicts the next",
            "model.compile(",
            "    keras.optimizers.Adam(1e-4),",
            "    snukeras.losses.FrameNLL(),",
            "    weighted_metrics=[snukeras.metrics.FrameNLL()],  # nats per step",
            ")",
            "model.evaluate(x, y, sample_weight=mask)              # the mask leaves padding out",
            "model.fit(x, y, sample_weight=mask)                   # fine-tune it",
        )

    def label(self, index: int) -> str:
        """Return the name of a key, of which 0 is A0."""
        names = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
        return f"{names[(index + 21) % 12]}{(index + 21) // 12 - 1}"

    def steps_per_epoch(self, recipe: Recipe) -> int:
        """Return the number of batches of an epoch."""
        songs = self.songs["train"]
        window = _window(recipe)
        pieces = len(songs) if window is None else sum(-(-(len(s) - 1) // window) for s in songs)
        return -(-pieces // recipe.batch_size)

    def training_data(self, recipe: Recipe, seed: int, first_epoch: int = 0) -> "tf.data.Dataset":
        """Return the batches of all epochs from `first_epoch` on, one after the other.

        An epoch is a permutation of the songs that depends on the seed and its number alone, so
        a training that resumes sees the same batches. The songs are dealt evenly, so batches
        differ by at most one song. `padding` of the recipe lists lengths: a batch is padded to
        the first that holds its longest song, or that of the longest song of all.

        `data` of the recipe may hold `window`, a number of steps: the songs are then cut into
        pieces that predict at most so many, each epoch elsewhere. A piece starts from the initial
        state.

        Raises:
            ValueError: `data` holds something else.
        """
        import tensorflow as tf

        songs = self.songs["train"]
        steps = self.steps_per_epoch(recipe)
        window = _window(recipe)
        longest = window or max(len(song) for song in songs) - 1
        lengths = sorted({n for n in recipe.padding or () if n < longest} | {longest})

        def batches() -> Iterator[tuple[np.ndarray, ...]]:
            for epoch in range(first_epoch, recipe.epochs):
                random = np.random.default_rng((seed, epoch))
                pieces = songs if window is None else _cut(songs, window, random)
                order = random.permutation(len(pieces))
                for rows in np.array_split(order, steps):
                    batch = [pieces[row] for row in rows]
                    needed = max(len(song) for song in batch) - 1
                    length = next(n for n in lengths if n >= needed)
                    x, y, mask = piano_roll.pad(batch, length)
                    yield x, y, mask.astype(np.float32)

        # A single length is static, which unrolled and compiled networks need.
        length = longest if len(lengths) == 1 else None
        frames = tf.TensorSpec((None, length, piano_roll.KEYS), tf.float32)
        mask = tf.TensorSpec((None, length), tf.float32)
        dataset = tf.data.Dataset.from_generator(batches, output_signature=(frames, frames, mask))
        return dataset.prefetch(2)

    def evaluate(self, model: "keras.Model", split: str, batch_size: int = 128) -> float:
        """Return the figure of a model that is compiled with `metrics()`.

        Args:
            model: The model.
            split: "train", "valid" or "test".
            batch_size: Songs a batch; the figure does not depend on it.
        """
        if split not in self._padded:
            x, y, mask = piano_roll.pad(self.songs[split])
            self._padded[split] = (x, y, mask.astype(np.float32))
        x, y, weights = self._padded[split]
        values = model.evaluate(
            x, y, sample_weight=weights, batch_size=batch_size, verbose=0, return_dict=True
        )
        return float(values[self.metric])

    def scores(self, model: "keras.Model", split: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the nats of each song of a split, and its predicted steps."""
        from snukeras.losses import frame_nll

        x, y, mask = piano_roll.pad(self.songs[split])
        nats = np.asarray(frame_nll(y, model.predict(x, batch_size=128, verbose=0)))
        return (nats * mask).sum(axis=1), mask.sum(axis=1).astype(np.float64)

    def measured_inputs(self) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Yield the songs of the test split in batches of like lengths, and their steps."""
        songs = sorted(self.songs["test"], key=len)
        for first in range(0, len(songs), 16):
            x, _, mask = piano_roll.pad(songs[first : first + 16])
            yield x, mask

    def _part(self) -> Part:
        songs = [song.astype(np.float32) for song in self.songs["test"][:_SONGS]]
        count = np.searchsorted(np.cumsum([len(song) for song in songs]), _STEPS, side="right")
        songs = songs[: max(1, int(count))]
        return Part(
            f"the first {len(songs)} songs of the test split of {self.title}",
            [song[None, :-1] for song in songs],
            [song[None, 1:] for song in songs],
            self.metric,
        )

    def typical_inputs(self) -> np.ndarray:
        """Return the songs of the training split, padded."""
        return piano_roll.pad(self.songs["train"])[0]

    def golden_inputs(self) -> list[np.ndarray]:
        """Return candidates for the golden input, each `(1, T, 88)`: the sample chorales."""
        _, rolls = samples.read()
        return [roll[np.newaxis].astype(np.float32) for roll in rolls]


def _window(recipe: Recipe) -> int | None:
    """Return the steps of a piece, None for whole songs."""
    data = recipe.data
    window = data.get("window")
    if set(data) - {"window"} or not (window is None or (isinstance(window, int) and window > 0)):
        raise ValueError(
            "`data` of a recipe for piano rolls may hold `window`, the steps of a piece, at least "
            f"1. Received: {data}"
        )
    return window


def _cut(
    songs: list[piano_roll.Roll], window: int, random: np.random.Generator
) -> list[piano_roll.Roll]:
    """Cut songs into pieces that overlap by a step, so that each step is predicted once."""
    pieces = []
    for song in songs:
        first = -int(random.integers(min(window, len(song) - 1)))
        for start in range(first, len(song) - 1, window):
            pieces.append(song[max(start, 0) : start + window + 1])
    return pieces


JSB_CHORALES = PianoRolls(
    "jsb_chorales",
    "JSB chorales",
    jsb_chorales.load_data,
    jsb_chorales.SOURCE.sha256,
    "none stated; Bach's music is in the public domain",
)
NOTTINGHAM = PianoRolls(
    "nottingham",
    "Nottingham folk tunes",
    nottingham.load_data,
    nottingham.SOURCE.sha256,
    "none stated",
)
