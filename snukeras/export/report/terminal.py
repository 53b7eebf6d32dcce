"""Show an export in the terminal: a compact table with rich, plain lines when piped."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from snukeras import _terminal
from snukeras._files import JsonObject
from snukeras._units import (
    energy_text,
    latency_text,
    range_text,
    size_text,
    time_text,
)
from snukeras.export.crossbar.targets import Target
from snukeras.export.samples import CHORALES
from snukeras.export.verify.onnx import BOUND

if TYPE_CHECKING:
    from snukeras.export.c.files import CEntry
    from snukeras.export.crossbar.readback import ReadBackReport
    from snukeras.export.report.contents import MapEntry, Report
    from snukeras.export.report.forecast import Forecast
    from snukeras.export.verify.results import (
        CResult,
        Int8Result,
        MapResult,
        MetricResult,
        UnitResult,
        Verification,
        WebResult,
    )
    from snukeras.export.web.files import WebEntry

_DRIFT = {"none": "not compensated", "global": "compensated"}
_NAMES = {"keras": "Keras", "onnx": "ONNX", "int8": "ONNX int8", "map": "map"}
_NAMES |= {"c": "C", "c_int8": "C int8"}


def plain(text: object) -> str:
    """Return text for one line of a terminal, its control characters visible."""
    return _terminal.plain(str(text).replace("\n", " ").replace("\t", " "))


class Screen:
    """Prints lines as they are: no markup, no control characters, no folding when piped."""

    def __init__(self) -> None:
        self.console = _terminal.console()

    def line(self, text: str, style: str | None = None) -> None:
        """Print a line."""
        self.console.print(plain(text), style=style, soft_wrap=True)

    def table(self, heads: Sequence[str], left: Sequence[str], rows: Sequence[Sequence[str]],
              total: bool = False) -> None:  # fmt: skip
        """Print a table.

        Args:
            heads: The first row.
            left: Heads of columns of text; all others hold numbers.
            rows: The cells.
            total: Whether the last row is the sum of the others.
        """
        from rich.table import Table
        from rich.text import Text

        table: Table = Table(box=None, pad_edge=False)
        for head in heads:
            justify = "left" if head in left else "right"
            table.add_column(head, justify=justify, no_wrap=True)  # type: ignore[arg-type]
        for number, row in enumerate(rows):
            style = "bold" if total and number == len(rows) - 1 else None
            table.add_row(*(Text(plain(cell)) for cell in row), style=style)
        self.console.print(table)


def show(report: "Report", folder: Path) -> None:
    """Print what a person wants to know of an export."""
    screen = Screen()
    verification, mapped = report.verification, report.map
    screen.line(f"{report.source.name}: {report.parameters:,} parameters", "bold")
    if mapped is not None and verification.map is not None:
        _show_map(screen, mapped, verification.map)
    show_verification(verification, screen)
    if report.forecast is not None:
        _show_forecast(screen, report.forecast, verification.metric)
    if verification.samples == CHORALES and verification.metric is not None:
        _show_caveat(screen, report.metrics)
    if report.nir is not None:
        nodes = len(report.nir.nodes)
        screen.line(f"NIR graph of {nodes} nodes, steps of {report.nir.dt:g} s")
    if report.vectors is not None:
        for name, share in report.vectors.agreement.items():
            screen.line(f"Vectors: {share:.2%} of the spikes of {name} are those of integers")
        for name, why in report.vectors.left_out.items():
            screen.line(f"Vectors: none of {name}, since {why}")
    if report.c is not None:
        for line in c_sizes(report.c):
            screen.line(line)
    if report.web is not None:
        for line in web_lines(report.web, folder):
            screen.line(line)
    screen.line(f"Files in {folder}:")
    wide = max(22, *(len(name) + 1 for name in report.files))
    for name, file in report.files.items():
        screen.line(f"  {name:<{wide}}{size_text(file.bytes):>10}")
    screen.line("  report.json, checksums.sha256")
    if verification.reload is not None:
        screen.line(f"`snukeras-export verify` cannot load the model: {verification.reload}.")


def _show_caveat(screen: Screen, metrics: JsonObject | None) -> None:
    """Say why figures on the sample chorales are not those of the data set.

    Args:
        screen: Where to.
        metrics: The known figures of a preset.
    """
    known = ""
    if metrics and "test" in metrics:
        known = f" Its figure on the test split is {metrics['test']:.3f} {metrics['unit']}."
    screen.line(
        "These eight chorales are unlike the data set, and a network is too sure of itself on them:"
        " drift, which softens its outputs, can look like a gain, and compensation like a loss."
        + known
    )


def show_verification(verification: "Verification", screen: Screen | None = None) -> None:
    """Print what was compared and how it came out."""
    screen = screen or Screen()
    onnx, mapped = verification.onnx, verification.map
    screen.line(f"Compared on {verification.samples} ({verification.batches} batch(es)):")
    worst = max(output.max_difference for output in onnx.outputs.values())
    screen.line(
        f"  ONNX Runtime against Keras: largest output difference {worst:.2g} (allowed: {BOUND})"
    )
    for unit in onnx.units:
        screen.line(f"    {unit.name}: {unit_text(unit)}")
    if verification.streaming is not None:
        difference = verification.streaming.max_difference
        screen.line(f"  Streaming against whole sequence: largest difference {difference:.2g}")
    if verification.int8 is not None:
        for label, text in int8_texts(verification.int8):
            screen.line(f"  int8 {label}: {text}")
    if mapped is not None:
        equal = all(m.ok for m in mapped.matrices) and mapped.parameters_equal
        rebuilt = "equal the model's within" if equal else "DIFFER from the model's beyond"
        bound = "half a level" if any(m.half_level for m in mapped.matrices) else "rounding"
        screen.line(f"  Weights rebuilt from the map {rebuilt} {bound}")
    if verification.device_list is not None:
        good = "equals" if verification.device_list.ok else "DIFFERS from"
        screen.line(f"  List of {verification.device_list.devices:,} devices {good} the map")
    if verification.nir is not None:
        screen.line(f"  NIR graph against Keras: {nir_text(verification)}")
    if verification.c is not None:
        screen.line(f"  C against Keras: {c_text(verification.c)}")
    if verification.web is not None:
        screen.line(f"  Page against Keras: {web_text(verification.web)}")
    metric = verification.metric
    if metric is not None:
        texts = [f"{_NAMES[name]} {value:.4f}" for name, value in metric.values.items()]
        screen.line(f"  {metric.title.capitalize()}, {metric.unit}: {', '.join(texts)}")
    if verification.ok:
        screen.line("Verified.", "green")
    else:
        screen.line("NOT verified.", "red")


def show_read_back(report: "ReadBackReport", output: Path) -> None:
    """Print what a read-back found."""
    screen = Screen()
    screen.line(f"{report.measured:,} cross-points measured")
    for matrix in report.matrices:
        screen.line(
            f"{matrix.name}: rms error {matrix.rms_error:.3g}, largest {matrix.max_error:.3g}, "
            f"{matrix.missing} not measured"
        )
    for tile in report.tiles:
        screen.line(f"tile {tile.tile}: rms error {tile.rms_error_uS:.3g} uS")
    screen.line(f"Weights and report are in {output}")


def unit_text(unit: "UnitResult") -> str:
    """Say how a layer of units came out."""
    if not unit.spiking:
        return f"largest difference {unit.max_difference:.2g}"
    text = f"{unit.flips} of {unit.outputs:,} spikes differ"
    if unit.contradictions:
        return f"{text}, {unit.contradictions} beyond rounding"
    return f"{text}, all within rounding of the threshold" if unit.flips else text


def int8_texts(found: "Int8Result") -> list[tuple[str, str]]:
    """Say how the int8 file came out: what, and the result."""
    size = f"{found.bytes:,} bytes, {found.share:.0%} of the float file"
    texts = [
        (f"file ({found.mode})", f"{size}; largest output difference {found.max_difference:.2g}")
    ]
    for rate in found.rates:
        silent = ", SILENT" if rate.name in found.silent else ""
        text = f"{rate.after:.4f}, was {rate.before:.4f}{silent}"
        texts.append((f"mean output of {rate.name}", text))
    return texts


def nir_text(verification: "Verification") -> str:
    """Say how the NIR graph came out."""
    nir = verification.nir
    assert nir is not None
    if not nir.checked:
        return f"not compared. {nir.problem}"
    if not nir.ok:
        return f"DIFFERS: {nir.problem}"
    return f"{nir.flips} of {nir.outputs:,} spikes differ"


def c_text(c: "CResult") -> str:
    """Say how the C came out."""
    if not c.checked:
        return f"not compared: {c.problem}"
    if not c.ok:
        return f"DIFFERS: {c.problem}"
    text = f"largest output difference {c.max_difference:.2g}, "
    text += f"{c.flips} of {c.outputs:,} spikes differ"
    if c.integers is None:
        return text
    return (
        f"{text}; int8 equals its integer reference, "
        f"its outputs differ from Keras by {c.integer_difference:.2g} at most"
    )


def c_sizes(c: "CEntry") -> list[str]:
    """Say what the C takes of a device."""
    lines = []
    for part in (c.float32, c.int8):
        if part is not None:
            code = "code not measured" if part.code is None else f"{size_text(part.code)} of code"
            lines.append(
                f"C, {part.name}: {size_text(part.constants)} of constants, "
                f"{size_text(part.ram)} of RAM, {code}"
            )
    if c.measured_on:
        lines.append(f"  code measured on {c.measured_on}")
    if c.int8_left_out:
        lines.append(f"C, int8: left out. {c.int8_left_out}")
    return lines


def web_text(web: "WebResult") -> str:
    """Say how the page came out."""
    if not web.ok:
        return f"DIFFERS: {web.problem}"
    text = f"{web.samples} sample(s), {web.steps} steps, largest output difference "
    text += f"{web.max_difference:.2g}"
    return f"{text}, {web.flips} of {web.outputs:,} spikes differ" if web.outputs else text


def web_lines(web: "WebEntry", folder: Path) -> list[str]:
    """Say how the page is opened, and how it runs the network."""
    lines = [f"Page: `python -m http.server -d {folder}`, then http://localhost:8000"]
    if web.reason is not None:
        lines.append(f"  it runs whole sequences, since no single step has a form: {web.reason}")
    return lines


def target_text(target: Target) -> str:
    """Describe a target in a line."""
    levels = target.levels or "continuous"
    return (
        f"Target {target.name}: tiles of {target.rows}x{target.columns} cross-points "
        f"({target.crosspoint}), {target.g_min:g} to {target.g_max:g} uS, levels: {levels}"
    )


def _show_map(screen: Screen, mapped: "MapEntry", compared: "MapResult") -> None:
    screen.line(target_text(Target.from_dict(mapped.target)))
    rows = [
        (
            matrix.name,
            "x".join(str(size) for size in matrix.shape),
            f"{matrix.weights:,}",
            f"{matrix.devices:,}",
            str(matrix.tiles),
            "" if matrix.levels is None else str(matrix.levels),
            f"{matrix.max_error:.2g}",
            f"{matrix.rms_error:.2g}",
        )
        for matrix in compared.matrices
    ]
    total = ("total", "", f"{mapped.weights:,}", f"{mapped.devices:,}", str(mapped.tiles), "", "",
             "")  # fmt: skip
    heads = ("matrix", "shape", "weights", "devices", "tiles", "levels", "max error", "rms error")
    screen.table(heads, ("matrix",), [*rows, total], total=True)
    line = f"{mapped.utilisation:.1%} of the devices of {mapped.tiles} tile(s) used"
    line += f"; {mapped.parameters:,} parameters stay digital"
    if mapped.adders:
        line += f"; {mapped.adders} group(s) of columns need adders"
    screen.line(line)
    if mapped.programming is not None:
        screen.line(f"programming: {mapped.programming.text}")
    if mapped.faults:
        worst = max(abs(fault.weight_error) for fault in mapped.faults)
        screen.line(
            f"{len(mapped.faults)} stuck device(s) in use, largest weight error left {worst:.2g}"
        )


def _show_forecast(screen: Screen, found: "Forecast", metric: "MetricResult | None") -> None:
    chips = "1 simulated chip" if found.chips == 1 else f"{found.chips} simulated chips"
    screen.line(f"Expected on {chips} ({found.device}, a rough guess):")
    if found.converters is not None:
        screen.line(f"  products on tiles: {found.converters.text}")
        if metric is not None and found.converters.alone is not None:
            screen.line(
                f"  converters alone, with exact devices: {metric.title} "
                f"{found.converters.alone:.3f} {metric.unit}, {metric.values['keras']:.3f} in Keras"
            )
    products = sorted(found.products, key=lambda p: -p.relative_error["global"][-1])
    rows = [
        (f"error of x W, {worst.name}", _DRIFT[key], *(f"{error:.1%}" for error in errors))
        for worst in products[:1]
        for key, errors in worst.relative_error.items()
    ]
    if metric is not None and found.metric is not None:
        title = f"{metric.title}, {metric.unit}"
        rows += [
            (title, _DRIFT[key], *(f"{value:.3f}" for value in values.mean))
            for key, values in found.metric.items()
        ]
        rows += [
            (f"  one scale a {scale}", _DRIFT["global"], *(f"{v:.3f}" for v in by["global"].mean))
            for scale, by in (found.metric_by_scale or {}).items()
        ]
    screen.table(("", "drift", *map(time_text, found.times_s)), ("", "drift"), rows)
    energy = found.energy
    if energy.low_nJ is not None and energy.high_nJ is not None:
        energies = range_text(energy_text(energy.low_nJ), energy_text(energy.high_nJ))
        times = range_text(
            latency_text(min(energy.latency_ns)), latency_text(max(energy.latency_ns))
        )
        screen.line(
            f"Energy per step {energies}, latency {times}; assumptions and risks are in report.html"
        )
