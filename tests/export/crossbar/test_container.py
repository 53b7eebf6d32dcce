"""The container: every damaged or forged file gives a MapError, never anything else."""

import hashlib
import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snukeras._content import folder
from snukeras.export.crossbar.load import load_map
from snukeras.export.errors import ExportError, MapError

TINY = (folder("export") / "examples" / "tiny.snumap").read_bytes()


def parts(data):
    _, _, _, offset, length, _ = struct.unpack("<8sIIQQ32s", data[:64])
    return data[64:offset], data[offset : offset + length]


def forge(description, arrays=None):
    """A container around any description, with a header that fits."""
    arrays = parts(TINY)[0] if arrays is None else arrays
    text = description if isinstance(description, bytes) else json.dumps(description).encode()
    digest = hashlib.sha256(text).digest()
    offset = 64 + len(arrays)
    return (
        struct.pack("<8sIIQQ32s", b"\x89SNUMAP\n", 1, 0, offset, len(text), digest) + arrays + text
    )


def described():
    return json.loads(parts(TINY)[1])


def load(tmp_path, data):
    path = tmp_path / "map.snumap"
    path.write_bytes(data)
    return load_map(path)


def test_the_forger_forges_well(tmp_path):
    assert load(tmp_path, forge(described())).totals["weights"] == 18


def test_every_byte_counts(tmp_path):
    path = tmp_path / "map.snumap"
    for position in range(len(TINY)):
        if position % 29 and position > 200:  # all of the header, a sample of the rest
            continue
        data = bytearray(TINY)
        data[position] ^= 0x20
        path.write_bytes(data)
        with pytest.raises(MapError):
            load_map(path)


def test_gaps_count_too(tmp_path):
    references = [r for m in described()["matrices"] for r in (m["g_plus"], m["scale"])]
    end = max(r["offset"] + 4 for r in references if r["shape"] == [1])
    data = bytearray(TINY)
    data[end + 10] = 1
    with pytest.raises(MapError, match=r"altered|unexpected bytes"):
        load(tmp_path, bytes(data))


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 500, len(TINY) - 1])
def test_truncated(tmp_path, size):
    with pytest.raises(MapError, match=r"too short|cut off"):
        load(tmp_path, TINY[:size])


def test_longer(tmp_path):
    with pytest.raises(MapError, match="cut off or altered"):
        load(tmp_path, TINY + b"\0")


def test_another_version(tmp_path):
    data = bytearray(TINY)
    data[8] = 2
    with pytest.raises(MapError, match="version 2; this reader knows version 1"):
        load(tmp_path, bytes(data))


def test_another_file(tmp_path):
    with pytest.raises(MapError, match="not a crossbar map"):
        load(tmp_path, b"PK\x03\x04" + bytes(500))


def test_no_file(tmp_path):
    with pytest.raises(MapError, match="cannot be read"):
        load_map(tmp_path / "missing.snumap")
    with pytest.raises(MapError, match="cannot be read"):
        load_map(tmp_path)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.integers(0, len(TINY) - 1))
def test_noise(tmp_path_factory, noise, position):
    path = tmp_path_factory.mktemp("noise") / "map.snumap"
    path.write_bytes(TINY[:position] + noise + TINY[position + len(noise) + 1 :])
    with pytest.raises(MapError):
        load_map(path)


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"3",
        b"{",
        b"\xff\xfe",
        b'{"a": NaN}',
        b'{"format": 1, "format": 2}',
        b"[" * 100_000,
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
)
def test_bad_json(tmp_path, text):
    with pytest.raises(MapError):
        load(tmp_path, forge(text))


def _set(path, value):
    def change(description):
        at = description
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value

    return change


