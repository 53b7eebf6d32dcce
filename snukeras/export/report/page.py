"""report.html: an export on one page that needs no other file and no network.

Its one script lets a click on the head of a column sort a table; without it the page is whole.
"""

import base64
import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from snukeras._units import energy_text, latency_text, range_text, time_text
from snukeras.export.crossbar.description import Description
from snukeras.export.crossbar.map import CrossbarMap
from snukeras.export.report.contents import Report
from snukeras.export.report.drawing import (
    MINUS,
    PALETTE,
    PLUS,
    curves,
    escape,
    histogram,
    png,
    shrink,
    tile,
)
from snukeras.export.report.forecast import Forecast
from snukeras.export.report.terminal import c_text, int8_texts, nir_text, unit_text, web_text
from snukeras.export.verify.onnx import BOUND
from snukeras.export.verify.results import MetricResult, Verification

# More would make the page slow to open; the page says what it leaves out.
MAX_TILES, MAX_CALLS = 48, 60
# So many of the largest matrices have large pictures.
_LARGE = 12
_BINS = 40
# Largest height of a heat map in rem; wide matrices have lower ones.
_HEIGHT = 24
_COMPENSATION = {"none": "not compensated", "global": "compensated"}
_STYLE = """
:root { color-scheme: light dark; --back: #fff; --ink: #1a1a1a; --soft: #404040; --rule: #c4c4c4;
  --edge: #767676; --good: #00563f; --bad: #8f2d00; }
@media (prefers-color-scheme: dark) { :root { --back: #16181b; --ink: #e8e6e3; --soft: #b8b5b0;
  --rule: #474a4f; --edge: #8d9096; --good: #5fd0a8; --bad: #ff9b6b; } }
body { margin: 0 auto; max-width: 62rem; padding: 1rem; background: var(--back); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.5rem; margin: .2rem 0; } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1rem 0 .3rem; }
p { margin: .4rem 0; } svg { display: block; width: 100%; height: auto; }
.note { color: var(--soft); font-size: .875rem; }
.good, .bad { display: inline-block; border: 2px solid; border-radius: .3rem; font-weight: bold;
  padding: .1rem .6rem; } .good { color: var(--good); } .bad { color: var(--bad); }
.facts, .tiles, .pictures { display: grid; gap: .75rem; }
.facts { grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); }
.facts div { border: 1px solid var(--rule); border-radius: .4rem; padding: .4rem .6rem; }
.facts b { display: block; font-size: 1.15rem; }
.tiles { grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); }
.pictures { grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); }
.pictures.small { grid-template-columns: repeat(auto-fill, minmax(min(12rem, 100%), 1fr)); }
figure { margin: 0; } figcaption { font-size: .875rem; }
.chain { list-style: none; margin: 0; padding: 0; max-width: 30rem; }
.chain li { border: 1px solid var(--edge); border-left-width: .5rem; border-radius: .3rem;
  margin: 0 0 .9rem; padding: .3rem .6rem; position: relative; }
.chain li + li::before { content: "\\2193"; position: absolute; top: -1.2rem; left: 1rem; }
.mark { display: inline-block; min-width: 1.1rem; border: 2px solid; border-radius: .3rem;
  font-size: .8rem; font-weight: bold; padding: 0 .2rem; text-align: center; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .875rem; }
th, td { border-bottom: 1px solid var(--rule); padding: .2rem .5rem; text-align: right; }
th:first-child, td:first-child { overflow-wrap: anywhere; padding-left: 0; text-align: left; }
@media (max-width: 30rem) { table { font-size: .8rem; } th, td { padding: .2rem .25rem; }
  th:first-child, td:first-child { min-width: 4.5rem; } }
tbody th { font-weight: bold; } th.sorts { cursor: pointer; text-decoration: underline dotted; }
img { background: #fff; border: 1px solid var(--edge); box-sizing: border-box; display: block;
  image-rendering: pixelated; height: auto; max-height: 24rem; }
.chart { max-width: 34rem; } .risks li { margin-bottom: .4rem; }
"""
# Sorts the table of a head that is clicked: numbers by their value, which data-value holds. Without
# "&" and "<", so that the page is well-formed XML too.
_SCRIPT = """
for (const head of document.querySelectorAll("table.sortable thead th")) {
  head.className = "sorts"; head.tabIndex = 0;
  const sort = () => {
    const table = head.closest("table"), body = table.tBodies[0], place = head.cellIndex;
    const down = head.getAttribute("aria-sort") !== "descending";
    for (const other of table.tHead.rows[0].cells) { other.removeAttribute("aria-sort"); }
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = row => row.cells[place].dataset.value ?? row.cells[place].textContent;
    const order = (a, b) => isNaN(a - b) ? a.localeCompare(b) : a - b;
    [...body.rows].sort((a, b) => (down ? -1 : 1) * order(key(a), key(b)))
      .forEach(row => body.append(row));
  };
  head.addEventListener("click", sort);
  head.addEventListener("keydown", event => { if (event.key === "Enter") { sort(); } });
}
"""

