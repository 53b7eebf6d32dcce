"""What a network has and costs, layer by layer: `snukeras.summary`."""

import dataclasses
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import keras

from snukeras import _arguments, _html
from snukeras._terminal import plain
from snukeras._types import Nested
from snukeras._units import energy_text, range_text
from snukeras.export.counting import Counts, count
from snukeras.export.crossbar.placement import place
from snukeras.export.crossbar.targets import Target, load_target
from snukeras.export.network import Network, Use
from snukeras.export.report.energy import OnTiles, estimate
from snukeras.network.errors import BadInputError
from snukeras.network.matrices import Matrix, leaves, matrices
from snukeras.pcm.analog_network import AnalogNetwork

if TYPE_CHECKING:
    from rich.table import Table

_WIDTH = 80
_UNKNOWN = "-"


@dataclasses.dataclass(frozen=True)
class LayerSummary:
    """What a layer has and costs.

    Attributes:
        name: Its name, those of the layers around it in front: "encoder/snu".
        kind: Its class.
        parameters: Number of its weights, digital ones among them.
        matrices: Rows and columns of each of its matrices.
        devices: PCM devices that hold them.
        tiles: Tiles that hold them.
        low_nJ, high_nJ: Energy of its matrices in a step; None where it is not known.
        spikes: Spikes of a sample; None without data, or where its units do not spike.
        rate: Spikes of a unit in a step, from 0 to 1; None likewise.
        dense: Operations of a sample, each weight that meets an input; None where not known.
        operations: Those whose input is not 0.
    """

    name: str
    kind: str
    parameters: int
    matrices: tuple[tuple[int, int], ...] = ()
    devices: int = 0
    tiles: int = 0
    low_nJ: float | None = None  # noqa: N815 (as in reports)
    high_nJ: float | None = None  # noqa: N815
    spikes: float | None = None
    rate: float | None = None
    dense: float | None = None
    operations: float | None = None


