"""GRAPES in a deep network: at which learning rates it trains.

    python -m experiments.grapes.depth

Modulations compound from layer to layer, by some 1.8 each at the start. Ten hidden layers of ReLU
units are trained on MNIST for an epoch of plain SGD, at several learning rates, plainly and with
GRAPES, with and without propagated factors.
"""

import argparse
import functools
import sys
from pathlib import Path
from typing import Any

import numpy as np

from experiments import reporting
from experiments.grapes import training
from experiments.grapes.training import BATCH, RESULTS_FOLDER
from snukeras import _files

HIDDEN = 10
UNITS = 128
RATES = (0.0001, 0.001, 0.01, 0.1)
METHODS = {"plain": None, "grapes": True, "grapes, not propagated": False}
SEEDS = range(3)
_FILE = "depth.json"


def measure(method: str, rate: float, seed: int, images: int | None = None) -> dict[str, Any]:
    """Train one network; return its test accuracy in percent and its factors at the start.

    Args:
        method: One of METHODS.
        rate: Learning rate.
        seed: Of weights and batches.
        images: Of each set, to try something out. Default: all.
    """
    import keras

    from snukeras.optimizers import GRAPES, with_grapes

    keras.utils.set_random_seed(seed)
    data = training.mnist_sets(images)
    arguments = {"use_bias": False, "kernel_initializer": "he_uniform"}
    hidden = [keras.layers.Dense(UNITS, "relu", **arguments) for _ in range(HIDDEN)]
    output = keras.layers.Dense(10, "softmax", **arguments)
    model = keras.Sequential([keras.Input((784,)), *hidden, output])
    propagate = METHODS[method]
    if propagate is not None:
        model = with_grapes(model, propagate=propagate)
    means = [
        float(np.mean(layer.modulation())) for layer in model.layers if isinstance(layer, GRAPES)
    ]
    x, y = data["train"]
    model.compile(
        keras.optimizers.SGD(rate),
        "categorical_crossentropy",
        jit_compile=False,
        steps_per_execution=min(100, len(x) // BATCH),
    )
    order = np.random.default_rng(seed).permutation(len(x))[: len(x) // BATCH * BATCH]
    model.fit(x[order], y[order], batch_size=BATCH, shuffle=False, verbose=0)
    # A network without values says nothing: argmax of NaN is the first class.
    return {
        "test": round(100 * training.accuracy_of(model, data["test"]), 3),
        "finite": all(bool(np.isfinite(w).all()) for w in model.get_weights()),
        "factor": round(float(np.prod(means)), 1) if propagate else 1.0,
    }


def table(root: Path | str | None = None) -> str:
    """Return the accuracies by learning rate as Markdown."""
    runs = _files.read_json(reporting.folder(RESULTS_FOLDER, root) / _FILE)["runs"]
    lines = [f"| learning rate | {' | '.join(METHODS)} |", "|---|" + "---|" * len(METHODS)]
    for rate in RATES:
        cells = []
        for method in METHODS:
            found = [run for run in runs if run["method"] == method and run["rate"] == rate]
            lost = sum(not run["finite"] for run in found)
            text = reporting.spread([run["test"] for run in found])
            cells.append(text + (f", {lost} of {len(found)} without values" if lost else ""))
        lines.append(f"| {rate:g} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


@reporting.reported
@reporting.on_workers
def main(argv: list[str] | None = None) -> int:
    """Measure what is missing; 0 if all went well."""
    parser = argparse.ArgumentParser(prog="python -m experiments.grapes.depth")
    parser.add_argument("--results", type=Path, default=reporting.folder(RESULTS_FOLDER))
    parser.add_argument("--seeds", type=int, nargs="+", default=[*SEEDS])
    parser.add_argument("--images", type=int, help="of each set, to try something out")
    given = parser.parse_args(argv)
    cases = [
        {"method": method, "rate": rate, "seed": seed}
        for seed in given.seeds
        for rate in RATES
        for method in METHODS
    ]
    reporting.gather(given.results / _FILE, cases, functools.partial(measure, images=given.images))
    return 0


if __name__ == "__main__":
    sys.exit(main())
