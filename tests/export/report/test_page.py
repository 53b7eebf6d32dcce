"""report.html: well-formed, alone, equal to report.json, and readable in a browser."""

import base64
import dataclasses
import hashlib
import json
import re
import shutil
import struct
import subprocess
import xml.etree.ElementTree as ElementTree
import zlib
from html.parser import HTMLParser

import keras
import numpy as np
import pytest

from snukeras._units import energy_text, time_text
from snukeras.export import load_map
from snukeras.export.crossbar.targets import Target, load_target
from snukeras.export.exporter import export
from snukeras.export.report import drawing
from snukeras.export.report.page import page
from snukeras.export.report.simulation import TIMES
from snukeras.export.samples import Samples
from snukeras.export.verify.folder import verify_folder
from snukeras.layers import SNU

NAME = '<i>small</i> & "b"'


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((None, 88), name="x"),
            SNU(40, return_sequences=True, threshold=0.2, name="snu"),
            keras.layers.Dense(88, "sigmoid", name="a <script> & b"),
        ],
        name="small",
    )
    rolls = [(np.random.default_rng(0).random((9, 88)) < 0.05).astype("uint8")]
    songs = Samples.songs(rolls, "test songs")
    target = load_target("pcm").replace(rows=64, columns=64, levels=16)
    folder = tmp_path_factory.mktemp("exports") / "small"
    report = export(model, folder, target=target, samples=songs, seed=3, name=NAME)
    return folder, report


class Strict(HTMLParser):
    """Fails where elements do not nest; keeps the text and all attributes."""

    def __init__(self):
        super().__init__()
        self.open, self.texts, self.seen, self.tags = [], [], [], set()

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.handle_startendtag(tag, attrs)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.seen += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def parsed(text):
    parser = Strict()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    return parser


@pytest.mark.slow
def test_it_is_well_formed_and_alone(exported):
    text = (exported[0] / "report.html").read_text(encoding="utf-8")
    kind, rest = text.split("\n", 1)
    assert kind == "<!DOCTYPE html>"
    ElementTree.fromstring(rest)  # well-formed as XML, too
    parser = parsed(text)
    assert text.count("<script>") == 1 and "i" not in parser.tags and "a" not in parser.tags
    script = text[text.index("<script>") + 8 : text.index("</script>")]
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src"
    assert f"{policy} 'sha256-{allowed}'" in text
    for name, value in parser.seen:
        assert not name.startswith("on")
        if name in ("src", "href", "srcset", "data", "action", "poster"):
            assert value.startswith("data:")
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style and "@import" not in style
    assert "http:" not in text and "https:" not in text


def test_it_shows_the_figures_of_the_report(exported):
    folder, report = exported
    assert json.loads((folder / "report.json").read_text(encoding="utf-8")) == report.to_dict()
    text = " ".join(parsed((folder / "report.html").read_text(encoding="utf-8")).texts)
    found, mapped = report.forecast, report.map
    wanted = [
        NAME,
        "a <script> & b",
        "Verified",
        f"{mapped.weights:,}",
        f"{mapped.devices:,}",
        f"{mapped.utilisation:.1%}",
        energy_text(found.energy.high_nJ),
        *found.risks,
        *found.energy.assumptions,
        *map(time_text, TIMES),
    ]
    for entry in report.verification.map.matrices:
        wanted += [entry.name, f"{entry.max_error:.2g}", f"{entry.rms_error:.2g}"]
    for entry in found.products:
        wanted += [f"{e:.1%}" for errors in entry.relative_error.values() for e in errors]
    for over_time in (found.metric, *found.metric_by_scale.values()):
        for values in over_time.values():
            wanted += [f"{value:.3f}" for value in values.mean]
    wanted += [energy_text(layer.high_nJ) for layer in found.energy.layers]
    wanted += [f"{value:.4f}" for value in report.verification.metric.values.values()]
    wanted += [f"tile {n}: {u:.1%} used" for n, u in enumerate(mapped.tile_utilisation)]
    assert len(mapped.tile_utilisation) == 7
    for part in wanted:
        assert part in text, part


@pytest.mark.slow
def test_the_same_input_gives_the_same_page(exported):
    folder, report = exported
    model = keras.models.load_model(folder / "model.keras")
    samples = Samples.load(folder / "samples.npz")
    target = Target.from_dict(report.map.target)
    again = folder.parent / "again"
    other = export(model, again, target=target, samples=samples, seed=3, name=NAME)
    assert other.forecast == report.forecast
    assert (again / "report.html").read_bytes() == (folder / "report.html").read_bytes()
    shutil.rmtree(again)
    third = export(model, again, target=target, samples=samples, seed=4)
    assert third.forecast.metric != report.forecast.metric


