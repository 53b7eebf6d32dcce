"""What the simulated devices cost: devices a second, noise and devices in the loop of training.

    python -m experiments.pcm_speed --output experiments/results/pcm_speed.json

The two sides of a comparison take turns in one run, and the median of their turns counts. Where
aihwkit is installed, its PCM noise model gets the same matrices.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments import reporting
from snukeras import _files
from snukeras.zoo import training

if TYPE_CHECKING:
    import keras

FORMAT = 1
RESULTS = "pcm_speed.json"
PARTS = ("devices", "noise", "loop")
DAY = 86400.0


def devices(chips: int = 100, turns: int = 5) -> dict[str, Any]:
    """Measure programming and reading of chips with the matrices of an 88-150-88 network.

    Each gives the weights that the devices hold a day later: a `Chip` after the other, and the
    device model alone, on many chips at once, as aihwkit's noise model works on tensors.

    Args:
        chips: Chips in all.
        turns: In how many turns.

    Returns:
        Seconds for all chips, and devices a second; aihwkit is left out where it is not installed.
    """
    import tensorflow as tf

    from snukeras.pcm import Chip, DifferentialPair, GenericPCM

    random = np.random.default_rng(0)
    matrices = [random.normal(size=size).astype("float32") for size in ((88, 150), (150, 88))]
    count = 2 * sum(matrix.size for matrix in matrices)
    device, pair = GenericPCM(seed=0), DifferentialPair()
    each = max(1, chips // turns)

    def one_by_one() -> None:
        for chip in range(each):
            Chip({"hidden": matrices[0], "output": matrices[1]}, device, seed=chip).weights(DAY)

    @tf.function
    def held(weights: Any) -> Any:
        scales = pair.scales(weights)
        targets = tf.stack(pair.to_conductances(weights, scales))
        state = device.program(tf.repeat(targets[:, None], each, axis=1))
        plus, minus = tf.unstack(device.read(state, DAY))
        return pair.to_weights(plus, minus, scales)

    def at_once() -> None:
        for matrix in matrices:
            held(tf.constant(matrix)).numpy()

    contestants = {"snukeras.pcm.Chip": one_by_one, "snukeras.pcm.GenericPCM": at_once}
    missing = None
    try:
        import torch
        from aihwkit.inference.noise.pcm import PCMLikeNoiseModel
    except Exception as error:  # a package with compiled parts fails to load in its own ways
        missing = f"{type(error).__name__}: {error}"
    else:
        model = PCMLikeNoiseModel()
        tensors = [torch.from_numpy(matrix) for matrix in matrices]

        def theirs() -> None:
            for _ in range(each):
                for tensor in tensors:
                    model.apply_noise(tensor, DAY)

        contestants["aihwkit, PCMLikeNoiseModel"] = theirs
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for call in contestants.values():
        call()  # imports and caches are not part of the work
    for _ in range(turns):
        for name, call in contestants.items():
            begin = time.perf_counter()
            call()
            seconds[name].append((time.perf_counter() - begin) / each)
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    return {
        "chips": chips,
        "devices": count,
        "seconds": {name: value * chips for name, value in medians.items()},
        "devices_per_second": {name: count / value for name, value in medians.items()},
        "aihwkit_missing": missing,
    }


def noise(steps: int = 200, turns: int = 5) -> dict[str, Any]:
    """Measure training steps of 784-256-256-10, batch 128, with and without PCMNoise.

    Args:
        steps: Steps of a turn of the dense network; the spiking one, of 50 time steps, takes a
            tenth.
        turns: Turns of each.

    Returns:
        By network: seconds a step, plain and with either kind of noise.
    """
    import keras

    from snukeras.callbacks import PCMNoise
    from snukeras.layers import PAPER, SNU
    from snukeras.pcm import GenericPCM

    def network(kind: str) -> "keras.Model":
        if kind == "Dense":
            hidden = [keras.layers.Dense(256, "relu") for _ in range(2)]
            made = keras.Sequential([keras.Input((784,)), *hidden, keras.layers.Dense(10)])
        else:
            spiking = [SNU(256, return_sequences=True, **PAPER), SNU(256, **PAPER)]
            made = keras.Sequential([keras.Input((50, 784)), *spiking, keras.layers.Dense(10)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        made.compile(keras.optimizers.Adam(1e-3), loss)
        return made

    noises: dict[str, Any] = {"plain": None, "Gaussian": 0.038, "device model": GenericPCM()}
    results = {}
    for kind in ("Dense", "SNU"):
        length = steps if kind == "Dense" else max(1, steps // 10)
        random = np.random.default_rng(0)
        x = random.random((128, 784) if kind == "Dense" else (128, 50, 784), dtype=np.float32)
        y = random.integers(0, 10, 128)
        times = {}
        for name, amount in noises.items():
            callback = [] if amount is None else [PCMNoise(amount, seed=0)]
            times[name] = Fit(network(kind), x, y, length, callback)
        for _ in range(turns):
            for fit in times.values():
                fit.turn()
        results[kind] = {name: fit.seconds() for name, fit in times.items()}
    return {"network": "784-256-256-10", "batch": 128, "time_steps": 50, "seconds": results}


def loop(steps: int = 50, turns: int = 5) -> dict[str, Any]:
    """Measure training steps of 88-150-88 in float and with the devices in the loop.

    Args:
        steps: Steps of a turn, of 16 songs of 64 time steps.
        turns: Turns of each.
    """
    import keras

    from snukeras.layers import PAPER, SNU
    from snukeras.optimizers import PCMOptimizer

    def network(optimizer: "keras.optimizers.Optimizer") -> "keras.Model":
        made = keras.Sequential(
            [
                keras.Input((64, 88)),
                SNU(150, return_sequences=True, **{**PAPER, "state_activation": "linear"}),
                keras.layers.Dense(88, activation="sigmoid"),
            ]
        )
        made.compile(optimizer, "binary_crossentropy")
        return made

    x = (np.random.default_rng(0).random((16, 64, 88)) < 0.05).astype(np.float32)
    fits = {
        "float": Fit(network(keras.optimizers.Adam(1e-3)), x, x, steps),
        "devices": Fit(network(PCMOptimizer(keras.optimizers.Adam(1e-3), seed=0)), x, x, steps),
    }
    for _ in range(turns):
        for fit in fits.values():
            fit.turn()
    return {
        "network": "88-150-88",
        "batch": 16,
        "time_steps": 64,
        "seconds": {name: fit.seconds() for name, fit in fits.items()},
    }


class Fit:
    """Training of one model on one batch over and over, a turn at a time.

    The training function is made once, as in one long `fit`; so a turn is made of its calls, as
    `fit` makes them, without the rest of Python.
    """

    def __init__(
        self, model: "keras.Model", x: np.ndarray, y: np.ndarray, steps: int, callbacks: Any = ()
    ) -> None:
        import tensorflow as tf

        self.steps = steps
        self.times: list[float] = []
        for callback in callbacks:
            callback.set_model(model)
        model.optimizer.build(model.trainable_variables)
        model.make_train_function()
        for callback in callbacks:
            callback.on_train_begin()
        self.function = model.train_function
        batch = tf.data.Dataset.from_tensors((x, y)).cache().repeat()
        self.iterator = iter(batch)
        for _ in range(3):
            self.function(self.iterator)

    def turn(self) -> None:
        """Take the time of a step, on average over a turn."""
        begin = time.perf_counter()
        for _ in range(self.steps):
            logs = self.function(self.iterator)
        float(next(iter(logs.values())))
        self.times.append((time.perf_counter() - begin) / self.steps)

    def seconds(self) -> float:
        """Return the median of the turns, in seconds a step."""
        return float(np.median(self.times))


def table(part: str, root: Path | str | None = None) -> str:
    """Return one part of the results as Markdown."""
    results = _files.read_json(reporting.folder(RESULTS, root))[part]
    if part == "devices":
        return _table(
            [f"{results['chips']} chips of 52,800 devices", "seconds", "million devices a second"],
            [
                [name, f"{value:.2f}", f"{results['devices_per_second'][name] / 1e6:.1f}"]
                for name, value in results["seconds"].items()
            ],
        )
    if part == "loop":
        plain, devices = (results["seconds"][name] for name in ("float", "devices"))
        return _table(
            ["step of 88-150-88", "ms", "times float"],
            [
                ["float", f"{1e3 * plain:.2f}", "1"],
                ["52,800 devices in the loop", f"{1e3 * devices:.2f}", f"{devices / plain:.2f}"],
            ],
        )
    rows = []
    for kind, seconds in results["seconds"].items():
        plain = seconds["plain"]
        cells = [f"{1e3 * plain:.2f}"]
        for name in ("Gaussian", "device model"):
            cells.append(f"{1e3 * seconds[name]:.2f} ({seconds[name] / plain - 1:+.0%})")
        name = kind if kind == "Dense" else f"{kind}, 50 time steps"
        rows.append([name, *cells])
    header = ["step of 784-256-256-10, ms", "plain", "Gaussian noise", "device model"]
    return _table(header, rows)


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.pcm_speed",
        description="Measure what the simulated devices cost.",
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--output", type=Path, metavar="FILE", help="JSON; other parts stay")
    parser.add_argument("--quick", action="store_true", help="a few calls, to see that all runs")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the measurements; 0 if all went well."""
    arguments = _parser().parse_args(argv)
    results: dict[str, Any] = {}
    if arguments.output is not None and arguments.output.exists():
        results = _files.read_json(arguments.output)
    results.update(format=FORMAT, versions=training.versions())
    measures: dict[str, Callable[..., dict[str, Any]]] = {
        "devices": devices,
        "noise": noise,
        "loop": loop,
    }
    for part in arguments.parts:
        quick = {"chips": 2} if part == "devices" else {"steps": 2}
        results[part] = measures[part](**({**quick, "turns": 1} if arguments.quick else {}))
        print(f"{part}: {results[part]}")
    if arguments.output is not None:
        _files.write_json(arguments.output, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
