"""Read a crossbar map from its file and check it against the specification."""

import math

import numpy as np

from snukeras.export.crossbar.map import CrossbarMap
from snukeras.export.errors import MapError


def load_map(path, check: bool = True) -> CrossbarMap:
    """Opens a crossbar map.

    Args:
        path: the file.
        check: compare every checksum and check that the map is consistent: schema, blocks cover
            each matrix once, no two devices at one cross-point, conductances in range.

    Raises:
        MapError: the file is no crossbar map, of another version, cut off, altered, inconsistent.
    """
    crossbar = CrossbarMap(path, check)
    if check:
        check_consistency(crossbar)
    return crossbar


def check_consistency(crossbar: CrossbarMap) -> None:
    """Raises MapError where the parts of the description do not fit together."""

    def demand(condition: bool, what: str) -> None:
        if not condition:
            raise MapError(f"{crossbar.path} is not consistent: {what}.", "Export the model again.")

    target, description = crossbar.target, crossbar.description
    matrices, blocks = description["matrices"], description["blocks"]
    names = [entry["name"] for entry in (*matrices, *description["parameters"])]
    demand(len(set(names)) == len(names), "a name is used twice")
    stuck = {
        (fault["matrix"], fault["polarity"], fault["row"], fault["column"]): fault
        for fault in description["faults"]
    }
    for index, entry in enumerate(matrices):
        rows, columns = entry["rows"], entry["columns"]
        demand(
            math.prod(entry["shape"]) == rows * columns and entry["shape"][-1] == columns,
            f"the shape of {entry['name']} is not {rows} rows by {columns} columns",
        )
        _check_arrays(crossbar, index, entry, stuck, demand)
        own = [block for block in blocks if block["matrix"] == index]
        area = sum(block["rows"] * block["columns"] for block in own)
        demand(area == rows * columns, f"blocks do not cover {entry['name']} once")
        covered = np.zeros((rows, columns), dtype=bool)
        for block in own:
            last = (block["row"] + block["rows"], block["column"] + block["columns"])
            demand(
                last[0] <= rows and last[1] <= columns,
                f"a block exceeds {entry['name']}",
            )
            covered[block["row"] : last[0], block["column"] : last[1]] = True
        demand(bool(covered.all()), f"blocks do not cover {entry['name']} once")
    demand(all(b["matrix"] < len(matrices) for b in blocks), "a block has no matrix")
    _check_tiles(crossbar, demand)
    weights = sum(entry["rows"] * entry["columns"] for entry in matrices)
    expected = {
        "weights": weights,
        "devices": 2 * target.devices_per_polarity * weights,
        "tiles": len(description["tiles"]),
        "parameters": sum(math.prod(p["values"]["shape"]) for p in description["parameters"]),
    }
    demand(description["totals"] == expected, "its totals do not fit its content")


def _check_arrays(crossbar, index, entry, stuck, demand):
    shape = [entry["rows"], entry["columns"]]
    low, high = np.float32(crossbar.target.g_min), np.float32(crossbar.target.g_max)
    for polarity, g in zip(("plus", "minus"), crossbar.conductances(entry["name"]), strict=True):
        key = f"g_{polarity}"
        demand(
            entry[key]["shape"] == shape and entry[key]["dtype"] == "float32",
            f"{key} of {entry['name']} has another shape or type",
        )
        for i, j in np.argwhere(~((g >= low) & (g <= high))):
            fault = stuck.get((index, polarity, int(i), int(j)))
            demand(
                fault is not None and np.float32(fault["conductance_uS"]) == g[i, j],
                f"{key} of {entry['name']} leaves the conductance range",
            )
    demand(
        entry["scale"]["shape"] == shape[1:] and entry["scale"]["dtype"] == "float64",
        f"the scale of {entry['name']} has another shape or type",
    )
    scale = crossbar.scales(entry["name"])
    demand(
        bool(np.all(np.isfinite(scale) & (scale > 0))),
        f"the scale of {entry['name']} is not positive",
    )


def _check_tiles(crossbar, demand):
    """Every block's lines are on its tile, and no cross-point is used twice."""
    target, tiles = crossbar.target, crossbar.description["tiles"]
    blocks = list(crossbar.blocks())
    numbers = [tile["tile"] for tile in tiles]
    demand(numbers == list(range(len(tiles))), "its tiles are not numbered from 0")
    listed = sorted(number for tile in tiles for number in tile["blocks"])
    demand(listed == list(range(len(blocks))), "its tiles do not list its blocks")
    for tile in tiles:
        demand(
            tile["word_lines"] == target.rows and tile["bit_lines"] == target.bit_lines,
            "a tile has another size than the target",
        )
        taken = []
        for number in tile["blocks"]:
            block, *lines = blocks[number]
            sizes = (block["rows"], block["columns"], block["columns"])
            good = block["tile"] == tile["tile"] and all(
                array.dtype == np.uint32 and array.shape == (size,)
                for array, size in zip(lines, sizes, strict=True)
            )
            demand(good, f"block {number} does not fit its tile")
            word = lines[0].astype("int64")
            bits = np.concatenate(lines[1:]).astype("int64")
            demand(
                word.max() < target.rows and bits.max() < target.bit_lines,
                f"block {number} has a line that its tile does not have",
            )
            taken.append((word[:, None] * target.bit_lines + bits).reshape(-1))
        points = np.concatenate(taken)
        demand(
            len(np.unique(points)) == len(points),
            f"two devices share a cross-point of tile {tile['tile']}",
        )
        demand(
            tile["devices_used"] == len(points) * target.devices_per_polarity
            and tile["devices"] == target.devices_per_tile,
            f"the device counts of tile {tile['tile']} do not fit its blocks",
        )