Marks = dict[str, tuple[str, str]]  # matrix -> letters and colour
Cell = str | tuple[str, float]  # text, and the number that it is sorted by


def page(report: Report, crossbar: CrossbarMap | None) -> str:
    """Write the page for a report (the content of report.json) and its map, if it has one."""
    name = escape(report.source.name)
    allowed = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    parts = [
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>',
        # Whatever a name in the report contains, no other script runs.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        f"style-src 'unsafe-inline'; script-src 'sha256-{allowed}'\"/>",
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>',
        f"<title>{name}: export report</title>",
        '<link rel="icon" href="data:,"/>',
        f"<style>{_STYLE}</style></head><body><main>",
        f"<h1>{name}</h1>",
        *_head(report),
    ]
    marks: Marks = {}
    if crossbar is not None:
        for index, matrix in enumerate(crossbar.matrices):
            marks[matrix] = (_letters(index), PALETTE[index % len(PALETTE)])
        parts += _risks(report.forecast)
    parts += _network(report, crossbar, marks)
    if crossbar is not None:
        parts += _layers(report)
        parts += _tiles(crossbar, marks)
        parts += _quantisation(report.verification)
        parts += _products(report)
        parts += _metric(report)
        parts += _energy(report.forecast)
        parts += _conductances(crossbar)
    parts += _verification(report.verification)
    parts.append(f"</main><script>{_SCRIPT}</script></body></html>\n")
    return "\n".join(parts)


def _head(report: Report) -> Iterator[str]:
    mapped, good = report.map, report.verification.ok
    yield f'<p class="{"good" if good else "bad"}">{"Verified" if good else "NOT verified"}</p>'
    facts = [("parameters", f"{report.parameters:,}")]
    if mapped is not None:
        facts += [
            ("weights on tiles", f"{mapped.weights:,}"),
            ("devices", f"{mapped.devices:,}"),
            ("tiles", f"{mapped.tiles:,}"),
            ("of the devices used", f"{mapped.utilisation:.1%}"),
        ]
    if report.forecast is not None and report.forecast.energy.cases:
        facts.append(("per step", _energy_range(report.forecast)))
    boxes = [f"<div><b>{escape(value)}</b>{escape(label)}</div>" for label, value in facts]
    yield f'<div class="facts">{"".join(boxes)}</div>'
    if mapped is not None:
        target = mapped.target
        size, range_ = target["tile"], target["conductance"]
        levels = range_["levels"] or "continuous"
        yield (
            f"<p>Target {escape(target['name'])}: {escape(target['title'])}; tiles of "
            f"{size['rows']}x{size['columns']} cross-points, {range_['g_min_uS']:g} to "
            f"{range_['g_max_uS']:g} \u00b5S, levels: {levels}.</p>"
        )
        if mapped.programming is not None:
            yield f"<p>Programming: {escape(mapped.programming.text)}.</p>"
    if report.metrics:
        figures = [
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in report.metrics.items()
        ]
        yield f"<p>Known figures: {escape(', '.join(figures))}.</p>"
    yield (
        f'<p class="note">Written by snukeras {escape(report.snukeras)}; sha256 of the weights '
        f"{report.source.weights_sha256}.</p>"
    )


