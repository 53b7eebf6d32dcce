"""Read a crossbar map (.snumap) with NumPy alone.

This file needs neither snukeras nor TensorFlow; copy it to where it is needed.
It runs on Python 3.9 and newer, and follows crossbar-map.md, the specification.

    import snumap_reader

    crossbar = snumap_reader.read("crossbar.snumap")
    g_plus, g_minus = crossbar.conductances("keys/kernel")     # uS, (rows, columns)
    crossbar.programs("keys/kernel")                           # what to program on each plane
    crossbar.weights()                                         # name -> float32, all of the network
    crossbar.address("keys/kernel", 3, 7)                      # tile, word line, two bit lines

    $ python snumap_reader.py crossbar.snumap                  # says what is in it
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Snumap", "SnumapError", "read"]

_HEADER = struct.Struct("<8sIIQQ32s")  # magic, version, zero, offset, length, sha256
_MAGIC = b"\x89SNUMAP\n"
_ALIGNMENT = 64
_TYPES = {"float32": "<f4", "float64": "<f8", "uint32": "<u4"}
_MAX_DESCRIPTION = 256 * 2**20
_MAX_COUNT = 2**53 - 1
_MAX_RANK = 16
_MAX_PLANES = 16

Json = dict[str, Any]


class SnumapError(ValueError):
    """The file is no crossbar map of these versions, cut off, altered, or contradicts itself."""


def read(path: str | os.PathLike[str]) -> Snumap:
    """Read a map and check it: header, every checksum, and that its parts fit together.

    Args:
        path: The file.

    Raises:
        SnumapError: The file cannot be read or is damaged; the message is a sentence.
    """
    return Snumap(path)


class Snumap:
    """A crossbar map.

    Attributes:
        description: The JSON object of the file, see crossbar-map.md.
        target: The hardware: tile, range of conductance, levels.
        significances: Of the planes of each tile, the largest first; [1.0] is one plane.
        programmed_for: When devices are to hold their targets, s; None is at once.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._data = self._bytes()
        self.description = self._described()
        self.target: Json = self._part(self.description, "target", dict)
        onnx = self._part(self._part(self.description, "onnx", dict), "file", str)
        if Path(onnx).name != onnx or "\\" in onnx:
            raise self._error(f"names an ONNX file {onnx[:100]!r} that is not beside it")
        self._read_programming()
        self._matrices = self._named("matrices")
        self._parameters = self._named("parameters")
        if set(self._matrices) & set(self._parameters):
            raise self._error("uses a name twice")
        self._arrays: dict[int, np.ndarray] = {}
        self._spans: list[tuple[int, int]] = []
        for entry in self._matrices.values():
            self._check_matrix(entry)
        for entry in self._parameters.values():
            values = self._array(entry, "values", None, "float32")
            if not np.all(np.isfinite(values)):
                raise self._error(f"has a parameter {entry['name']!r} that is not finite")
        self._blocks: list[Json] = self._part(self.description, "blocks", list)
        self._check_blocks()
        self._check_gaps()

    @property
    def matrices(self) -> list[str]:
        """The names of the matrices on tiles, as "layer/role"."""
        return list(self._matrices)

    def conductances(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the target conductances (G+, G-) of a matrix in uS, float32 (rows, columns).

        Raises:
            KeyError: The map has no such matrix.
        """
        entry = self._matrix(name)
        return self._arrays[id(entry["g_plus"])], self._arrays[id(entry["g_minus"])]

    def programs(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return what to program (G+, G-) on each plane, uS, float32 (planes, rows, columns).

        Planes of less significance are programmed to this where those before them were hit exactly,
        and to what a reading of those has left over where not: see crossbar-map.md, section 4.
        """
        if self._version == 1:
            plus, minus = self.conductances(name)
            return plus[None], minus[None]
        entry = self._matrix(name)
        plus, minus = entry["program_plus"], entry["program_minus"]
        return self._arrays[id(plus)], self._arrays[id(minus)]

    def scales(self, name: str) -> np.ndarray:
        """Return uS per unit of weight of each column of a matrix, float64 (columns,)."""
        return self._arrays[id(self._matrix(name)["scale"])]

    def parameters(self) -> dict[str, np.ndarray]:
        """Return the weights that stay digital, float32, by name."""
        return {name: self._arrays[id(entry["values"])] for name, entry in self._parameters.items()}

    def weights(self) -> dict[str, np.ndarray]:
        """Return all weights of the network, float32, by name."""
        found = {}
        for name, entry in self._matrices.items():
            plus, minus = self.conductances(name)
            values = (plus.astype("float64") - minus) / self.scales(name)
            rows, columns = _axes(entry)
            order = [*rows, *columns]
            sizes = [entry["shape"][axis] for axis in order]
            folded = values.astype("float32").reshape(sizes)
            found[name] = np.ascontiguousarray(folded.transpose(np.argsort(order)))
        return {**found, **self.parameters()}

    def address(self, name: str, row: int, column: int) -> tuple[int, int, int, int]:
        """Return tile, word line, bit line of G+ and bit line of G- of one weight of a matrix.

        Raises:
            KeyError: The map has no such matrix.
            IndexError: The matrix has no such row or column.
        """
        index = self.matrices.index(self._matrix(name)["name"])
        for block, word, plus, minus in self.blocks():
            i, j = row - block["row"], column - block["column"]
            inside = 0 <= i < block["rows"] and 0 <= j < block["columns"]
            if block["matrix"] == index and inside:
                return block["tile"], int(word[i]), int(plus[j]), int(minus[j])
        raise IndexError(f"{name} has no weight at row {row}, column {column}")

    def blocks(self) -> Iterator[tuple[Json, np.ndarray, np.ndarray, np.ndarray]]:
        """Iterate over blocks, each with its word lines, bit lines of G+ and bit lines of G-."""
        for block in self._blocks:
            yield (
                block,
                self._arrays[id(block["word_lines"])],
                self._arrays[id(block["bit_lines_plus"])],
                self._arrays[id(block["bit_lines_minus"])],
            )

    def _matrix(self, name: str) -> Json:
        if name not in self._matrices:
            raise KeyError(f"the map has no matrix {name!r}; it has {', '.join(self._matrices)}")
        return self._matrices[name]

    def _error(self, what: str) -> SnumapError:
        return SnumapError(f"{self.path} {what}.")

    def _bytes(self) -> memoryview:
        """Return the file, of which nothing but the header has been looked at."""
        try:
            with open(self.path, "rb") as file:
                state = os.fstat(file.fileno())
                if not stat.S_ISREG(state.st_mode):
                    raise self._error("is no regular file")
                head = file.read(_HEADER.size)
                self._check_header(head, state.st_size)
                data = head + file.read(state.st_size - len(head))
        except OSError as error:
            raise self._error(f"cannot be read: {error.strerror or error}") from error
        except ValueError as error:
            if isinstance(error, SnumapError):
                raise
            raise self._error(f"cannot be read: {error}") from error
        if len(data) != state.st_size:
            raise self._error("changed while it was read")
        return memoryview(data)

    def _check_header(self, head: bytes, size: int) -> None:
        if len(head) < _HEADER.size:
            raise self._error(f"is too short ({size} bytes) to be a crossbar map")
        magic, version, zero, offset, length, _ = _HEADER.unpack(head)
        if magic != _MAGIC:
            raise self._error("is not a crossbar map: its first eight bytes differ")
        if version not in (1, 2):
            raise self._error(f"has version {version}; this reader knows versions 1 and 2")
        if zero or offset < _HEADER.size or offset % _ALIGNMENT or offset + length != size:
            raise self._error(f"is cut off or altered: {size} bytes, header says {offset + length}")
        if length > _MAX_DESCRIPTION:
            raise self._error(f"has a description of {length} bytes; at most {_MAX_DESCRIPTION}")

    def _described(self) -> Json:
        _, version, _, offset, length, digest = _HEADER.unpack(self._data[: _HEADER.size])
        self._end, self._version = offset, version
        text = self._data[offset : offset + length]
        if hashlib.sha256(text).digest() != digest:
            raise self._error("was altered: its description has another sha256")

        def no_repeats(pairs: list[tuple[str, Any]]) -> Json:
            if len(dict(pairs)) != len(pairs):
                raise ValueError("a key is repeated")
            return dict(pairs)

        def no_constants(name: str) -> None:
            raise ValueError(f"{name} is not JSON")

        try:
            found = json.loads(
                bytes(text).decode("utf-8"),
                object_pairs_hook=no_repeats,
                parse_constant=no_constants,
            )
        except (ValueError, RecursionError) as error:
            raise self._error(f"holds JSON that cannot be read: {error}") from error
        kind = (found.get("format"), found.get("version")) if isinstance(found, dict) else None
        if kind != ("snukeras-crossbar-map", version) or isinstance(found["version"], bool):
            raise self._error(f"does not describe a crossbar map of version {version}")
        return found

    def _read_programming(self) -> None:
        """Read how devices are programmed, which version 2 tells."""
        self.significances, self.programmed_for = [1.0], None
        if (self._version == 2) != ("programming" in self.description):
            raise self._error(f"is no map of version {self._version}: how devices are programmed")
        if self._version == 1:
            return
        told = self._part(self.description, "programming", dict)
        found = self._part(told, "significances", list)
        good = all(isinstance(s, (int, float)) and not isinstance(s, bool) for s in found)
        good = good and 1 <= len(found) <= _MAX_PLANES and all(0 < s < math.inf for s in found)
        if not good or found != sorted(found, reverse=True):
            raise self._error("has significances of planes that cannot be")
        self.significances = [float(s) for s in found]
        if told.get("time_s") is not None:
            time = self._part(told, "time_s", (int, float))
            if not 0 <= time < math.inf:
                raise self._error(f"has a time of programming of {time}, which cannot be")
            self.programmed_for = float(time)

    def _part(self, entry: Any, key: str, kind: type | tuple[type, ...]) -> Any:
        """Return a value of an object of the description, of the type that it must have."""
        value = entry.get(key) if isinstance(entry, dict) else None
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self._error(f"has no {key} where its description needs one")
        return value

    def _count(self, entry: Any, key: str, least: int = 0) -> int:
        value: int = self._part(entry, key, int)
        if not least <= value <= _MAX_COUNT:
            raise self._error(f"has a {key} of {value}, which cannot be")
        return value

    def _named(self, key: str) -> dict[str, Json]:
        """Return entries by name; a name must lead out of no folder."""
        found: dict[str, Json] = {}
        for entry in self._part(self.description, key, list):
            name = self._part(entry, "name", str)
            parts = name.split("/")
            good = name.isprintable() and "\\" not in name and len(name) <= 1000
            if ".." in parts or not parts[0] or not good:
                raise self._error(f"has a name {name[:100]!r} that is not one of a layer")
            if name in found:
                raise self._error(f"uses the name {name!r} twice")
            found[name] = entry
        if key == "matrices" and not found:
            raise self._error("has no matrix")
        return found

    def _sizes(self, entry: Any, key: str, least: int = 0) -> tuple[int, ...]:
        """Return a list of whole numbers."""
        found = self._part(entry, key, list)
        for size in found:
            good = isinstance(size, int) and not isinstance(size, bool)
            if not good or not least <= size <= _MAX_COUNT:
                raise self._error(f"has a {key} with {size!r}, which cannot be")
        if len(found) > _MAX_RANK:
            raise self._error(f"has a {key} of {len(found)} numbers; at most {_MAX_RANK}")
        return tuple(found)

    def _array(self, entry: Json, key: str, shape: tuple[int, ...] | None, kind: str) -> np.ndarray:
        """Return the array that an entry refers to, after comparing place, form and sha256."""
        reference = self._part(entry, key, dict)
        offset, sizes = self._count(reference, "offset"), self._sizes(reference, "shape")
        name = self._part(reference, "dtype", str)
        if name != kind or (shape is not None and sizes != shape):
            raise self._error(f"has a {key} of another shape or type than its place needs")
        stop = offset + math.prod(sizes) * np.dtype(_TYPES[kind]).itemsize
        if not _HEADER.size <= offset <= stop <= self._end or offset % _ALIGNMENT:
            raise self._error(f"is cut off or inconsistent: no array fits at byte {offset}")
        view = self._data[offset:stop]
        if hashlib.sha256(view).hexdigest() != self._part(reference, "sha256", str):
            raise self._error(f"was altered: the array at byte {offset} has another sha256")
        found = np.frombuffer(view, dtype=_TYPES[kind]).reshape(sizes)
        self._arrays[id(reference)] = found
        self._spans.append((offset, stop))
        return found

    def _check_matrix(self, entry: Json) -> None:
        rows, columns = self._count(entry, "rows", 1), self._count(entry, "columns", 1)
        self._sizes(entry, "shape", 1)
        self._check_axes(entry, rows, columns)
        for key in ("g_plus", "g_minus"):
            g = self._array(entry, key, (rows, columns), "float32")
            if not np.all(np.isfinite(g) & (g >= 0)):
                raise self._error(f"has a conductance of {entry['name']!r} that cannot be")
        for key in ("program_plus", "program_minus"):
            if (key in entry) != (self._version == 2):
                raise self._error(f"has or lacks a {key}, against its version")
            if self._version == 2:
                shape = (len(self.significances), rows, columns)
                g = self._array(entry, key, shape, "float32")
                if not np.all(np.isfinite(g) & (g >= 0)):
                    raise self._error(f"has a conductance of {entry['name']!r} that cannot be")
        scale = self._array(entry, "scale", (columns,), "float64")
        if not np.all(np.isfinite(scale) & (scale > 0)):
            raise self._error(f"has a scale of {entry['name']!r} that is not positive")

    def _check_axes(self, entry: Json, rows: int, columns: int) -> None:
        shape = entry["shape"]
        if ("row_axes" in entry) != ("column_axes" in entry):
            raise self._error("has row axes without column axes, or the other way round")
        if "row_axes" in entry:
            both = (*self._sizes(entry, "row_axes"), *self._sizes(entry, "column_axes"))
            if sorted(both) != list(range(len(shape))):
                raise self._error(f"has axes of {entry['name']!r} that are not those of its shape")
        sizes = [math.prod(shape[axis] for axis in axes) for axes in _axes(entry)]
        if not shape or sizes != [rows, columns]:
            raise self._error(f"has a shape of {entry['name']!r} that is not its rows and columns")

    def _check_blocks(self) -> None:
        """Check that blocks cover each matrix once, on lines that their tiles have."""
        tile = self._part(self.target, "tile", dict)
        words, bits = self._count(tile, "rows", 1), self._count(tile, "columns", 1)
        bits *= 2 if self._part(tile, "crosspoint", str) == "pair" else 1
        entries = list(self._matrices.values())
        covered = [np.zeros((entry["rows"], entry["columns"]), bool) for entry in entries]
        taken: dict[int, list[np.ndarray]] = {}
        for block in self._blocks:
            number, tile_number = self._count(block, "matrix"), self._count(block, "tile")
            row, rows = self._count(block, "row"), self._count(block, "rows", 1)
            column, columns = self._count(block, "column"), self._count(block, "columns", 1)
            if number >= len(entries):
                raise self._error("has a block of a matrix that it does not have")
            if row + rows > entries[number]["rows"] or column + columns > covered[number].shape[1]:
                raise self._error("has a block that exceeds its matrix")
            part = covered[number][row : row + rows, column : column + columns]
            if part.any():
                raise self._error("has blocks that overlap")
            part[:] = True
            word = self._array(block, "word_lines", (rows,), "uint32").astype("int64")
            plus = self._array(block, "bit_lines_plus", (columns,), "uint32")
            minus = self._array(block, "bit_lines_minus", (columns,), "uint32")
            both = np.concatenate([plus, minus]).astype("int64")
            if word.max() >= words or both.max() >= bits:
                raise self._error("has a block on a line that its tile does not have")
            points = (word[:, None] * bits + both).reshape(-1)
            taken.setdefault(tile_number, []).append(points)
        if not all(part.all() for part in covered):
            raise self._error("has a matrix that its blocks do not cover")
        for points_of in taken.values():
            joined = np.concatenate(points_of)
            if len(np.unique(joined)) != len(joined):
                raise self._error("has two devices at one cross-point")

    def _check_gaps(self) -> None:
        """Check that arrays do not overlap, and that nothing lies between them."""
        end = _HEADER.size
        for start, stop in [*sorted(self._spans), (self._end, self._end)]:
            if start < end:
                raise self._error(f"has arrays that overlap at byte {start}")
            if start - end >= _ALIGNMENT or any(self._data[end:start]):
                raise self._error(f"has unexpected bytes between arrays, at byte {end}")
            end = stop


def _axes(entry: Json) -> tuple[list[int], list[int]]:
    """Return the axes of a weight that are rows, and those that are columns."""
    if "row_axes" in entry:
        return entry["row_axes"], entry["column_axes"]
    last = len(entry["shape"]) - 1
    return list(range(last)), [last]


def main(arguments: list[str]) -> int:
    """Print what a map holds; return 0, or 2 where it cannot be read."""
    if len(arguments) != 1:
        print("usage: python snumap_reader.py MAP", file=sys.stderr)
        return 2
    try:
        crossbar = read(arguments[0])
    except SnumapError as error:
        print(f"snumap_reader: {error}", file=sys.stderr)
        return 2
    for name in crossbar.matrices:
        rows, columns = crossbar.conductances(name)[0].shape
        print(f"{name}: {rows} rows, {columns} columns on tiles")
    for name, values in crossbar.parameters().items():
        print(f"{name}: {values.size} digital numbers")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
