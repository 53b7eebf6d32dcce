"""Write the crossbar map of a model: scales, conductances, places, partial sums, faults."""

from typing import Any

import numpy as np

from snukeras.export.crossbar.container import MapWriter
from snukeras.export.crossbar.faults import Fault, check_faults, work_around
from snukeras.export.crossbar.placement import place
from snukeras.export.crossbar.targets import Target
from snukeras.export.errors import BadInputError
from snukeras.pcm import DifferentialPair

FORMAT = "snukeras-crossbar-map"


def write_map(
    path,
    weights,
    target: Target,
    *,
    scale: str = "tensor",
    pack: bool = False,
    faults: tuple[Fault, ...] = (),
    seed: int = 0,
    package: str = "unknown",
    source: dict[str, Any],
    onnx: dict[str, str],
    progress=lambda text: None,
) -> None:
    """Maps the matrices of a model onto tiles and writes the crossbar map.

    Args:
        path: file to write (a temporary name; the caller renames it).
        weights: list of `snukeras.export.weights.Weight`.
        target: the tile and its conductance range.
        scale: "tensor" (one scale per matrix) or "column".
        pack: let small blocks share tiles.
        faults: stuck devices; the mapper goes around them or lets the partner compensate.
        seed: recorded; the mapping itself draws nothing.
        package: version of snukeras.
        source: {"name", "sha256" of the file or null, "weights_sha256"}.
        onnx: {"file", "sha256"} of the ONNX file the map belongs to.
        progress: called with the name of each matrix.
    """
    pair = DifferentialPair(target.g_max, target.g_min, target.levels, scale)
    matrices = [weight for weight in weights if weight.matrix]
    if not matrices:
        raise BadInputError("The model has no weight matrix to map.")
    flat = [weight.values.reshape(-1, weight.values.shape[-1]) for weight in matrices]
    where = [(f.tile, f.word_line, f.bit_line) for f in faults]
    blocks = place([m.shape for m in flat], target, pack, where)
    check_faults(faults, target)
    description: dict[str, Any] = {
        "format": FORMAT,
        "version": 1,
        "package": {"name": "snukeras", "version": package},
        "units": {"conductance": "uS", "scale": "uS per unit of weight"},
        "source": source,
        "onnx": onnx,
        "target": target.to_dict(),
        "scale": scale,
        "seed": seed,
        "packed": pack,
    }
    with MapWriter(path) as writer:
        entries, stuck = [], []
        for index, (weight, matrix) in enumerate(zip(matrices, flat, strict=True)):
            progress(weight.name)
            scales = np.asarray(pair.scales(matrix))
            g_plus, g_minus = pair.to_conductances(matrix, scales)
            if faults:
                own = [block for block in blocks if block.matrix == index]
                g_plus, g_minus, remains = work_around(
                    matrix, scales, g_plus, g_minus, own, faults, pair
                )
                stuck += [{"matrix": index, **fault} for fault in remains]
            columns = np.broadcast_to(scales.astype("float64"), matrix.shape[1:])
            entries.append(
                {
                    "name": weight.name,
                    "layer": weight.layer,
                    "role": weight.role,
                    "shape": list(weight.values.shape),
                    "rows": matrix.shape[0],
                    "columns": matrix.shape[1],
                    "g_plus": writer.add(np.asarray(g_plus, dtype="float32")),
                    "g_minus": writer.add(np.asarray(g_minus, dtype="float32")),
                    "scale": writer.add(columns),
                }
            )
        description["matrices"] = entries
        description["blocks"] = [
            {
                "matrix": block.matrix,
                "tile": block.tile,
                "row": block.row,
                "rows": block.rows,
                "column": block.column,
                "columns": block.columns,
                "word_lines": writer.add(block.word_lines),
                "bit_lines_plus": writer.add(block.bit_lines_plus),
                "bit_lines_minus": writer.add(block.bit_lines_minus),
            }
            for block in blocks
        ]
        description["tiles"] = _tiles(blocks, target)
        description["adders"] = _adders(blocks)
        description["faults"] = stuck
        description["parameters"] = [
            {
                "name": weight.name,
                "layer": weight.layer,
                "role": weight.role,
                "values": writer.add(weight.values),
            }
            for weight in weights
            if not weight.matrix
        ]
        total = sum(matrix.size for matrix in flat)
        description["totals"] = {
            "weights": total,
            "devices": 2 * target.devices_per_polarity * total,
            "tiles": len(description["tiles"]),
            "parameters": sum(weight.values.size for weight in weights if not weight.matrix),
        }
        writer.finish(description)


def _tiles(blocks, target):
    owners: dict[int, list[int]] = {}
    for number, block in enumerate(blocks):
        owners.setdefault(block.tile, []).append(number)
    tiles = []
    for tile, numbers in sorted(owners.items()):
        devices = sum(2 * blocks[n].rows * blocks[n].columns for n in numbers)
        devices *= target.devices_per_polarity
        tiles.append(
            {
                "tile": tile,
                "word_lines": target.rows,
                "bit_lines": target.bit_lines,
                "blocks": numbers,
                "devices_used": devices,
                "devices": target.devices_per_tile,
            }
        )
    return tiles


def _adders(blocks):
    """Columns that are cut over several word-line groups: their partial sums are added."""
    groups: dict[tuple[int, int, int], list[int]] = {}
    for number, block in enumerate(blocks):
        groups.setdefault((block.matrix, block.column, block.columns), []).append(number)
    return [
        {"matrix": matrix, "column": column, "columns": columns, "blocks": numbers}
        for (matrix, column, columns), numbers in groups.items()
        if len(numbers) > 1
    ]