def _energy_range(found: Forecast) -> str:
    low, high = found.energy.low_nJ or 0.0, found.energy.high_nJ or 0.0
    return range_text(energy_text(low), energy_text(high))


def _risks(found: Forecast | None) -> Iterator[str]:
    if found is None:
        return
    yield "<h2>Risks</h2>"
    items = "".join(f"<li>{escape(text)}</li>" for text in found.risks)
    yield f'<ol class="risks">{items}</ol>'
    yield (
        f'<p class="note">Simulated with the device model {found.device} on {_chips(found.chips)} '
        f"(seed {found.seed}): few, to keep the export quick, so a rough estimate. Times "
        "count from the first reading after programming.</p>"
    )


def _chips(count: int) -> str:
    return "1 chip" if count == 1 else f"{count} chips"


def _network(report: Report, crossbar: CrossbarMap | None, marks: Marks) -> Iterator[str]:
    yield "<h2>Network</h2>"
    items, before = [], None
    for call in report.network[:MAX_CALLS]:
        layer = call.name.split("@")[0]
        lines = [f"<b>{escape(call.name)}</b> ({escape(call.layer_class)})"]
        if before is not None and call.inputs != (before,):
            lines.append(f"from {escape(', '.join(call.inputs))}")
        if call.parameters:
            lines.append(f"{call.parameters:,} parameters")
        own = [] if crossbar is None else _places(crossbar.description, layer)
        lines += [f"{_mark(*marks[name])} {escape(text)}" for name, text in own]
        colour = marks[own[0][0]][1] if own else "var(--edge)"
        items.append(f'<li style="border-left-color:{colour}">{"<br/>".join(lines)}</li>')
        before = call.name
    yield f'<ol class="chain">{"".join(items)}</ol>'
    if len(report.network) > MAX_CALLS:
        yield f'<p class="note">{len(report.network) - MAX_CALLS} more layers not shown.</p>'


def _places(description: Description, layer: str) -> list[tuple[str, str]]:
    """Return the matrices of a layer, and on which tiles each sits."""
    found = []
    for index, entry in enumerate(description.matrices):
        if f"{entry.layer}/".startswith(f"{layer}/"):
            tiles = sorted({b.tile for b in description.blocks if b.matrix == index})
            where = ", ".join(map(str, tiles[:8])) + (" ..." if len(tiles) > 8 else "")
            found.append(
                (entry.name, f"{entry.role}: {entry.rows}x{entry.columns} on tile {where}")
            )
    return found


def _layers(report: Report) -> Iterator[str]:
    found, mapped = report.forecast, report.verification.map
    if found is None or mapped is None:
        return
    yield "<h2>Layers</h2>"
    yield (
        "<p>What each layer costs in a step, and what becomes of its products. A click on the head "
        "of a column sorts.</p>"
    )
    matrices = {matrix.name: matrix for matrix in mapped.matrices}
    errors = {product.name: product.relative_error["global"] for product in found.products}
    rows: list[list[Cell]] = []
    for layer in found.energy.layers:
        held = [matrices[name] for name in layer.matrices if name in matrices]
        worst = [errors[name] for name in layer.matrices if name in errors]
        first, last = (max((e[i] for e in worst), default=-1.0) for i in (0, -1))
        rows.append(
            [
                layer.call,
                (f"{sum(m.weights for m in held):,}", sum(m.weights for m in held)),
                (f"{sum(m.tiles for m in held):,}", sum(m.tiles for m in held)),
                (f"{layer.products:,.4g}", layer.products),
                (
                    range_text(energy_text(layer.low_nJ), energy_text(layer.high_nJ)),
                    layer.high_nJ,
                ),
                (latency_text(max(layer.latency_ns)), max(layer.latency_ns)),
                (f"{first:.1%}" if worst else "", first),
                (f"{last:.1%}" if worst else "", last),
            ]
        )
    times = [f"error, {time_text(found.times_s[i])}" for i in (0, -1)]
    heads = ["layer", "weights", "tiles", "products", "energy", "latency", *times]
    yield _table(heads, rows, sortable=True)


