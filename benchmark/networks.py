"""The networks that all contestants train and run, their data, and the work that a step must do."""

import itertools
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

WORKS = ("train", "inference")


@dataclass(frozen=True)
class Network:
    """A stack of recurrent layers of the contestant's units, and a dense output at every step.

    Attributes:
        name: Its name in tables.
        sizes: Inputs, units of each recurrent layer, outputs.
        batch: Samples in a batch.
        steps: Time steps of a sample.
        labels: True for one class per sample (softmax cross-entropy of the outputs' mean over
            time), False for independent binary targets at each step (sigmoid cross-entropy).
    """

    name: str
    sizes: tuple[int, ...]
    batch: int
    steps: int
    labels: bool

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """Return spikes (batch, steps, inputs), and labels (batch,) or targets, to learn by heart.

        Binary targets are the spikes of the step after, shape (batch, steps, outputs); the inputs
        are held for some ten steps each, so that there is something to predict.
        """
        rng = np.random.default_rng(0)
        inputs, outputs = self.sizes[0], self.sizes[-1]
        if self.labels:
            prototypes = 0.4 * rng.random((outputs, inputs)) ** 2
            y = rng.integers(0, outputs, self.batch)
            x = rng.random((self.batch, self.steps, inputs)) < prototypes[y][:, None]
            return x.astype("float32"), y.astype("int32")
        roll = np.zeros((self.batch, self.steps + 1, max(inputs, outputs)), "float32")
        for t in range(self.steps + 1):
            struck = rng.random(roll[:, t].shape) < 0.05
            held = rng.random(roll[:, t].shape) < 0.9
            roll[:, t] = np.where(held & (t > 0), roll[:, t - 1], struck)
        return roll[:, :-1, :inputs].copy(), roll[:, 1:, :outputs].copy()

    def products(self, work: str, recurrent: bool) -> list[tuple[int, int, int, int]]:
        """Return the matrix products that a step of spiking units cannot do without.

        The input product of a layer takes all steps at once. Training adds the gradient of each
        kernel and, but for the first layer, that of each input. The recurrent product and its
        gradient in y have to go step by step; that of the recurrent kernel takes all at once.

        Args:
            work: "train" or "inference".
            recurrent: Whether the layers have a recurrent kernel.

        Returns:
            Tuples (rows, inner, columns, times): times products (rows, inner) @ (inner, columns).
        """
        rows = self.batch * self.steps
        found = []
        for i, (n, m) in enumerate(itertools.pairwise(self.sizes)):
            found.append((rows, n, m, 1))
            if work == "train":
                found.append((n, rows, m, 1))
                if i > 0:
                    found.append((rows, m, n, 1))
            if recurrent and i < len(self.sizes) - 2:
                found.append((self.batch, m, m, self.steps))
                if work == "train":
                    found += [(self.batch, m, m, self.steps), (m, rows, m, 1)]
        return found

    def flops(self, work: str, recurrent: bool) -> int:
        """Return the floating-point operations of these products, two per multiplication."""
        return sum(2 * r * i * c * times for r, i, c, times in self.products(work, recurrent))

    def to_json(self) -> dict[str, Any]:
        """Return the fields, for a request to a worker and for results."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Network":
        """Make the network that `to_json` described."""
        return cls(**{**content, "sizes": tuple(content["sizes"])})


NETWORKS = (
    Network("88-150-88", (88, 150, 88), batch=64, steps=100, labels=False),
    Network("784-256-256-10", (784, 256, 256, 10), batch=128, steps=50, labels=True),
)
# What a GPU is measured with beside them: small networks leave most of it idle.
LARGE = Network("88-1024-88", (88, 1024, 88), batch=256, steps=1000, labels=False)


def tiny(network: Network) -> Network:
    """Return the network in miniature, for smoke tests."""
    return replace(network, sizes=(*(8 for _ in network.sizes[:-1]), 5), batch=4, steps=6)