def test_without_a_map(exported, tmp_path):
    model = keras.models.load_model(exported[0] / "model.keras")
    report = export(model, tmp_path / "out", target="onnx")
    assert report.forecast is None
    parser = parsed((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert "Network" in parser.texts and "Tiles" not in parser.texts
    assert verify_folder(tmp_path / "out")["ok"]


def test_a_failed_verification_cannot_be_overlooked(exported):
    folder, report = exported
    verification = dataclasses.replace(report.verification, ok=False)
    failed = dataclasses.replace(report, verification=verification)
    text = page(failed, load_map(folder / "crossbar.snumap"))
    assert "NOT verified" in text


def test_names_with_control_characters():
    text = f"<p>{drawing.escape(chr(7) + chr(0xFFFE) + chr(0xD800) + '<é')}</p>"
    assert ElementTree.fromstring(text.encode()).text == "???<é"


def test_a_heat_map_is_a_png_of_its_values():
    uri = drawing.png(np.array([[-2.0, 0.0, 2.0], [1.0, -1.0, 5.0]]), 2.0)
    data = base64.b64decode(uri.split(",")[1])
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    chunks, at = {}, 8
    while at < len(data):
        size, name = struct.unpack(">I4s", data[at : at + 8])
        chunks[name] = data[at + 8 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size])[0] == zlib.crc32(
            name + chunks[name]
        )
        at += 12 + size
    assert struct.unpack(">II", chunks[b"IHDR"][:8]) == (3, 2)
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), "uint8").reshape(2, 4)[:, 1:]
    colours = np.frombuffer(chunks[b"PLTE"], "uint8").reshape(-1, 3)[rows]
    assert colours[0, 0].tolist() == [0xD5, 0x5E, 0x00]
    assert colours[0, 1].tolist() == [255, 255, 255]
    assert colours[0, 2].tolist() == colours[1, 2].tolist() == [0x00, 0x72, 0xB2]


def test_shrinking_keeps_the_largest():
    values = np.zeros((1000, 300))
    values[777, 123] = -9.0
    small = drawing.shrink(values)
    assert small.shape == (192, 192) and small.min() == -9.0 and np.count_nonzero(small) == 1


@pytest.mark.parametrize("width", [1200, 390])
def test_it_renders_in_chromium(exported, tmp_path, width):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("needs chromium (Debian's package of that name)")
    picture, probe = tmp_path / "shot.png", tmp_path / "probe.html"
    text = (exported[0] / "report.html").read_text(encoding="utf-8")
    # Shown in a frame, whose page says what it measures. The report has a script of its own, for
    # sorting, whose closing tag must not end the script of this page.
    framed = json.dumps(text).replace("</", "<\\/")
    probe.write_text(
        f'<body style="margin:0"><iframe width="{width}" height="1900" style="border:0"></iframe>'
        "<script>const f = document.querySelector('iframe'); f.onload = () => {"
        "const d = f.contentDocument, n = s => d.querySelectorAll(s).length;"
        "const bad = [...d.images].filter(i => !i.naturalWidth).length;"
        "console.log(`MEASURED ${d.documentElement.scrollWidth} ${f.contentWindow.innerWidth} "
        "${bad} ${n('svg')}`);"
        # Sort each table by its second column: once down, once up; then by its first, by Enter.
        "for (const t of d.querySelectorAll('table.sortable')) {"
        "const heads = t.tHead.rows[0].cells, order = place => [...t.tBodies[0].rows].map("
        "r => r.cells[place].dataset.value ?? r.cells[place].textContent).join(' ; ');"
        "const enter = new f.contentWindow.KeyboardEvent('keydown', {key: 'Enter'});"
        "const found = [order(1)]; heads[1].click(); found.push(order(1));"
        "heads[1].click(); found.push(order(1));"
        "heads[0].dispatchEvent(enter); found.push(order(0), heads[0].ariaSort, heads[1].ariaSort);"
        "console.log(`SORTED ${found.join(' # ')}`); } };"
        f"f.srcdoc = {framed};</script></body>",
        encoding="utf-8",
    )
    result = subprocess.run(
        [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-sync",
            "--no-first-run",
            "--hide-scrollbars",
            "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--window-size={max(width, 500)},2000",
            f"--screenshot={picture}",
            probe.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    messages = re.findall(r"CONSOLE.*?\"(.*?)\", source", result.stderr)
    measured, *tables = messages
    assert len(tables) == text.count('class="sortable"') == 3, messages
    for table in tables:
        first, down, up, names, now, before = table.removeprefix("SORTED ").split(" # ")
        values = first.split(" ; ")
        number = all(re.fullmatch(r"-?[\d.e+]+", value) for value in values)
        rising = sorted(values, key=float if number else str.lower)
        assert up.split(" ; ") == rising and down.split(" ; ") == rising[::-1]
        assert names.split(" ; ") == sorted(names.split(" ; "), reverse=True)
        assert (now, before) == ("descending", "")
    wide, inner, bad, drawings = map(int, measured.split()[1:])
    assert wide <= inner == width and bad == 0
    assert drawings == text.count("<svg") == len(exported[1].map.tile_utilisation) + 3
    assert picture.stat().st_size > 20_000
