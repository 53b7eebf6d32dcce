"""Stuck devices: read their list, work around them, say what remains."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from snukeras.export.crossbar.container import parse_json
from snukeras.export.crossbar.targets import schema_problem
from snukeras.export.errors import BadInputError
from snukeras.pcm import StuckDevices


class Fault(NamedTuple):
    """A polarity of a cross-point that is stuck at a conductance in uS."""

    tile: int
    word_line: int
    bit_line: int
    conductance: float


def read_faults(path) -> tuple[Fault, ...]:
    """Stuck devices from a JSON file: {"format": "snukeras-faults", "version": 1, "stuck": [...]}.

    Each entry has tile, word_line, bit_line and conductance_uS.
    """

    def error(what):
        return BadInputError(f"{path} {what}.", "See export/README.md, section Faults.")

    try:
        data = parse_json(Path(path).read_bytes(), error)
    except OSError as problem:
        raise error(f"cannot be read: {problem.strerror or problem}") from problem
    wrong = schema_problem(data, "faults.schema.json")
    if wrong:
        raise error(f"does not obey export/faults.schema.json: {wrong}")
    return tuple(
        Fault(f["tile"], f["word_line"], f["bit_line"], float(f["conductance_uS"]))
        for f in data["stuck"]
    )


def check_faults(faults, target):
    for fault in faults:
        if fault.word_line >= target.rows or fault.bit_line >= target.bit_lines:
            raise BadInputError(
                f"Fault at tile {fault.tile}, word line {fault.word_line}, bit line "
                f"{fault.bit_line}: a tile has {target.rows} word lines and "
                f"{target.bit_lines} bit lines, counted from 0."
            )
    places = [(fault.tile, fault.word_line, fault.bit_line) for fault in faults]
    if len(set(places)) != len(places):
        raise BadInputError("The faults list a device twice.")


def work_around(matrix, scales, g_plus, g_minus, blocks, faults, pair):
    """Puts stuck conductances in, lets the partners compensate; what remains is listed."""
    plus = np.full(matrix.shape, np.nan, dtype="float32")
    minus = np.full(matrix.shape, np.nan, dtype="float32")
    hits = []
    by_tile: dict[int, list[Fault]] = {}
    for fault in faults:
        by_tile.setdefault(fault.tile, []).append(fault)
    for block in blocks:
        rows = {int(line): block.row + i for i, line in enumerate(block.word_lines)}
        pluses = {int(line): block.column + j for j, line in enumerate(block.bit_lines_plus)}
        minuses = {int(line): block.column + j for j, line in enumerate(block.bit_lines_minus)}
        for fault in by_tile.get(block.tile, ()):
            if fault.word_line not in rows:
                continue
            for polarity, lines, held in (("plus", pluses, plus), ("minus", minuses, minus)):
                if fault.bit_line in lines:
                    row, column = rows[fault.word_line], lines[fault.bit_line]
                    held[row, column] = fault.conductance
                    hits.append((fault, polarity, row, column))
    if not hits:
        return g_plus, g_minus, []
    g_plus, g_minus = StuckDevices(plus, minus).compensate(g_plus, g_minus, pair)
    rebuilt = pair.to_weights(g_plus, g_minus, scales)
    return (
        g_plus,
        g_minus,
        [
            {
                "tile": fault.tile,
                "word_line": fault.word_line,
                "bit_line": fault.bit_line,
                "conductance_uS": float(fault.conductance),
                "polarity": polarity,
                "row": row,
                "column": column,
                "weight_error": float(rebuilt[row, column] - matrix[row, column]),
            }
            for fault, polarity, row, column in hits
        ],
    )
