"""Stuck devices: read their list, work around them, say what remains."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from snukeras._files import regular
from snukeras.export.crossbar.container import parse_json
from snukeras.export.crossbar.description import FaultEntry
from snukeras.export.crossbar.placement import Block
from snukeras.export.crossbar.targets import Target, schema_problem
from snukeras.export.errors import BadInputError
from snukeras.pcm import DifferentialPair, StuckDevices

Pair = tuple[np.ndarray, np.ndarray]


class Fault(NamedTuple):
    """A polarity of a cross-point that is stuck at a conductance in uS."""

    tile: int
    word_line: int
    bit_line: int
    conductance: float


def read_faults(path: str | Path) -> tuple[Fault, ...]:
    """Read stuck devices from a JSON file that obeys export/faults.schema.json.

    Raises:
        BadInputError: The file cannot be read, or is not such a list.
    """

    def error(what: str) -> BadInputError:
        return BadInputError(f"{path} {what}.", "See export/README.md, section Faults.")

    try:
        data = parse_json(regular(path).read_bytes(), error)
    except OSError as problem:
        raise error(f"cannot be read: {problem.strerror or problem}") from problem
    except ValueError as problem:  # a NUL in the name
        raise problem if isinstance(problem, BadInputError) else error(str(problem)) from problem
    wrong = schema_problem(data, "faults.schema.json")
    if wrong:
        raise error(f"does not obey export/faults.schema.json: {wrong}")
    return tuple(
        Fault(int(f["tile"]), int(f["word_line"]), int(f["bit_line"]), float(f["conductance_uS"]))
        for f in data["stuck"]
    )


def check_faults(faults: Iterable[Fault], target: Target, tiles: int) -> None:
    """Raise BadInputError where a fault is at no cross-point of the map, or listed twice.

    Args:
        faults: Stuck devices.
        target: The tile.
        tiles: How many tiles the map has.
    """
    places = set()
    for fault in faults:
        tile, word_line, bit_line, _ = fault
        place = f"Fault at tile {tile}, word line {word_line}, bit line {bit_line}"
        if tile >= tiles:
            raise BadInputError(
                f"{place}: the map has {tiles} tile(s), counted from 0.",
                "List the faults of the tiles that the network uses alone.",
            )
        if word_line >= target.rows or bit_line >= target.bit_lines:
            raise BadInputError(
                f"{place}: a tile has {target.rows} word lines and "
                f"{target.bit_lines} bit lines, counted from 0."
            )
        if (tile, word_line, bit_line) in places:
            raise BadInputError(f"{place} is listed twice.")
        places.add((tile, word_line, bit_line))


def work_around(
    index: int,
    matrix: np.ndarray,
    scales: np.ndarray,
    targets: Pair,
    blocks: Sequence[Block],
    faults: Iterable[Fault],
    pair: DifferentialPair,
) -> tuple[Pair, list[FaultEntry]]:
    """Put stuck conductances in, and let the partners of stuck devices compensate.

    Args:
        index: Number of the matrix.
        matrix: Its weights, (rows, columns).
        scales: uS per unit of weight, () or (columns,).
        targets: G+ and G- in uS as they would be without faults.
        blocks: The blocks of this matrix.
        faults: Stuck devices of all tiles.
        pair: The range and the levels of conductances.

    Returns:
        G+ and G-, and what is to be listed in the map.
    """
    held = {p: np.full(matrix.shape, np.nan, dtype="float32") for p in ("plus", "minus")}
    hits = list(_hits(blocks, faults))
    if not hits:
        return targets, []
    for fault, polarity, row, column in hits:
        held[polarity][row, column] = fault.conductance
    g_plus, g_minus = StuckDevices(held["plus"], held["minus"]).compensate(*targets, pair)
    rebuilt = pair.to_weights(g_plus, g_minus, scales)
    return (g_plus, g_minus), [
        FaultEntry(
            matrix=index,
            polarity=polarity,
            row=row,
            column=column,
            tile=fault.tile,
            word_line=fault.word_line,
            bit_line=fault.bit_line,
            conductance_uS=float(fault.conductance),
            weight_error=float(rebuilt[row, column] - matrix[row, column]),
        )
        for fault, polarity, row, column in hits
    ]


def _hits(
    blocks: Sequence[Block], faults: Iterable[Fault]
) -> Iterable[tuple[Fault, str, int, int]]:
    """Find the faults that carry a weight: (fault, polarity, row, column of the matrix)."""
    by_tile: dict[int, list[Fault]] = {}
    for fault in faults:
        by_tile.setdefault(fault.tile, []).append(fault)
    for block in blocks:
        rows = {int(line): block.row + i for i, line in enumerate(block.word_lines)}
        lines = {
            "plus": {int(bit): block.column + j for j, bit in enumerate(block.bit_lines_plus)},
            "minus": {int(bit): block.column + j for j, bit in enumerate(block.bit_lines_minus)},
        }
        for fault in by_tile.get(block.tile, ()):
            for polarity, columns in lines.items():
                if fault.word_line in rows and fault.bit_line in columns:
                    yield fault, polarity, rows[fault.word_line], columns[fault.bit_line]
