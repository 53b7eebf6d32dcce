"""Crossbar maps: every weight's place and conductances, in one self-contained file."""

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from snukeras.export.container import MapReader, MapWriter
from snukeras.export.errors import BadInputError, MapError
from snukeras.export.placement import place
from snukeras.export.targets import Target, schema_problem

FORMAT = "snukeras-crossbar-map"


class Address(NamedTuple):
    """Where one weight sits: a tile, a word line, and the bit lines of its two polarities."""

    tile: int
    word_line: int
    bit_line_plus: int
    bit_line_minus: int


class Fault(NamedTuple):
    """A polarity of a cross-point that is stuck at a conductance in uS."""

    tile: int
    word_line: int
    bit_line: int
    conductance: float


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
    from snukeras.pcm import DifferentialPair

    pair = DifferentialPair(target.g_max, target.g_min, target.levels, scale)
    matrices = [weight for weight in weights if weight.matrix]
    if not matrices:
        raise BadInputError("The model has no weight matrix to map.")
    flat = [weight.values.reshape(-1, weight.values.shape[-1]) for weight in matrices]
    where = [(f.tile, f.word_line, f.bit_line) for f in faults]
    blocks = place([m.shape for m in flat], target, pack, where)
    _check_faults(faults, target)
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
                g_plus, g_minus, remains = _work_around(
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


def _check_faults(faults, target):
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


def _work_around(matrix, scales, g_plus, g_minus, blocks, faults, pair):
    """Puts stuck conductances in, lets the partners compensate; what remains is listed."""
    from snukeras.pcm import StuckDevices

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


def load_map(path, check: bool = True) -> "CrossbarMap":
    """Opens a crossbar map.

    Args:
        path: the file.
        check: compare every checksum and check that the map is consistent: schema, blocks cover
            each matrix once, no two devices at one cross-point, conductances in range.

    Raises:
        MapError: the file is no crossbar map, of another version, cut off, altered, inconsistent.
    """
    return CrossbarMap(path, check)


class CrossbarMap:
    """A crossbar map, read from its file; large arrays stay on disk until they are used.

    Attributes:
        path: the file.
        description: the JSON description (export/crossbar-map.schema.json).
        target: the `Target`.
    """

    def __init__(self, path, check: bool = True):
        self.path = Path(path)
        self._reader = MapReader(path)
        self.description: dict[str, Any] = self._reader.description
        problem = schema_problem(self.description, "crossbar-map.schema.json")
        if problem:
            raise MapError(
                f"{self.path} does not obey export/crossbar-map.schema.json: {problem}.",
                "Export the model again.",
            )
        self.target = Target.from_dict(self.description["target"], f"{self.path}: target")
        self._lines = [
            tuple(
                self._reader.array(block[key], check)
                for key in ("word_lines", "bit_lines_plus", "bit_lines_minus")
            )
            for block in self.description["blocks"]
        ]
        if check:
            self._reader.check_bytes(self._references())
            self._check()

    @property
    def matrices(self) -> list[str]:
        """Names of the mapped matrices, as "layer/role"."""
        return [entry["name"] for entry in self.description["matrices"]]

    @property
    def totals(self) -> dict[str, int]:
        """Numbers of weights, devices, tiles and digital parameters."""
        return dict(self.description["totals"])

    def conductances(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Target conductances (G+, G-) of a matrix in uS, float32, each (rows, columns)."""
        entry = self._entry(name)
        return (
            self._reader.array(entry["g_plus"], False),
            self._reader.array(entry["g_minus"], False),
        )

    def scales(self, name: str) -> np.ndarray:
        """uS per unit of weight of each column of a matrix, float64 (columns,)."""
        return self._reader.array(self._entry(name)["scale"], False)

    def weights(self, conductances=None) -> dict[str, np.ndarray]:
        """All weights of the model, rebuilt from this file alone, float32, by name.

        Args:
            conductances: name -> (G+, G-) in uS to use instead of the targets, for matrices that
                were measured.
        """
        rebuilt = {}
        for entry in self.description["matrices"]:
            name = entry["name"]
            plus, minus = (conductances or {}).get(name) or self.conductances(name)
            values = (np.asarray(plus, "float64") - minus) / self.scales(name)
            rebuilt[name] = values.astype("float32").reshape(entry["shape"])
        return {**rebuilt, **self.parameters()}

    def parameters(self) -> dict[str, np.ndarray]:
        """The digital parameters (biases, thresholds, decays, ...) by name."""
        return {
            entry["name"]: self._reader.array(entry["values"], False)
            for entry in self.description["parameters"]
        }

    def address(self, name: str, row: int, column: int) -> Address:
        """Where one weight of a matrix sits."""
        index = self.matrices.index(self._entry(name)["name"])
        for block, lines in zip(self.description["blocks"], self._lines, strict=True):
            i, j = row - block["row"], column - block["column"]
            if block["matrix"] == index and 0 <= i < block["rows"] and 0 <= j < block["columns"]:
                word, plus, minus = lines
                return Address(block["tile"], int(word[i]), int(plus[j]), int(minus[j]))
        entry = self._entry(name)
        raise IndexError(
            f"{name} has {entry['rows']} rows and {entry['columns']} columns. "
            f"Received: row {row}, column {column}"
        )

    def blocks(self) -> Iterator[tuple[dict[str, Any], np.ndarray, np.ndarray, np.ndarray]]:
        """Each block's description with its word lines and G+ and G- bit lines."""
        for block, lines in zip(self.description["blocks"], self._lines, strict=True):
            yield (block, *lines)

    def tile_conductances(self, tile: int) -> np.ndarray:
        """Targets in uS of one tile, (word lines, bit lines); NaN where no device is used."""
        grid = np.full((self.target.rows, self.target.bit_lines), np.nan, dtype="float32")
        for block, word, plus, minus in self.blocks():
            if block["tile"] == tile:
                name = self.description["matrices"][block["matrix"]]["name"]
                rows = slice(block["row"], block["row"] + block["rows"])
                columns = slice(block["column"], block["column"] + block["columns"])
                g_plus, g_minus = self.conductances(name)
                grid[np.ix_(word, plus)] = g_plus[rows, columns]
                grid[np.ix_(word, minus)] = g_minus[rows, columns]
        return grid

    def write_csv(self, path) -> None:
        """Writes one line per device for the lab; see export/crossbar-map.md."""
        share = self.target.devices_per_polarity
        with open(path, "w", newline="", encoding="utf-8") as file:
            out = csv.writer(file, lineterminator="\n")
            out.writerow(CSV_HEADER)
            for block, word, plus, minus in self.blocks():
                entry = self.description["matrices"][block["matrix"]]
                g_plus, g_minus = self.conductances(entry["name"])
                for i, line in enumerate(word):
                    row = block["row"] + i
                    for j in range(block["columns"]):
                        column = block["column"] + j
                        for polarity, bit, g in (
                            ("+", plus[j], g_plus[row, column]),
                            ("-", minus[j], g_minus[row, column]),
                        ):
                            for device in range(share):
                                out.writerow(
                                    (
                                        f"{block['tile']}.{line}.{bit}.{device}",
                                        block["tile"],
                                        line,
                                        bit,
                                        device,
                                        polarity,
                                        entry["name"],
                                        row,
                                        column,
                                        f"{g / share:.9g}",
                                    )
                                )

    def _entry(self, name):
        for entry in self.description["matrices"]:
            if entry["name"] == name:
                return entry
        raise KeyError(f"No matrix {name!r} in {self.path}; it has {', '.join(self.matrices)}.")

    def _references(self):
        for entry in self.description["matrices"]:
            yield from (entry[key] for key in ("g_plus", "g_minus", "scale"))
        for block in self.description["blocks"]:
            yield from (block[key] for key in ("word_lines", "bit_lines_plus", "bit_lines_minus"))
        yield from (entry["values"] for entry in self.description["parameters"])

    def _check(self):
        """Raises MapError where the parts of the description do not fit together."""
        target, description = self.target, self.description
        matrices, blocks = description["matrices"], description["blocks"]
        names = [entry["name"] for entry in (*matrices, *description["parameters"])]
        self._demand(len(set(names)) == len(names), "a name is used twice")
        stuck = {
            (fault["matrix"], fault["polarity"], fault["row"], fault["column"]): fault
            for fault in description["faults"]
        }
        for index, entry in enumerate(matrices):
            rows, columns = entry["rows"], entry["columns"]
            self._demand(
                math.prod(entry["shape"]) == rows * columns and entry["shape"][-1] == columns,
                f"the shape of {entry['name']} is not {rows} rows by {columns} columns",
            )
            self._check_arrays(index, entry, stuck)
            own = [block for block in blocks if block["matrix"] == index]
            area = sum(block["rows"] * block["columns"] for block in own)
            self._demand(area == rows * columns, f"blocks do not cover {entry['name']} once")
            covered = np.zeros((rows, columns), dtype=bool)
            for block in own:
                last = (block["row"] + block["rows"], block["column"] + block["columns"])
                self._demand(
                    last[0] <= rows and last[1] <= columns,
                    f"a block exceeds {entry['name']}",
                )
                covered[block["row"] : last[0], block["column"] : last[1]] = True
            self._demand(covered.all(), f"blocks do not cover {entry['name']} once")
        self._demand(all(b["matrix"] < len(matrices) for b in blocks), "a block has no matrix")
        self._check_tiles()
        weights = sum(entry["rows"] * entry["columns"] for entry in matrices)
        expected = {
            "weights": weights,
            "devices": 2 * target.devices_per_polarity * weights,
            "tiles": len(description["tiles"]),
            "parameters": sum(math.prod(p["values"]["shape"]) for p in description["parameters"]),
        }
        self._demand(description["totals"] == expected, "its totals do not fit its content")

    def _check_arrays(self, index, entry, stuck):
        shape = [entry["rows"], entry["columns"]]
        low, high = np.float32(self.target.g_min), np.float32(self.target.g_max)
        for key, polarity in (("g_plus", "plus"), ("g_minus", "minus")):
            self._demand(
                entry[key]["shape"] == shape and entry[key]["dtype"] == "float32",
                f"{key} of {entry['name']} has another shape or type",
            )
            g = self._reader.array(entry[key], False)
            for i, j in np.argwhere(~((g >= low) & (g <= high))):
                fault = stuck.get((index, polarity, int(i), int(j)))
                self._demand(
                    fault is not None and np.float32(fault["conductance_uS"]) == g[i, j],
                    f"{key} of {entry['name']} leaves the conductance range",
                )
        self._demand(
            entry["scale"]["shape"] == shape[1:] and entry["scale"]["dtype"] == "float64",
            f"the scale of {entry['name']} has another shape or type",
        )
        scale = self._reader.array(entry["scale"], False)
        self._demand(
            bool(np.all(np.isfinite(scale) & (scale > 0))),
            f"the scale of {entry['name']} is not positive",
        )

    def _check_tiles(self):
        """Every block's lines are on its tile, and no cross-point is used twice."""
        target, tiles = self.target, self.description["tiles"]
        numbers = [tile["tile"] for tile in tiles]
        self._demand(numbers == list(range(len(tiles))), "its tiles are not numbered from 0")
        listed = sorted(number for tile in tiles for number in tile["blocks"])
        self._demand(listed == list(range(len(self._lines))), "its tiles do not list its blocks")
        for tile in tiles:
            self._demand(
                tile["word_lines"] == target.rows and tile["bit_lines"] == target.bit_lines,
                "a tile has another size than the target",
            )
            taken = []
            for number in tile["blocks"]:
                block, lines = self.description["blocks"][number], self._lines[number]
                sizes = (block["rows"], block["columns"], block["columns"])
                good = block["tile"] == tile["tile"] and all(
                    array.dtype == np.uint32 and array.shape == (size,)
                    for array, size in zip(lines, sizes, strict=True)
                )
                self._demand(good, f"block {number} does not fit its tile")
                word = lines[0].astype("int64")
                bits = np.concatenate(lines[1:]).astype("int64")
                self._demand(
                    word.max() < target.rows and bits.max() < target.bit_lines,
                    f"block {number} has a line that its tile does not have",
                )
                taken.append((word[:, None] * target.bit_lines + bits).reshape(-1))
            points = np.concatenate(taken)
            self._demand(
                len(np.unique(points)) == len(points),
                f"two devices share a cross-point of tile {tile['tile']}",
            )
            self._demand(
                tile["devices_used"] == len(points) * target.devices_per_polarity
                and tile["devices"] == target.devices_per_tile,
                f"the device counts of tile {tile['tile']} do not fit its blocks",
            )

    def _demand(self, condition, what):
        if not condition:
            raise MapError(f"{self.path} is not consistent: {what}.", "Export the model again.")


CSV_HEADER = (
    "device",
    "tile",
    "word_line",
    "bit_line",
    "parallel",
    "polarity",
    "matrix",
    "row",
    "column",
    "target_uS",
)
