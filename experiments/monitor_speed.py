"""What it costs to watch spikes: steps of training with SpikeMonitor, and traces.

    python -m experiments.monitor_speed --output experiments/results/monitor_speed.json

A network of 784-256-256-10, batches of 128, 50 time steps. The two sides of a comparison take turns
in one run, and the median over the turns of their ratio counts. Measure with idle processors.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments import reporting
from experiments.pcm_speed import Fit
from snukeras import _files
from snukeras.zoo import training

if TYPE_CHECKING:
    import keras

FORMAT = 1
RESULTS = "monitor_speed.json"
SIZES = (784, 256, 256, 10)


def experiment(
    steps: int = 20,
    turns: int = 15,
    sizes: tuple[int, ...] = SIZES,
    batch: int = 128,
    time_steps: int = 50,
) -> dict[str, Any]:
    """Measure training with and without SpikeMonitor, and a trace beside the bare call.

    Args:
        steps: Training steps of a turn.
        turns: Turns of each side.
        sizes: Inputs, units of each hidden layer of SNUs, outputs.
        batch: Samples in a batch, and of the trace.
        time_steps: Steps of a sample.

    Returns:
        The network, the versions, and for "monitor" and "trace": median seconds of both sides, and
        the `ratios` of the turns with their median.
    """
    import snukeras
    from snukeras.callbacks import SpikeMonitor

    random = np.random.default_rng(0)
    x = (random.random((batch, time_steps, sizes[0])) < 0.1).astype("float32")
    y = random.integers(0, sizes[-1], batch)
    plain = Fit(_network(sizes, time_steps), x, y, steps)
    watched = Fit(_network(sizes, time_steps), x, y, steps, [SpikeMonitor(warn=False)])
    model = _network(sizes, time_steps)
    return {
        "format": FORMAT,
        "network": "-".join(map(str, sizes)),
        "batch": batch,
        "time_steps": time_steps,
        "monitor": _compare(plain.turn, watched.turn, turns),
        "trace": _compare(
            lambda: np.asarray(model(x, training=False)),
            lambda: snukeras.trace(model, x, batch_size=batch),
            turns,
        ),
        "versions": training.versions(),
    }


def _network(sizes: tuple[int, ...], time_steps: int) -> "keras.Model":
    import keras

    from snukeras.layers import SNU

    keras.utils.set_random_seed(0)
    *hidden, outputs = sizes[1:]
    made = keras.Sequential(
        [
            keras.Input((time_steps, sizes[0])),
            *[SNU(units, return_sequences=True) for units in hidden],
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(outputs),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile(keras.optimizers.Adam(1e-3), loss)
    return made


def _compare(
    plain: Callable[[], object], watched: Callable[[], object], turns: int
) -> dict[str, Any]:
    """Let both sides take turns, each first as often as the other."""
    seconds: dict[str, list[float]] = {"plain": [], "watched": []}
    sides = {"plain": plain, "watched": watched}
    for turn in range(turns + 1):
        for name in sorted(sides, reverse=turn % 2 == 1):
            begin = time.perf_counter()
            sides[name]()
            seconds[name].append(time.perf_counter() - begin)
    # The first turn warms caches up.
    timed = {name: np.array(values[1:]) for name, values in seconds.items()}
    ratios = timed["watched"] / timed["plain"]
    return {
        "ratio": round(float(np.median(ratios)), 4),
        "ratios": [round(float(ratio), 4) for ratio in ratios],
        **{name: float(np.median(values)) for name, values in timed.items()},
    }


def table(root: Path | str | None = None) -> str:
    """Return the results as Markdown."""
    results = _files.read_json(reporting.folder(RESULTS, root))
    lines = [f"| {results['network']} | times without | lowest and highest turn |", "|---|---|---|"]
    words = {"monitor": "training with SpikeMonitor", "trace": "trace, beside the bare call"}
    for part, what in words.items():
        found = results[part]
        low, high = min(found["ratios"]), max(found["ratios"])
        lines.append(f"| {what} | {found['ratio']:.3f} | {low:.3f} to {high:.3f} |")
    return "\n".join(lines) + "\n"


@reporting.reported
def main(argv: list[str] | None = None) -> int:
    """Measure, and print the table; 0 if all went well."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.monitor_speed",
        description="Measure what it costs to watch spikes.",
    )
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--output", type=Path, metavar="FILE", help="JSON")
    parser.add_argument("--quick", action="store_true", help="a small network, to see that it runs")
    given = parser.parse_args(argv)
    small: dict[str, Any] = {"steps": 2, "sizes": (8, 6, 6, 5), "batch": 4, "time_steps": 6}
    results = experiment(turns=given.turns, **(small if given.quick else {}))
    for part in ("monitor", "trace"):
        print(f"{part}: {results[part]['ratio']:.3f} times without")
    if given.output is not None:
        _files.write_json(given.output, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