def _tiles(crossbar: CrossbarMap, marks: Marks) -> Iterator[str]:
    yield "<h2>Tiles</h2>"
    tiles, size = crossbar.description.tiles, (crossbar.target.rows, crossbar.target.bit_lines)
    yield (
        "<p>Word lines run from left to right, bit lines from top to bottom; grey is not used.</p>"
    )
    legend = [f"{_mark(*mark)} {escape(name)}" for name, mark in list(marks.items())[:MAX_CALLS]]
    yield f"<p>{' &#160; '.join(legend)}</p>"
    boxes: dict[int, list[tuple[float, float, float, float, str, str]]] = {}
    for block, (word, plus, minus) in crossbar.blocks():
        if block.tile < MAX_TILES:
            letters, colour = marks[crossbar.matrices[block.matrix]]
            bits = np.concatenate([plus, minus])
            top, left, high, wide = map(
                float, (word.min(), bits.min(), np.ptp(word) + 1, np.ptp(bits) + 1)
            )
            boxes.setdefault(block.tile, []).append((top, left, high, wide, colour, letters))
    figures = []
    for entry in tiles[:MAX_TILES]:
        used = entry.devices_used / entry.devices
        held = ", ".join(sorted({box[-1] for box in boxes[entry.tile]}))
        title = f"tile {entry.tile} holds {held}; {used:.1%} of its devices are used"
        figures.append(
            f"<figure>{tile(size, boxes[entry.tile], title)}<figcaption>tile {entry.tile}: "
            f"{used:.1%} used</figcaption></figure>"
        )
    yield f'<div class="tiles">{"".join(figures)}</div>'
    if len(tiles) > MAX_TILES:
        yield f'<p class="note">{len(tiles) - MAX_TILES:,} more tiles not shown.</p>'


def _quantisation(found: Verification) -> Iterator[str]:
    if found.map is None:
        return
    yield "<h2>Error of the mapping</h2>"
    yield (
        "<p>Weights rebuilt from the map against those of the model: what levels, clipping and "
        "rounding do, before any noise.</p>"
    )
    rows: list[list[Cell]] = [
        [
            matrix.name,
            "x".join(map(str, matrix.shape)),
            ("continuous", 1e9) if matrix.levels is None else (str(matrix.levels), matrix.levels),
            (f"{matrix.max_error:.2g}", matrix.max_error),
            (f"{matrix.rms_error:.2g}", matrix.rms_error),
            (f"{matrix.relative_error:.2%}", matrix.relative_error),
        ]
        for matrix in found.map.matrices
    ]
    heads = ["matrix", "shape", "levels", "largest", "rms", "of rms weight"]
    yield _table(heads, rows, sortable=True)


def _products(report: Report) -> Iterator[str]:
    found, mapped = report.forecast, report.verification.map
    if found is None or mapped is None:
        return
    yield "<h2>Predicted error of the matrix products</h2>"
    yield (
        "<p>Error of x W on simulated tiles, with programming noise, drift, read noise and "
        "converters, as a share of the rms of x W, for normally distributed x. Of a matrix larger "
        "than a tile, the tile with the largest weight is simulated. Compensation is one digital "
        "factor per tile. The rounding to levels, above, comes on top.</p>"
    )
    rows: list[list[Cell]] = [
        [entry.name, _COMPENSATION[key], *((f"{error:.1%}", error) for error in errors)]
        for entry in found.products
        for key, errors in entry.relative_error.items()
    ]
    heads = ["matrix", "drift", *map(time_text, found.times_s)]
    yield _table(heads, rows, sortable=True)
    left = len(mapped.matrices) - len(found.products)
    if left:
        yield f'<p class="note">Not simulated: {left} (smaller matrices, or zeros).</p>'


