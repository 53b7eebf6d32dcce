"""Texts as numbers of words."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

END = "<eos>"

Tokens = NDArray[np.int32]


class Splits(NamedTuple):
    """The splits of a corpus, int32 arrays `(tokens,)`."""

    train: Tokens
    valid: Tokens
    test: Tokens


def split(text: str) -> list[str]:
    """Return the words of a text; each line ends with the word `<eos>`."""
    return text.replace("\n", f" {END} ").split()


def number(splits: Sequence[Sequence[str]]) -> tuple[Splits, list[str]]:
    """Number the words of three splits, the most frequent of the first one first.

    Words that are equally frequent go by name.
    """
    counts = Counter(splits[0])
    vocabulary = sorted(counts, key=lambda word: (-counts[word], word))
    numbers = {word: number for number, word in enumerate(vocabulary)}
    train, valid, test = (
        np.array([numbers[word] for word in words], dtype=np.int32) for words in splits
    )
    return Splits(train, valid, test), vocabulary
