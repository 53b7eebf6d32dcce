"""Read a crossbar map from its file and check it against the specification."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from snukeras.export.crossbar.description import (
    AdderEntry,
    BlockEntry,
    FaultEntry,
    MatrixEntry,
    Totals,
)
from snukeras.export.crossbar.map import CrossbarMap, part_of
from snukeras.export.errors import MapError

Demand = Callable[[bool, str], None]
# float32 rounding of a level, as a share of the largest conductance.
_ROUNDING = 2.0**-21


def load_map(path: str | Path, check: bool = True) -> CrossbarMap:
    """Open a crossbar map.

    Args:
        path: The file.
        check: Compare every checksum and check that the map is consistent: schema, blocks cover
            each matrix once, no two devices at one cross-point, adders as the blocks need them,
            conductances in range and on their levels, parameters finite.

    Raises:
        MapError: The file is no crossbar map, of another version, cut off, altered, inconsistent.
    """
    crossbar = CrossbarMap(path, check)
    if check:
        check_consistency(crossbar)
    return crossbar


def check_consistency(crossbar: CrossbarMap) -> None:
    """Raise MapError where the parts of a map do not fit together."""

    def demand(condition: bool, what: str) -> None:
        if not condition:
            raise MapError(f"{crossbar.path} is not consistent: {what}.", "Export the model again.")

    description = crossbar.description
    matrices = description.matrices
    _check_names(crossbar, demand)
    demand(all(b.matrix < len(matrices) for b in description.blocks), "a block has no matrix")
    for index, entry in enumerate(matrices):
        _check_shape(entry, demand)
        _check_scale(crossbar, entry, demand)
        own = [block for block in description.blocks if block.matrix == index]
        _check_cover(entry, own, demand)
        _check_conductances(crossbar, index, entry, demand)
        if entry.program_plus is not None:
            _check_programs(crossbar, index, entry, demand)
    _check_tiles(crossbar, demand)
    demand(description.adders == adders_of(description.blocks), "its adders do not fit its blocks")
    _check_faults(crossbar, demand)
    for name, values in crossbar.parameters().items():
        demand(
            values.dtype == np.float32 and bool(np.all(np.isfinite(values))),
            f"the parameter {name} is not finite float32",
        )
    _check_totals(crossbar, demand)


def adders_of(blocks: tuple[BlockEntry, ...]) -> tuple[AdderEntry, ...]:
    """Return the adders of columns that lie on several blocks: their partial sums are added."""
    groups: dict[tuple[int, int, int], list[int]] = {}
    for number, block in enumerate(blocks):
        groups.setdefault((block.matrix, block.column, block.columns), []).append(number)
    return tuple(
        AdderEntry(matrix, column, columns, tuple(numbers))
        for (matrix, column, columns), numbers in groups.items()
        if len(numbers) > 1
    )


def _check_names(crossbar: CrossbarMap, demand: Demand) -> None:
    """Check that names are paths of layer names, and lead out of no folder they are used in."""
    names = crossbar.matrices + [entry.name for entry in crossbar.description.parameters]
    demand(len(set(names)) == len(names), "a name is used twice")
    for name in names:
        parts = name.split("/")
        good = ".." not in parts and parts[0] != "" and name.isprintable()
        demand(good and "\\" not in name, f"the name {name!r} is not one of a layer")


def _check_shape(entry: MatrixEntry, demand: Demand) -> None:
    """Check that the axes of a weight make its rows and columns."""
    rank = len(entry.shape)
    both = entry.row_axes is not None and entry.column_axes is not None
    demand(
        both or (entry.row_axes is None and entry.column_axes is None),
        f"{entry.name} has row axes without column axes",
    )
    if both:
        named = sorted((*(entry.row_axes or ()), *(entry.column_axes or ())))
        demand(named == list(range(rank)), f"the axes of {entry.name} are not those of its shape")
    rows, columns = entry.unrolling.axes(rank)
    demand(
        math.prod(entry.shape[a] for a in rows) == entry.rows
        and math.prod(entry.shape[a] for a in columns) == entry.columns,
        f"the shape of {entry.name} is not {entry.rows} rows by {entry.columns} columns",
    )


def _check_cover(entry: MatrixEntry, own: list[BlockEntry], demand: Demand) -> None:
    """Check that the blocks of a matrix cover it once."""
    area = sum(block.rows * block.columns for block in own)
    demand(area == entry.rows * entry.columns, f"blocks do not cover {entry.name} once")
    covered = np.zeros((entry.rows, entry.columns), dtype=bool)
    for block in own:
        inside = block.row + block.rows <= entry.rows
        inside = inside and block.column + block.columns <= entry.columns
        demand(inside, f"a block exceeds {entry.name}")
        covered[part_of(block)] = True
    demand(bool(covered.all()), f"blocks do not cover {entry.name} once")


def _check_scale(crossbar: CrossbarMap, entry: MatrixEntry, demand: Demand) -> None:
    shape = (entry.rows, entry.columns)
    for key in ("g_plus", "g_minus"):
        demand(
            entry[key].shape == shape and entry[key].dtype == "float32",
            f"{key} of {entry.name} has another shape or type",
        )
    demand(
        entry.scale.shape == shape[1:] and entry.scale.dtype == "float64",
        f"the scale of {entry.name} has another shape or type",
    )
    scale = crossbar.scales(entry.name)
    demand(
        bool(np.all(np.isfinite(scale) & (scale > 0))),
        f"the scale of {entry.name} is not positive",
    )


def _check_conductances(
    crossbar: CrossbarMap, index: int, entry: MatrixEntry, demand: Demand
) -> None:
    """Check that conductances lie in range and on their levels, except on stuck devices."""
    stuck = {
        (fault.polarity, fault.row, fault.column): np.float32(fault.conductance_uS)
        for fault in crossbar.description.faults
        if fault.matrix == index
    }
    low, high = np.float32(crossbar.target.g_min), np.float32(crossbar.target.g_max)
    levels = crossbar.levels(entry.name)
    for polarity, g in zip(("plus", "minus"), crossbar.conductances(entry.name), strict=True):
        wrong = ~((g >= low) & (g <= high))
        if levels is not None:
            step = (crossbar.target.g_max - crossbar.target.g_min) / (levels - 1)
            place = (g.astype("float64") - crossbar.target.g_min) / step
            wrong |= np.abs(place - np.round(place)) * step > _ROUNDING * crossbar.target.g_max
        for i, j in np.argwhere(wrong):
            held = stuck.get((polarity, int(i), int(j)))
            demand(
                held is not None and held == g[i, j],
                f"g_{polarity} of {entry.name} leaves the conductance range or its levels",
            )


def _check_programs(crossbar: CrossbarMap, index: int, entry: MatrixEntry, demand: Demand) -> None:
    """Check what to program: its shape and range, and that planes give the targets together."""
    planes = crossbar.significances
    demand(list(planes) == sorted(planes, reverse=True), "its significances do not descend")
    shape = (len(planes), entry.rows, entry.columns)
    for reference in (entry.program_plus, entry.program_minus):
        good = reference is not None and reference.shape == shape and reference.dtype == "float32"
        demand(good, f"what to program of {entry.name} has another shape or type")
    target = crossbar.target
    stuck = [fault for fault in crossbar.description.faults if fault.matrix == index]
    both = zip(("plus", "minus"), crossbar.programs(entry.name), strict=True)
    held = zip(crossbar.programmed(entry.name), crossbar.conductances(entry.name), strict=True)
    for (polarity, programs), (together, wanted) in zip(both, held, strict=True):
        low, high = np.float32(target.g_min), np.float32(target.g_max)
        wrong: np.ndarray = np.any((programs < low) | ~(programs <= high), axis=0)
        if crossbar.programmed_for is None:
            wrong |= np.abs(together - wanted) > 8 * _ROUNDING * target.g_max
        for fault in stuck:
            if fault.polarity == polarity:
                wrong[fault.row, fault.column] = False
        demand(
            not wrong.any(), f"what to program of {entry.name} is not what its planes are to hold"
        )


def _check_faults(crossbar: CrossbarMap, demand: Demand) -> None:
    """Check that every stuck device is at the address of its weight and holds what the map says."""
    for fault in crossbar.description.faults:
        demand(
            fault.matrix < len(crossbar.matrices) and _is_at_its_address(crossbar, fault),
            f"the fault at tile {fault.tile}, word line {fault.word_line}, bit line "
            f"{fault.bit_line} is not that of its weight",
        )


def _is_at_its_address(crossbar: CrossbarMap, fault: FaultEntry) -> bool:
    name = crossbar.matrices[fault.matrix]
    try:
        tile, word_line, *bits = crossbar.address(name, fault.row, fault.column)
    except IndexError:
        return False
    number = ("plus", "minus").index(fault.polarity)
    held = crossbar.conductances(name)[number][fault.row, fault.column]
    address = (fault.tile, fault.word_line, fault.bit_line)
    return address == (tile, word_line, bits[number]) and held == np.float32(fault.conductance_uS)


def _check_totals(crossbar: CrossbarMap, demand: Demand) -> None:
    description = crossbar.description
    weights = sum(entry.rows * entry.columns for entry in description.matrices)
    expected = Totals(
        weights=weights,
        devices=2 * crossbar.devices_per_polarity * weights,
        tiles=len(description.tiles),
        parameters=sum(math.prod(entry.values.shape) for entry in description.parameters),
    )
    demand(description.totals == expected, "its totals do not fit its content")


def _check_tiles(crossbar: CrossbarMap, demand: Demand) -> None:
    """Check that every block's lines are on its tile, and that no cross-point is used twice."""
    target, tiles = crossbar.target, crossbar.description.tiles
    blocks = list(crossbar.blocks())
    numbers = [tile.tile for tile in tiles]
    demand(numbers == list(range(len(tiles))), "its tiles are not numbered from 0")
    listed = sorted(number for tile in tiles for number in tile.blocks)
    demand(listed == list(range(len(blocks))), "its tiles do not list its blocks")
    for tile in tiles:
        demand(
            tile.word_lines == target.rows and tile.bit_lines == target.bit_lines,
            "a tile has another size than the target",
        )
        taken = []
        for number in tile.blocks:
            block, lines = blocks[number]
            sizes = (block.rows, block.columns, block.columns)
            good = block.tile == tile.tile and all(
                array.dtype == np.uint32 and array.shape == (size,)
                for array, size in zip(lines, sizes, strict=True)
            )
            demand(good, f"block {number} does not fit its tile")
            word = lines.word.astype("int64")
            bits = np.concatenate([lines.plus, lines.minus]).astype("int64")
            demand(
                word.max() < target.rows and bits.max() < target.bit_lines,
                f"block {number} has a line that its tile does not have",
            )
            taken.append((word[:, None] * target.bit_lines + bits).reshape(-1))
        points = np.concatenate(taken)
        demand(
            len(np.unique(points)) == len(points),
            f"two devices share a cross-point of tile {tile.tile}",
        )
        demand(
            tile.devices_used == len(points) * crossbar.devices_per_polarity
            and tile.devices == target.devices_per_tile * len(crossbar.significances),
            f"the device counts of tile {tile.tile} do not fit its blocks",
        )
