"""Results as a file, a table in the terminal, a Markdown table and a plot."""

import sys
from pathlib import Path
from typing import Any

from benchmark.contestants import label as label_of
from benchmark.networks import LARGE, NETWORKS
from snukeras import _files

FORMAT = 1


def save(path: Path, results: dict[str, Any]) -> None:
    """Write results whole or not at all; parts of an older file that were not measured stay.

    So do speeds of other networks, works and threads, where they were measured with the same
    libraries, settings and processor: a long measurement can be made in several.

    Args:
        path: A JSON file.
        results: Parts ("speed", "scaling", "memory", "profile") by name.
    """
    old = load(path) if path.exists() else {}
    if "speed" in old and "speed" in results:
        results = {**results, "speed": _joined(old["speed"], results["speed"])}
    _files.write_json(path, {**old, "format": FORMAT, **results})


def _joined(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return new speeds with those old ones that can stand beside them and were not replaced."""
    lists = ("rows", "floors", "failures")

    def conditions(speed: dict) -> dict:
        settings = {k: v for k, v in speed.get("settings", {}).items() if k != "networks"}
        left_out = (*lists, "settings", "date")
        return {**settings, **{k: v for k, v in speed.items() if k not in left_out}}

    if conditions(old) != conditions(new):
        return new
    measured = {_case(entry) for name in lists for entry in new[name]}
    networks = {n["name"]: n for part in (old, new) for n in part["settings"]["networks"]}
    kept = {name: [e for e in old[name] if _case(e) not in measured] for name in lists}
    order = [network.name for network in (*NETWORKS, LARGE)]

    def place(entry: dict) -> tuple:
        return entry["threads"] != "one", order.index(entry["network"]), entry["work"] != "train"

    return {
        **new,
        "settings": {**new["settings"], "networks": list(networks.values())},
        **{name: sorted(kept[name] + new[name], key=place) for name in lists},
    }


def _case(entry: dict[str, Any]) -> tuple[str, str, str]:
    return entry["network"], entry["work"], entry["threads"]


def load(path: Path) -> dict[str, Any]:
    """Read results.

    Raises:
        ValueError: The file holds something else; the message names it.
    """
    content = _files.read_json(path)
    if content.get("format") != FORMAT:
        raise ValueError(
            f"{path} does not hold results of benchmark in format {FORMAT}. "
            "Measure anew with `python -m benchmark --output FILE`."
        )
    return content


def markdown(results: dict[str, Any], part: str | None = None) -> str:
    """Return the results as Markdown tables.

    Args:
        results: As of `load`.
        part: "one" or "all" (the speeds with that many threads), "gpu", "scaling", "memory" or
            "profile"; all of them by default.
    """
    parts = []
    if "speed" in results:
        parts += [
            _speed_markdown(results["speed"], threads)
            for threads in ("one", "all", "gpu")
            if part in (None, threads)
        ]
    if "scaling" in results and part in (None, "scaling"):
        header, rows = _scaling_table(results["scaling"])
        parts.append(markdown_table(header, rows) + _left_out(results["scaling"]))
    if "memory" in results and part in (None, "memory"):
        parts.append(markdown_table(*_memory_table(results["memory"])))
    if "profile" in results and part in (None, "profile"):
        parts.append(markdown_table(*_profile_table(results["profile"])))
    return "\n".join(part for part in parts if part)


def _speed_markdown(speed: dict[str, Any], threads: str) -> str:
    """Return one table: contestants by networks and works, the faster of jit_compile on and off."""
    rows = [row for row in speed["rows"] if row["threads"] == threads]
    if not rows:
        return ""
    cases = list(dict.fromkeys((row["network"], row["work"]) for row in rows))
    fastest: dict[str, dict[tuple[str, str], dict]] = {}
    for case in cases:
        here = [row for row in rows if (row["network"], row["work"]) == case]
        for label, row in _faster_of_jit(here).items():
            fastest.setdefault(label, {})[case] = row
    for floor in speed["floors"]:
        if floor["threads"] == threads and floor["precision"] == "float32":
            label = "*floor, recurrent*" if floor["recurrent"] else "*floor*"
            fastest.setdefault(label, {})[floor["network"], floor["work"]] = floor
    header = ["", *(f"{network} {work}" for network, work in cases)]
    body = [
        [label, *(_cell(found.get(case)) for case in cases)] for label, found in fastest.items()
    ]
    bases = sorted({row["base"] for row in rows if row["base"]})
    ratio = f" (ratio to {bases[0]})" if bases else ""
    caption = (
        f"ms per step of a batch{ratio}, {_place(speed, threads)}; "
        "the faster of jit_compile on (ʲ) and off."
    )
    if any(floor["threads"] == threads for floor in speed["floors"]):
        caption += " Floor: the matrix products alone, by the fastest engine."
    return f"{markdown_table(header, body)}\n{caption}\n{_sources(speed)}\n"


def _place(speed: dict[str, Any], threads: str) -> str:
    """Say where speeds were measured."""
    if threads == "gpu":
        return str(speed["accelerator"])
    count = speed["processors"] if threads == "all" else 1
    return f"{count} thread{'s' if count > 1 else ''}, {speed['processor']}"


def _faster_of_jit(rows: list[dict]) -> dict[str, dict]:
    """Return the rows of one case by contestant, of jit_compile on and off the faster."""
    found: dict[str, dict] = {}
    for row in rows:
        label = label_of(row["library"], row["unit"], row["framework"])
        label += "" if row["precision"] == "float32" else ", bfloat16"
        if label not in found or row["milliseconds"] < found[label]["milliseconds"]:
            found[label] = row
    return found


def _cell(row: dict | None) -> str:
    if row is None:
        return ""
    mark = "ʲ" if row.get("jit_compile") else ""
    ratio = f" ({row['ratio']:.2f})" if row["ratio"] is not None else ""
    return f"{_figures(row['milliseconds'])}{mark}{ratio}"


def _sources(part: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in part["versions"].items())
    return f"Measured {part['date']} with Python {part['python']}, {versions}."


def _scaling_table(scaling: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    works = list(dict.fromkeys(row["work"] for row in scaling["rows"]))
    by_size: dict[tuple[str, int], dict[str, dict]] = {}
    for row in scaling["rows"]:
        by_size.setdefault((row["axis"], row["size"]), {})[row["work"]] = row
    header = ["steps", "units", "batch"]
    header += [f"{w}, {unit}" for w in works for unit in ("ms", "ns per step, unit and sample")]
    body = []
    for found in by_size.values():
        one = next(iter(found.values()))
        line = [f"{one[name]:,}" for name in ("steps", "units", "batch")]
        for work in works:
            row = found.get(work)
            line += (
                [_figures(row["milliseconds"]), _figures(row["nanoseconds_each"])]
                if row
                else ["", ""]
            )
        body.append(line)
    return header, body


def _left_out(scaling: dict[str, Any]) -> str:
    names = [f"{x['axis']} {x['size']:,} ({x['work']})" for x in scaling["left_out"]]
    return f"\nLeft out, beyond the budget of time: {', '.join(names)}.\n" if names else ""


def _memory_table(memory: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    longest = max((max(map(int, row["peaks"])) for row in memory["rows"]), default=0)
    header = [
        "",
        f"peak at {longest:,} steps, GiB",
        "growth of the peak per step, bytes",
        "of it inputs and targets",
        "stored by the layer",
        "least",
    ]
    body = []
    for row in memory["rows"]:
        stored = row["stored_per_step"]
        body.append(
            [
                row["contestant"],
                f"{row['peaks'][str(longest)] / 2**30:.2f}",
                f"{row['peak_per_step']:,.0f}",
                f"{row['data_per_step']:,.0f}",
                "" if stored is None else f"{stored:,.0f}",
                f"{row['least_per_step']:,.0f}" if "snukeras" in row["contestant"] else "",
            ]
        )
    return header, body


def _profile_table(profile: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    header = ["inference, ms", "jit_compile", "whole", "call", "products", "scans", "rest"]
    body = []
    for row in profile["rows"]:
        parts = [row[name] for name in ("call", "products", "scans")]
        figures = [row["whole"], *parts, row["whole"] - sum(parts)]
        threads = f"{row['threads']} thread{'s' * (row['threads'] == 'all')}"
        switch = "on" if row["jit_compile"] else "off"
        body.append([f"{row['network']}, {threads}", switch, *(f"{x:.2f}" for x in figures)])
    return header, body


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table; all columns but the first are figures."""
    lines = [header, ["---", *("--:" for _ in header[1:])], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _figures(value: float) -> str:
    """Return three significant figures, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def show(results: dict[str, Any]) -> None:
    """Print every row as tables in the terminal."""
    from rich.console import Console
    from rich.table import Table

    # A file or pipe has no width; 80 columns would break names.
    console = Console(width=None if sys.stdout.isatty() else 120)
    speed = results.get("speed")
    if speed:
        cases = list(dict.fromkeys((r["network"], r["work"], r["threads"]) for r in speed["rows"]))
        for case in cases:
            network, work, threads = case
            table = Table(title=f"{network}, {work}, {_place(speed, threads)}")
            table.add_column("contestant")
            for name in ("ms", "fastest", "slowest", "ratio", "loss before", "after"):
                table.add_column(name, justify="right")
            rows = [r for r in speed["rows"] if (r["network"], r["work"], r["threads"]) == case]
            for row in sorted(rows, key=lambda row: row["milliseconds"]):
                table.add_row(
                    row["contestant"],
                    *(
                        _figures(row[f"{which}milliseconds"])
                        for which in ("", "fastest_", "slowest_")
                    ),
                    "" if row["ratio"] is None else f"{row['ratio']:.3f}",
                    *(
                        "" if row[name] is None else f"{row[name]:.4f}"
                        for name in ("loss_before", "loss_after")
                    ),
                )
            for f in speed["floors"]:
                if (f["network"], f["work"], f["threads"]) == case:
                    ratio = "" if f["ratio"] is None else f"{f['ratio']:.3f}"
                    rate = f"{f['flops_per_second'] / 1e9:.0f} GFLOP/s"
                    kind = f"floor{' recurrent' if f['recurrent'] else ''}, {f['precision']}"
                    label = f"{kind}: {rate} ({f['engine']})"
                    table.add_row(label, _figures(f["milliseconds"]), "", "", ratio, style="dim")
            console.print(table)
    for title, part, build in (
        ("cost over sizes", results.get("scaling"), _scaling_table),
        ("memory of training", results.get("memory"), _memory_table),
        ("profile of inference", results.get("profile"), _profile_table),
    ):
        if part:
            header, body = build(part)
            table = Table(title=title)
            for i, name in enumerate(header):
                table.add_column(name, justify="right" if i else "left")
            for line in body:
                table.add_row(*line)
            console.print(table)
    for name, part in results.items():
        if isinstance(part, dict):
            for x in part.get("left_out", ()):
                console.print(f"left out: {name}, {x['work']}, {x['axis']} {x['size']}")
            for failure in part.get("failures", ()):
                words = ", ".join(str(value) for value in failure.values())
                console.print(f"failed: {words}", style="red", markup=False)


def plot(results: dict[str, Any], path: Path) -> None:
    """Draw the speed of all contestants as bars from 0, with the floor, to an image file.

    The bars of this package are plain, all others dotted. Of jit_compile on (ʲ) and off the
    faster is drawn.

    Raises:
        ValueError: The results hold no speeds.
        ImportError: matplotlib is not installed.
    """
    if "speed" not in results:
        raise ValueError(
            "There are no speeds to plot; measure them without --scaling, --memory and --profile."
        )
    try:
        from matplotlib.figure import Figure
        from PIL import Image  # comes with matplotlib
    except ImportError as error:
        raise ImportError("The plot needs matplotlib: pip install 'snukeras[plot]'") from error

    speed = results["speed"]
    by_case: dict[tuple, list[dict]] = {}
    for row in speed["rows"]:
        by_case.setdefault(_case(row), []).append(row)
    bars = {case: _faster_of_jit(rows) for case, rows in by_case.items()}
    columns = min(2, len(bars))
    lines = -(-len(bars) // columns)
    longest = max(map(len, bars.values()))
    figure = Figure(figsize=(7 * columns, lines * (1.1 + 0.19 * longest)), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for (case, found), axis in zip(bars.items(), axes, strict=False):
        found = dict(sorted(found.items(), key=lambda one: -one[1]["milliseconds"]))
        labels = [f"{label}ʲ" if row["jit_compile"] else label for label, row in found.items()]
        bars_drawn = axis.barh(
            labels, [row["milliseconds"] for row in found.values()], edgecolor="black",
        )  # fmt: skip
        for bar, row in zip(bars_drawn, found.values(), strict=True):
            mine = row["library"] == "snukeras"
            bar.set(facecolor="#56B4E9" if mine else "#d9d9d9", hatch="" if mine else "...")
        axis.bar_label(
            bars_drawn, [_figures(row["milliseconds"]) for row in found.values()], padding=3,
            fontsize=8,
        )  # fmt: skip
        for floor in speed["floors"]:
            if _case(floor) == case and floor["precision"] == "float32" and not floor["recurrent"]:
                axis.axvline(floor["milliseconds"], color="black", linestyle=":", label="floor")
                axis.legend(loc="upper right")
        axis.set_xlim(0, 1.12 * max(row["milliseconds"] for row in found.values()))
        axis.set_xlabel("ms per step of a batch")
        axis.set_title(f"{case[0]}, {case[1]}, {case[2]} thread{'s' * (case[2] == 'all')}")
        axis.tick_params(axis="y", labelsize=8)
    for axis in axes[len(bars) :]:
        axis.set_visible(False)
    with _files.replacing(path) as temporary:
        figure.savefig(temporary, dpi=80)
        if path.suffix == ".png":
            # Bars and letters need few colours, and a third of the bytes.
            with Image.open(temporary) as picture:
                few = picture.convert("RGB").quantize(32)
            few.save(temporary, optimize=True)
