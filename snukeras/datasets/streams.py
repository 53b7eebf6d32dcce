"""Correlated streams: groups of spike trains that share a hidden process."""

from collections.abc import Sequence

import numpy as np

from snukeras import _arguments


def correlated_streams(
    groups: Sequence[int],
    correlation: float,
    uncorrelated: int = 0,
    rate: float = 0.05,
    steps: int = 1000,
    seed: int | None = None,
) -> np.ndarray:
    """Draw the spikes of groups of correlated streams, and of independent streams.

    Each group g has a reference process of independent spikes X_g at the rate p; its streams have
    P(X_i = 1 | X_g = 1) = p + sqrt(c) (1 - p) and P(X_i = 1 | X_g = 0) = p (1 - sqrt(c)). So every
    stream spikes at the rate p, and any two of one group have the correlation coefficient c
    (Sebastian et al. 2017, doi 10.1038/s41467-017-01481-9).

    Args:
        groups: Number of streams of each group.
        correlation: c, 0 to 1.
        uncorrelated: Number of independent streams, which come last.
        rate: p, spikes a step, above 0 and below 1.
        steps: Number of steps.
        seed: Of the generator; None for a random one.

    Returns:
        float32 array (steps, sum(groups) + uncorrelated) of 0 and 1.

    Raises:
        ValueError: A number out of its range.
    """
    _arguments.number("correlation", correlation, minimum=0.0, maximum=1.0)
    _arguments.number("rate", rate, above=0.0, below=1.0)
    if min([*groups, uncorrelated, steps], default=0) < 0:
        raise ValueError(
            "`groups`, `uncorrelated` and `steps` must not be negative. Received: "
            f"{groups!r}, {uncorrelated!r}, {steps!r}"
        )
    random = np.random.default_rng(seed)
    reference = random.random((steps, len(groups))) < rate
    root = np.sqrt(correlation)
    chance = np.where(reference, rate + root * (1.0 - rate), rate * (1.0 - root))
    chance = np.repeat(chance, groups, axis=1)
    chance = np.concatenate([chance, np.full((steps, uncorrelated), rate)], axis=1)
    return (random.random(chance.shape) < chance).astype("float32")
