"""Crossbar maps that are damaged or forged, for all readers of the format."""

import hashlib
import json
import struct

from snukeras._content import folder

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
