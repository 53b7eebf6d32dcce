"""Images and streams that all-memristive networks learn without labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from snukeras.datasets.streams import correlated_streams

SIDE = 10
PRESENTATION = 10  # steps
CHUNK = 100  # steps between two looks at the weights
TESTS = 40  # presentations of each pattern
RATE = 0.05  # spikes a step of each stream


def pattern_images() -> np.ndarray:
    """Draw four images (4, 10, 10) of 20 pixels: two bars across, one down, one aslant."""
    images = np.zeros((4, SIDE, SIDE), "float32")
    images[0, 1:3] = images[1, 6:8] = 1
    images[2, :, 3:5] = 1
    index = np.arange(SIDE)
    images[3, index, index] = images[3, index, (index + 1) % SIDE] = 1
    return images


def square_images() -> np.ndarray:
    """Draw three squares (3, 10, 10) of 9, 25 and 49 pixels, each inside the next."""
    images = np.zeros((3, SIDE, SIDE), "float32")
    for image, (low, high) in zip(images, ((4, 7), (3, 8), (2, 9)), strict=True):
        image[low:high, low:high] = 1
    return images


def noisy(images: np.ndarray, noise: float, random: np.random.Generator) -> np.ndarray:
    """Turn each pixel that is on off with probability `noise`, and as many others on."""
    on = images.sum(axis=-1, keepdims=True)
    chance = np.where(images > 0, 1.0 - noise, noise * on / (images.shape[-1] - on))
    return (random.random(images.shape) < chance).astype("float32")


def ascending(potentials: np.ndarray, share: float) -> list[float]:
    """Return ascending levels for things with these potentials: a share above the thing before.

    Things of one size are all of one level.
    """
    below = np.concatenate([[0.0], potentials[:-1]])
    if potentials.min() == potentials.max():
        below[:] = 0.0
    return [float(level) for level in below + share * (potentials - below)]


class Images:
    """Presentations of noisy images in random order, PRESENTATION steps each."""

    presentation = PRESENTATION
    window = 3  # steps that a write portion lasts: a pixel lost for a step still counts

    def __init__(self, images: np.ndarray, noise: float):
        self.sets = images.reshape(len(images), -1)
        self.noise = noise

    def training(self, steps: int, seed: int) -> np.ndarray:
        """Return presentations to learn from, (presentations, PRESENTATION, pixels)."""
        random = np.random.default_rng([seed, 1])
        order = random.integers(0, len(self.sets), steps // PRESENTATION)
        return noisy(np.repeat(self.sets[order][:, None], PRESENTATION, 1), self.noise, random)

    def test(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return new presentations, and which image each shows."""
        random = np.random.default_rng([seed, 2])
        shown = np.repeat(np.arange(len(self.sets)), TESTS)
        steps = np.repeat(self.sets[shown][:, None], PRESENTATION, 1)
        return noisy(steps, self.noise, random), shown

    def levels(self, share: float, conductance: float) -> list[float]:
        """Return a level in uS for each image; devices conduct `conductance` at the start."""
        return ascending(self.sets.sum(axis=1) * conductance, share)


class Streams:
    """Groups of correlated streams among as many uncorrelated ones."""

    presentation = CHUNK
    window = 1

    def __init__(self, sizes: Sequence[int], correlation: float):
        self.sizes, self.correlation = [*sizes], correlation
        groups = np.repeat(np.arange(len(sizes)), sizes)
        self.sets = np.zeros((len(sizes), 2 * len(groups)), "float32")
        self.sets[groups, np.arange(len(groups))] = 1
        # A stream's chance of a spike when the reference process of its group spikes, and when not.
        root = np.sqrt(correlation)
        self.joined, self.apart = RATE + root * (1.0 - RATE), RATE * (1.0 - root)

    def training(self, steps: int, seed: int) -> np.ndarray:
        """Return spikes to learn from, (chunks, CHUNK, streams)."""
        spikes = correlated_streams(
            self.sizes, self.correlation, sum(self.sizes), RATE, steps, seed
        )
        return spikes.reshape(-1, CHUNK, spikes.shape[1])

    def test(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return moments at which the reference process of one group spikes and no other does."""
        random = np.random.default_rng([seed, 2])
        shown = np.repeat(np.arange(len(self.sets)), TESTS)
        correlated = self.sets.sum(axis=0) > 0
        chance = np.where(correlated, self.apart, RATE)
        chance = np.where(self.sets[shown] > 0, self.joined, chance)
        # Each moment again and again, since a neuron needs several to fire.
        chance = np.repeat(chance[:, None], PRESENTATION, 1)
        return (random.random(chance.shape) < chance).astype("float32"), shown

    def levels(self, share: float, conductance: float) -> list[float]:
        """Return a level in uS for each group; devices conduct `conductance` at the start."""
        # size * joined streams of a group spike at a time.
        return ascending(self.sets.sum(axis=1) * self.joined * conductance, share)


_STREAMS: list[dict[str, Any]] = [
    {"sizes": sizes, "correlation": correlation}
    for sizes, correlations in (
        ([50, 50], (0.2, 0.4, 0.6, 0.9)),
        ([30, 70], (0.2, 0.4, 0.6, 0.9)),
        ([50, 50, 50], (0.4, 0.9)),
        ([25, 50, 75], (0.4, 0.9)),
    )
    for correlation in correlations
]


TASKS: dict[str, dict[str, Any]] = {
    "patterns": {
        "make": lambda noise: Images(pattern_images(), noise),
        "conditions": [{"noise": noise} for noise in (0.0, 0.1, 0.2, 0.3)],
        "searched": [{"noise": 0.2}],
        "steps": 4000,
        "level": (0.4, 0.55, 0.7),
        "depression": (0.1, 0.3, 1.0),
    },
    "overlap": {
        "make": lambda noise: Images(square_images(), noise),
        "conditions": [{"noise": noise} for noise in (0.0, 0.1, 0.2)],
        "searched": [{"noise": 0.1}],
        "steps": 4000,
        "level": (0.4, 0.55, 0.7),
        "depression": (0.1, 0.3, 1.0),
    },
    "streams": {
        "make": Streams,
        "conditions": _STREAMS,
        "searched": _STREAMS,
        "controlled": [s for s in _STREAMS if len(s["sizes"]) == 2 and s["correlation"] == 0.6],
        "steps": 12000,
        "level": (0.4, 0.5, 0.6),
        "depression": (0.05, 0.1, 0.2, 0.4),
    },
}