def _metric(report: Report) -> Iterator[str]:
    found, known = report.forecast, report.verification.metric
    if found is None:
        return
    yield "<h2>Metric over time</h2>"
    if found.metric is None or known is None:
        yield f"<p>Not simulated: {escape(found.metric_left_out)}.</p>"
        return
    samples, reference = escape(report.verification.samples), known.values["keras"]
    yield (
        f"<p>{known.title.capitalize()} on {samples}, {known.unit}; {_better(known)}. Vertical "
        f"lines reach from the best to the worst of {_chips(found.chips)}; the dotted line is "
        f"Keras, {reference:.3f}. It is the metric of these samples, not of a data set: a network "
        "can score far from its known figures on a few samples that are unlike its data.</p>"
    )
    yield f"<p>{_converters(found)}</p>"
    lines = [(key, values.mean, values.min, values.max) for key, values in found.metric.items()]
    times = [time_text(t) for t in found.times_s]
    title = f"{known.title} over time; the table below has the numbers"
    picture = curves(lines, times, ("Keras", reference), title)
    yield f'<div class="chart">{picture}</div>'
    yield (
        f"<p>{_mark('&#9632;', MINUS)} dashed: not compensated &#160; {_mark('&#9679;', PLUS)} "
        "line: compensated by one factor per tile</p>"
    )
    rows: list[list[Cell]] = [
        ["this map", _COMPENSATION[key], *(f"{value:.3f}" for value in values.mean)]
        for key, values in found.metric.items()
    ]
    rows += [
        [
            f"one scale a {scale}",
            _COMPENSATION["global"],
            *(f"{value:.3f}" for value in by["global"].mean),
        ]
        for scale, by in (found.metric_by_scale or {}).items()
    ]
    yield _table(["conductances", "drift", *times], rows)


def _converters(found: Forecast) -> str:
    """Say with which converters the metric is computed."""
    used = found.converters
    if used is None:
        return (
            "Chips are read, and the network computes with these weights, without converters; "
            "--tile KIND computes with those of a kind of tile."
        )
    text = f"Every product runs through tiles: {escape(used.text)}."
    if used.alone is not None:
        text += f" These converters alone, with exact devices, give {used.alone:.3f}."
    if used.digital:
        left = ", ".join(map(escape, used.digital[:3]))
        text += f" Without converters: {left}{' ...' if len(used.digital) > 3 else ''}."
    return text


def _better(metric: MetricResult) -> str:
    return "lower is better" if metric.lower_is_better else "higher is better"


def _energy(found: Forecast | None) -> Iterator[str]:
    if found is None:
        return
    yield "<h2>Energy and latency per step</h2>"
    rows: list[list[Cell]] = [
        [
            case.name,
            energy_text(case.low_nJ),
            energy_text(case.high_nJ),
            latency_text(case.latency_ns),
        ]
        for case in found.energy.cases
    ]
    yield _table(["read-out", "lower", "upper", "latency"], rows)
    sources = [f"{case.name}: {case.source}." for case in found.energy.cases]
    texts = [*found.energy.assumptions, *sources]
    yield f'<ul class="note">{"".join(f"<li>{escape(text)}</li>" for text in texts)}</ul>'


def _conductances(crossbar: CrossbarMap) -> Iterator[str]:
    yield "<h2>Conductances</h2>"
    yield (
        "<p>Histograms of the targets without the devices at the smallest conductance (heights are "
        f"square roots of counts), and maps of G+ \u2212 G\u2212: {_mark('blue', PLUS)} positive, "
        f"{_mark('orange', MINUS)} negative; rows are word lines. Of large matrices a point shows "
        "the largest value of its neighbourhood.</p>"
    )
    entries = crossbar.description.matrices
    order = sorted(range(len(entries)), key=lambda i: -entries[i].rows * entries[i].columns)
    for places, size, kind in ((order[:_LARGE], 192, ""), (order[_LARGE:], 64, " small")):
        figures = [_picture(crossbar, entries[i].name, size) for i in sorted(places)]
        if figures:
            yield f'<div class="pictures{kind}">{"".join(figures)}</div>'


