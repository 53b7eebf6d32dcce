"""Pictures of what a pretrained model does: the notes it hears, its spikes, what it expects."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from snukeras import _files
from snukeras.zoo import presets, samples

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

_INK, _SPIKE, _HIT = "#1b2a41", "#b23a48", "#2a9d8f"
_LOWEST, _HIGHEST = 12, 64  # the keys that the chorales use, with a margin


def draw(name: str, path: Path | str, chorale: int = 0, content: Path | str | None = None) -> None:
    """Draw a music model on one of the sample chorales.

    Three panels share the steps: the notes of the chorale; the outputs of the hidden units; and
    the probability of each note, predicted a step ahead, with the notes that came.

    Args:
        name: One of `snukeras.zoo.list()`, with 88 keys in and out.
        path: The picture to write; its suffix tells the format (.png, .svg, .pdf).
        chorale: Which of the sample chorales.
        content: Folder of presets. Default: the one that ships with the package.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: Unknown name, a model of another task, no such chorale, or an unknown suffix.
    """
    try:
        from matplotlib.backend_bases import FigureCanvasBase
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("Pictures need matplotlib: pip install 'snukeras[plot]'.") from None
    import keras

    path = Path(path)
    known = FigureCanvasBase.get_supported_filetypes()
    if path.suffix[1:].lower() not in known:
        raise ValueError(
            f"A picture ends in one of {', '.join(f'.{kind}' for kind in sorted(known))}. "
            f"Received: {path}"
        )
    titles, rolls = samples.read()
    if not 0 <= chorale < len(rolls):
        raise ValueError(f"`chorale` must be 0 to {len(rolls) - 1}. Received: {chorale}")
    model = presets.load(name, content=content)
    if model.input_shape[-1] != 88 or model.output_shape[-1] != 88:
        raise ValueError(f"{name} is not a music model. Received shapes: {model.input_shape}")
    recurrent = [layer for layer in model.layers if isinstance(layer, keras.layers.RNN)]
    roll = rolls[chorale].astype(np.float32)
    probe = keras.Model(model.inputs, [recurrent[-1].output, model.outputs[0]])
    hidden, expected = (np.asarray(value)[0] for value in probe(roll[None, :-1]))

    figure = Figure(figsize=(9, 7.2), layout="constrained", dpi=130)
    notes, units, chances = figure.subplots(
        3, sharex=True, height_ratios=(1, 1.15, 1), gridspec_kw={"hspace": 0.08}
    )
    _roll(notes, roll[:-1])
    notes.set_title(f"Notes heard: Bach, {titles[chorale]}", loc="left")
    _hidden(units, hidden)
    _expectation(chances, expected, roll[1:])
    chances.set_xlabel("step (quarter note)")
    with _files.replacing(path) as temporary:
        figure.savefig(temporary)


def _roll(axes: "Axes", roll: np.ndarray) -> None:
    _show(axes, roll, _INK)
    _keys(axes)


def _hidden(axes: "Axes", hidden: np.ndarray) -> None:
    # Units that speak most stand lowest, so that the eye finds an order.
    order = np.argsort(-hidden.mean(axis=0), kind="stable")
    spiking = bool(np.isin(hidden, (0.0, 1.0)).all())
    _show(axes, hidden[:, order], _SPIKE if spiking else _INK)
    axes.set_ylabel("unit")
    share = f"{hidden.mean():.0%} of the units at a step" if spiking else "darker is larger"
    title = f"{'Spikes' if spiking else 'Outputs'} of the {hidden.shape[1]} hidden units: {share}"
    axes.set_title(title, loc="left")


def _expectation(axes: "Axes", expected: np.ndarray, came: np.ndarray) -> None:
    _show(axes, expected, _INK)
    steps, keys = np.nonzero(came)
    axes.scatter(steps, keys, s=9, color=_HIT, linewidths=0, label="notes that came")
    axes.legend(loc="upper right", frameon=False, fontsize="small")
    axes.set_title("Notes expected one step ahead (darker is likelier)", loc="left")
    _keys(axes)


def _show(axes: "Axes", values: np.ndarray, color: str) -> None:
    """Draw numbers in [0, 1], (steps, rows), from white to a colour."""
    axes.imshow(
        values.T,
        cmap=_fading(color),
        aspect="auto",
        origin="lower",
        interpolation="nearest",
        vmin=0,
        vmax=1,
    )


def _keys(axes: "Axes") -> None:
    axes.set_ylim(_LOWEST, _HIGHEST)
    octaves = [key for key in range(_LOWEST, _HIGHEST) if (key + 21) % 12 == 0]
    axes.set_yticks(octaves, [f"C{(key + 21) // 12 - 1}" for key in octaves])


def _fading(color: str) -> "Colormap":
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list(color, ["#ffffff", color])
