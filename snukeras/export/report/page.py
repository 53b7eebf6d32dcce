"""report.html: an export on one page that needs nothing else, neither network nor scripts."""

from typing import Any

import numpy as np

from snukeras.export.crossbar.map import CrossbarMap
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
from snukeras.export.report.simulation import TIMES

# More would make the page slow to open; what is left out is said.
MAX_TILES, MAX_PICTURES, MAX_CALLS = 48, 12, 60
_BINS = 40
# Of a heat map, at most, in rem; narrower ones keep their shape.
_HEIGHT = 24
_COMPENSATION = {"none": "not compensated", "global": "compensated"}
_STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 62rem; padding: 1rem; background: #fff; color: #1a1a1a;
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.5rem; margin: .2rem 0; } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1rem 0 .3rem; }
p { margin: .4rem 0; } svg { display: block; width: 100%; height: auto; }
.note { color: #404040; font-size: .875rem; }
.good, .bad { display: inline-block; border: 2px solid; border-radius: .3rem; font-weight: bold;
  padding: .1rem .6rem; } .good { color: #00563f; } .bad { color: #8f2d00; }
.facts, .tiles, .pictures { display: grid; gap: .75rem; }
.facts { grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); }
.facts div { border: 1px solid #c4c4c4; border-radius: .4rem; padding: .4rem .6rem; }
.facts b { display: block; font-size: 1.15rem; }
.tiles { grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); }
.pictures { grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); }
figure { margin: 0; } figcaption { font-size: .875rem; }
.chain { list-style: none; margin: 0; padding: 0; max-width: 30rem; }
.chain li { border: 1px solid #767676; border-left-width: .5rem; border-radius: .3rem;
  margin: 0 0 .9rem; padding: .3rem .6rem; position: relative; }
.chain li + li::before { content: "\\2193"; position: absolute; top: -1.2rem; left: 1rem; }
.mark { display: inline-block; min-width: 1.1rem; border: 2px solid; border-radius: .3rem;
  font-size: .8rem; font-weight: bold; padding: 0 .2rem; text-align: center; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .875rem; }
