"""Pictures of what a network does and of the devices that hold it, with matplotlib.

Each function draws one picture into `ax`, or into a new figure, and returns the Axes: titles,
limits and `ax.figure.savefig(...)` are matplotlib's own. Nothing is told by colour alone: lines
differ in their dashes, points in their shapes, areas in their hatches, so that pictures can be read
in black and white and by the colour-blind.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import keras
import numpy as np

from snukeras import _arguments
from snukeras._types import Array
from snukeras._units import time_text
from snukeras.export.crossbar.map import CrossbarMap
from snukeras.layers.spatial import Connection, Spatial
from snukeras.pcm.chip import Chip

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Trace = Mapping[str, np.ndarray]
"""What `snukeras.trace` returns of a layer: its "spikes" and "membranes"."""

# Colours of Okabe and Ito, which the colour-blind tell apart, from dark to light.
_COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_DASHES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 3)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_HATCHES = ("", "///", "...", "\\\\\\", "xxx", "---", "+++")
_GREYS = ("#d9d9d9", "#f7f7f7", "#bdbdbd", "#ffffff", "#969696", "#e6e6e6", "#cccccc")


def raster(
    spikes: Array | Trace, sample: int = 0, dt: float | None = None, ax: "Axes | None" = None
) -> "Axes":
    """Draw the spikes of a layer: a mark for each, steps to the right and units upwards.

        traces = snukeras.trace(model, x)
        snukeras.plot.raster(traces["snu"])

    Outputs of soft units, which are no spikes, are drawn as an image, darker for larger values.

    Args:
        spikes: What `snukeras.trace` gives of a layer, or its spikes alone, (samples, time, units)
            or (time, units). The maps of a convolution are laid side by side.
        sample: Which of the samples.
        dt: Duration of a step in s; None: the axis counts steps.
        ax: Where to draw; None: in a new figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: `spikes` has another shape, or there is no such sample.
    """
    if isinstance(spikes, Mapping):
        _of_a_layer("spikes", spikes, "spikes")
        spikes = spikes["spikes"]
    values = _of_sample(spikes, sample)
    ax = _axes(ax)
    width = 1.0 if dt is None else _arguments.number("dt", dt, above=0.0)
    if np.isin(values, (0.0, 1.0)).all():
        steps, units = np.nonzero(values)
        ax.vlines(steps * width, units - 0.4, units + 0.4, colors=_COLOURS[0], linewidths=1.4)
        ax.set_title(f"{len(steps):,} spikes, {values.mean():.1%} of units and steps", loc="left")
    else:
        edges = ((-0.5) * width, (len(values) - 0.5) * width, -0.5, values.shape[1] - 0.5)
        image = ax.imshow(
            values.T, cmap="Greys", origin="lower", aspect="auto", interpolation="nearest",
            extent=edges,
        )  # fmt: skip
        ax.figure.colorbar(image, ax=ax, label="output")
    ax.set_xlim(-0.5 * width, (len(values) - 0.5) * width)
    ax.set_ylim(-0.5, values.shape[1] - 0.5)
    _count_steps(ax, dt)
    ax.set_ylabel("unit")
    return ax


def membranes(
    trace: Trace,
    threshold: Array | None = None,
    units: Sequence[int] | None = None,
    sample: int = 0,
    dt: float | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the membrane potentials of some units of a layer, with a triangle at each spike.

    Args:
        trace: What `snukeras.trace` gives of a layer.
        threshold: A number, or one for each unit of the layer, to draw too; None: none.
        units: Which units; None: the three that spike most.
        sample: Which of the samples.
        dt: Duration of a step in s; None: the axis counts steps.
        ax: Where to draw; None: in a new figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: `trace` holds no membranes, or there is no such sample or unit.
    """
    _of_a_layer("trace", trace, "spikes", "membranes")
    values, spikes = (_of_sample(trace[key], sample) for key in ("membranes", "spikes"))
    count = values.shape[1]
    if units is None:
        units = [int(unit) for unit in np.argsort(-spikes.sum(axis=0), kind="stable")[:3]]
    for unit in units:
        if not 0 <= unit < count:
            raise ValueError(f"Argument `units` must hold 0 to {count - 1}. Received: {unit}")
    limits = None if threshold is None else np.broadcast_to(np.asarray(threshold), (count,))
    ax = _axes(ax)
    x = np.arange(len(values)) * (1.0 if dt is None else _arguments.number("dt", dt, above=0.0))
    for place, unit in enumerate(units):
        colour, dashes, marker = _style(place)
        ax.plot(x, values[:, unit], color=colour, ls=dashes, lw=1.3, label=f"unit {unit}")
        fired = spikes[:, unit] == 1.0
        ax.plot(x[fired], values[fired, unit], ls="", marker=marker, color=colour, ms=5)
    if limits is not None:
        for place, level in enumerate(dict.fromkeys(float(limits[unit]) for unit in units)):
            name = None if place else "threshold"
            ax.axhline(level, color="#555555", lw=0.8, ls=(0, (2, 2)), label=name)
    _count_steps(ax, dt)
    ax.set_ylabel("membrane potential (of the unit, no unit)")
    ax.legend(frameon=False, fontsize="small")
    return ax


