"""What it costs to compute on tiles: training steps of networks, plain and with converters.

    python -m experiments.analog_speed --output experiments/results/analog_speed.json

Batches of 32 samples. The sides of a network take turns in one run, and the median of its turns
counts. "converters" are those of the tile generic8, 8 bits and calibrated; "noise" adds the read
noise of GenericPCM, drawn for each product. Measure with idle processors.
"""

import argparse
import sys
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
RESULTS = "analog_speed.json"
SAMPLES = 32
STEPS = 60
NETWORKS = ("jsb_snu", "mnist_snu", "recurrent SSNU(150) and Dense", "LSTM(150) and Dense")


def network(name: str) -> tuple["keras.Model", np.ndarray]:
    """Return a network of NETWORKS, not compiled, and inputs for it.

    Args:
        name: A preset, or a layer of 150 units on 88 keys with a read-out.
    """
    import keras

    import snukeras

    random = np.random.default_rng(0)
    keys = (random.random((SAMPLES, STEPS, 88)) < 0.05).astype("float32")
    if name == "mnist_snu":
        return snukeras.zoo.load(name), random.random((SAMPLES, 28, 28, 1), "float32")
    if name == "jsb_snu":
        return snukeras.zoo.load(name), keys
    keras.utils.set_random_seed(0)
    layer = (
        keras.layers.LSTM(150, return_sequences=True)
        if name.startswith("LSTM")
        else snukeras.layers.SSNU(150, recurrent=True, return_sequences=True)
    )
    return keras.Sequential([keras.Input((None, 88)), layer, keras.layers.Dense(88)]), keys


def experiment(
    networks: tuple[str, ...] = NETWORKS, steps: int = 5, turns: int = 9
) -> dict[str, Any]:
    """Measure training steps.

    Args:
        networks: Some of NETWORKS.
        steps: Training steps of a turn.
        turns: Turns of each side.

    Returns:
        For each network the median seconds of a step by side, and the versions.
    """
    import keras

    from snukeras.pcm import GenericPCM, analog, calibrate

    found = {}
    for name in networks:
        model, x = network(name)
        y = np.zeros((len(x), *model(x).shape[1:]), "float32")
        sides = {
            "plain": model,
            "converters": analog(model, "generic8"),
            "noise": analog(model, "generic8", device=GenericPCM()),
        }
        fits = {}
        for side, made in sides.items():
            if side != "plain":
                calibrate(made, x)
            made.compile(keras.optimizers.Adam(1e-3), "mse")
            fits[side] = Fit(made, x, y, steps)
        for _ in range(turns):
            for fit in fits.values():
                fit.turn()
        found[name] = {side: fit.seconds() for side, fit in fits.items()}
    return {"format": FORMAT, "networks": found, "versions": training.versions()}


def table(root: Path | str | None = None) -> str:
    """Return the results as Markdown."""
    results = _files.read_json(reporting.folder(RESULTS, root))
    lines = [
        "| training step with 32 samples, ms | plain | 8-bit converters | and read noise |",
        "|---|---|---|---|",
    ]
    for name, seconds in results["networks"].items():
        plain = seconds["plain"]
        cells = [
            f"{1e3 * seconds[side]:.1f} ({seconds[side] / plain:.1f} times)"
            for side in ("converters", "noise")
        ]
        lines.append(f"| {name} | {1e3 * plain:.1f} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


@reporting.reported
def main(argv: list[str] | None = None) -> int:
    """Measure, and print the seconds of a step; 0 if all went well."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.analog_speed",
        description="Measure what it costs to compute on tiles.",
    )
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--output", type=Path, metavar="FILE", help="JSON")
    given = parser.parse_args(argv)
    results = experiment(tuple(given.networks), given.steps, given.turns)
    for name, seconds in results["networks"].items():
        print(f"{name}: {seconds}")
    if given.output is not None:
        _files.write_json(given.output, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
