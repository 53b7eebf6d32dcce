"""What a step of a network costs: spikes and operations, counted on data.

A matrix of weights that meets a dense input costs a multiply-accumulate (MAC) for each weight.
Where the input is mostly zeros, only the rows of the others are added up; and where it consists of
zeros and ones (spikes, a piano roll), nothing is multiplied: an operation is then a mere addition.
Counted are the weights of matrices and convolutions, not what is element-wise (decay, gates,
biases); looking up a row of an embedding costs nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras


@dataclass
class _Matrix:
    """A kernel, what feeds it, and what was counted of it.

    Attributes:
        name: Layer and role, "snu/kernel".
        weights: Number of weights.
        rank: Number of axes: 2 for a matrix, more for a convolution.
        uses: How often it was applied.
        active, elements: Inputs that were not zero, and all.
        binary: Whether all inputs were zeros and ones.
    """

    name: str
    weights: int
    rank: int
    uses: int = 0
    active: int = 0
    elements: int = 0
    binary: bool = True

    def meets(self, inputs: np.ndarray, elements: int, uses: int) -> None:
        """Count inputs; `elements` may be more than there are, zeros at the first step."""
        self.uses += uses
        self.active += int(np.count_nonzero(inputs))
        self.elements += elements
        self.binary &= bool(np.isin(inputs, (0.0, 1.0)).all())


def counted(
    model: "keras.Model", batches: Iterable[tuple[np.ndarray, np.ndarray | None]]
) -> dict[str, Any]:
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
    import keras

    from snukeras.layers import TiedEmbedding

    layers: list[keras.Layer] = []
    taps: list[Any] = []
    projections: list[_Matrix] = []
    matrices: dict[str, list[_Matrix]] = {}
    for layer in model.layers:
        own = [
            _Matrix(f"{layer.name}/{weight.name}", int(np.prod(weight.shape)), len(weight.shape))
            for weight in layer.weights
            if len(weight.shape) > 1 and "bias" not in weight.name  # that of GRU has two rows
        ]
        if hasattr(layer, "embeddings"):
            # A table is read; called again as the projection onto its words it is a matrix.
            projections += own if isinstance(layer, TiedEmbedding) else []
        elif own:
            layers.append(layer)
            taps += [layer.input, layer.output]
            matrices[layer.name] = own
    inputs = model.inputs[0] if len(model.inputs) == 1 else model.inputs
    probe = keras.Model(inputs, [*taps, model.outputs[0]])
    samples = steps = 0
    spikes: dict[str, int | None] = {}  # None: puts out more than zeros and ones
    for given, mask in batches:
        *values, output = (np.asarray(value) for value in probe(given, training=False))
        samples += len(given)
        if mask is None:
            lengths = [
                value.shape[1]
                for layer, value in zip(layers, values[::2], strict=True)
                if isinstance(layer, keras.layers.RNN)
            ]
            mask = np.ones((len(given), lengths[0] if lengths else 1), bool)
        steps += int(mask.sum())
        for layer, entering, leaving in zip(layers, values[::2], values[1::2], strict=True):
            x, y = _masked(entering, mask), _masked(leaving, mask)
            for matrix in matrices[layer.name]:
                if not isinstance(layer, keras.layers.RNN):
                    matrix.meets(x, x.size, y.size // y.shape[-1])
                    continue
                places = int(np.prod(leaving.shape[-matrix.rank + 1 : -1]))
                if "recurrent" in matrix.name:
                    # The first step has no output before it.
                    before = _masked(leaving[:, :-1], mask[:, 1:])
                    matrix.meets(before, len(x) * int(np.prod(y.shape[1:])), len(x) * places)
                else:
                    matrix.meets(x, x.size, len(x) * places)
            if isinstance(layer, keras.layers.RNN):
                so_far = spikes.get(layer.name, 0)
                if so_far is not None:
                    binary = np.isin(y, (0.0, 1.0)).all()
                    spikes[layer.name] = so_far + int(y.sum()) if binary else None
        for matrix in projections:
            uses = output.size // output.shape[-1]
            matrix.meets(values[-1], uses * (matrix.weights // output.shape[-1]), uses)
    every = [*(matrix for own in matrices.values() for matrix in own), *projections]
    spiking = [count for count in spikes.values() if count is not None]
    return {
        "samples": samples,
        "steps_per_sample": round(steps / samples, 3),
        "spikes_per_sample": round(sum(spiking) / samples, 3) if spiking else None,
        "macs_per_step": round(sum(m.weights * m.uses for m in every) / steps),
        "additions_per_step": round(sum(_driven(m) for m in every if m.binary) / steps),
        "multiplications_per_step": round(sum(_driven(m) for m in every if not m.binary) / steps),
        "pcm_devices": 2 * sum(matrix.weights for matrix in every),
        "matrices": [
            {
                "name": matrix.name,
                "weights": matrix.weights,
                "macs_per_step": round(matrix.weights * matrix.uses / steps, 3),
                "active_inputs": round(matrix.active / max(matrix.elements, 1), 6),
                "binary": matrix.binary,
            }
            for matrix in every
        ],
    }


def _driven(matrix: _Matrix) -> float:
    """Operations that are left when zeros are skipped."""
    return matrix.weights * matrix.uses * matrix.active / max(matrix.elements, 1)


def _masked(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the steps that count, all samples one after the other; else the samples."""
    if values.ndim > 2 and values.shape[1] == mask.shape[1]:
        return values[mask]
    return values
