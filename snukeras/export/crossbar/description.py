"""The description of a crossbar map: typed forms of what its JSON holds.

The meaning of each field is specified in export/crossbar-map.md.
"""

import dataclasses
from typing import TYPE_CHECKING

from snukeras._files import JsonObject
from snukeras._units import time_text
from snukeras.export.records import OPTIONAL, Record, optional

if TYPE_CHECKING:
    from snukeras.network.matrices import Unrolling


@dataclasses.dataclass(frozen=True)
class ArrayReference(Record):
    """Where an array lies in the file, and its sha256."""

    offset: int
    dtype: str
    shape: tuple[int, ...]
    sha256: str


@dataclasses.dataclass(frozen=True)
class MatrixEntry(Record):
    """A matrix on tiles: its conductances in uS and its scales in uS per unit of weight.

    Attributes:
        levels: Levels of its conductances, where they are not those of the target.
        program_plus, program_minus: What to program, (planes, rows, columns), in version 2.
        row_axes, column_axes: Axes of the weight that the rows and the columns run over, where the
            columns are not its last axis alone.
    """

    name: str
    layer: str
    role: str
    shape: tuple[int, ...]
    rows: int
    columns: int
    g_plus: ArrayReference
    g_minus: ArrayReference
    scale: ArrayReference
    levels: int | None = optional()
    row_axes: tuple[int, ...] | None = optional()
    column_axes: tuple[int, ...] | None = optional()
    program_plus: ArrayReference | None = dataclasses.field(
        default=None, metadata={"optional": True}
    )
    program_minus: ArrayReference | None = dataclasses.field(
        default=None, metadata={"optional": True}
    )

    @property
    def unrolling(self) -> "Unrolling":
        """How the weight lies on tiles."""
        from snukeras.network.matrices import Unrolling  # not before Keras is needed

        return Unrolling(self.row_axes, self.column_axes or (-1,))


@dataclasses.dataclass(frozen=True)
class BlockEntry(Record):
    """A rectangle of a matrix on one tile, and its lines."""

    matrix: int
    tile: int
    row: int
    rows: int
    column: int
    columns: int
    word_lines: ArrayReference
    bit_lines_plus: ArrayReference
    bit_lines_minus: ArrayReference


@dataclasses.dataclass(frozen=True)
class TileEntry(Record):
    """A tile in use, and the numbers of its blocks."""

    tile: int
    word_lines: int
    bit_lines: int
    blocks: tuple[int, ...]
    devices_used: int
    devices: int


@dataclasses.dataclass(frozen=True)
class AdderEntry(Record):
    """Columns of a matrix that lie on several blocks, whose results are added."""

    matrix: int
    column: int
    columns: int
    blocks: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class FaultEntry(Record):
    """A stuck device that carries a weight, and the error of weight that remains."""

    matrix: int
    polarity: str
    row: int
    column: int
    tile: int
    word_line: int
    bit_line: int
    conductance_uS: float  # noqa: N815 (its name in the file)
    weight_error: float


@dataclasses.dataclass(frozen=True)
class ParameterEntry(Record):
    """A weight that stays digital."""

    name: str
    layer: str
    role: str
    values: ArrayReference


@dataclasses.dataclass(frozen=True)
class Totals(Record):
    """Numbers of weights on tiles, devices, tiles and digital parameters."""

    weights: int
    devices: int
    tiles: int
    parameters: int


@dataclasses.dataclass(frozen=True)
class Package(Record):
    """The program that wrote the file."""

    name: str
    version: str


@dataclasses.dataclass(frozen=True)
class Units(Record):
    """Units of the numbers."""

    conductance: str
    scale: str


@dataclasses.dataclass(frozen=True)
class Source(Record):
    """The network of a map; `sha256` is that of its file, if it came from one."""

    name: str
    sha256: str | None
    weights_sha256: str


@dataclasses.dataclass(frozen=True)
class OnnxFile(Record):
    """The ONNX file that a map belongs to."""

    file: str
    sha256: str


@dataclasses.dataclass(frozen=True)
class Programming(Record):
    """How devices are programmed, where they are not programmed to what they are to hold at once.

    Attributes:
        significances: Of the planes of each tile, the largest first.
        time_s: When devices are to hold their targets, in seconds since the reference reading; None
            is as soon as they are programmed.
        device: The device model that says what to program for that time, or None.
    """

    significances: tuple[float, ...]
    time_s: float | None
    device: str | None

    @property
    def text(self) -> str:
        """What it is, in words."""
        parts = []
        if len(self.significances) > 1:
            listed = ", ".join(f"{significance:g}" for significance in self.significances)
            parts.append(f"{len(self.significances)} planes a tile, of significance {listed}")
        if self.time_s is not None:
            parts.append(
                f"targets to be held after {time_text(self.time_s)}, by the curves of {self.device}"
            )
        return "; ".join(parts)


@dataclasses.dataclass(frozen=True)
class Description(Record):
    """All that a map says beside its arrays.

    Attributes:
        clip: Where weights were cut before they were mapped, if they were: so many standard
            deviations, or "best".
        programming: How devices are programmed; in version 2 alone.
    """

    format: str
    version: int
    package: Package
    units: Units
    source: Source
    onnx: OnnxFile
    target: JsonObject
    scale: str
    seed: int
    packed: bool
    matrices: tuple[MatrixEntry, ...]
    blocks: tuple[BlockEntry, ...]
    tiles: tuple[TileEntry, ...]
    adders: tuple[AdderEntry, ...]
    faults: tuple[FaultEntry, ...]
    parameters: tuple[ParameterEntry, ...]
    totals: Totals
    clip: float | str | None = optional()
    programming: Programming | None = dataclasses.field(default=None, metadata=OPTIONAL)
