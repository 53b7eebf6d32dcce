"""Read and write the container of a crossbar map: header, arrays, JSON description.

The layout is specified in export/crossbar-map.md; this module is one implementation of it.
"""

import hashlib
import json
import math
import mmap
import os
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Self

import numpy as np

from snukeras._files import JsonObject, JsonValue, regular
from snukeras.export.crossbar.description import ArrayReference
from snukeras.export.errors import MapError

MAGIC = b"\x89SNUMAP\n"
#: Of files: 2 where the map says what to program beside what devices are to hold.
VERSIONS = (1, 2)
HEADER = struct.Struct("<8sIIQQ32s")  # magic, version, zero, offset, length, sha256
ALIGNMENT = 64
DTYPES = {"float32": "<f4", "float64": "<f8", "uint32": "<u4"}
MAX_DESCRIPTION = 256 * 2**20


class MapWriter:
    """Writes arrays one after another, then the description, so that memory stays small.

    Args:
        path: File to write; the caller gives a temporary name and renames it.
    """

    def __init__(self, path: str | Path) -> None:
        self._file = open(path, "wb")  # noqa: SIM115 (closed by finish or __exit__)
        self._file.write(bytes(HEADER.size))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(self, array: np.ndarray) -> ArrayReference:
        """Append an array; return the reference to it that goes into the description."""
        array = np.asarray(array)
        name = {"f4": "float32", "f8": "float64", "u4": "uint32"}[array.dtype.str[1:]]
        data = np.asarray(array, dtype=DTYPES[name], order="C")  # keeps a number a number
        self._align()
        offset = self._file.tell()
        view = data.reshape(-1).view("uint8").data
        self._file.write(view)
        return ArrayReference(offset, name, data.shape, hashlib.sha256(view).hexdigest())

    def finish(self, description: JsonObject, version: int = 1) -> None:
        """Write the description and the header with the file's version, which completes it."""
        text = json.dumps(description, ensure_ascii=False, allow_nan=False, indent=1)
        data = text.encode("utf-8")
        self._align()
        offset = self._file.tell()
        self._file.write(data)
        self._file.seek(0)
        digest = hashlib.sha256(data).digest()
        self._file.write(HEADER.pack(MAGIC, version, 0, offset, len(data), digest))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def _align(self) -> None:
        self._file.write(bytes(-self._file.tell() % ALIGNMENT))


class MapReader:
    """Opens a container, checks its header and description; arrays are read on demand.

    The file is mapped into memory, so that an array costs memory only while it is in use.

    Args:
        path: The file.

    Raises:
        MapError: The file is no map, is of another version, is cut off, or was altered.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with open(regular(self.path), "rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size < HEADER.size:
                    raise self.error(f"is too short ({size} bytes) to be a crossbar map")
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise self.error(f"cannot be read: {error.strerror or error}") from error
        except ValueError as error:  # a NUL in the name
            raise self.error(f"cannot be read: {error}") from error
        self.description = self._read_description(size)

    def array(self, reference: ArrayReference, check: bool = True) -> np.ndarray:
        """Return the array of a reference, read-only; with `check` its sha256 is compared."""
        start, stop = self._span(reference)
        view = memoryview(self._data)[start:stop]
        if check and hashlib.sha256(view).hexdigest() != reference.sha256:
            raise self.error(f"was altered: the array at byte {start} has another sha256")
        return np.frombuffer(view, dtype=DTYPES[reference.dtype]).reshape(reference.shape)

    def check_bytes(self, references: Iterable[ArrayReference]) -> None:
        """Check every array's sha256, that none overlap, and that all other bytes are zero."""
        end = HEADER.size
        for reference in sorted(references, key=lambda r: (r.offset, math.prod(r.shape))):
            start, stop = self._span(reference)
            if start < end:
                raise self.error(f"is not consistent: arrays overlap at byte {start}")
            self._check_gap(end, start)
            self.array(reference)
            end = stop
        self._check_gap(end, self._offset)

    def error(self, what: str, hint: str = "Export the model again.") -> MapError:
        """Return the error that says what is wrong with this file."""
        return MapError(f"{self.path} {what}.", hint)

    def _check_gap(self, start: int, stop: int) -> None:
        if stop - start >= ALIGNMENT or any(self._data[start:stop]):
            raise self.error(f"has unexpected bytes between arrays, at byte {start}")

    def _span(self, reference: ArrayReference) -> tuple[int, int]:
        offset = reference.offset
        itemsize = np.dtype(DTYPES[reference.dtype]).itemsize
        stop = offset + math.prod(reference.shape) * itemsize
        if not HEADER.size <= offset <= stop <= self._offset or offset % ALIGNMENT:
            raise self.error(f"is cut off or inconsistent: no array fits at byte {offset}")
        return offset, stop

    def _read_description(self, size: int) -> JsonObject:
        magic, version, zero, offset, length, digest = HEADER.unpack(self._data[: HEADER.size])
        if magic != MAGIC:
            raise self.error("is not a crossbar map (its first eight bytes differ)")
        if version not in VERSIONS:
            raise self.error(
                f"has version {version}; this reader knows versions 1 and 2",
                "Read it with the snukeras version that wrote it.",
            )
        if zero or offset < HEADER.size or offset % ALIGNMENT or offset + length != size:
            raise self.error(f"is cut off or altered: {size} bytes, header says {offset + length}")
        if length > MAX_DESCRIPTION:
            raise self.error(f"has a description of {length} bytes; at most {MAX_DESCRIPTION}")
        self._offset, self.version = offset, int(version)
        data = self._data[offset : offset + length]
        if hashlib.sha256(data).digest() != digest:
            raise self.error("was altered: its description has another sha256")
        return parse_json(data, self.error)


def parse_json(data: bytes, error: Callable[[str], Exception]) -> JsonObject:
    """Parse strict JSON: UTF-8, an object, no repeated keys, no NaN.

    Args:
        data: The text.
        error: Makes the exception to raise from what is wrong.
    """

    def no_repeats(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key is repeated")
        return found

    def no_constants(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=no_repeats, parse_constant=no_constants
        )
    except (ValueError, RecursionError) as problem:
        raise error(f"holds JSON that cannot be read: {problem}") from problem
    if not isinstance(value, dict):
        raise error("holds JSON that is not an object")
    return value
