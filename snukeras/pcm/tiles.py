"""Kinds of tile: size, converters and wires, as objects that cannot change, by name or file."""

import dataclasses
import json
from pathlib import Path
from typing import Literal

import keras

from snukeras import _arguments
from snukeras._content import folder
from snukeras._types import Config

#: A number, or how it is found: "vector" (the largest |value| of each input), "calibrated" (by
#: `snukeras.pcm.calibrate`), "learned" (calibrated, then trained with the weights).
Range = float | Literal["vector", "calibrated", "learned"]


def _check_bits(bits: object) -> None:
    whole = isinstance(bits, int) and not isinstance(bits, bool) and bits >= 2
    if bits is not None and not whole:
        raise ValueError(f"`bits` must be None or an integer of at least 2. Received: {bits!r}")


def _check_range(value: object, words: tuple[str, ...]) -> None:
    if isinstance(value, str):
        _arguments.choice("range", value, words)
    else:
        _arguments.number("range", value, above=0.0)


@keras.saving.register_keras_serializable(package="snukeras")
@dataclasses.dataclass(frozen=True)
class InputConverter:
    """What turns digital inputs into voltages.

    Attributes:
        bits: Resolution, 2**bits - 1 values symmetric to 0; None: continuous.
        range: Largest |input|; a number, "vector", "calibrated" or "learned" (see `Range`). Inputs
            beyond it are clipped.
        per: Whether each block of rows, which is a "tile" of inputs, has a range of its own, or the
            whole matrix of a "layer" has one.

    Raises:
        ValueError: bits < 2, a range that is not positive, an unknown word.
    """

    bits: int | None = 8
    range: Range = "calibrated"
    per: Literal["tile", "layer"] = "tile"

    def __post_init__(self) -> None:
        _check_bits(self.bits)
        _check_range(self.range, ("vector", "calibrated", "learned"))
        _arguments.choice("per", self.per, ("tile", "layer"))

    def get_config(self) -> Config:
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: Config) -> "InputConverter":
        return cls(**config)


@keras.saving.register_keras_serializable(package="snukeras")
@dataclasses.dataclass(frozen=True)
class OutputConverter:
    """What turns the currents of bit lines into digital numbers.

    Currents are in the unit of the largest input (the range of the input converter; 1 without one)
    times the largest weight of the column: that which one device pair at its largest conductance
    gives at the largest voltage.

    Attributes:
        bits: Resolution, as for inputs; None: continuous.
        range: Largest |current|; a number, "calibrated" or "learned". None: currents are not
            clipped, which needs `bits=None`.
        per: Whether each "tile" has a range of its own, or all tiles of a "layer" have one.
        noise: Standard deviation of the noise at the input of the converter, in currents, fresh for
            each product.
        offset: Spread (standard deviation) of the columns' constant errors, as a share of the
            range.
        gain: Spread of the columns' relative errors.
        nonlinearity: k of y / (1 + k |y| / range), a compression that every column has.

    Raises:
        ValueError: bits < 2, a range that is not positive, a negative spread, or bits, an offset or
            a nonlinearity without a range.
    """

    bits: int | None = 8
    range: Range | None = "calibrated"
    per: Literal["tile", "layer"] = "tile"
    noise: float = 0.0
    offset: float = 0.0
    gain: float = 0.0
    nonlinearity: float = 0.0

    def __post_init__(self) -> None:
        _check_bits(self.bits)
        _arguments.choice("per", self.per, ("tile", "layer"))
        for name in ("noise", "offset", "gain", "nonlinearity"):
            _arguments.number(name, getattr(self, name), minimum=0.0)
        if self.range is not None:
            _check_range(self.range, ("calibrated", "learned"))
        elif self.bits is not None or self.offset or self.nonlinearity:
            raise ValueError(
                "`range` must be given for an output converter with bits, an offset or a "
                "nonlinearity. Received: range=None"
            )

    def get_config(self) -> Config:
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: Config) -> "OutputConverter":
        return cls(**config)