def rates(traces: Mapping[str, Trace], ax: "Axes | None" = None) -> "Axes":
    """Draw the rate of every unit, a line of points for each layer, and the mean of the layer.

    Args:
        traces: What `snukeras.trace` returns, by the name of the layer.
        ax: Where to draw; None: in a new figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: There are no layers.
    """
    if not traces or not all(isinstance(trace, Mapping) for trace in traces.values()):
        raise ValueError(
            "Argument `traces` must be what snukeras.trace returns: by the name of each layer its "
            f"spikes. Received: {type(traces).__name__} of {[*traces]}"
        )
    ax = _axes(ax)
    names = [*traces]
    for place, name in enumerate(names):
        spikes = np.asarray(traces[name]["spikes"])
        each = spikes.mean(axis=tuple(range(spikes.ndim - 1)))
        # Points of equal rates are spread, so that their number is seen.
        spread = ((np.arange(len(each)) * 0.618034) % 1.0 - 0.5) * 0.5
        ax.scatter(each, place + spread, s=9, color="#999999", linewidths=0)
        ax.scatter(each.mean(), place, s=60, marker="D", color=_COLOURS[0], zorder=3)
        silent = int((each == 0).sum())
        text = f"mean {each.mean():.3f}, {silent} of {len(each)} silent"
        ax.annotate(text, (0.99, place + 0.32), xycoords=("axes fraction", "data"), ha="right",
                    fontsize="small")  # fmt: skip
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlim(left=0.0)
    ax.set_xlabel("rate of a unit (spikes a step)")
    ax.set_ylabel("layer")
    return ax


