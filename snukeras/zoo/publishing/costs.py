"""What a step of a network costs: spikes and operations, counted on data.

A matrix of weights that meets a dense input costs a multiply-accumulate (MAC) for each weight.
Where the input is mostly zeros, only the rows of the others are added up; and where it consists of
zeros and ones (spikes, a piano roll), nothing is multiplied: an operation is then a mere addition.
Counted are the weights of matrices and convolutions, not what is element-wise (decay, gates,
biases); looking up a row of an embedding costs nothing.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from snukeras.network.matrices import Matrix, matrices
from snukeras.zoo.contents import Costs

if TYPE_CHECKING:
    import keras


@dataclass
class _Use:
    """What was counted of a matrix.

    Attributes:
        matrix: The matrix.
        products: How often vectors met it.
        active, elements: Inputs that were not zero, and all.
        binary: Whether all inputs were zeros and ones.
    """

    matrix: Matrix
    products: int = 0
    active: int = 0
    elements: int = 0
    binary: bool = True

    @property
    def weights(self) -> int:
        """Number of weights."""
        return math.prod(self.matrix.shape)

    def meets(self, inputs: np.ndarray, elements: int, products: int) -> None:
        """Count a batch.

        Args:
            inputs: Its inputs.
            elements: How many inputs there are with the zeros of the first step, which `inputs`
                may leave out.
            products: How many vectors met the matrix.
        """
        self.products += products
        self.active += int(np.count_nonzero(inputs))
        self.elements += elements
        self.binary &= bool(np.isin(inputs, (0.0, 1.0)).all())

    def operations(self) -> float:
        """Return the operations that are left when zeros are skipped."""
        return self.weights * self.products * self.active / max(self.elements, 1)


class _Counter:
    """Counts what the layers of a network do on batches of data."""

    def __init__(self, model: "keras.Model") -> None:
        import keras

        from snukeras.layers import TiedEmbedding

        self.layers: list[keras.Layer] = []
        self.uses: dict[str, list[_Use]] = {}
        self.projections: list[_Use] = []
        self.samples = self.steps = 0
        self.spikes: dict[str, int | None] = {}  # None: puts out more than zeros and ones
        taps: list[keras.KerasTensor] = []
        for layer in model.layers:
            uses = [_Use(matrix) for matrix in matrices(layer)]
            if isinstance(layer, TiedEmbedding):
                # A table is read; called again as the projection onto its words it is a matrix.
                self.projections += uses
            elif uses:
                self.layers.append(layer)
                taps += [layer.input, layer.output]
                self.uses[layer.name] = uses
        inputs = model.inputs[0] if len(model.inputs) == 1 else model.inputs
        self._probe = keras.Model(inputs, [*taps, model.outputs[0]])

    def add(self, given: np.ndarray, mask: np.ndarray | None) -> None:
        """Count a batch; without a mask all steps count."""
        *values, output = (np.asarray(value) for value in self._probe(given, training=False))
        pairs = [*zip(self.layers, values[::2], values[1::2], strict=True)]
        if mask is None:
            lengths = [entering.shape[1] for layer, entering, _ in pairs if _recurrent(layer)]
            mask = np.ones((len(given), lengths[0] if lengths else 1), bool)
        self.samples += len(given)
        self.steps += int(mask.sum())
        for layer, entering, leaving in pairs:
            self._add_layer(layer, entering, leaving, mask)
        for use in self.projections:
            products = output.size // output.shape[-1]
            use.meets(values[-1], products * (use.weights // output.shape[-1]), products)

    def _add_layer(
        self, layer: "keras.Layer", entering: np.ndarray, leaving: np.ndarray, mask: np.ndarray
    ) -> None:
        x, y = _masked(entering, mask), _masked(leaving, mask)
        if not _recurrent(layer):
            for use in self.uses[layer.name]:
                use.meets(x, x.size, use.matrix.products(x.size, y.size))
            return
        for use in self.uses[layer.name]:
            # The output of all steps, also where only the last one leaves the layer.
            outputs = len(x) * int(np.prod(y.shape[1:]))
            products = use.matrix.products(x.size, outputs, len(x))
            if "recurrent" in use.matrix.role:
                # The first step has no output before it.
                use.meets(_masked(leaving[:, :-1], mask[:, 1:]), outputs, products)
            else:
                use.meets(x, x.size, products)
        so_far = self.spikes.get(layer.name, 0)
        if so_far is not None:
            binary = np.isin(y, (0.0, 1.0)).all()
            self.spikes[layer.name] = so_far + int(y.sum()) if binary else None


def counted(model: "keras.Model", batches: Iterable[tuple[np.ndarray, np.ndarray | None]]) -> Costs:
    """Count the spikes and operations of a network.

    Args:
        model: Sequential or functional model of one input.
        batches: Inputs `(batch, steps, ...)`, and bool masks `(batch, steps)` of the steps that
            count, or None where all do. Images that the network codes as spikes `(batch, ...)`;
            the steps are then those of its units. Without recurrent layers a sample is one step.

    Returns:
        `samples`, `steps_per_sample`, `spikes_per_sample` (None without units that spike),
        `macs_per_step` of dense arithmetic, `additions_per_step` and `multiplications_per_step` of
        arithmetic that skips zeros, `pcm_devices` (two a weight), and the `matrices`.
    """
    counter = _Counter(model)
    for given, mask in batches:
        counter.add(given, mask)
    steps, samples = counter.steps, counter.samples
    every = [*(use for uses in counter.uses.values() for use in uses), *counter.projections]
    spiking = [count for count in counter.spikes.values() if count is not None]
    return {
        "samples": samples,
        "steps_per_sample": round(steps / samples, 3),
        "spikes_per_sample": round(sum(spiking) / samples, 3) if spiking else None,
        "macs_per_step": round(sum(use.weights * use.products for use in every) / steps),
        "additions_per_step": round(sum(u.operations() for u in every if u.binary) / steps),
        "multiplications_per_step": round(
            sum(u.operations() for u in every if not u.binary) / steps
        ),
        "pcm_devices": 2 * sum(use.weights for use in every),
        "matrices": [
            {
                "name": use.matrix.name,
                "rows": use.matrix.shape[0],
                "columns": use.matrix.shape[1],
                "weights": use.weights,
                "macs_per_step": round(use.weights * use.products / steps, 3),
                "active_inputs": round(use.active / max(use.elements, 1), 6),
                "binary": use.binary,
            }
            for use in every
        ],
    }


def _recurrent(layer: "keras.Layer") -> bool:
    import keras

    return isinstance(layer, keras.layers.RNN)


def _masked(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the steps that count, all samples one after the other; else the samples."""
    if values.ndim > 2 and values.shape[1] == mask.shape[1]:
        return values[mask]
    return values
