"""Training on tiles beside aihwkit-lightning: same network and settings, figure and time.

    pip install aihwkit-lightning
    python -m experiments.lightning

A network 784-256-10 with ReLU learns the digits of MNIST on tiles of 256 rows: inputs of 8 bits in
learned ranges, outputs of 8 bits up to ten times the largest input and weight, noise of 0.04 at
each output and of 0.05 of the largest weight of its column at each weight, Adam, batches of 128.
Sides take turns, an epoch each; the first epoch of each, which compiles, is timed apart. The figure
is that of the test images, with converters and without noise, which lightning has in training only.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from experiments import reporting
from snukeras import _files
from snukeras.datasets import mnist
from snukeras.zoo import training

FORMAT = 1
RESULTS = "lightning.json"
HIDDEN, BATCH, RATE = 256, 128, 1e-3
ROWS, BITS, BOUND, OUTPUT_NOISE, WEIGHT_NOISE = 256, 8, 10.0, 0.04, 0.05


class Side(Protocol):
    """A package that trains the network."""

    def epoch(self, x: np.ndarray, y: np.ndarray) -> None:
        """Train on all samples once, in this order."""

    def correct(self, x: np.ndarray, y: np.ndarray) -> float:
        """Return the share of the samples that are answered right."""


class Ours:
    """This package, on the backend of Keras."""

    def __init__(self, seed: int, x: np.ndarray) -> None:
        import keras

        from snukeras.pcm import (
            InputConverter,
            OutputConverter,
            Tile,
            WeightModifier,
            analog,
            calibrate,
        )

        keras.utils.set_random_seed(seed)
        model = keras.Sequential(
            [
                keras.Input((x.shape[1],)),
                keras.layers.Dense(HIDDEN, activation="relu"),
                keras.layers.Dense(10),
            ]
        )
        tile = Tile(
            ROWS,
            ROWS,
            InputConverter(BITS, "learned"),
            OutputConverter(BITS, BOUND, noise=OUTPUT_NOISE),
        )
        modifier = WeightModifier("additive", WEIGHT_NOISE)
        self.net = analog(model, tile, seed=seed, modifiers=modifier)
        calibrate(self.net, x[:1024], batch_size=256)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.net.compile(keras.optimizers.Adam(RATE), loss)

    def epoch(self, x: np.ndarray, y: np.ndarray) -> None:
        self.net.fit(x, y, batch_size=BATCH, epochs=1, shuffle=False, verbose=0)

    def correct(self, x: np.ndarray, y: np.ndarray) -> float:
        import keras

        for tiles in self.net.tiles:
            tiles.quiet = True
        try:
            found = [
                keras.ops.convert_to_numpy(self.net(x[part], training=False))
                for part in _parts(len(x), 1000)
            ]
        finally:
            for tiles in self.net.tiles:
                tiles.quiet = False
        return float(np.mean(np.concatenate(found).argmax(axis=1) == y))


class Lightning:
    """aihwkit-lightning, on PyTorch."""

    def __init__(self, seed: int, x: np.ndarray) -> None:
        import torch
        from aihwkit_lightning.nn.conversion import convert_to_analog
        from aihwkit_lightning.simulator.configs import TorchInferenceRPUConfig
        from aihwkit_lightning.simulator.parameters.enums import WeightNoiseInjectionType

        torch.manual_seed(seed)
        config = TorchInferenceRPUConfig()
        config.forward.inp_res = config.forward.out_res = 2**BITS - 2
        config.forward.out_bound = BOUND
        config.forward.out_noise = OUTPUT_NOISE
        config.forward.out_noise_per_channel = True
        config.modifier.std_dev = WEIGHT_NOISE
        config.modifier.noise_type = WeightNoiseInjectionType.ADD_NORMAL_PER_CHANNEL
        config.mapping.max_input_size = ROWS
        config.pre_post.input_range.enable = True
        model = torch.nn.Sequential(
            torch.nn.Linear(x.shape[1], HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, 10)
        )
        self.net = convert_to_analog(model, config)
        self.optimizer = torch.optim.Adam(self.net.parameters(), RATE)

    def epoch(self, x: np.ndarray, y: np.ndarray) -> None:
        import torch

        self.net.train()
        inputs, digits = torch.from_numpy(x), torch.from_numpy(y.astype("int64"))
        for part in _parts(len(x), BATCH):
            self.optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(self.net(inputs[part]), digits[part])
            loss.backward()
            self.optimizer.step()

    def correct(self, x: np.ndarray, y: np.ndarray) -> float:
        import torch

        self.net.eval()
        with torch.no_grad():
            found = self.net(torch.from_numpy(x)).argmax(dim=1).numpy()
        return float(np.mean(found == y))


def _parts(size: int, length: int) -> Iterator[slice]:
    """Yield the batches of so many samples."""
    yield from (slice(start, start + length) for start in range(0, size, length))


def experiment(
    seeds: int = 3,
    epochs: int = 4,
    sides: dict[str, type[Any]] | None = None,
    data: tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None,
) -> dict[str, Any]:
    """Train with each package, and return figures and times.

    Args:
        seeds: How many trainings of each side.
        epochs: Of each training, at least 2.
        sides: By name. Default: both.
        data: (x, y) of training and test, images of 28 x 28. Default: MNIST.

    Returns:
        For each side the percentages correct of the seeds, the median seconds of an epoch after the
        first, and those of the first.
    """
    train, test = (
        (x.reshape(len(x), -1).astype("float32") / 255.0, y) for x, y in (data or mnist.load_data())
    )
    chosen: dict[str, type[Any]] = (
        {"snukeras": Ours, "aihwkit-lightning": Lightning} if sides is None else sides
    )
    correct: dict[str, list[float]] = {name: [] for name in chosen}
    seconds: dict[str, list[list[float]]] = {name: [] for name in chosen}
    for seed in range(seeds):
        made: dict[str, Side] = {name: kind(seed, train[0]) for name, kind in chosen.items()}
        times: dict[str, list[float]] = {name: [] for name in chosen}
        for epoch in range(epochs):
            order = np.random.default_rng((seed, epoch)).permutation(len(train[0]))
            x, y = train[0][order], train[1][order]
            for name, side in made.items():
                begin = time.perf_counter()
                side.epoch(x, y)
                times[name].append(time.perf_counter() - begin)
        for name, side in made.items():
            correct[name].append(round(100.0 * side.correct(*test), 2))
            seconds[name].append(times[name])
    return {
        "format": FORMAT,
        "epochs": epochs,
        "sides": {
            name: {
                "correct": correct[name],
                "epoch_s": round(float(np.median([t[1:] for t in seconds[name]])), 3),
                "first_epoch_s": round(float(np.median([t[0] for t in seconds[name]])), 3),
            }
            for name in chosen
        },
        "versions": training.versions(),
    }


def table(root: Path | str | None = None) -> str:
    """Return the results as Markdown."""
    results = _files.read_json(reporting.folder(RESULTS, root))
    lines = [
        f"| | % correct after {results['epochs']} epochs, each seed | s an epoch | s the first |",
        "|---|---|---|---|",
    ]
    for name, side in results["sides"].items():
        figures = ", ".join(f"{value:.2f}" for value in side["correct"])
        lines.append(
            f"| {name} | {figures} | {side['epoch_s']:.1f} | {side['first_epoch_s']:.1f} |"
        )
    return "\n".join(lines) + "\n"


@reporting.reported
def main(argv: list[str] | None = None) -> int:
    """Measure, and print the table; 0 if all went well."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.lightning",
        description="Train on tiles with this package and with aihwkit-lightning.",
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    given = parser.parse_args(argv)
    _files.write_json(reporting.folder(RESULTS), experiment(given.seeds, given.epochs))
    print(table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
