"""Read crossbar maps: every weight's place and conductances, from one self-contained file."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from snukeras import _html
from snukeras.export.crossbar.container import MapReader
from snukeras.export.crossbar.description import (
    ArrayReference,
    BlockEntry,
    Description,
    MatrixEntry,
)
from snukeras.export.crossbar.targets import Target, schema_problem

Pair = tuple[np.ndarray, np.ndarray]


class Address(NamedTuple):
    """Where one weight sits: a tile, a word line, and the bit lines of its two polarities."""

    tile: int
    word_line: int
    bit_line_plus: int
    bit_line_minus: int


class Lines(NamedTuple):
    """The lines of a block: word line of each row, bit lines of G+ and G- of each column."""

    word: np.ndarray
    plus: np.ndarray
    minus: np.ndarray


class CrossbarMap:
    """A crossbar map, read from its file; large arrays stay on disk until they are used.

    Attributes:
        path: The file.
        description: What the map says beside its arrays.
        target: The `Target`.

    Raises:
        MapError: The file is no crossbar map, of another version, cut off, or altered.
    """

    def __init__(self, path: str | Path, check: bool = True) -> None:
        self.path = Path(path)
        self._reader = MapReader(path)
        problem = schema_problem(self._reader.description, "crossbar-map.schema.json")
        if problem:
            raise self._reader.error(f"does not obey export/crossbar-map.schema.json: {problem}")
        self.description = Description.from_dict(self._reader.description)
        self._check_version()
        self.target = Target.from_dict(self.description.target, f"{self.path}: target")
        self._lines = [
            Lines(
                self._reader.array(block.word_lines, check),
                self._reader.array(block.bit_lines_plus, check),
                self._reader.array(block.bit_lines_minus, check),
            )
            for block in self.description.blocks
        ]
        if check:
            self._reader.check_bytes(self._references())

    @property
    def matrices(self) -> list[str]:
        """Names of the mapped matrices, as "layer/role"."""
        return [entry.name for entry in self.description.matrices]

    def _repr_html_(self) -> str:
        """Return the matrices, tiles and devices as a table, for notebooks."""
        each = 2 * self.devices_per_polarity
        rows: list[tuple[object, ...]] = []
        for index, entry in enumerate(self.description.matrices):
            tiles = {block.tile for block in self.description.blocks if block.matrix == index}
            weights = entry.rows * entry.columns
            size, levels = f"{entry.rows} x {entry.columns}", self.levels(entry.name)
            rows.append(
                (entry.name, size, f"{each * weights:,}", len(tiles), levels or "continuous")
            )
        totals = self.description.totals
        rows.append(("total", "", f"{totals.devices:,}", f"{totals.tiles:,}", ""))
        title = f"{self.path.name}: {self.description.source.name} on {self.target.name}"
        heads = ("matrix", "rows x columns", "devices", "tiles", "levels")
        notes = (
            f"Tiles of {self.target.rows} x {self.target.columns} cross-points, "
            f"{self.target.g_min:g} to {self.target.g_max:g} uS. {totals.parameters:,} parameters "
            "stay digital.",
        )
        return _html.table(heads, rows, title, notes)

    @property
    def significances(self) -> tuple[float, ...]:
        """Significances of the planes of each tile, the largest first; (1.0,) is one plane."""
        programming = self.description.programming
        return (1.0,) if programming is None else programming.significances

    @property
    def programmed_for(self) -> float | None:
        """When devices are to hold their targets, s; None is as soon as they are programmed."""
        programming = self.description.programming
        return None if programming is None else programming.time_s

    @property
    def devices_per_polarity(self) -> int:
        """Devices of one polarity of one weight, on all planes."""
        return self.target.devices_per_polarity * len(self.significances)

    @property
    def totals(self) -> dict[str, int]:
        """Numbers of weights, devices, tiles and digital parameters."""
        return self.description.totals.to_dict()

    def entry(self, name: str) -> MatrixEntry:
        """Return what the map says of a matrix.

        Raises:
            KeyError: The map has no such matrix; the message lists those it has.
        """
        for entry in self.description.matrices:
            if entry.name == name:
                return entry
        raise KeyError(f"The map has no matrix {name!r}; it has {', '.join(self.matrices)}")

    def conductances(self, name: str) -> Pair:
        """Return the target conductances (G+, G-) of a matrix in uS, float32 (rows, columns)."""
        entry = self.entry(name)
        return self._reader.array(entry.g_plus, False), self._reader.array(entry.g_minus, False)

    def programs(self, name: str) -> Pair:
        """Return what to program (G+, G-) on each plane, uS, float32 (planes, rows, columns).

        Planes of less significance are to be programmed to this where those before them were hit
        exactly, and to what a reading of those has left over where not.
        """
        entry = self.entry(name)
        if entry.program_plus is None or entry.program_minus is None:
            plus, minus = self.conductances(name)
            return plus[None], minus[None]
        return (
            self._reader.array(entry.program_plus, False),
            self._reader.array(entry.program_minus, False),
        )

    def programmed(self, name: str) -> Pair:
        """Return what devices hold together (G+, G-) just after they were programmed, uS."""
        shares = np.asarray(self.significances) / sum(self.significances)
        plus, minus = (np.tensordot(shares, g, 1).astype("float32") for g in self.programs(name))
        return plus, minus

    def scales(self, name: str) -> np.ndarray:
        """Return uS per unit of weight of each column of a matrix, float64 (columns,)."""
        return self._reader.array(self.entry(name).scale, False)

    def levels(self, name: str) -> int | None:
        """Return how many levels the conductances of a matrix have; None is continuous."""
        return self.entry(name).levels or self.target.levels

    def weights(self, conductances: Mapping[str, Pair] | None = None) -> dict[str, np.ndarray]:
        """Rebuild all weights of the model from this file alone, float32, by name.

        Args:
            conductances: Name -> (G+, G-) in uS to use instead of the targets, for matrices that
                were measured.
        """
        rebuilt = {}
        for entry in self.description.matrices:
            plus, minus = (conductances or {}).get(entry.name) or self.conductances(entry.name)
            values = (np.asarray(plus, "float64") - minus) / self.scales(entry.name)
            rebuilt[entry.name] = entry.unrolling.weight(values.astype("float32"), entry.shape)
        return {**rebuilt, **self.parameters()}

    def parameters(self) -> dict[str, np.ndarray]:
        """Return the digital parameters (biases, thresholds, decays, ...) by name."""
        return {
            entry.name: self._reader.array(entry.values, False)
            for entry in self.description.parameters
        }

    def address(self, name: str, row: int, column: int) -> Address:
        """Return where one weight of a matrix sits.

        Raises:
            IndexError: The matrix has no such row or column.
        """
        entry = self.entry(name)
        index = self.matrices.index(name)
        for block, (word, plus, minus) in self.blocks():
            i, j = row - block.row, column - block.column
            if block.matrix == index and 0 <= i < block.rows and 0 <= j < block.columns:
                return Address(block.tile, int(word[i]), int(plus[j]), int(minus[j]))
        raise IndexError(
            f"{name} has {entry.rows} rows and {entry.columns} columns. "
            f"Received: row {row}, column {column}"
        )

    def blocks(self) -> Iterator[tuple[BlockEntry, Lines]]:
        """Iterate over the blocks, each with its lines."""
        yield from zip(self.description.blocks, self._lines, strict=True)

    def tile_conductances(self, tile: int) -> np.ndarray:
        """Return the targets of a tile in uS, (word lines, bit lines); NaN marks unused devices."""
        grid = np.full((self.target.rows, self.target.bit_lines), np.nan, dtype="float32")
        for block, (word, plus, minus) in self.blocks():
            if block.tile == tile:
                name = self.description.matrices[block.matrix].name
                rows, columns = part_of(block)
                g_plus, g_minus = self.conductances(name)
                grid[np.ix_(word, plus)] = g_plus[rows, columns]
                grid[np.ix_(word, minus)] = g_minus[rows, columns]
        return grid

    def _check_version(self) -> None:
        """Refuse a map whose version and content tell two things."""
        description, known = self.description, self._reader.version
        told = description.programming is not None
        parts = [
            (e.program_plus is not None, e.program_minus is not None) for e in description.matrices
        ]
        if description.version != known or told != (known == 2) or set(parts) != {(told, told)}:
            raise self._reader.error(f"is not consistent: it is no map of version {known}")

    def _references(self) -> Iterator[ArrayReference]:
        for entry in self.description.matrices:
            yield from (entry.g_plus, entry.g_minus, entry.scale)
            if entry.program_plus is not None and entry.program_minus is not None:
                yield from (entry.program_plus, entry.program_minus)
        for block in self.description.blocks:
            yield from (block.word_lines, block.bit_lines_plus, block.bit_lines_minus)
        for parameter in self.description.parameters:
            yield parameter.values


def part_of(block: BlockEntry) -> tuple[slice, slice]:
    """Return the rows and columns of its matrix that a block holds."""
    return (
        slice(block.row, block.row + block.rows),
        slice(block.column, block.column + block.columns),
    )
