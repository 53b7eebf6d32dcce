"""Show an export in the terminal: a compact table with rich, plain lines when piped."""

import sys
from pathlib import Path
from typing import Any


def show(report: dict[str, Any], folder: Path) -> None:
    """Prints what a person wants to know of an export."""
    console = _console()
    verification, mapped = report["verification"], report["map"]
    source = report["source"]["name"]
    console.print(f"[bold]{source}[/bold]: {report['parameters']:,} parameters")
    if mapped is not None:
        _show_map(console, mapped, verification["map"])
    show_verification(verification, console)
    if report["forecast"] is not None:
        _show_forecast(console, report["forecast"], verification["metric"])
    if report["nir"] is not None:
        nodes = len(report["nir"]["nodes"])
        console.print(f"NIR graph of {nodes} nodes, steps of {report['nir']['dt']:g} s")
    console.print(f"Files in [bold]{folder}[/bold]:")
    for name, file in report["files"].items():
        console.print(f"  {name:<22}{_size(file['bytes']):>10}")
    console.print(f"  {'report.json, checksums.sha256':<32}")


def show_verification(verification: dict[str, Any], console: Any = None) -> None:
    """Prints what was compared and how it came out."""
    console = console or _console()
    onnx, mapped = verification["onnx"], verification["map"]
    console.print(f"Compared on {verification['samples']} ({verification['batches']} batch(es)):")
    worst = max(output["max_difference"] for output in onnx["outputs"].values())
    console.print(f"  ONNX Runtime against Keras: largest output difference {worst:.2g}")
    for unit in onnx["units"]:
        if unit["spiking"]:
            text = f"{unit['flips']} of {unit['outputs']:,} spikes differ"
            if unit["flips"]:
                explained = "all within rounding of the threshold"
                if unit["contradictions"]:
                    explained = f"{unit['contradictions']} beyond rounding"
                text += f", {explained}"
        else:
            text = f"largest difference {unit['max_difference']:.2g}"
        console.print(f"    {unit['name']}: {text}")
    if verification["streaming"] is not None:
        difference = verification["streaming"]["max_difference"]
        console.print(f"  Streaming against whole sequence: largest difference {difference:.2g}")
    if mapped is not None:
        equal = all(m["ok"] for m in mapped["matrices"]) and mapped["parameters_equal"]
        rebuilt = "equal the model's within" if equal else "DIFFER from the model's beyond"
        bound = "half a level" if any(m["half_level"] for m in mapped["matrices"]) else "rounding"
        console.print(f"  Weights rebuilt from the map {rebuilt} {bound}")
    metric = verification["metric"]
    if metric is not None:
        names = {"keras": "Keras", "onnx": "ONNX", "map": "map"}
        texts = [f"{names[name]} {value:.4f}" for name, value in metric["values"].items()]
        title = metric["title"].capitalize()
        console.print(f"  {title}, {metric['unit']}: {', '.join(texts)}")
    if verification["ok"]:
        console.print("[green]Verified.[/green]")
    else:
        console.print("[red]NOT verified.[/red]")


def _show_map(console, mapped, compared):
    from rich.table import Table

    target = mapped["target"]
    tile = target["tile"]
    low, high = target["conductance"]["g_min_uS"], target["conductance"]["g_max_uS"]
    levels = target["conductance"]["levels"] or "continuous"
    console.print(
        f"Target {target['name']}: tiles of {tile['rows']}x{tile['columns']} cross-points "
        f"({tile['crosspoint']}), {low:g} to {high:g} uS, levels: {levels}"
    )
    table = Table(box=None, pad_edge=False)
    for name in ("matrix", "shape", "weights", "devices", "tiles", "max error", "rms error"):
        table.add_column(name, justify="left" if name == "matrix" else "right", no_wrap=True)
    for matrix in compared["matrices"]:
        table.add_row(
            matrix["name"],
            "x".join(str(size) for size in matrix["shape"]),
            f"{matrix['weights']:,}",
            f"{matrix['devices']:,}",
            str(matrix["tiles"]),
            f"{matrix['max_error']:.2g}",
            f"{matrix['rms_error']:.2g}",
        )
    table.add_row(
        "total",
        "",
        f"{mapped['weights']:,}",
        f"{mapped['devices']:,}",
        str(mapped["tiles"]),
        "",
        "",
        style="bold",
    )
    console.print(table)
    line = f"{mapped['utilisation']:.1%} of the devices of {mapped['tiles']} tile(s) used"
    line += f"; {mapped['parameters']:,} parameters stay digital"
    if mapped["adders"]:
        line += f"; {mapped['adders']} group(s) of columns need adders"
    console.print(line)
    faults = mapped["faults"]
    if faults:
        worst = max(abs(fault["weight_error"]) for fault in faults)
        console.print(
            f"{len(faults)} stuck device(s) in use, largest weight error left {worst:.2g}"
        )


def _show_forecast(console, found, metric):
    from rich.table import Table

    from snukeras.export.report.simulation import TIMES

    console.print(
        f"Expected on {found['chips']} simulated chips ({found['device']}, a rough guess):"
    )
    table = Table(box=None, pad_edge=False)
    for name in ("", "drift", *TIMES.values()):
        table.add_column(name, justify="left" if name in ("", "drift") else "right", no_wrap=True)
    words = {"none": "not compensated", "global": "compensated"}
    products = sorted(found["products"], key=lambda p: -p["relative_error"]["global"][-1])
    rows = [
        (f"error of x W, {worst['name']}", key, [f"{error:.1%}" for error in errors])
        for worst in products[:1]
        for key, errors in worst["relative_error"].items()
    ]
    for key, values in (found["metric"] or {}).items():
        cells = [f"{value:.3f}" for value in values["mean"]]
        rows.append((f"{metric['title']}, {metric['unit']}", key, cells))
    for label, key, cells in rows:
        table.add_row(label, words[key], *cells)
    console.print(table)
    energy = found["energy"]
    if energy["cases"]:
        fast, slow = min(energy["latency_ns"]) / 1000, max(energy["latency_ns"]) / 1000
        console.print(
            f"Energy per step {energy['low_nJ']:.3g} to {energy['high_nJ']:.3g} nJ, latency "
            f"{fast:.3g} to {slow:.3g} us; assumptions and risks are in report.html"
        )


def _size(count):
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _console():
    from rich.console import Console

    # Piped output is plain and is not folded at 80 columns.
    width = None if sys.stdout.isatty() else 200
    return Console(highlight=False, width=width, soft_wrap=True)
