"""Pictures of the pages of results, from the figures that stand in the folders of results.

    python -m experiments.pictures

draws all of docs/pictures/results_*.png anew; `grapes`, `level_tuned`, `spatial` or `speed` one of
them. Nothing is trained or measured. Lines differ in dashes and marks and bars in hatches, so that
the pictures read in black and white and by the colour-blind; panels stand one below the other, as a
phone needs them.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmark import tables as speed_tables
from experiments import reporting, spatial, spatial_tiles
from experiments.grapes import tables as grapes_tables
from experiments.level_tuned import tables as level_tuned_tables
from snukeras import _files

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "pictures"
# Colours of Okabe and Ito, which the colour-blind tell apart.
BLACK, BLUE, RED, GREEN = "#000000", "#0072B2", "#D55E00", "#009E73"
GREY = "#bdbdbd"
_LEVELS = ("level-tuned", "winner-takes-all")


def grapes() -> Any:
    """Draw what GRAPES gains over plain training, and over learning rates that are matched."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 1, figsize=(5.6, 6.6), layout="constrained")
    titles = ("test accuracy", "accuracy on the first of two tasks")
    for axis, part, title in zip(axes, ("test", "first"), titles, strict=True):
        rows = [row for row in grapes_tables.differences() if row["figure"] == part]
        for other, mark, colour, shift in (
            ("plain", "s", BLACK, -0.16),
            ("matched", "o", BLUE, 0.16),
        ):
            mean = [row[other][0] for row in rows]
            error = [row[other][1] for row in rows]
            axis.errorbar(
                mean, np.arange(len(rows)) + shift, xerr=error, fmt=mark, color=colour, capsize=3,
                markerfacecolor=colour if other == "plain" else "white", label=f"against {other}",
            )  # fmt: skip
        axis.axvline(0.0, color=BLACK, linewidth=0.8)
        axis.set_yticks(range(len(rows)), [row["label"] for row in rows])
        axis.invert_yaxis()
        axis.set_xlabel("GRAPES better by, percentage points")
        axis.set_title(title, loc="left")
    axes[1].legend(loc="lower right", fontsize=8)
    return figure


def level_tuned() -> Any:
    """Draw the share of presentations that are recognised, for both couplings."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(3, 1, figsize=(5.2, 7.2), layout="constrained")
    parts: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
        ("patterns", "four patterns", "noise", {}),
        ("overlap", "three nested squares", "noise", {}),
        ("streams", "streams, groups of 30 and 70", "correlation", {"sizes": [30, 70]}),
    )
    for axis, (part, title, along, of) in zip(axes, parts, strict=True):
        for coupling, style, colour in zip(_LEVELS, ("o-", "s--"), (BLUE, RED), strict=True):
            runs = [
                run
                for run in level_tuned_tables.runs(part)
                if run["coupling"] == coupling and of.items() <= run["condition"].items()
            ]
            runs.sort(key=lambda run: float(run["condition"][along]))
            told = [[100 * seed["recognised"] for seed in run["seeds"]] for run in runs]
            axis.errorbar(
                [run["condition"][along] for run in runs], np.mean(told, axis=1),
                yerr=np.std(told, axis=1, ddof=1), fmt=style, color=colour, capsize=3,
                label=level_tuned_tables.TITLES[coupling],
            )  # fmt: skip
        axis.set_xlabel(
            "pixels lost at a step, share" if along == "noise" else "correlation of a group"
        )
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_ylabel("recognised, %")
        axis.set_ylim(-8, 108)
    axes[1].legend(fontsize=8, loc="center left")
    return figure


def spatial_traffic() -> Any:
    """Draw the values that cross between tiles against the share of weights that are pruned."""
    from matplotlib import pyplot

    lines = (
        ("none", "trained", "no costs, as trained", "o-", BLACK),
        ("none", "spectrum", "no costs, by spectrum", "o:", BLACK),
        ("spatial", "trained", "spatial costs, as trained", "s-", BLUE),
        ("spatial", "position", "spatial costs, by position", "s--", BLUE),
        ("spatial", "spectrum", "spatial costs, by spectrum", "s:", BLUE),
    )
    figure, axes = pyplot.subplots(2, 1, figsize=(5.6, 7.0), layout="constrained")
    for axis, kind in zip(axes, spatial.NETWORKS, strict=True):
        for variant, order, label, style, colour in lines:
            values = spatial_tiles.crossings(kind, variant, order)
            axis.errorbar(
                [100 * share for share in spatial_tiles.SHARES], np.mean(values, axis=1),
                yerr=np.std(values, axis=1, ddof=1), fmt=style, color=colour, capsize=2,
                markerfacecolor="white" if order == "spectrum" else colour, label=label,
            )  # fmt: skip
        axis.set_xlabel("weights pruned, %")
        axis.set_xticks([100 * share for share in spatial_tiles.SHARES])
        axis.set_title(f"{spatial.UNITS[kind]} units", loc="left")
        axis.set_ylabel("values between tiles, per input")
        axis.set_ylim(bottom=0)
    axes[0].legend(fontsize=8, loc="lower left")
    return figure


def speed() -> Any:
    """Draw the time of a step as a share of that of torch's LSTM, on one thread."""
    from matplotlib import pyplot

    rows = speed_tables.ratios()
    figure, axis = pyplot.subplots(figsize=(6.0, 4.2), layout="constrained")
    width = 0.8 / len(rows)
    looks = ((BLUE, ""), ("#56B4E9", "///"), ("#ffffff", "..."), (GREY, "xxx"))
    for place, ((label, cells), (colour, hatch)) in enumerate(
        zip(rows.items(), looks, strict=True)
    ):
        at = np.arange(len(cells)) + (place - (len(rows) - 1) / 2) * width
        axis.bar(at, cells, width, color=colour, hatch=hatch, edgecolor=BLACK, label=label)
    axis.axhline(1.0, color=BLACK, linewidth=0.8, linestyle="--")
    cases = [f"{network}\n{work}" for network, work in speed_tables.BARS]
    axis.set_xticks(range(len(cases)), cases, fontsize=9)
    axis.set_ylabel("time of a step, torch LSTM = 1")
    axis.set_ylim(bottom=0)
    figure.legend(fontsize=8, loc="outside upper center", ncols=2)
    return figure


PICTURES = {
    "grapes": grapes,
    "level_tuned": level_tuned,
    "spatial": spatial_traffic,
    "speed": speed,
}


def draw(names: Sequence[str] = tuple(PICTURES), folder: Path | str = FOLDER) -> list[Path]:
    """Write pictures as results_NAME.png into a folder; return their paths."""
    import matplotlib
    from PIL import Image  # comes with matplotlib

    matplotlib.use("Agg")
    written = []
    for name in names:
        path = Path(folder) / f"results_{name}.png"
        reporting.save_picture(PICTURES[name](), path)
        # Few colours are enough, and take a third of the bytes.
        with _files.replacing(path) as temporary, Image.open(path) as picture:
            picture.convert("RGB").quantize(32).save(temporary, format="PNG", optimize=True)
        written.append(path)
    return written


@reporting.reported
def main(argv: list[str] | None = None) -> int:
    """Run from the command line; 0 if all went well."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.pictures", description="Draw the pictures of the results."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(PICTURES)}; all")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder; docs/pictures")
    arguments = parser.parse_args(argv)
    unknown = [name for name in arguments.names if name not in PICTURES]
    if unknown:
        raise ValueError(f"NAME must be one of {[*PICTURES]}. Received: {unknown}")
    for path in draw(arguments.names or tuple(PICTURES), arguments.output):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