@dataclasses.dataclass(frozen=True, repr=False)
class Summary:
    """What a network has and costs; it prints as a table, in a terminal and in a notebook.

    Attributes:
        name: Name of the model.
        target: Name of the target that has the tiles.
        layers: Its layers with weights, in their order.
        total: The sums over them.
        samples: Samples that spikes and operations were counted on; 0 without data.
        notes: What the figures assume, and why some are not known.
    """

    name: str
    target: str
    layers: tuple[LayerSummary, ...]
    total: LayerSummary
    samples: int
    notes: tuple[str, ...]

    def __str__(self) -> str:
        """Return the tables as text of 80 columns."""
        from rich.console import Console

        shown = Console(file=io.StringIO(), width=_WIDTH, color_system=None, force_jupyter=False)
        for number, (title, heads, rows) in enumerate(self._tables()):
            shown.print(*([] if not number else ["\n"]), plain(title), markup=False, sep="")
            shown.print(_text_table(heads, rows))
        for note in self.notes:
            shown.print(plain(note), markup=False)
        assert isinstance(shown.file, io.StringIO)
        lines = shown.file.getvalue().splitlines()
        return "\n".join(line.rstrip() for line in lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Return the tables as HTML, for notebooks."""
        tables = [*self._tables()]
        last = len(tables) - 1
        return "\n".join(
            _html.table(heads, rows, title, self.notes if number == last else ())
            for number, (title, heads, rows) in enumerate(tables)
        )

    def _tables(self) -> list[tuple[str, Sequence[str], list[Sequence[str]]]]:
        layers = [*self.layers, self.total]
        held = (
            f"{self.name}: {self.total.parameters:,} parameters, on tiles of {self.target}",
            ("layer", "class", "parameters", "matrices", "devices", "tiles", "energy a step"),
            [_held_row(layer) for layer in layers],
        )
        if not self.samples:
            return [held]
        samples = "1 sample" if self.samples == 1 else f"{self.samples:,} samples"
        done = (
            f"For a sample, the mean of {samples}",
            ("layer", "spikes", "rate", "operations, dense", "zeros skipped"),
            [_done_row(layer) for layer in layers],
        )
        return [held, done]


def summary(
    model: keras.Model,
    x: Nested = None,
    target: str | Target = "pcm",
    embedding: bool = False,
    batch_size: int = 32,
) -> Summary:
    """Summarise what a network has and costs, layer by layer.

        print(snukeras.summary(model, x))

    Parameters, matrices, PCM devices and tiles are those of an export without `pack`. The energy
    is that of a step, from the least to the most that the target's figures allow, as in the report
    of an export. With data come spikes and operations of a sample.

    Args:
        model: A built model; of a subclassed one energy and operations are not known.
        x: Inputs as `model.predict` takes them in arrays, (samples, ...). None: nothing is counted.
        target: Name of a target, path of its JSON file, or a `Target`.
        embedding: Whether Embedding tables go on tiles.
        batch_size: Samples computed at once.

    Returns:
        A `Summary`, which shows itself where it is printed or ends a cell of a notebook; its
        `layers` and `total` hold the figures.

    Raises:
        ValueError: The model is not built or no model, `x` holds no samples or numbers that are not
            finite, or there is no such target.
    """
    if not isinstance(model, keras.Model) or not model.built:
        raise ValueError(
            "Argument `model` must be a built Keras model. Call it on data once, or start a "
            f"Sequential with keras.Input. Received: {model!r:.200}"
        )
    if isinstance(model, AnalogNetwork):
        model = model.digital()
    batch_size = _arguments.whole("batch_size", batch_size)
    chosen = target if isinstance(target, Target) else load_target(target)
    notes = []
    network: Network | None = None
    try:
        network = Network.read(model, embedding)
    except BadInputError as error:
        notes.append(f"Energy and operations are not known. {error.message} {error.hint}")
    counts = None if x is None else count(model, network, x, batch_size)
    rows = _Rows(model, network, chosen, counts, embedding)
    if network is not None and rows.energy is not None:
        notes += [text for text in rows.energy.assumptions if "stand in" in text]
        notes.append(
            "Energy: tiles and converters alone; at least the weights in use, each its share of a "
            "full tile, at most a whole tile for each block."
        )
    return Summary(
        model.name,
        chosen.name,
        tuple(rows.layers()),
        rows.total(),
        0 if counts is None else counts.samples,
        tuple(notes),
    )


class _Rows:
    """Makes the rows of a summary."""

    def __init__(
        self,
        model: keras.Model,
        network: Network | None,
        target: Target,
        counts: Counts | None,
        embedding: bool,
    ) -> None:
        self.target, self.counts = target, counts
        self._paths: dict[int, str] = {}
        self._kinds: dict[str, str] = {}
        self._parameters: dict[str, int] = {}
        self._units: dict[str, keras.Layer] = {}
        seen: set[int] = set()
        for path, layer in leaves(model):
            self._paths[id(layer)] = path
            if path not in self._kinds or not isinstance(layer, keras.layers.Wrapper):
                self._kinds[path] = type(layer).__name__
            if getattr(layer, "has_observers", False):
                self._units[path] = layer
            own = {id(v): v for v in layer.weights if id(v) not in seen}
            seen |= set(own)
            sizes = (math.prod(v.shape) for v in own.values())
            self._parameters[path] = self._parameters.get(path, 0) + sum(sizes)
        self._matrices: dict[str, list[Matrix]] = {}
        found = matrices(model, embedding)
        for matrix in found:
            self._matrices.setdefault(self._paths[id(matrix.layer)], []).append(matrix)
        self._tiles = dict.fromkeys((id(matrix.variable) for matrix in found), 0)
        for block in place([matrix.shape for matrix in found], target):
            self._tiles[id(found[block.matrix].variable)] += 1
        self._uses = () if network is None else network.uses
        self._held: dict[str, OnTiles] = {}
        self._names: dict[int, str] = {}
        for weight in () if network is None else network.weights:
            if weight.matrix and weight.variable is not None:
                blocks = self._tiles[id(weight.variable)]
                self._held[weight.name] = OnTiles(weight.values.size, blocks)
                self._names[id(weight.variable)] = weight.name
        self.energy = None if network is None else estimate(target, self._held, self._uses)

    def layers(self) -> Iterator[LayerSummary]:
        """Yield the layers that have weights of their own."""
        for path, parameters in self._parameters.items():
            if parameters or path in self._units:
                yield self._layer(path, parameters)

    def _layer(self, path: str, parameters: int) -> LayerSummary:
        own = self._matrices.get(path, [])
        names = {self._names.get(id(matrix.variable), "") for matrix in own}
        low, high = self._energy([use for use in self._uses if use.matrix in names])
        dense, operations = self._operations(names)
        spikes, rate = self._spikes(path)
        weights = sum(math.prod(matrix.shape) for matrix in own)
        return LayerSummary(
            name=path,
            kind=self._kinds[path],
            parameters=parameters,
            matrices=tuple(matrix.shape for matrix in own),
            devices=2 * self.target.devices_per_polarity * weights,
            tiles=sum(self._tiles[id(matrix.variable)] for matrix in own),
            low_nJ=low,
            high_nJ=high,
            spikes=spikes,
            rate=rate,
            dense=dense,
            operations=operations,
        )

    def total(self) -> LayerSummary:
        """Return the sums over all layers."""
        layers = [*self.layers()]
        low, high = self._energy(self._uses)

        def added(values: Iterable[float | None]) -> float | None:
            known = [value for value in values if value is not None]
            return sum(known) if known else None

        return LayerSummary(
            name="total",
            kind="",
            parameters=sum(layer.parameters for layer in layers),
            devices=sum(layer.devices for layer in layers),
            tiles=sum(layer.tiles for layer in layers),
            low_nJ=low,
            high_nJ=high,
            spikes=added(layer.spikes for layer in layers),
            dense=added(layer.dense for layer in layers),
            operations=added(layer.operations for layer in layers),
        )

    def _energy(self, uses: Sequence[Use]) -> tuple[float | None, float | None]:
        if self.energy is None:
            return None, None
        found = estimate(self.target, self._held, uses)
        return found.low_nJ, found.high_nJ

    def _operations(self, names: set[str]) -> tuple[float | None, float | None]:
        if self.counts is None or self.counts.uses is None:
            return None, None
        uses = [use for use in self.counts.uses if use.matrix in names]
        each = [use.per_step * self._held[use.matrix].weights for use in uses]
        left = [self.counts.active.get(use, 1.0) for use in uses]
        return sum(each), sum(count * share for count, share in zip(each, left, strict=True))

    def _spikes(self, path: str) -> tuple[float | None, float | None]:
        layer = self._units.get(path)
        if self.counts is None or layer is None or not layer.cell.spiking:
            return None, None
        seen = self.counts.units[id(layer)]
        return seen.spikes / self.counts.samples, seen.spikes / max(seen.values, 1)


def _held_row(layer: LayerSummary) -> Sequence[str]:
    energy = _UNKNOWN
    if layer.low_nJ is not None and layer.high_nJ is not None:
        energy = range_text(energy_text(layer.low_nJ), energy_text(layer.high_nJ))
    return (
        layer.name,
        layer.kind,
        f"{layer.parameters:,}",
        " ".join(f"{rows}x{columns}" for rows, columns in layer.matrices),
        f"{layer.devices:,}",
        f"{layer.tiles:,}",
        energy if layer.tiles else "",
    )


def _done_row(layer: LayerSummary) -> Sequence[str]:
    def text(value: float | None, form: str = ",.4g") -> str:
        if value is None:
            return _UNKNOWN
        return f"{value:,.0f}" if value >= 1000 else f"{value:{form}}"

    rate = "" if layer.rate is None else f"{layer.rate:.1%}"
    return layer.name, text(layer.spikes), rate, text(layer.dense), text(layer.operations)


def _text_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> "Table":
    """Return a table whose last row is the sum of the others; long names are folded."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for head in heads:
        words = head in ("layer", "class", "matrices")
        table.add_column(head, justify="left" if words else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))
    return table
