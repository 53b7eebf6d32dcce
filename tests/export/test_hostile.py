"""Hostile inputs to the command: no traceback, no hang, no file lost.

Each case is drawn from its kind and number, so that a failure can be repeated by its name. The
default run takes a part of each kind; `pytest -m slow` takes 500 and more.
"""

import hashlib
import io
import json
import os
import random
import struct
import zipfile

import keras
import numpy as np
import pytest
from hostile import NUMBERS, WORDS, cases, limited, spoiled, spoiled_bytes

from snukeras._content import folder as content_folder
from snukeras.export.command import main
from snukeras.export.exporter import export
from snukeras.export.folder import CHECKSUMS, sha256_of
from snukeras.layers import SNU

# How many cases of each kind the default run and the slow one have.
KINDS = {
    "arguments": (8, 110),
    "model": (3, 40),
    "target": (5, 80),
    "faults": (6, 40),
    "samples": (6, 50),
    "map": (6, 120),
    "measured": (4, 60),
    "folder": (3, 30),
}
OPTIONS = [
    "--tile", "--g-max", "--g-min", "--levels", "--scale", "--faults", "--chips", "--times",
    "--samples", "--metric", "--dt", "--target", "--output", "--seed",
]  # fmt: skip
TINY = (content_folder("export") / "examples" / "tiny.snumap").read_bytes()
TARGET = json.loads((content_folder("export") / "targets" / "pcm14nm-2.json").read_text())
FAULTS = {
    "format": "snukeras-faults",
    "version": 1,
    "stuck": [{"tile": 0, "word_line": 1, "bit_line": 2, "conductance_uS": 3.0}],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model file, and an export of it with all files."""
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("made")
    model = keras.Sequential(
        [keras.Input((None, 5), name="x"), SNU(4, threshold=0.2, name="snu"),
         keras.layers.Dense(2, activation="softmax", name="out")], name="tiny"
    )  # fmt: skip
    model.save(folder / "tiny.keras")
    export(model, folder / "out", csv=True, streaming=False, chips=1, times=(25.0,))
    return folder


def arguments(folder, made, draw):
    parts = []
    for _ in range(draw.randint(1, 3)):
        parts += [draw.choice(OPTIONS), draw.choice(WORDS)]
    command = draw.randrange(8)
    if command == 0:
        return ["verify", draw.choice(WORDS), *parts[2:]]
    if command == 1:
        return ["readback", draw.choice(WORDS), draw.choice(WORDS), *parts[2:]]
    model = draw.choice(["missing.keras", "zoo:[red]", "zoo:../x", "zoo:", *WORDS])
    return [model, *parts]


def model(folder, made, draw):
    data = (made / "tiny.keras").read_bytes()
    if draw.random() < 0.4:
        data = spoiled_bytes(data, draw)
        if zipfile.is_zipfile(io.BytesIO(data)):
            data = data[: len(data) // 3]
    else:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        name = draw.choice(sorted(files))
        if name.endswith(".json") and draw.random() < 0.7:
            config = json.loads(files[name])
            config["class_name"] = draw.choice(["system", "Popen", "Nothing", "\x1b[2J", "a[/b]"])
            config["module"] = draw.choice(["os", "subprocess", "keras", "no.such", ".."])
            files[name] = json.dumps(config).encode()
        else:
            files[name] = draw.randbytes(50)
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        data = packed.getvalue()
    (folder / "m.keras").write_bytes(data)
    return ["m.keras"]


def target(folder, made, draw):
    text = json.dumps(spoiled(TARGET, draw))
    if draw.random() < 0.2:
        text = draw.choice(["", "{", "[" * 50_000, '{"a": NaN}', '{"a": 1, "a": 2}', "9" * 9000])
    (folder / "t.json").write_text(text)
    return ["missing.keras", "--target", "t.json"]


def faults(folder, made, draw):
    (folder / "f.json").write_text(json.dumps(spoiled(FAULTS, draw)))
    return ["missing.keras", "--faults", "f.json"]


def samples(folder, made, draw):
    x, targets = np.ones((3, 4, 5), "float32"), np.array([0, 1, 1])
    bad = {
        "nan": {"x": np.where(x > 0, np.nan, x)},
        "infinite": {"x": x * np.inf},
        "large": {"x": x.astype("float64") * 1e300},
        "text": {"x": np.array(["a"] * 3)},
        "complex": {"x": x.astype("complex64")},
        "time": {"x": np.zeros((3, 4, 5), "datetime64[s]")},
        "no batch": {"x": x[:0]},
        "no step": {"x": x[:, :0]},
        "features": {"x": x[..., :4]},
        "rank": {"x": x[0]},
        "scalar": {"x": np.float32(1)},
        "no input": {},
        "two": {"x": x, "y": x, "z": x},
        "other": {"a": x, "b": x},
        "class too large": {"x": x, "targets": targets + 1},
        "class below zero": {"x": x, "targets": targets - 1},
        "few targets": {"x": x, "targets": targets[:2]},
        "float targets": {"x": x, "targets": np.full((3, 2), 2.0)},
        "nan targets": {"x": x, "targets": np.full((3, 2), np.nan)},
        "text targets": {"x": x, "targets": np.array(["a", "b", "c"])},
        "targets of another rank": {"x": x, "targets": np.zeros((3, 4), int)},
    }
    path, kind = folder / "s.npz", draw.choice([*bad, "npy", "bytes", "header", "name", "member"])
    if kind in bad:
        np.savez(path, **bad[kind])
    elif kind == "npy":
        with open(path, "wb") as file:
            np.save(file, x)
    elif kind == "bytes":
        np.savez(path, x=x)
        path.write_bytes(spoiled_bytes(path.read_bytes(), draw)[: draw.randrange(200)])
    else:
        shape = 10 ** draw.randrange(3, 30)
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape},)}}".encode()
        data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("../x.npy" if kind == "name" else "x.npy",
                             data if kind != "member" else b"no array")  # fmt: skip
    options = [] if draw.random() < 0.7 else ["--metric", draw.choice(["accuracy", "frame_nll"])]
    return [str(made / "tiny.keras"), "--samples", "s.npz", *options]


def forged(description):
    """A map with another description, and a header that fits."""
    _, _, _, offset, _, _ = struct.unpack("<8sIIQQ32s", TINY[:64])
    text = json.dumps(description).encode()
    header = struct.pack(
        "<8sIIQQ32s", b"\x89SNUMAP\n", 1, 0, offset, len(text), hashlib.sha256(text).digest()
    )
    return header + TINY[64:offset] + text


def crossbar(folder, made, draw):
    _, _, _, offset, _, _ = struct.unpack("<8sIIQQ32s", TINY[:64])
    description = json.loads(TINY[offset:])
    data = forged(spoiled(description, draw))
    if draw.random() < 0.2:
        data = spoiled_bytes(TINY, draw)
    (folder / "m.snumap").write_bytes(data)
    (folder / "g.csv").write_text("tile,word_line,bit_line,measured_uS\n0,0,0,10\n")
    return ["readback", "m.snumap", "g.csv", "--output", "back"]


def measured(folder, made, draw):
    (folder / "m.snumap").write_bytes(TINY)
    lines = [
        ",".join(str(draw.choice([0, 1, 2, 3, *NUMBERS[:16], *WORDS[:18]])) for _ in range(4))
        for _ in range(draw.randrange(5))
    ]
    head = "tile,word_line,bit_line,measured_uS"
    head = head if draw.random() < 0.8 else draw.choice(["", "tile", head.replace(",", ";"), "\0"])
    text = "\n".join([head, *lines]).encode("utf-8", "replace")
    (folder / "g.csv").write_bytes(text if draw.random() < 0.8 else spoiled_bytes(text, draw))
    return ["readback", "m.snumap", "g.csv", "--output", "back"]


def folder(folder, made, draw):
    """An export with a file spoiled, and a list of checksums that fits."""
    out = folder / "out"
    out.mkdir()
    for path in (made / "out").iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    kind = draw.randrange(4)
    path = out / draw.choice(sorted(p.name for p in out.iterdir() if p.name != CHECKSUMS))
    if kind == 0:
        np.savez(out / "samples.npz", **{"99999999.input.0": np.ones((1, 2, 5), "float32")})
    elif kind == 1:
        text = np.asarray(draw.choice(WORDS[:12]))
        np.savez(out / "samples.npz", metric=text, kind=text,
                 **{"0.input.0": np.ones((1, 2, 5), "f4"), "0.target": np.ones(1)})  # fmt: skip
    elif kind == 2:
        report = json.loads((out / "report.json").read_text())
        (out / "report.json").write_text(json.dumps({"options": draw.choice(NUMBERS), **{
            key: report[key] for key in ("format", "version")}}))  # fmt: skip
    else:
        path.write_bytes(spoiled_bytes(path.read_bytes(), draw))
    lines = [f"{sha256_of(p)}  {p.name}\n" for p in sorted(out.iterdir()) if p.name != CHECKSUMS]
    if draw.random() < 0.9:
        (out / CHECKSUMS).write_text("".join(lines))
    return ["verify", "out"]


PREPARE = {
    "arguments": arguments,
    "model": model,
    "target": target,
    "faults": faults,
    "samples": samples,
    "map": crossbar,
    "measured": measured,
    "folder": folder,
}


def check(kind, number, tmp_path, made, capsys):
    draw = random.Random(f"{kind} {number}")
    (tmp_path / "mine.txt").write_text("years of work")
    given = PREPARE[kind](tmp_path, made, draw)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    capsys.readouterr()
    with limited(120):
        code = main(given)
    printed = capsys.readouterr()
    assert code in (0, 1, 2, 3, 4, 5), given
    assert "Traceback" not in printed.err
    if code:
        lines = printed.err.strip("\n").split("\n")
        assert lines[0].startswith("snukeras-export: ") and len(lines) <= 2, printed.err
    assert all(c == "\n" or c.isprintable() for c in printed.out + printed.err), printed
    for path, data in before.items():
        assert path.read_bytes() == data, path
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(("kind", "number"), cases(KINDS, slow=False))
def test_hostile(kind, number, tmp_path, made, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check(kind, number, tmp_path, made, capsys)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "number"), cases(KINDS, slow=True))
def test_more_hostile(kind, number, tmp_path, made, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check(kind, number, tmp_path, made, capsys)


@pytest.mark.parametrize("given", [
    ["missing.keras", "--target", "pipe.json"],
    ["missing.keras", "--faults", "pipe.json"],
    ["tiny.keras", "--samples", "pipe.json"],
    ["readback", "pipe.json", "g.csv"],
    ["readback", "m.snumap", "pipe.json"],
    ["verify", "listed"],
    ["tiny.keras", "--overwrite", "--output", "listed"],
])  # fmt: skip
def test_a_pipe_that_nobody_writes_to_does_not_hang(given, tmp_path, made, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.json")
    (tmp_path / "listed").mkdir()
    os.mkfifo(tmp_path / "listed" / CHECKSUMS)
    (tmp_path / "m.snumap").write_bytes(TINY)
    (tmp_path / "tiny.keras").write_bytes((made / "tiny.keras").read_bytes())
    with limited(30):
        assert main(given) in (2, 4)
    said = capsys.readouterr().err
    assert "not a file" in said or "not an export" in said
