"""Spoken digits: say which digit it is."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from snukeras._files import JsonObject
from snukeras.datasets import spoken_digits
from snukeras.zoo.recipes import Recipe
from snukeras.zoo.tasks.classification import Classification, Samples
from snukeras.zoo.tasks.task import SPLITS

if TYPE_CHECKING:
    import keras

CLASSES = 10
LENGTH = spoken_digits.RATE  # a second; 20 of the 3,000 recordings are longer, and are cut

_DATA = {"speed": 0.0, "gain": 0.0, "shift": 0.0, "noise": 0.0, "tone": 0.0, "gap": 0.0}
# Frequencies in Hz between which the levels of `tone` are interpolated.
_TONES = (0, 250, 500, 1000, 1500, 2000, 2500, 3000, 4000)

# Formants of ten syllables at their start and at their end, in Hz.
_FORMANTS = (
    ((350, 1900), (500, 900)), ((400, 800), (650, 1200)), ((350, 1100), (300, 900)),
    ((450, 1300), (300, 2300)), ((550, 850), (480, 1100)), ((700, 1100), (350, 2000)),
    ((380, 2000), (420, 1900)), ((550, 1800), (500, 1500)), ((480, 2000), (350, 2200)),
    ((720, 1200), (400, 2100)),
)  # fmt: skip


@dataclass
class SpokenDigits(Classification):
    """Classify the recordings of the Free Spoken Digit Dataset.

    A network takes sound `(samples,)`, 8,000 a second, in [-1, 1), and puts out the probability of
    each of the ten digits; its layers make frames of it (`snukeras.layers.LogMel`). A recording is
    a second long: silence is added, and what is more is cut.

    `data` of a recipe may hold what training does to a recording, in its own way in each epoch:

    - `speed`: largest relative change of the speed, and of the pitch with it, e.g. 0.2: from
      1 / 1.2 to 1.2 times.
    - `gain`: largest change of the level in dB, either way.
    - `shift`: largest silence before it, in seconds.
    - `noise`: largest standard deviation of white noise; smaller ones, down to a hundredth, are as
      likely on a logarithmic scale.
    - `tone`: largest change of the level in dB, either way, by frequency: a smooth filter, as
      another voice, microphone or room has.
    - `gap`: largest silence that is written into it, in seconds, at any place.

    Figure: accuracy in percent.

    Args:
        held_out: None for the official split, or the speaker whose recordings are the test (see
            `snukeras.datasets.spoken_digits.load_data`).
    """

    held_out: str | None = None

    title = "Free Spoken Digit Dataset"
    data_sha256 = spoken_digits.CONTENTS_SHA256
    data_licence = "CC BY-SA 4.0 (Zohar Jackson and others)"
    tolerance = 0.7  # two of the 300 recordings
    measured_on = "recordings of the test split"
    intended = (
        "Research on networks of spiking and soft units and on their deployment in analog memory: "
        "it classifies a second of sound as one of ten English digits."
    )
    limits = (
        "The six speakers of the data set are in training and test alike; speakers it never heard "
        "are recognised worse (experiments/speakers). It gives a digit for any sound."
    )
    tags = ("audio-classification",)
    reads = ("data", "loss")

    def __post_init__(self) -> None:
        if self.held_out not in (None, *spoken_digits.SPEAKERS):
            raise ValueError(
                f"Argument `held_out` must be None or one of {', '.join(spoken_digits.SPEAKERS)}. "
                f"Received: held_out={self.held_out!r}"
            )
        self.name = "spoken_digits" + (f"_without_{self.held_out}" if self.held_out else "")

    @cached_property
    def recordings(self) -> dict[str, spoken_digits.Recordings]:
        """The recordings of each split; loaded once."""
        return dict(zip(SPLITS, self._load(), strict=True))

    def _load(self) -> spoken_digits.Splits:
        return spoken_digits.load_data(held_out=self.held_out)

    @cached_property
    def samples(self) -> Samples:
        """Sounds float32 (n, 8000) and one-hot digits float32 (n, 10) of each split."""
        return {
            split: (
                spoken_digits.pad(found.waves, LENGTH),
                np.eye(CLASSES, dtype="float32")[found.digits],
            )
            for split, found in self.recordings.items()
        }

    def loss(self, arguments: JsonObject) -> "keras.losses.Loss":
        """Return the cross-entropy, with the arguments that a recipe gives: `label_smoothing`."""
        import keras

        return keras.losses.CategoricalCrossentropy(**arguments)

    def example(self) -> tuple[str, ...]:
        """Return lines of Python for the cards, that measure and fine-tune `model`."""
        return (
            "from snukeras.zoo.tasks.speech import speak",
            "",
            "# Made-up syllables stand for your own sounds, (n, samples) in [-1, 1] at 8,000 Hz.",
            "x, y = np.stack([speak(digit) for digit in range(10)]), np.eye(10)",
            "model.compile(",
            '    keras.optimizers.Adam(1e-4), "categorical_crossentropy", metrics=["accuracy"]',
            ")",
            "model.evaluate(x, y)",
            "model.fit(x, y)                                       # fine-tune it",
        )

    def drawn(self, rows: np.ndarray, recipe: Recipe, random: np.random.Generator) -> np.ndarray:
        """Return training recordings, changed as `data` of the recipe says.

        Raises:
            ValueError: `data` holds something else, or a number below 0.
        """
        data = {**_DATA, **recipe.data}
        odd = set(data) - set(_DATA)
        if odd or not all(
            isinstance(v, int | float) and not isinstance(v, bool) and 0 <= v < math.inf
            for v in data.values()
        ):
            raise ValueError(
                f"`data` of a recipe for spoken digits may hold {', '.join(_DATA)}, numbers of at "
                f"least 0. Received: {recipe.data}"
            )
        waves = self.recordings["train"].waves
        batch = np.zeros((len(rows), LENGTH), np.float32)
        for row, number in zip(batch, rows, strict=True):
            _play(row, waves[number], data, random)
        return batch

    def measured_inputs(self) -> Iterator[tuple[np.ndarray, None]]:
        """Yield the first 100 recordings of the test split."""
        for first in range(0, 100, 50):
            yield self.samples["test"][0][first : first + 50], None

    def golden_inputs(self) -> list[np.ndarray]:
        """Return candidates for the golden input, `(1, 8000)`: syllables made by `speak`."""
        return [speak(digit)[None] for digit in range(CLASSES)]


def _play(
    row: np.ndarray, wave: np.ndarray, data: dict[str, float], random: np.random.Generator
) -> None:
    """Write a recording into a row of zeros, changed at random."""
    # All are drawn at all times, so that one setting does not change the draws of another.
    speed, gain, shift, level = random.uniform(size=4)
    factor = (1 + data["speed"]) ** (2 * speed - 1)
    if factor != 1:
        places = np.arange(0, len(wave) - 1, factor)
        wave = np.interp(places, np.arange(len(wave)), wave)
    start = min(int(shift * data["shift"] * spoken_digits.RATE), max(len(row) - len(wave), 0))
    wave = wave[: len(row) - start]
    if data["tone"]:
        levels = data["tone"] * random.uniform(-1, 1, len(_TONES))
        frequencies = np.fft.rfftfreq(len(wave), 1 / spoken_digits.RATE)
        filtered = np.fft.rfft(wave) * 10 ** (np.interp(frequencies, _TONES, levels) / 20)
        wave = np.fft.irfft(filtered, len(wave))
    if data["gap"]:
        place, share = random.uniform(size=2)
        length = min(int(share * data["gap"] * spoken_digits.RATE), len(wave))
        first = int(place * (len(wave) - length))
        wave = np.concatenate([wave[:first], np.zeros(length), wave[first + length :]])
    row[start : start + len(wave)] = wave * 10 ** (data["gain"] * (2 * gain - 1) / 20)
    if data["noise"]:
        deviation = data["noise"] * 10 ** (-2 * level)
        row += deviation * random.standard_normal(len(row), dtype=np.float32)


def speak(digit: int) -> np.ndarray:
    """Make a syllable, float32 `(8000,)`: a voice whose formants glide, a sound that is no data.

    It is 0.5 s long, with silence behind it; each digit has formants of its own.
    """
    times = np.arange(LENGTH // 2) / spoken_digits.RATE
    way = times / times[-1]
    pitch = 130 - 30 * way
    phase = 2 * np.pi * np.cumsum(pitch) / spoken_digits.RATE
    voice = np.zeros_like(times)
    for harmonic in range(1, 25):
        strength = np.full_like(times, 0.01)
        for start, end in zip(*_FORMANTS[digit], strict=True):
            formant = start + (end - start) * way
            strength += np.exp(-((harmonic * pitch - formant) ** 2) / (2 * 120**2))
        voice += strength * np.sin(harmonic * phase) / math.sqrt(harmonic)
    sound = np.zeros(LENGTH)
    sound[: len(times)] = voice * np.sin(np.pi * way)
    # Soft noise: without it rounding would decide the bands of nearly no power.
    sound += 0.01 * np.random.default_rng(digit).standard_normal(LENGTH)
    return (0.3 * sound / np.abs(sound).max()).astype("float32")


SPOKEN_DIGITS = SpokenDigits()
