"""Whether a network of spiking units learns with nothing set: settings, depths and tasks.

    python -m experiments.defaults run --seeds 0 1 2
    python -m experiments.defaults run --tasks jsb --depths 1 4 8 --settings defaults paper
    python -m experiments.defaults table

Protocol, the same for every setting: Adam at its default rate of 0.001, batches of 32, one figure
after the last epoch, no epoch is chosen. What is not said below is the layers' default.

- jsb: JSB chorales, the first 64 steps of each song in training, whole songs in validation;
  SNU(150) x depth and Dense(88, sigmoid), FrameNLL, 30 epochs; nats per step, less is better.
- mnist: the first 6,000 images in training, the last 2,000 of the training images in validation;
  RateCoding(20), SNU(256) x depth, SNU(10), the mean over time, mean squared error, 4 epochs;
  % right.
- conv: the same images; ConvSNU2D(16 x its number, 5, strides 2) x depth in place of SNU(256).
- speech: the official split of the spoken digits, LogMel(40) in frames of 20 ms, LevelCrossing(0.5)
  over 50 frames; SNU(128, recurrent) x depth, the mean over time, Dense(10, softmax), 10 epochs;
  % right on validation.
- speech_long: the same, 40 epochs.

A trial that fails, or learns nothing, is a row like the others.
"""

import functools
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

import snukeras
from experiments import reporting
from experiments.reporting import reported
from snukeras.activations import TanhDerivative
from snukeras.datasets import jsb_chorales, mnist, piano_roll, spoken_digits
from snukeras.initializers import calibrate
from snukeras.layers import PAPER, SNU, ConvSNU2D, LevelCrossing, LogMel, RateCoding
from snukeras.losses import FrameNLL

TASKS = ("jsb", "mnist", "conv", "speech", "speech_long")
DEPTHS = (1, 4, 8)
SEEDS = (0, 1, 2)
# The rate that networks are calibrated to, where a setting says so.
RATE = 0.25

RECURRENT = {"recurrent_initializer": "glorot_uniform"}
GLOROT = {"kernel_initializer": "glorot_uniform", **RECURRENT}
# By name: arguments of every SNU layer, and whether the network is calibrated before training.
SETTINGS: dict[str, tuple[dict[str, Any], bool]] = {
    "defaults": ({}, False),
    "paper": (PAPER, False),
    "paper, threshold 0.5": ({**PAPER, "threshold": 0.5}, False),
    "paper, threshold 0.2": ({**PAPER, "threshold": 0.2}, False),
    "paper, he_uniform": ({**PAPER, "kernel_initializer": "he_uniform"}, False),
    "paper, calibrated": (PAPER, True),
    "paper, linear, calibrated": ({**PAPER, "state_activation": "linear"}, True),
    "defaults, calibrated": ({}, True),
    "defaults, relu": ({"state_activation": "relu"}, False),
    "defaults, glorot": (GLOROT, False),
    "defaults, recurrent glorot": (RECURRENT, False),
    "defaults, recurrent glorot, calibrated": (RECURRENT, True),
    "defaults, threshold 1": (
        {"threshold": 1.0, "pseudo_derivative": snukeras.activations.Arctan(1.2)},
        False,
    ),
    "defaults, tanh": ({"pseudo_derivative": TanhDerivative(5.0)}, False),
}
EPOCHS = {"jsb": 30, "mnist": 4, "conv": 4, "speech": 10, "speech_long": 40}
UNITS = {task: "nats per step" if task == "jsb" else "% right" for task in TASKS}

_Split = tuple[np.ndarray, ...]