def _picture(crossbar: CrossbarMap, name: str, size: int) -> str:
    """Draw the histogram and the map of the conductances of a matrix."""
    target, levels = crossbar.target, crossbar.levels(name)
    bins, margin = _BINS, 0.0
    if levels is not None and levels <= 64 and target.g_min == 0:
        # A bar for each level.
        bins, margin = levels, target.g_max / (levels - 1) / 2
    plus, minus = crossbar.conductances(name)
    idle = np.float32(target.g_min)
    resting = sum(int(np.count_nonzero(g <= idle)) for g in (plus, minus)) / (2 * plus.size)
    ups, downs = (
        np.histogram(g[g > idle], bins=bins, range=(-margin, target.g_max + margin))[0]
        for g in (plus, minus)
    )
    bars = histogram(ups, downs, target.g_max, f"histogram of the conductances of {name}")
    heat = png(shrink(plus - minus, size), target.g_max - target.g_min)
    wide = _HEIGHT * plus.shape[1] / plus.shape[0]
    return (
        f"<figure><h3>{escape(name)}</h3>{bars}"
        f'<img alt="map of the conductances of {escape(name)}" src="{heat}" '
        f'style="width:min(100%,max(1rem,{wide:.4g}rem))"/>'
        f"<figcaption>{plus.shape[0]}x{plus.shape[1]} weights; {resting:.1%} of the devices at "
        f"{target.g_min:g} \u00b5S</figcaption></figure>"
    )


def _verification(found: Verification) -> Iterator[str]:
    yield "<h2>Verification</h2>"
    yield (
        f"<p>Compared on {escape(found.samples)}, {found.batches} batch(es). An output may differ "
        f"by {BOUND}.</p>"
    )
    rows: list[list[Cell]] = [
        [f"ONNX output {name}", f"largest difference {output.max_difference:.2g}"]
        for name, output in found.onnx.outputs.items()
    ]
    rows += [[f"layer {unit.name}", unit_text(unit)] for unit in found.onnx.units]
    if found.streaming is not None:
        difference = found.streaming.max_difference
        rows.append(["streaming form", f"largest difference {difference:.2g}"])
    if found.int8 is not None:
        rows += [[f"int8 {label}", text] for label, text in int8_texts(found.int8)]
    if found.device_list is not None:
        good = "equals" if found.device_list.ok else "differs from"
        rows.append(["list of devices", f"{good} the map"])
    if found.nir is not None:
        rows.append(["NIR graph", nir_text(found)])
    if found.c is not None:
        rows.append(["C", c_text(found.c)])
    if found.web is not None:
        rows.append(["web page", web_text(found.web)])
    names = {"keras": "Keras", "onnx": "ONNX Runtime", "int8": "ONNX Runtime, int8"}
    names |= {"c": "C", "c_int8": "C, int8", "map": "the map's weights"}
    if found.metric is not None:
        for key, value in found.metric.values.items():
            title, unit = found.metric.title, found.metric.unit
            rows.append([f"{names[key]}: {title}", f"{value:.4f} {unit}"])
    yield _table(["what", "result"], rows)
    if found.reload is not None:
        yield (
            "<p><code>snukeras-export verify</code> cannot load the model: "
            f"{escape(found.reload)}.</p>"
        )


def _mark(text: str, colour: str) -> str:
    return f'<span class="mark" style="border-color:{colour}">{text}</span>'


def _letters(index: int) -> str:
    """Return A, B, ... Z, AA, AB, ..."""
    text = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        text = chr(65 + rest) + text
    return text


def _table(head: Sequence[str], rows: Sequence[Sequence[Cell]], sortable: bool = False) -> str:
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    kind = ' class="sortable"' if sortable else ""
    return (
        f'<div class="wide"><table{kind}><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return f"<td>{escape(cell)}</td>"
    text, value = cell
    return f'<td data-value="{value:.9g}">{escape(text)}</td>'