FORGERIES = {
    "huge rows": _set(["matrices", 0, "rows"], 2**50),
    "huge array": _set(["matrices", 0, "g_plus", "shape"], [2**40, 2**12]),
    "array at end": _set(["matrices", 0, "g_plus", "offset"], 64 * 10**9),
    "array unaligned": _set(["matrices", 0, "g_plus", "offset"], 65),
    "array in header": _set(["matrices", 0, "g_plus", "offset"], 0),
    "negative offset": _set(["matrices", 0, "g_plus", "offset"], -64),
    "other dtype": _set(["matrices", 0, "g_plus", "dtype"], "uint32"),
    "unknown dtype": _set(["matrices", 0, "g_plus", "dtype"], "object"),
    "wrong shape": _set(["matrices", 0, "g_plus", "shape"], [3, 5]),
    "other matrix shape": _set(["matrices", 0, "shape"], [5, 4]),
    "block of another matrix": _set(["blocks", 0, "matrix"], 7),
    "block too far": _set(["blocks", 0, "row"], 3),
    "block missing": lambda d: d["blocks"].pop(),
    "blocks overlap": _set(["blocks", 3, "column"], 1),
    "tile not listed": _set(["tiles", 0, "blocks"], [1]),
    "tile renumbered": _set(["tiles", 0, "tile"], 9),
    "tile gone": lambda d: d["tiles"].pop(),
    "device count": _set(["tiles", 0, "devices_used"], 2),
    "totals": _set(["totals", "weights"], 17),
    "name twice": _set(["matrices", 1, "name"], "snu/kernel"),
    "smaller tile": _set(["target", "tile", "rows"], 2),
    "smaller range": _set(["target", "conductance", "g_max_uS"], 20.0),
    "no range": _set(["target", "conductance", "g_min_uS"], 30.0),
    "path": _set(["onnx", "file"], "../../etc/passwd"),
    "no hash": _set(["onnx", "sha256"], "abc"),
    "extra key": _set(["extra"], 1),
    "key missing": lambda d: d.pop("matrices"),
    "adder gone": lambda d: d["adders"].pop(),
    "adder of another block": _set(["adders", 0, "blocks"], [0, 3]),
    "adder too many": lambda d: d["adders"].append(
        {"matrix": 1, "column": 0, "columns": 1, "blocks": [4, 4]}
    ),
    "off its levels": _set(["target", "conductance", "levels"], 8),
    "name that leads out": _set(["matrices", 0, "name"], "../../snu/kernel"),
    "parameter that leads out": _set(["parameters", 0, "name"], "snu/../../x"),
    "name from the root": _set(["matrices", 0, "name"], "/etc/passwd"),
    "name with a bell": _set(["matrices", 0, "name"], "snu\x07/kernel"),
    "float rows of a wrong size": _set(["matrices", 0, "rows"], 5.5),
    "axes of another rank": _set(["matrices", 0, "row_axes"], [0, 1]),
    "axes twice": lambda d: d["matrices"][0].update(row_axes=[0], column_axes=[0]),
    "fault elsewhere": lambda d: d["faults"].append(
        {
            "matrix": 0,
            "polarity": "plus",
            "row": 0,
            "column": 0,
            "tile": 1,
            "word_line": 0,
            "bit_line": 0,
            "conductance_uS": 10.0,
            "weight_error": 0.0,
        }
    ),
    "fault of another conductance": lambda d: d["faults"].append(
        {
            "matrix": 0,
            "polarity": "plus",
            "row": 0,
            "column": 0,
            "tile": 0,
            "word_line": 0,
            "bit_line": 0,
            "conductance_uS": 9.0,
            "weight_error": 0.0,
        }
    ),
    "shared array": lambda d: d["matrices"][0].update(g_plus=d["matrices"][0]["g_minus"]),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged(tmp_path, name):
    description = described()
    FORGERIES[name](description)
    with pytest.raises((MapError, ValueError)) as caught:
        load(tmp_path, forge(description))
    assert isinstance(caught.value, ExportError)


def test_two_devices_at_one_cross_point(tmp_path):
    description = described()
    block = description["blocks"][0]
    block["bit_lines_minus"] = description["blocks"][1]["bit_lines_plus"]
    description["blocks"][0]["columns"] = 2
    with pytest.raises(MapError):
        load(tmp_path, forge(description))

    arrays = bytearray(parts(TINY)[0])
    reference = described()["blocks"][0]["bit_lines_minus"]
    start = reference["offset"] - 64
    arrays[start : start + 8] = np.array([0, 3], "<u4").tobytes()
    description = described()
    digest = hashlib.sha256(arrays[start : start + 8]).hexdigest()
    description["blocks"][0]["bit_lines_minus"]["sha256"] = digest
    with pytest.raises(MapError, match="two devices share a cross-point of tile 0"):
        load(tmp_path, forge(description, bytes(arrays)))


def test_parameters_must_be_numbers(tmp_path):
    arrays, description = bytearray(parts(TINY)[0]), described()
    reference = description["parameters"][0]["values"]
    start = reference["offset"] - 64
    arrays[start : start + 4] = np.array([np.nan], "<f4").tobytes()
    size = 4 * int(np.prod(reference["shape"]))
    reference["sha256"] = hashlib.sha256(arrays[start : start + size]).hexdigest()
    with pytest.raises(MapError, match="is not finite float32"):
        load(tmp_path, forge(description, bytes(arrays)))


def test_unchecked_loading_still_stays_inside_the_file(tmp_path):
    path = tmp_path / "map.snumap"
    description = described()
    description["matrices"][0]["g_plus"]["offset"] = 64 * 10**6
    path.write_bytes(forge(description))
    with pytest.raises(MapError, match="no array fits"):
        load_map(path, check=False).weights()