@functools.cache
def data(task: str) -> tuple[_Split, _Split]:
    """Return the training and validation arrays of a task: inputs, targets, and weights if any."""
    if task == "jsb":
        songs = jsb_chorales.load_data()
        train, valid = (piano_roll.pad(split) for split in songs[:2])
        return tuple(part[:, :64] for part in train), valid
    if _is_speech(task):
        front = keras.Sequential(
            [keras.Input((None,)), LogMel(40, frame_length=256, frame_step=160), LevelCrossing(0.5)]
        )
        found = []
        for split in spoken_digits.load_data()[:2]:
            waves = spoken_digits.pad(split.waves, 256 + 49 * 160)
            found.append((front.predict(waves, verbose=0), np.asarray(split.digits)))
        return found[0], found[1]
    (pixels, digits), _ = mnist.load_data()
    images = pixels.astype("float32") / 255
    x = images.reshape(len(images), -1) if task == "mnist" else images[..., None]
    targets = np.eye(10, dtype="float32")[digits]
    return (x[:6000], targets[:6000]), (x[-2000:], targets[-2000:])


def _is_speech(task: str) -> bool:
    return task.startswith("speech")


def network(task: str, depth: int, arguments: dict[str, Any]) -> keras.Model:
    """Return the network of a task, not compiled.

    Args:
        task: One of TASKS.
        depth: Number of hidden layers of units.
        arguments: Of every SNU layer.
    """
    layers = keras.layers

    def unit(units: int, **more: Any) -> SNU:
        return SNU(units, return_sequences=True, **more, **arguments)

    if task == "jsb":
        hidden = [unit(150) for _ in range(depth)]
        return keras.Sequential(
            [keras.Input((None, 88)), *hidden, layers.Dense(88, activation="sigmoid")]
        )
    mean = layers.GlobalAveragePooling1D()
    if _is_speech(task):
        hidden = [unit(128, recurrent=True) for _ in range(depth)]
        return keras.Sequential(
            [keras.Input((50, 80)), *hidden, mean, layers.Dense(10, activation="softmax")]
        )
    if task == "mnist":
        start: list[Any] = [keras.Input((784,)), RateCoding(20, seed=0)]
        hidden = [unit(256) for _ in range(depth)]
    else:
        start = [keras.Input((28, 28, 1)), RateCoding(20, seed=0)]
        given = {"strides": 2, "padding": "same", "return_sequences": True, **arguments}
        hidden = [ConvSNU2D(16 * (i + 1), 5, **given) for i in range(depth)]
        side = -(-28 // 2**depth)
        hidden.append(layers.Reshape((-1, side * side * 16 * depth)))
    return keras.Sequential([*start, *hidden, unit(10), mean])


def measure(task: str, depth: int, setting: str, seed: int) -> dict[str, Any]:
    """Train one network, and return its figure, rates and time.

    Returns:
        `valid`, in the unit of the task; `loss`; `rates` of the SNU layers on 32 samples `before`
        and `after`; `seconds`. Of a trial that raised an error, `error` alone.
    """
    begin = time.perf_counter()
    train, valid = data(task)
    arguments, calibrated = SETTINGS[setting]
    keras.utils.set_random_seed(seed)
    try:
        model = network(task, depth, arguments)
        if calibrated:
            calibrate(model, train[0][:64], RATE)
        before = _rates(model, train[0][:32])
        history = _fit(task, model, train)
        found = _evaluate(task, model, valid)
    except (ValueError, ArithmeticError) as error:
        return {"error": str(error), "seconds": round(time.perf_counter() - begin, 1)}
    return {
        "valid": round(found, 4),
        "loss": round(float(history["loss"][-1]), 4),
        "before": before,
        "after": _rates(model, train[0][:32]),
        "seconds": round(time.perf_counter() - begin, 1),
    }


def _fit(task: str, model: keras.Model, train: _Split) -> dict[str, list[float]]:
    loss: Any = "sparse_categorical_crossentropy" if _is_speech(task) else "mse"
    model.compile("adam", FrameNLL() if task == "jsb" else loss)
    return model.fit(
        train[0],
        train[1],
        sample_weight=train[2].astype("float32") if task == "jsb" else None,
        batch_size=32,
        epochs=EPOCHS[task],
        verbose=0,
    ).history


def _evaluate(task: str, model: keras.Model, valid: _Split) -> float:
    predicted = model.predict(valid[0], batch_size=100, verbose=0)
    if task == "jsb":
        metric = snukeras.metrics.FrameNLL()
        metric.update_state(valid[1], predicted, valid[2].astype("float32"))
        return float(metric.result())
    targets = valid[1] if _is_speech(task) else valid[1].argmax(-1)
    return 100 * float((predicted.argmax(-1) == targets).mean())


def _rates(model: keras.Model, x: np.ndarray) -> list[float]:
    traced = snukeras.trace(model, x)
    return [round(float(layer["spikes"].mean()), 4) for layer in traced.values()]


def experiment(
    root: Path | str | None = None,
    tasks: Sequence[str] = TASKS,
    depths: Sequence[int] = DEPTHS,
    settings: Sequence[str] = tuple(SETTINGS),
    seeds: Sequence[int] = SEEDS,
    trial: Callable[..., dict[str, Any]] = measure,
) -> list[dict[str, Any]]:
    """Run the trials that the results do not hold yet, a file for each task.

    Args:
        root: Folder of results. Default: experiments/results/defaults.
        tasks, depths, settings, seeds: Which ones; `conv` has a depth of 2 alone.
        trial: What measures one case.
    """
    folder = reporting.folder("defaults") if root is None else Path(root)
    rows = []
    for task in tasks:
        cases = (
            {"task": task, "depth": depth, "setting": setting, "seed": seed}
            for seed in seeds
            for depth in ((2,) if task == "conv" else depths)
            for setting in settings
        )
        rows += reporting.gather(folder / f"{task}.json", cases, trial)
    return rows


def table(task: str | None = None, root: Path | str | None = None) -> str:
    """Return the figures as Markdown: a row for a setting, a column for a task and depth.

    The best mean of a column is bold; a setting within 5 % of it has a star. A column of one
    setting has neither. Cells that were not measured are empty.

    Args:
        task: One of TASKS. Default: all of them.
        root: Folder of the results. Default: `experiments/results/defaults` of the checkout.
    """
    folder = reporting.folder("defaults") if root is None else Path(root)
    tasks = TASKS if task is None else (task,)
    from snukeras import _files

    rows = [
        row
        for name in tasks
        if (folder / f"{name}.json").exists()
        for row in _files.read_json(folder / f"{name}.json")["runs"]
    ]
    columns = sorted(
        {(row["task"], row["depth"]) for row in rows}, key=lambda c: (TASKS.index(c[0]), c[1])
    )
    head = ["setting", *(f"{task} x{depth}, {UNITS[task]}" for task, depth in columns)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for setting in SETTINGS:
        cells = [_cell(rows, setting, column) for column in columns]
        if any(cells):
            lines.append(f"| {' | '.join([setting, *cells])} |")
    return "\n".join(lines) + "\n"


def _figures(rows: list[dict[str, Any]], setting: str, column: tuple[str, int]) -> list[float]:
    task, depth = column
    return [
        row["valid"]
        for row in rows
        if (row["task"], row["depth"], row["setting"]) == (task, depth, setting) and "valid" in row
    ]


def _cell(rows: list[dict[str, Any]], setting: str, column: tuple[str, int]) -> str:
    own = _figures(rows, setting, column)
    if not own:
        return ""
    means = [np.mean(f) for s in SETTINGS if (f := _figures(rows, s, column))]
    lower = column[0] == "jsb"
    best = min(means) if lower else max(means)
    mean = float(np.mean(own))
    shown = reporting.spread(own)
    if len(means) == 1:  # nothing to compare with
        return shown
    if mean == best:
        return f"**{shown}**"
    close = mean <= 1.05 * best if lower else mean >= 0.95 * best
    return f"{shown} *" if close else shown


@reported
@reporting.on_workers
def main(argv: list[str] | None = None) -> int:
    """Run trials, or print the table; 0 if all went well."""
    parser = reporting.parser("defaults", str(__doc__).splitlines()[0], ("run", "table"), SEEDS)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--depths", type=int, nargs="+", default=DEPTHS)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=tuple(SETTINGS))
    given = parser.parse_args(argv)
    if "run" in given.what:
        experiment(given.results, given.tasks, given.depths, given.settings, given.seeds)
    if "table" in given.what:
        for task in given.tasks:
            if (given.results / f"{task}.json").exists():
                print(table(task, given.results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
