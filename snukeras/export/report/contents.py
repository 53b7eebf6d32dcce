"""The content of report.json."""

import dataclasses

from snukeras._files import JsonObject
from snukeras.export.c.files import CEntry
from snukeras.export.crossbar.description import FaultEntry, Programming, Source
from snukeras.export.nir.write import NirFile
from snukeras.export.records import Record, named, optional
from snukeras.export.report.forecast import Forecast
from snukeras.export.vectors import Vectors
from snukeras.export.verify.results import Verification
from snukeras.export.web.files import WebEntry

FORMAT = "snukeras-export-report"


@dataclasses.dataclass(frozen=True)
class Options(Record):
    """What was asked of the export."""

    target: str
    scale: str
    seed: int
    pack: bool
    embedding: bool
    streaming: bool
    faults: int
    int8: str | None = None
    clip: float | str | None = optional()
    slices: tuple[float, ...] | None = optional()
    programmed_for: float | None = optional()


@dataclasses.dataclass(frozen=True)
class CallEntry(Record):
    """A call of a layer: its name, class, what it takes, and the layer's parameters."""

    name: str
    layer_class: str = named("class")
    inputs: tuple[str, ...] = ()
    parameters: int = 0


@dataclasses.dataclass(frozen=True)
class End(Record):
    """An input or output of the ONNX file; dynamic sizes have names."""

    name: str
    shape: tuple[int | str, ...]


@dataclasses.dataclass(frozen=True)
class OnnxEntry(Record):
    """The ONNX file."""

    file: str
    opset: int
    ir_version: int
    nodes: int
    inputs: tuple[End, ...]
    outputs: tuple[End, ...]


@dataclasses.dataclass(frozen=True)
class MapEntry(Record):
    """The crossbar map: its target, numbers, use of the tiles, and how it is programmed."""

    file: str
    target: JsonObject
    weights: int
    devices: int
    tiles: int
    parameters: int
    adders: int
    utilisation: float
    tile_utilisation: tuple[float, ...]
    faults: tuple[FaultEntry, ...]
    programming: Programming | None = dataclasses.field(default=None, metadata={"optional": True})


@dataclasses.dataclass(frozen=True)
class FileEntry(Record):
    """A file of the export."""

    sha256: str
    bytes: int


@dataclasses.dataclass(frozen=True)
class Report(Record):
    """What was exported, with all numbers of the verification and the forecast.

    Attributes:
        format, version: Of report.json.
        snukeras, packages: Versions.
        source: The network.
        metrics: Known figures of the network, or None.
        parameters: Number of parameters.
        options: What was asked.
        network: Its calls of layers, in order.
        onnx, nir, map, forecast, verification, c, web, vectors: What was written and found; None
            where not asked.
        files: All files but report.json and the list of checksums.
    """

    format: str
    version: int
    snukeras: str
    packages: dict[str, str]
    source: Source
    metrics: JsonObject | None
    parameters: int
    options: Options
    network: tuple[CallEntry, ...]
    onnx: OnnxEntry
    nir: NirFile | None
    map: MapEntry | None
    forecast: Forecast | None
    verification: Verification
    files: dict[str, FileEntry]
    c: CEntry | None = None
    web: WebEntry | None = None
    vectors: Vectors | None = None
