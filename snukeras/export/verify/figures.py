"""The figures that outputs and targets can be measured by."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

Arrays = Sequence[np.ndarray]
_SMALLEST = 1e-7


def frame_nll(probabilities: Arrays, targets: Arrays) -> float:
    """Return nats per step: sigmoid cross-entropy summed over keys, mean over all steps."""
    total, steps = 0.0, 0
    for p, y in zip(probabilities, targets, strict=True):
        p = np.clip(np.asarray(p, "float64"), _SMALLEST, 1 - _SMALLEST)
        total -= float(np.sum(y * np.log(p) + (1 - y) * np.log1p(-p)))
        steps += int(np.prod(p.shape[:-1]))
    return total / max(steps, 1)


def cross_entropy(probabilities: Arrays, targets: Arrays) -> float:
    """Return nats per decision: minus the logarithm of the right class's probability, mean."""
    right = [
        np.take_along_axis(np.asarray(p, "float64"), np.asarray(y)[..., None].astype("int64"), -1)
        for p, y in zip(probabilities, targets, strict=True)
    ]
    return float(
        -np.mean(np.concatenate([np.log(np.maximum(r, _SMALLEST)).ravel() for r in right]))
    )


def perplexity(logits: Arrays, targets: Arrays) -> float:
    """Return exp of the mean negative log-likelihood of the right class, from logits."""
    nats = []
    for z, y in zip(logits, targets, strict=True):
        z = np.asarray(z, "float64")
        z = z - z.max(axis=-1, keepdims=True)
        right = np.take_along_axis(z, np.asarray(y)[..., None].astype("int64"), -1)[..., 0]
        nats.append((np.log(np.exp(z).sum(axis=-1)) - right).ravel())
    return float(np.exp(np.mean(np.concatenate(nats))))


def accuracy(outputs: Arrays, targets: Arrays) -> float:
    """Return the percentage of decisions whose largest output is the right class."""
    hits = [(p.argmax(-1) == np.asarray(y)).ravel() for p, y in zip(outputs, targets, strict=True)]
    return float(100.0 * np.mean(np.concatenate(hits)))


@dataclasses.dataclass(frozen=True)
class Metric:
    """A figure: how it is called, what it is measured in, which way is better.

    Attributes:
        title: Name in reports.
        unit: Its unit.
        lower_is_better: Whether less is better.
        function: Takes outputs and targets, both by batch.
        classes: Whether targets are numbers of classes, one for each output vector; else they
            have the shape of the outputs.
        bounded: Whether outputs have to lie in [0, 1].
    """

    title: str
    unit: str
    lower_is_better: bool
    function: Callable[[Arrays, Arrays], float]
    classes: bool
    bounded: bool = True


METRICS = {
    "frame_nll": Metric("negative log-likelihood", "nats per step", True, frame_nll, False),
    "cross_entropy": Metric("cross-entropy", "nats", True, cross_entropy, True),
    "perplexity": Metric("perplexity", "per word", True, perplexity, True, bounded=False),
    "accuracy": Metric("accuracy", "%", False, accuracy, True, bounded=False),
}