def conductances(
    source: Chip | CrossbarMap | Mapping[str, Array],
    name: str | None = None,
    t: float = 0.0,
    bins: int = 50,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw how many devices hold which conductance, G+ and G- of all pairs.

    Args:
        source: A chip, which is read at time `t`; a crossbar map, whose targets are shown; or a
            dict of arrays (2, rows, columns) in uS by the name of the matrix.
        name: Which matrix; None: all together.
        t: Time of the reading of a chip, in s.
        bins: Number of bars.
        ax: Where to draw; None: in a new figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: There is no such matrix.
    """
    if isinstance(source, Chip):
        held: Mapping[str, Array] = source.conductances(t)
    elif isinstance(source, CrossbarMap):
        held = {matrix: np.stack(source.conductances(matrix)) for matrix in source.matrices}
    else:
        held = source
    if name is not None and name not in held:
        raise ValueError(f"Argument `name` must be one of {sorted(held)}. Received: {name!r}")
    chosen = [np.asarray(held[key]) for key in ([name] if name is not None else held)]
    plus, minus = (np.concatenate([pair[side].ravel() for pair in chosen]) for side in (0, 1))
    ax = _axes(ax)
    edges = np.linspace(0.0, float(max(plus.max(), minus.max())) or 1.0, bins + 1).tolist()
    ax.hist(plus, edges, color=_GREYS[2], edgecolor=_COLOURS[0], lw=0.6, label="G+")
    ax.hist(minus, edges, histtype="step", color=_COLOURS[1], ls="--", lw=1.6, label="G-")
    ax.set_yscale("log")
    ax.set_xlabel("conductance (uS)")
    ax.set_ylabel("devices (number, logarithmic)")
    ax.set_title(f"{plus.size + minus.size:,} devices of {name or 'all matrices'}", loc="left")
    ax.legend(frameon=False)
    return ax


def drift(
    chip: Chip,
    times: Sequence[float] = (25.0, 3600.0, 86400.0, 2592000.0, 31536000.0),
    metric: Callable[[keras.Model], float] | None = None,
    label: str = "metric",
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw how the weights of a chip leave those that were wanted, and what that costs.

        snukeras.plot.drift(chip, metric=lambda m: m.evaluate(x, y, verbose=0)[1], label="accuracy")

    The error of a matrix is |w(t) - w| / |w|, root of the sum of squares, of one reading.

    Args:
        chip: The chip; it is read once at each time.
        times: In s since the reference reading, above 0.
        metric: Called with the model of the chip at each time; None: only weights are drawn.
        label: Name and unit of the metric, for its axis, which stands to the right.
        ax: Where to draw; None: in a new figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: There are no times, or one is not above 0.
    """
    seconds = [_arguments.number("times", t, above=0.0) for t in times]
    if not seconds:
        raise ValueError("Argument `times` must hold at least one time in s. Received: none")
    ax = _axes(ax)
    errors: dict[str, list[float]] = {matrix: [] for matrix in chip.crossbars}
    figures = []
    # One model serves all times, so what Keras compiles for it does as well.
    model = None if metric is None else chip.model(seconds[0])
    for t in seconds:
        for matrix, crossbar in chip.crossbars.items():
            wanted = crossbar.matrix
            off = np.linalg.norm(crossbar.weights(t) - wanted) / (np.linalg.norm(wanted) or 1.0)
            errors[matrix].append(float(off))
        if metric is not None and model is not None:
            chip.write(model, t)
            figures.append(float(metric(model)))
    for place, (matrix, values) in enumerate(errors.items()):
        colour, dashes, marker = _style(place)
        ax.plot(seconds, values, color=colour, ls=dashes, marker=marker, ms=5, label=matrix)
    ax.set_xscale("log")
    ax.set_xticks(seconds, [time_text(t) for t in seconds])
    ax.set_xticks([], minor=True)
    ax.set_ylim(bottom=0.0)
    ax.set_xlabel("time since the reference reading (logarithmic)")
    ax.set_ylabel("error of the weights (share of their size)")
    if metric is not None:
        beside = ax.twinx()
        beside.plot(seconds, figures, color="#777777", ls=":", marker="*", ms=9, label=label)
        beside.set_ylabel(f"{label} (stars)")
    ax.legend(frameon=False, fontsize="small")
    return ax


def tiles(crossbar: CrossbarMap, ax: "Axes | None" = None) -> "Axes":
    """Draw the tiles of a crossbar map, and which part of each holds which matrix.

    Tiles stand side by side, in rows; word lines run downwards from 0, bit lines to the right.

    Args:
        crossbar: The map, of `snukeras.export.load_map`.
        ax: Where to draw; None: in a new figure.

    Raises:
        ImportError: matplotlib is not installed.
    """
    ax = _axes(ax)
    from matplotlib.patches import Patch, Rectangle

    target, numbers = crossbar.target, [tile.tile for tile in crossbar.description.tiles]
    across = int(np.ceil(np.sqrt(len(numbers))))
    high, wide = target.rows * 1.25, target.bit_lines * 1.1

    def corner(tile: int) -> tuple[float, float]:
        return (tile % across) * wide, (tile // across) * high

    for tile in numbers:
        x, y = corner(tile)
        ax.add_patch(Rectangle((x, y), target.bit_lines, target.rows, fill=False, lw=1.0))
        ax.annotate(f"tile {tile}", (x, y), (0, 2), textcoords="offset points", fontsize="small")
    shown: dict[str, Patch] = {}
    for block, lines in crossbar.blocks():
        name = crossbar.matrices[block.matrix]
        x, y = corner(block.tile)
        bits = np.concatenate([lines.plus, lines.minus]).astype(float)
        left, top = float(bits.min()), float(lines.word.min())
        size = (float(bits.max()) - left + 1, float(lines.word.max()) - top + 1)
        patch = Rectangle((x + left, y + top), *size, lw=0.6)
        for drawn in (patch, shown.setdefault(name, Patch(label=name))):
            drawn.set(facecolor=_GREYS[block.matrix % 7], edgecolor=_COLOURS[0])
            drawn.set_hatch(_HATCHES[block.matrix % 7])
        ax.add_patch(patch)
    rows = -(-len(numbers) // across)
    ax.set_xlim(-0.05 * wide, across * wide)
    ax.set_ylim(rows * high, -0.2 * high)
    for axis, count, step, lines_ in (
        (ax.xaxis, across, wide, target.bit_lines), (ax.yaxis, rows, high, target.rows)
    ):  # fmt: skip
        # Lines are counted from 0 in every tile.
        ends = [place * step + end for place in range(count) for end in (0, lines_)]
        axis.set_ticks(ends, [str(end) for _ in range(count) for end in (0, lines_)], fontsize=8)
    ax.set_xlabel(f"bit line ({target.bit_lines} a tile)")
    ax.set_ylabel(f"word line ({target.rows} a tile)")
    ax.set_title(f"{crossbar.description.source.name} on {len(numbers)} tiles", loc="left")
    ax.legend(handles=[*shown.values()], frameon=False, fontsize="small",
              loc="upper left", bbox_to_anchor=(1.0, 1.0))  # fmt: skip
    return ax


def connections(
    model: Spatial,
    connection: Connection | None = None,
    share: float = 0.05,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the neurons of a spatial network at their positions, and the strongest connections.

    Args:
        model: The network; the first two dimensions of its space are drawn.
        connection: One of `model.connections`; None: all of them.
        share: Share of the connections that is drawn, the strongest, in (0, 1].
        ax: Where to draw; None: in a new figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: The space has one dimension, or the network no such connection.
    """
    if model.dimensions < 2:
        raise ValueError(
            "A picture needs positions of at least two dimensions: Spatial(..., dimensions=2). "
            f"Received: dimensions={model.dimensions}"
        )
    if connection is not None and connection not in model.connections:
        raise ValueError(
            f"Argument `connection` must be one of {model.connections}. Received: {connection!r}"
        )
    share = _arguments.number("share", share, above=0.0, maximum=1.0)
    ax = _axes(ax)
    from matplotlib.collections import LineCollection

    places = {name: positions[:, :2] for name, positions in model.positions.items()}
    chosen = model.connections if connection is None else [connection]
    for one in chosen:
        strengths = model.strengths(one)
        kept = strengths >= np.quantile(strengths, 1.0 - share)
        sources, targets = np.nonzero(kept & (strengths > 0))
        lines = np.stack([places[one.source][sources], places[one.target][targets]], axis=1)
        widths = 0.3 + 1.7 * strengths[sources, targets] / (strengths.max() or 1.0)
        ax.add_collection(LineCollection([*lines], linewidths=widths, colors="#999999", zorder=1))
    names = {name for one in chosen for name in (one.source, one.target)} or {*places}
    for place, (name, positions) in enumerate(places.items()):
        if name in names:
            colour, _, marker = _style(place)
            x, y = positions[:, 0], positions[:, 1]
            ax.scatter(x, y, s=22, marker=marker, color=colour, label=name, zorder=2)
    ax.autoscale_view()
    ax.set_aspect("equal", adjustable="datalim")
    ax.set_xlabel("position, first axis (no unit)")
    ax.set_ylabel("position, second axis (no unit)")
    ax.legend(frameon=False, fontsize="small", title="neurons of")
    return ax


def _axes(ax: "Axes | None") -> "Axes":
    """Return the given Axes, or those of a new figure."""
    try:
        from matplotlib import pyplot
    except ImportError:
        raise ImportError("Pictures need matplotlib: pip install 'snukeras[plot]'.") from None
    if ax is not None:
        return ax
    return pyplot.subplots(figsize=(7, 3.6), layout="constrained")[1]


def _style(place: int) -> tuple[str, str | tuple[int, tuple[int, ...]], str]:
    """Return colour, dashes and marker of the line or layer at a place of a picture."""
    kinds = len(_COLOURS)
    return _COLOURS[place % kinds], _DASHES[place % kinds], _MARKERS[place % kinds]


def _count_steps(ax: "Axes", dt: float | None) -> None:
    ax.set_xlabel("step" if dt is None else "time (s)")


def _of_a_layer(name: str, trace: object, *keys: str) -> None:
    """Raise ValueError where an argument is not what `snukeras.trace` gives of one layer."""
    if not isinstance(trace, Mapping) or not set(keys) <= set(trace):
        found = f"a dict of {', '.join(map(repr, trace))}" if isinstance(trace, Mapping) else trace
        raise ValueError(
            f"Argument `{name}` must be what snukeras.trace gives of a layer, such as "
            f"snukeras.trace(model, x)['snu']. Received: {found!s:.200}"
        )


def _of_sample(values: Array, sample: int) -> np.ndarray:
    """Return what one sample has, (time, units); maps are laid side by side."""
    array = np.asarray(keras.ops.convert_to_numpy(values))
    if array.ndim < 2:
        raise ValueError(
            "Spikes and membranes must have the shape (samples, time, units), or (time, units). "
            f"Received: {array.shape}"
        )
    if array.ndim > 2:
        if not 0 <= sample < len(array):
            raise ValueError(f"Argument `sample` must be 0 to {len(array) - 1}. Received: {sample}")
        array = array[sample]
    return array.reshape(len(array), -1)
