"""Read crossbar maps: every weight's place and conductances, from one self-contained file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from snukeras.export.crossbar.container import MapReader
from snukeras.export.crossbar.targets import Target, schema_problem
from snukeras.export.errors import MapError


class Address(NamedTuple):
    """Where one weight sits: a tile, a word line, and the bit lines of its two polarities."""

    tile: int
    word_line: int
    bit_line_plus: int
    bit_line_minus: int


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
