"""Hardware targets: what a tile looks like, its conductance range, converters and energy."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from snukeras._content import folder
from snukeras._files import JsonObject, regular
from snukeras.export.crossbar.container import parse_json
from snukeras.export.errors import BadInputError
from snukeras.export.records import Record

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from jsonschema import Draft202012Validator

# What --target takes beside the name of hardware.
WITHOUT_MAP = ("onnx", "c", "web")
ENTRY_POINTS = "snukeras.export_targets"
# Largest conductances that a target may have, uS; and the smallest range, as a share of the
# largest conductance, that the float32 numbers of a map resolve.
SMALLEST, LARGEST, NARROWEST = 1e-6, 1e6, 1e-4


@dataclasses.dataclass(frozen=True)
class ReadOut(Record):
    """What one product of a whole tile costs.

    Attributes:
        name: The way of reading.
        mvm_nJ: Energy in nJ.
        mvm_ns: Time in ns.
        source: Where the figures come from.
    """

    name: str
    mvm_nJ: float  # noqa: N815 (its name in the file)
    mvm_ns: float
    source: str


class TargetChanges(TypedDict, total=False):
    """What `Target.replace` changes."""

    name: str
    title: str
    rows: int
    columns: int
    crosspoint: str
    devices_per_polarity: int
    g_min: float
    g_max: float
    levels: int | None
    dac_bits: int | None
    adc_bits: int | None
    energy: tuple[ReadOut, ...]
    sources: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Target:
    """One kind of crossbar.

    Attributes:
        name, title: Short name and one line for people.
        rows: Word lines of a tile.
        columns: Cross-points along a word line.
        crosspoint: "device" (one polarity at each cross-point: a weight takes two of them) or
            "pair" (the unit cell holds both polarities: a weight takes one).
        devices_per_polarity: Devices in parallel that share one polarity of one weight.
        g_min, g_max: Conductance range of one polarity (all its devices together), uS.
        levels: Conductance levels of one polarity, both ends included; None is continuous.
        dac_bits, adc_bits: Converter resolutions, or None.
        energy: What one product of a whole tile costs, for each way of reading.
        sources: Where the figures come from.
    """

    name: str
    title: str
    rows: int
    columns: int
    crosspoint: str = "device"
    devices_per_polarity: int = 1
    g_min: float = 0.0
    g_max: float = 25.0
    levels: int | None = None
    dac_bits: int | None = None
    adc_bits: int | None = None
    energy: tuple[ReadOut, ...] = ()
    sources: tuple[str, ...] = ()

    @property
    def bit_lines(self) -> int:
        """Bit lines of a tile; a unit cell that holds a pair has two."""
        return self.columns * (2 if self.crosspoint == "pair" else 1)

    @property
    def weights_per_tile(self) -> int:
        """Weights that a tile holds at most."""
        return self.rows * (self.bit_lines // 2)

    @property
    def devices_per_tile(self) -> int:
        """Devices of a tile."""
        return self.rows * self.bit_lines * self.devices_per_polarity

    def to_dict(self) -> JsonObject:
        """Return the content of a target file (export/target.schema.json)."""
        return {
            "format": "snukeras-target",
            "version": 1,
            "name": self.name,
            "title": self.title,
            "tile": {
                "rows": self.rows,
                "columns": self.columns,
                "crosspoint": self.crosspoint,
                "devices_per_polarity": self.devices_per_polarity,
            },
            "conductance": {
                "g_min_uS": self.g_min,
                "g_max_uS": self.g_max,
                "levels": self.levels,
            },
            "converters": {"dac_bits": self.dac_bits, "adc_bits": self.adc_bits},
            "energy": [figure.to_dict() for figure in self.energy],
            "sources": list(self.sources),
        }

    @classmethod
    def from_dict(cls, data: JsonObject, where: str = "target") -> "Target":
        """Read the content of a target file.

        Raises:
            BadInputError: The data do not obey the schema; the message says where.
        """
        problem = schema_problem(data, "target.schema.json")
        if problem:
            raise BadInputError(f"{where} does not obey export/target.schema.json: {problem}.")
        tile, conductance = data["tile"], data["conductance"]
        converters = data.get("converters", {})
        target = cls(
            name=data["name"],
            title=data["title"],
            rows=int(tile["rows"]),  # JSON Schema takes 1.0 for an integer
            columns=int(tile["columns"]),
            crosspoint=tile["crosspoint"],
            devices_per_polarity=int(tile["devices_per_polarity"]),
            g_min=float(conductance["g_min_uS"]),
            g_max=float(conductance["g_max_uS"]),
            levels=_whole(conductance["levels"]),
            dac_bits=_whole(converters.get("dac_bits")),
            adc_bits=_whole(converters.get("adc_bits")),
            energy=tuple(ReadOut.from_dict(figure) for figure in data.get("energy", ())),
            sources=tuple(data.get("sources", ())),
        )
        target.check(where)
        return target

    def check(self, where: str = "target") -> None:
        """Raise BadInputError where the numbers make no crossbar."""
        if self.rows < 1 or self.bit_lines < 2:
            raise BadInputError(
                f"{where}: a tile needs at least 1 word line and 2 bit lines (one weight). "
                f"Received: {self.rows}x{self.columns}."
            )
        if not 0 <= self.g_min < self.g_max < float("inf"):
            raise BadInputError(
                f"{where}: conductances must obey 0 <= g_min < g_max, in uS. "
                f"Received: g_min {self.g_min:g}, g_max {self.g_max:g}."
            )
        if not SMALLEST <= self.g_max <= LARGEST:
            raise BadInputError(
                f"{where}: g_max must be between {SMALLEST:g} and {LARGEST:g} uS. "
                f"Received: {self.g_max:g}.",
                "Conductances are in microsiemens.",
            )
        if self.g_max - self.g_min < NARROWEST * self.g_max:
            raise BadInputError(
                f"{where}: g_max must exceed g_min by at least {NARROWEST:g} of itself. "
                f"Received: g_min {self.g_min:g}, g_max {self.g_max:g}."
            )
        if self.levels is not None and self.levels < 2:
            raise BadInputError(
                f"{where}: levels must be at least 2 (g_min and g_max). Received: {self.levels}."
            )

    def replace(self, **changes: Unpack[TargetChanges]) -> "Target":
        """Return a copy with other values of the named attributes, checked."""
        target = dataclasses.replace(self, **changes)
        target.check("options")
        return Target.from_dict(target.to_dict(), "options") if changes else target


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def schema_problem(data: JsonObject, schema_file: str) -> str | None:
    """Return what in `data` breaks a JSON Schema of export/, in one line; None if nothing."""
    from jsonschema import exceptions

    error = exceptions.best_match(_validator(schema_file).iter_errors(data))
    if error is None:
        return None
    text = error.message if len(error.message) < 200 else error.message[:200] + "..."
    return f"{error.json_path}: {text}"


@functools.cache
def _validator(schema_file: str) -> "Draft202012Validator":
    import jsonschema

    schema = json.loads((folder("export") / schema_file).read_text(encoding="utf-8"))
    return jsonschema.Draft202012Validator(schema)


def available_targets() -> list[str]:
    """Return the names that `load_target` knows: shipped ones, and those of installed packages."""
    return sorted({path.stem for path in (folder("export") / "targets").glob("*.json")}) + sorted(
        _entry_points()
    )


def load_target(name: str) -> Target:
    """Load a target by name (see `available_targets`), or from the user's own JSON file.

    Raises:
        BadInputError: There is no such target or file, or its content is wrong.
    """
    if name.endswith(".json"):
        path = Path(name)
    else:
        if name in _entry_points():
            found = _entry_points()[name].load()
            data = found() if callable(found) else found
            return data if isinstance(data, Target) else Target.from_dict(data, name)
        path = folder("export") / "targets" / f"{name}.json"
        if name not in available_targets():
            raise BadInputError(
                f"Unknown target {name!r}.",
                f"Known: {', '.join(available_targets())}; or give your own file, PATH.json.",
            )

    def error(what: str) -> BadInputError:
        return BadInputError(f"{path} {what}.", "See export/target.schema.json.")

    try:
        data = parse_json(regular(path).read_bytes(), error)
    except OSError as problem:
        raise error(f"cannot be read: {problem.strerror or problem}") from problem
    return Target.from_dict(data, str(path))


@functools.cache
def _entry_points() -> "dict[str, EntryPoint]":
    from importlib import metadata

    return {entry.name: entry for entry in metadata.entry_points(group=ENTRY_POINTS)}