@keras.saving.register_keras_serializable(package="snukeras")
@dataclasses.dataclass(frozen=True)
class Tile:
    """A kind of tile.

    A matrix larger than a tile is split; the partial sums of its row blocks are converted one by
    one and added digitally.

    Attributes:
        rows: Word lines: inputs that a tile takes.
        columns: Weights along a word line: outputs that a tile gives.
        input: Converter of inputs, or None: inputs come as they are.
        output: Converter of outputs, or None.
        wire_resistance: Ohm per cell, see `snukeras.pcm.with_ir_drop`.

    Raises:
        ValueError: rows or columns < 1, a negative resistance, something else than a converter.
    """

    rows: int = 256
    columns: int = 256
    input: InputConverter | None = InputConverter()
    output: OutputConverter | None = OutputConverter()
    wire_resistance: float = 0.0

    def __post_init__(self) -> None:
        for name in ("rows", "columns"):
            size = getattr(self, name)
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise ValueError(f"`{name}` must be an integer of at least 1. Received: {size!r}")
        _arguments.number("wire_resistance", self.wire_resistance, minimum=0.0)
        for name, kind in (("input", InputConverter), ("output", OutputConverter)):
            if not isinstance(getattr(self, name), kind | None):
                raise ValueError(
                    f"`{name}` must be a snukeras.pcm.{kind.__name__} or None. "
                    f"Received: {getattr(self, name)!r}"
                )

    @property
    def ideal(self) -> bool:
        """Whether its products are exact."""
        return self.input is None and self.output is None and not self.wire_resistance

    @property
    def calibrates(self) -> bool:
        """Whether a converter's range comes from data."""
        ranges = [part.range for part in (self.input, self.output) if part is not None]
        return "calibrated" in ranges or "learned" in ranges

    def get_config(self) -> Config:
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: Config) -> "Tile":
        given = dict(config)
        for name, kind in (("input", InputConverter), ("output", OutputConverter)):
            if isinstance(given.get(name), dict):
                given[name] = kind.from_config(given[name])
        return cls(**given)

    def save(self, path: str | Path) -> None:
        """Write the kind of tile to a JSON file, which `tile=` takes wherever a tile is given."""
        text = {"format": _FORMAT, "version": 1, **self.get_config()}
        Path(path).write_text(json.dumps(text, indent=2) + "\n", encoding="utf-8")


_FORMAT = "snukeras-tile"

_NAMED = {
    "ideal": Tile(input=None, output=None),
    "generic8": Tile(),
    # The default IOParameters of aihwkit (simulator/parameters/io.py), in tiles of its default
    # mapping; without its iterative bound management, which repeats clipped products.
    "aihwkit": Tile(
        512, 512, InputConverter(7, "vector"), OutputConverter(9, range=12.0, noise=0.06)
    ),
}


def tile_names() -> list[str]:
    """Return the names that `get_tile` knows: its own, and the targets of the exporter."""
    return [*_NAMED, *sorted(path.stem for path in _targets().glob("*.json"))]


def get_tile(tile: str | Path | Tile) -> Tile:
    """Return a kind of tile.

    Args:
        tile: "ideal", "generic8" (8 bits, calibrated ranges), "aihwkit" (its standard setting);
            the name of a target of the exporter, whose tile and bits it has, with calibrated
            ranges; the path of a file of a target or of `Tile.save`, ending in ".json"; or a Tile.

    Raises:
        ValueError: an unknown name, or a file that describes no tile.
    """
    if isinstance(tile, Tile):
        return tile
    if not isinstance(tile, str | Path):
        raise ValueError(
            f"`tile` must be a snukeras.pcm.Tile, a name or a path. Received: {tile!r}"
        )
    if str(tile) in _NAMED:
        return _NAMED[str(tile)]
    if str(tile) not in tile_names() and not str(tile).endswith(".json"):
        raise ValueError(
            f"`tile` must be a Tile, the path of a JSON file, or one of {tile_names()}. "
            f"Received: {tile!r}"
        )
    path = Path(tile) if str(tile).endswith(".json") else _targets() / f"{tile}.json"
    try:
        return _read(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, TypeError, KeyError, ValueError) as error:
        raise ValueError(
            f"`tile` must be a file of a target (export/target.schema.json) or of Tile.save. "
            f"Received: {str(tile)!r}: {error}"
        ) from error


def _targets() -> Path:
    return folder("export") / "targets"


def _read(content: Config) -> Tile:
    """Return the tile of a file of either format."""
    if content["format"] == _FORMAT:
        return Tile.from_config(
            {name: value for name, value in content.items() if name not in ("format", "version")}
        )
    if content["format"] != "snukeras-target":
        raise ValueError(f"the format is {content['format']!r}")
    tile, bits = content["tile"], content.get("converters", {})
    # At a cross-point is a whole pair, or one polarity: then a weight takes two columns.
    columns = tile["columns"] if tile["crosspoint"] == "pair" else tile["columns"] // 2
    dac, adc = bits.get("dac_bits"), bits.get("adc_bits")
    return Tile(
        int(tile["rows"]),
        int(columns),
        None if dac is None else InputConverter(int(dac)),
        None if adc is None else OutputConverter(int(adc)),
    )