th, td { border-bottom: 1px solid #c4c4c4; padding: .2rem .5rem; text-align: right; }
th:first-child, td:first-child { overflow-wrap: anywhere; padding-left: 0; text-align: left; }
@media (max-width: 30rem) { table { font-size: .8rem; } th, td { padding: .2rem .25rem; } }
tbody th { font-weight: bold; }
img { border: 1px solid #767676; box-sizing: border-box; display: block;
  image-rendering: pixelated; height: auto; max-height: 24rem; }
.chart { max-width: 34rem; } .risks li { margin-bottom: .4rem; }
"""


def page(report: dict[str, Any], crossbar: CrossbarMap | None) -> str:
    """The page for a report (the content of report.json) and its crossbar map, if it has one."""
    name = escape(report["source"]["name"])
    parts = [
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>',
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>',
        f"<title>{name}: export report</title>",
        '<link rel="icon" href="data:,"/>',
        f"<style>{_STYLE}</style></head><body><main>",
        f"<h1>{name}</h1>",
        *_head(report),
    ]
    marks: dict[str, tuple[str, str]] = {}
    if crossbar is not None:
        for index, matrix in enumerate(crossbar.matrices):
            marks[matrix] = (_letters(index), PALETTE[index % len(PALETTE)])
        parts += _risks(report)
    parts += _network(report, crossbar, marks)
    if crossbar is not None:
        parts += _tiles(crossbar, marks)
        parts += _quantisation(report)
        parts += _products(report)
        parts += _metric(report)
        parts += _energy(report)
        parts += _conductances(crossbar)
    parts += _verification(report)
    parts.append("</main></body></html>\n")
    return "\n".join(parts)


def _head(report):
    mapped, good = report["map"], report["verification"]["ok"]
    yield f'<p class="{"good" if good else "bad"}">{"Verified" if good else "NOT verified"}</p>'
    facts = [("parameters", f"{report['parameters']:,}")]
    if mapped is not None:
        facts += [
            ("weights on tiles", f"{mapped['weights']:,}"),
            ("devices", f"{mapped['devices']:,}"),
            ("tiles", f"{mapped['tiles']:,}"),
            ("of the devices used", f"{mapped['utilisation']:.1%}"),
        ]
        energy = report["forecast"]["energy"]
        if energy["cases"]:
            facts.append(
                ("per step", f"{energy['low_nJ']:.3g} to {energy['high_nJ']:.3g} nJ"),
            )
    boxes = [f"<div><b>{escape(value)}</b>{escape(label)}</div>" for label, value in facts]
    yield f'<div class="facts">{"".join(boxes)}</div>'
    if mapped is not None:
        target = mapped["target"]
        size, range_ = target["tile"], target["conductance"]
        levels = range_["levels"] or "continuous"
        yield (
            f"<p>Target {escape(target['name'])}: {escape(target['title'])}; tiles of "
            f"{size['rows']}x{size['columns']} cross-points, {range_['g_min_uS']:g} to "
            f"{range_['g_max_uS']:g} \u00b5S, levels: {levels}.</p>"
        )
    if report["metrics"]:
        figures = [
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in report["metrics"].items()
        ]
        yield f"<p>Known figures: {escape(', '.join(figures))}.</p>"
    yield (
        f'<p class="note">Written by snukeras {escape(report["snukeras"])}; sha256 of the weights '
        f"{report['source']['weights_sha256']}.</p>"
    )


def _risks(report):
    yield "<h2>Risks</h2>"
    items = "".join(f"<li>{escape(text)}</li>" for text in report["forecast"]["risks"])
    yield f'<ol class="risks">{items}</ol>'
    yield _conditions(report["forecast"])


def _conditions(found):
    return (
        f'<p class="note">Simulated with the device model {found["device"]} on {found["chips"]} '
        f"chips (seed {found['seed']}): few, to keep the export quick, so a rough estimate. Times "
        "count from the first reading after programming.</p>"
    )


def _network(report, crossbar, marks):
    yield "<h2>Network</h2>"
    entries = [] if crossbar is None else crossbar.description["matrices"]
    blocks = [] if crossbar is None else crossbar.description["blocks"]
    items, before = [], None
    for call in report["network"][:MAX_CALLS]:
        layer = call["name"].split("@")[0]
        lines = [f"<b>{escape(call['name'])}</b> ({escape(call['class'])})"]
        if before is not None and call["inputs"] != [before]:
            lines.append(f"from {escape(', '.join(call['inputs']))}")
        if call["parameters"]:
            lines.append(f"{call['parameters']:,} parameters")
        own = [(i, e) for i, e in enumerate(entries) if f"{e['layer']}/".startswith(f"{layer}/")]
        for index, entry in own:
            tiles = sorted({block["tile"] for block in blocks if block["matrix"] == index})
            where = ", ".join(map(str, tiles[:8])) + (" ..." if len(tiles) > 8 else "")
            lines.append(
                f"{_mark(*marks[entry['name']])} {escape(entry['role'])}: {entry['rows']}x"
                f"{entry['columns']} on tile {where}"
            )
        colour = marks[own[0][1]["name"]][1] if own else "#767676"
        items.append(f'<li style="border-left-color:{colour}">{"<br/>".join(lines)}</li>')
        before = call["name"]
    yield f'<ol class="chain">{"".join(items)}</ol>'
    if len(report["network"]) > MAX_CALLS:
        yield f'<p class="note">{len(report["network"]) - MAX_CALLS} more layers not shown.</p>'


def _tiles(crossbar, marks):
    yield "<h2>Tiles</h2>"
    tiles, size = crossbar.description["tiles"], (crossbar.target.rows, crossbar.target.bit_lines)
    yield (
        "<p>Word lines run from left to right, bit lines from top to bottom; grey is not used.</p>"
    )
    legend = [f"{_mark(*mark)} {escape(name)}" for name, mark in list(marks.items())[:MAX_CALLS]]
    yield f"<p>{' &#160; '.join(legend)}</p>"
    boxes: dict[int, list] = {}
    for block, word, plus, minus in crossbar.blocks():
        if block["tile"] < MAX_TILES:
            name = crossbar.matrices[block["matrix"]]
            bits = np.concatenate([plus, minus])
            box = (word.min(), bits.min(), np.ptp(word) + 1, np.ptp(bits) + 1)
            boxes.setdefault(block["tile"], []).append((*map(float, box), *reversed(marks[name])))
    figures = []
    for entry in tiles[:MAX_TILES]:
        used = entry["devices_used"] / entry["devices"]
        held = ", ".join(sorted({box[-1] for box in boxes[entry["tile"]]}))
        title = f"tile {entry['tile']} holds {held}; {used:.1%} of its devices are used"
        figures.append(
            f"<figure>{tile(size, boxes[entry['tile']], title)}<figcaption>tile {entry['tile']}: "
            f"{used:.1%} used</figcaption></figure>"
        )
    yield f'<div class="tiles">{"".join(figures)}</div>'
    if len(tiles) > MAX_TILES:
        yield f'<p class="note">{len(tiles) - MAX_TILES:,} more tiles not shown.</p>'


def _quantisation(report):
    yield "<h2>Error of the mapping</h2>"
    yield (
        "<p>Weights rebuilt from the map against those of the model: what levels, clipping and "
        "rounding do, before any noise.</p>"
    )
    rows = []
    for entry in report["verification"]["map"]["matrices"]:
        share = entry["rms_error"] / entry["rms_weight"] if entry["rms_weight"] else 0.0
        rows.append(
            [
                entry["name"],
                "x".join(map(str, entry["shape"])),
                f"{entry['max_error']:.2g}",
                f"{entry['rms_error']:.2g}",
                f"{share:.2%}",
            ]
        )
    yield _table(["matrix", "shape", "largest", "rms", "of rms weight"], rows)


def _products(report):
    found = report["forecast"]
    yield "<h2>Predicted error of the matrix products</h2>"
    yield (
        "<p>Error of x W on simulated tiles, with programming noise, drift, read noise and "
        "converters, as a share of the rms of x W, for normally distributed x. Of a matrix larger "
        "than a tile, the tile with the largest weight is simulated. Compensation is one digital "
        "factor per tile. The rounding to levels, above, comes on top.</p>"
    )
    rows = []
    for entry in found["products"]:
        rows.append([entry["name"]])
        for key, errors in entry["relative_error"].items():
            rows.append([_COMPENSATION[key], *(f"{error:.1%}" for error in errors)])
    yield _table(["drift", *TIMES.values()], rows)
    left = len(report["verification"]["map"]["matrices"]) - len(found["products"])
    if left:
        yield f'<p class="note">Not simulated: {left} (smaller matrices, or zeros).</p>'


def _metric(report):
    found, known = report["forecast"], report["verification"]["metric"]
    yield "<h2>Metric over time</h2>"
    if found["metric"] is None:
        yield f"<p>Not simulated: {escape(found['metric_left_out'])}.</p>"
        return
    samples, better = escape(report["verification"]["samples"]), _better(known)
    reference = known["values"]["keras"]
    yield (
        f"<p>{known['title'].capitalize()} on {samples}, {known['unit']}; {better}. Vertical lines "
        f"reach from the best to the worst of {found['chips']} chips; the dotted line is Keras, "
        f"{reference:.3f}.</p>"
    )
    lines = [
        (key, values["mean"], values["min"], values["max"])
        for key, values in found["metric"].items()
    ]
    title = f"{known['title']} over time; the table below has the numbers"
    picture = curves(lines, list(TIMES.values()), ("Keras", reference), title)
    yield f'<div class="chart">{picture}</div>'
    yield (
        f"<p>{_mark('&#9632;', MINUS)} dashed: not compensated &#160; {_mark('&#9679;', PLUS)} "
        "line: compensated by one factor per tile</p>"
    )
    rows = [
        [_COMPENSATION[key], *(f"{value:.3f}" for value in values["mean"])]
        for key, values in found["metric"].items()
    ]
    yield _table(["drift", *TIMES.values()], rows)


def _better(metric):
    return "lower is better" if metric["lower_is_better"] else "higher is better"


def _energy(report):
    found = report["forecast"]["energy"]
    yield "<h2>Energy and latency per step</h2>"
    rows = [
        [
            case["name"],
            f"{case['low_nJ']:.3g} nJ",
            f"{case['high_nJ']:.3g} nJ",
            f"{case['latency_ns'] / 1000:.3g} \u00b5s",
        ]
        for case in found["cases"]
    ]
    yield _table(["read-out", "lower", "upper", "latency"], rows)
    texts = [*found["assumptions"], *(f"{c['name']}: {c['source']}." for c in found["cases"])]
    yield f'<ul class="note">{"".join(f"<li>{escape(text)}</li>" for text in texts)}</ul>'


def _conductances(crossbar):
    yield "<h2>Conductances</h2>"
    target, entries = crossbar.target, crossbar.description["matrices"]
    yield (
        "<p>Histograms of the targets without the devices at the smallest conductance (heights are "
        f"square roots of counts), and maps of G+ \u2212 G\u2212: {_mark('blue', PLUS)} positive, "
        f"{_mark('orange', MINUS)} negative; "
        "rows are word lines. Of large matrices a point shows the largest value of its "
        "neighbourhood.</p>"
    )
    bins, margin = _BINS, 0.0
    if target.levels is not None and target.levels <= 64 and target.g_min == 0:
        # A bar for each level.
        bins, margin = target.levels, target.g_max / (target.levels - 1) / 2
    figures = []
    order = sorted(range(len(entries)), key=lambda i: -entries[i]["rows"] * entries[i]["columns"])
    for index in sorted(order[:MAX_PICTURES]):
        name = entries[index]["name"]
        plus, minus = crossbar.conductances(name)
        idle = np.float32(target.g_min)
        resting = sum(int(np.count_nonzero(g <= idle)) for g in (plus, minus)) / (2 * plus.size)
        counts = [
            np.histogram(g[g > idle], bins=bins, range=(-margin, target.g_max + margin))[0]
            for g in (plus, minus)
        ]
        bars = histogram(*counts, target.g_max, f"histogram of the conductances of {name}")
        heat = png(shrink(plus - minus), target.g_max - target.g_min)
        wide = _HEIGHT * plus.shape[1] / plus.shape[0]
        figures.append(
            f"<figure><h3>{escape(name)}</h3>{bars}"
            f'<img alt="map of the conductances of {escape(name)}" src="{heat}" '
            f'style="width:min(100%,max(1rem,{wide:.4g}rem))"/>'
            f"<figcaption>{plus.shape[0]}x{plus.shape[1]} weights; {resting:.1%} of the devices at "
            f"{target.g_min:g} \u00b5S</figcaption></figure>"
        )
    yield f'<div class="pictures">{"".join(figures)}</div>'
    if len(entries) > MAX_PICTURES:
        yield f'<p class="note">{len(entries) - MAX_PICTURES} smaller matrices not shown.</p>'


def _verification(report):
    found = report["verification"]
    yield "<h2>Verification</h2>"
    yield f"<p>Compared on {escape(found['samples'])}, {found['batches']} batch(es).</p>"
    rows = [
        [f"ONNX output {name}", f"largest difference {output['max_difference']:.2g}"]
        for name, output in found["onnx"]["outputs"].items()
    ]
    for unit in found["onnx"]["units"]:
        text = f"largest difference {unit['max_difference']:.2g}"
        if unit["spiking"]:
            text = f"{unit['flips']} of {unit['outputs']:,} spikes differ"
            text += f", {unit['contradictions']} beyond rounding" if unit["flips"] else ""
        rows.append([f"layer {unit['name']}", text])
    if found["streaming"] is not None:
        difference = found["streaming"]["max_difference"]
        rows.append(["streaming form", f"largest difference {difference:.2g}"])
    names = {"keras": "Keras", "onnx": "ONNX Runtime", "map": "the map's weights"}
    metric = found["metric"] or {"values": {}}
    for key, value in metric["values"].items():
        rows.append([f"{names[key]}: {metric['title']}", f"{value:.4f} {metric['unit']}"])
    yield _table(["what", "result"], rows)


def _mark(text, colour):
    return f'<span class="mark" style="border-color:{colour}">{text}</span>'


def _letters(index):
    """A, B, ... Z, AA, AB, ..."""
    text = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        text = chr(65 + rest) + text
    return text


def _table(head, rows):
    """A table; a row of one cell is the heading of those below it."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = ""
    for row in rows:
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row)
        if len(row) == 1:
            cells = f'<th scope="rowgroup" colspan="{len(head)}">{escape(row[0])}</th>'
        body += f"<tr>{cells}</tr>"
    return (
        f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )
