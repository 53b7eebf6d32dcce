"""Pictures of all-memristive networks, for experiments/results/level_tuned."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from experiments import reporting
from experiments.level_tuned import experiment, learning, tables, tasks

SEED = 0
SHOWN = ("level-tuned", "winner-takes-all")
# Of Okabe and Ito, which the colour-blind tell apart; dashes and marks tell without colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#000000")
DASHES = ("-", "--", ":", "-.")
MARKS = ("o", "x", "^", "s")
GREY = "#9aa0a6"


def draw(folder: Path, tasks: Collection[str]) -> None:
    """Train the networks of the pictures and write them.

    Args:
        folder: Where the results of the search are, and where the pictures go.
        tasks: With "patterns" and "overlap": weights.png and potentials.png; with "streams":
            streams.png.
    """
    from matplotlib import pyplot as plt
    from PIL import Image

    def keep(figure: Any, name: str) -> None:
        reporting.save_picture(figure, folder / name)
        # 64 colours are enough, and take half the bytes.
        few = Image.open(folder / name).convert("RGB").quantize(64)
        few.save(folder / name, optimize=True)

    if {"patterns", "overlap"} <= {*tasks}:
        networks = {
            (name, coupling): _trained(folder, name, coupling, noise=0.1)
            for name in ("patterns", "overlap")
            for coupling in SHOWN
        }
        keep(_weights(plt, networks), "weights.png")
        keep(_potentials(plt, networks), "potentials.png")
    if "streams" in tasks:
        keep(_streams(plt, folder), "streams.png")


def _trained(folder: Path, name: str, coupling: str, **condition: Any) -> dict[str, Any]:
    """Train one network; return conductances, potentials and spikes of all steps."""
    import tensorflow as tf

    definition = tasks.TASKS[name]
    task = definition["make"](**condition)
    chosen = experiment.settings(folder, name, coupling, condition)
    model = learning.network(task, coupling, **chosen, seed=SEED)
    layer = model.get_layer("memristive")
    x = task.training(definition["steps"], SEED)
    # One long sample, so that the potentials of all steps come out.
    stream = x.reshape(1, -1, x.shape[-1])
    spikes, potentials = tf.function(lambda: layer(stream, training=True), jit_compile=True)()
    return {
        "task": task,
        "conductance": np.asarray(layer.synapses.conductance),
        "inputs": stream[0],
        "spikes": np.asarray(spikes)[0],
        "potentials": np.asarray(potentials)[0],
    }


def _weights(plt: Any, networks: dict[tuple[str, str], dict[str, Any]]) -> Any:
    side = tasks.SIDE
    columns = 4
    figure, axes = plt.subplots(6, columns, figsize=(6.4, 9.6), constrained_layout=True)
    rows = [(name, what) for name in ("patterns", "overlap") for what in ("shown", *SHOWN)]
    image = None
    for row, (name, what) in zip(axes, rows, strict=True):
        found = networks[name, SHOWN[0] if what == "shown" else what]
        sets = found["task"].sets
        neurons, _ = learning.assign(found["conductance"], sets)
        for column, axis in enumerate(row):
            axis.set_axis_off()
            if column >= len(sets):
                continue
            if what == "shown":
                axis.imshow(sets[column].reshape(side, side), cmap="Greys")
            else:
                weights = found["conductance"][:, neurons[column]].reshape(side, side)
                image = axis.imshow(weights, cmap="Greys", vmin=0, vmax=15)
                axis.set_title(f"neuron {neurons[column] + 1}", fontsize=8)
        title = f"{name}: {tables.TITLES.get(what, what)}"
        row[0].text(
            -0.12, 0.5, title, transform=row[0].transAxes, rotation=90, va="center", ha="right",
            fontsize=8,
        )  # fmt: skip
    figure.colorbar(image, ax=axes, label="conductance, µS", shrink=0.4)
    return figure


def _potentials(plt: Any, networks: dict[tuple[str, str], dict[str, Any]]) -> Any:
    steps = 120
    figure, axes = plt.subplots(
        3, 2, figsize=(9.6, 5.6), sharex="col", constrained_layout=True,
        height_ratios=[2, 3, 3],
    )  # fmt: skip
    for column, (title, first) in enumerate((("at the start", 0), ("after learning", -steps))):
        for row, coupling in enumerate(SHOWN, start=1):
            found = networks["overlap", coupling]
            start = first % len(found["spikes"])
            part = slice(start, start + steps)
            time = np.arange(start, start + steps)
            if row == 1:
                axes[0, column].imshow(
                    found["inputs"][part].T, aspect="auto", cmap="Greys", interpolation="nearest",
                    extent=(start, start + steps, found["inputs"].shape[1], 0),
                )  # fmt: skip
                axes[0, column].set(ylabel="pixel", title=f"overlap, {title}")
            axis = axes[row, column]
            for k, (colour, dash) in enumerate(zip(COLOURS, DASHES, strict=True)):
                if k == found["spikes"].shape[1]:
                    break
                axis.plot(time, found["potentials"][part, k], dash, color=colour, lw=1)
                fired = time[found["spikes"][part, k] > 0]
                axis.plot(fired, np.full(len(fired), 0.42 + 0.03 * k), "|", color=colour, ms=6)
            axis.axhline(0.35, color=GREY, lw=0.8, ls=":")
            axis.set(ylim=(0, 0.55), ylabel=f"{tables.TITLES[coupling]}\ncrystallised fraction")
        axes[2, column].set_xlabel("step")
    handles = [
        plt.Line2D([], [], color=colour, ls=dash, label=f"neuron {k + 1}")
        for k, (colour, dash) in enumerate(zip(COLOURS, DASHES, strict=True))
    ]
    axes[1, 1].legend(handles=handles[:3], fontsize=7, loc="lower right")
    return figure


def _streams(plt: Any, folder: Path) -> Any:
    shown: tuple[tuple[list[int], float], ...] = (([50, 50], 0.4), ([30, 70], 0.4), ([30, 70], 0.9))
    figure, axes = plt.subplots(
        2, len(shown), figsize=(9.6, 4.8), sharex=True, sharey=True, constrained_layout=True
    )
    for row, coupling in zip(axes, SHOWN, strict=True):
        for axis, (sizes, correlation) in zip(row, shown, strict=True):
            found = _trained(folder, "streams", coupling, sizes=sizes, correlation=correlation)
            g = found["conductance"]
            for k, (colour, mark) in enumerate(zip(COLOURS, MARKS, strict=True)):
                if k == g.shape[1]:
                    break
                axis.plot(g[:, k], mark, color=colour, ms=3, mfc="none", label=f"neuron {k + 1}")
            for edge in np.cumsum(sizes):
                axis.axvline(edge, color=GREY, lw=0.8)
            axis.set_title(
                f"{tables.TITLES[coupling]}, {' and '.join(map(str, sizes))}, c = {correlation}",
                fontsize=9,
            )
        row[0].set_ylabel("conductance, µS")
    for axis in axes[1]:
        axis.set_xlabel("stream: group 1 | group 2 | uncorrelated")
    axes[0, 0].legend(fontsize=7, loc="upper right")
    return figure
