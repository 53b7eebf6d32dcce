"""Write the crossbar map of a model: scales, conductances, places, partial sums, faults."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from snukeras.constraints import PCMConstraint
from snukeras.export.crossbar.chip import device_of
from snukeras.export.crossbar.container import MapWriter
from snukeras.export.crossbar.description import (
    BlockEntry,
    Description,
    FaultEntry,
    MatrixEntry,
    OnnxFile,
    Package,
    ParameterEntry,
    Programming,
    Source,
    TileEntry,
    Totals,
    Units,
)
from snukeras.export.crossbar.faults import Fault, check_faults, work_around
from snukeras.export.crossbar.load import adders_of
from snukeras.export.crossbar.placement import Block, place
from snukeras.export.crossbar.targets import Target
from snukeras.export.errors import BadInputError
from snukeras.network.weights import Weight
from snukeras.pcm import DifferentialPair
from snukeras.pcm.programming import plan

FORMAT = "snukeras-crossbar-map"

Clip = float | str | None


@dataclasses.dataclass(frozen=True)
class MapOptions:
    """What is asked of a map.

    Attributes:
        scale: "tensor" (one scale per matrix) or "column".
        pack: Whether small blocks may share tiles.
        faults: Stuck devices; the mapper goes around them or lets the partner compensate.
        seed: Recorded in the map; the mapping itself draws nothing.
        clip: Where weights are cut before they are mapped, as for `DifferentialPair`.
        slices: Significances of the planes of each tile, as for `snukeras.pcm.Crossbar`.
        programmed_for: When devices are to hold their targets, as there.
    """

    scale: str = "column"
    pack: bool = False
    faults: tuple[Fault, ...] = ()
    seed: int = 0
    clip: Clip = None
    slices: tuple[float, ...] = (1.0,)
    programmed_for: float | None = None

    @property
    def plain(self) -> bool:
        """Whether devices are programmed to what they are to hold."""
        return len(self.slices) == 1 and self.programmed_for is None


PLAIN = MapOptions()


@dataclasses.dataclass(frozen=True)
class Grid:
    """How a matrix is laid onto conductances: scales () or (columns,), and the levels."""

    scales: np.ndarray
    pair: DifferentialPair


def write_map(
    path: str | Path,
    weights: Sequence[Weight],
    target: Target,
    options: MapOptions = PLAIN,
    *,
    source: Source,
    onnx: OnnxFile,
    package: str = "unknown",
    progress: Callable[[str], None] = lambda text: None,
) -> None:
    """Map the matrices of a model onto tiles and write the crossbar map.

    Args:
        path: File to write (a temporary name; the caller renames it).
        weights: All weights of the model.
        target: The tile and its conductance range.
        options: What is asked of the map.
        package: Version of snukeras.
        source: The network.
        onnx: The ONNX file that the map belongs to.
        progress: Called with the name of each matrix.

    Raises:
        BadInputError: There is nothing to map, a fault is at no cross-point of the map, or slices
            and times are asked of stuck or stepped devices.
    """
    _check_programming(target, options)
    matrices = [weight for weight in weights if weight.matrix]
    if not matrices:
        raise BadInputError("The model has no weight matrix to map.", "Export with --target onnx.")
    flat = [weight.unrolling.matrix(weight.values) for weight in matrices if weight.unrolling]
    where = [(fault.tile, fault.word_line, fault.bit_line) for fault in options.faults]
    blocks = place([m.shape for m in flat], target, options.pack, where)
    check_faults(options.faults, target, 1 + max(block.tile for block in blocks))
    with MapWriter(path) as writer:
        entries, stuck = [], []
        for index, (weight, matrix) in enumerate(zip(matrices, flat, strict=True)):
            progress(weight.name)
            own = [block for block in blocks if block.matrix == index]
            entry, remains = _write_matrix(writer, index, weight, matrix, own, target, options)
            entries.append(entry)
            stuck += remains
        block_entries = tuple(_write_block(writer, block) for block in blocks)
        each = target.devices_per_polarity * len(options.slices)
        tiles = _tiles(blocks, target, each)
        parameters = tuple(
            ParameterEntry(w.name, w.layer, w.role, writer.add(w.values))
            for w in weights
            if not w.matrix
        )
        total = sum(matrix.size for matrix in flat)
        description = Description(
            format=FORMAT,
            version=1 if options.plain else 2,
            package=Package("snukeras", package),
            units=Units("uS", "uS per unit of weight"),
            source=source,
            onnx=onnx,
            target=target.to_dict(),
            scale=options.scale,
            seed=options.seed,
            clip=options.clip,
            programming=None if options.plain else _programming(target, options),
            packed=options.pack,
            matrices=tuple(entries),
            blocks=block_entries,
            tiles=tiles,
            adders=adders_of(block_entries),
            faults=tuple(stuck),
            parameters=parameters,
            totals=Totals(
                weights=total,
                devices=2 * each * total,
                tiles=len(tiles),
                parameters=sum(w.values.size for w in weights if not w.matrix),
            ),
        )
        writer.finish(description.to_dict(), description.version)


def _check_programming(target: Target, options: MapOptions) -> None:
    """Refuse what planes of devices, or targets for a later time, do not go with."""
    if not options.plain and target.levels is not None:
        raise BadInputError(
            "Slices, and targets for a later time, are for continuous conductances. "
            f"Received: {target.levels} levels.",
            "Leave --levels out, or --slices and --programmed-for.",
        )
    if len(options.slices) > 1 and options.faults:
        raise BadInputError(
            f"Stuck devices are those of one plane. Received: {len(options.slices)} slices.",
            "Leave --faults or --slices out.",
        )


def _programming(target: Target, options: MapOptions) -> Programming:
    later = options.programmed_for is not None
    device = type(device_of(target)).__name__ if later else None
    return Programming(options.slices, options.programmed_for, device)


def grid_of(
    weight: Weight, matrix: np.ndarray, target: Target, scale: str, clip: Clip = None
) -> Grid:
    """Choose the scales and levels of a matrix.

    A matrix that lies on the levels of its PCMConstraint keeps them, with the range that the
    constraint gives the top level, so that the map moves none of its weights. All other matrices
    have the target's levels, and their largest weight gets the largest conductance.

    Args:
        weight: The weight, with its variable.
        matrix: Its values, (rows, columns).
        target: The range and levels of the hardware.
        scale: "tensor" or "column", for matrices without levels of their own.
        clip: Where these are cut, as for `DifferentialPair`; then it is not the largest weight
            that gets the largest conductance.
    """
    plain = DifferentialPair(target.g_max, target.g_min, target.levels, scale, clip)
    constraint = getattr(weight.variable, "constraint", None)
    if isinstance(constraint, PCMConstraint) and constraint.levels is not None:
        levels = constraint.levels
        if target.levels is None or (target.levels - 1) % (levels - 1) == 0:
            top = np.asarray(constraint.max_weight(matrix), "float64")
            place = matrix.astype("float64") / top * (levels - 1)
            off = np.abs(place - np.clip(np.round(place), 1 - levels, levels - 1))
            if off.max() < 1e-3:
                pair = DifferentialPair(target.g_max, target.g_min, target.levels or levels, scale)
                return Grid(pair.span / top, pair)
    return Grid(np.asarray(plain.scales(matrix)), plain)


def _write_matrix(
    writer: MapWriter,
    index: int,
    weight: Weight,
    matrix: np.ndarray,
    blocks: Sequence[Block],
    target: Target,
    options: MapOptions,
) -> tuple[MatrixEntry, list[FaultEntry]]:
    grid = grid_of(weight, matrix, target, options.scale, options.clip)
    targets = grid.pair.to_conductances(matrix, grid.scales.astype("float32"))
    targets, stuck = work_around(
        index, matrix, grid.scales, targets, blocks, options.faults, grid.pair
    )
    plus, minus = (np.asarray(g, dtype="float32") for g in targets)
    planes = None
    if not options.plain:
        # Levels are those that weights were trained on, not of devices.
        pair = DifferentialPair(target.g_max, target.g_min, None, options.scale)
        held = pair.to_weights(plus, minus, grid.scales)
        planes = plan(
            pair, held, grid.scales, options.slices, device_of(target), options.programmed_for
        )
        for fault in stuck:
            polarity = ("plus", "minus").index(fault.polarity)
            planes[:, polarity, fault.row, fault.column] = fault.conductance_uS
    columns = np.broadcast_to(grid.scales.astype("float64"), matrix.shape[1:])
    axes = None
    if weight.unrolling is not None and not weight.unrolling.natural(weight.values.ndim):
        axes = weight.unrolling.axes(weight.values.ndim)
    entry = MatrixEntry(
        name=weight.name,
        layer=weight.layer,
        role=weight.role,
        shape=weight.values.shape,
        rows=matrix.shape[0],
        columns=matrix.shape[1],
        g_plus=writer.add(plus),
        g_minus=writer.add(minus),
        scale=writer.add(columns),
        levels=None if grid.pair.levels == target.levels else grid.pair.levels,
        row_axes=axes and axes[0],
        column_axes=axes and axes[1],
        program_plus=None if planes is None else writer.add(planes[:, 0]),
        program_minus=None if planes is None else writer.add(planes[:, 1]),
    )
    return entry, stuck


def _write_block(writer: MapWriter, block: Block) -> BlockEntry:
    return BlockEntry(
        matrix=block.matrix,
        tile=block.tile,
        row=block.row,
        rows=block.rows,
        column=block.column,
        columns=block.columns,
        word_lines=writer.add(block.word_lines),
        bit_lines_plus=writer.add(block.bit_lines_plus),
        bit_lines_minus=writer.add(block.bit_lines_minus),
    )


def _tiles(blocks: Sequence[Block], target: Target, each: int) -> tuple[TileEntry, ...]:
    """Return the tiles in use; `each` are the devices of a polarity, on all planes."""
    owners: dict[int, list[int]] = {}
    for number, block in enumerate(blocks):
        owners.setdefault(block.tile, []).append(number)
    return tuple(
        TileEntry(
            tile=tile,
            word_lines=target.rows,
            bit_lines=target.bit_lines,
            blocks=tuple(numbers),
            devices_used=each * sum(2 * blocks[n].rows * blocks[n].columns for n in numbers),
            devices=each * target.rows * target.bit_lines,
        )
        for tile, numbers in sorted(owners.items())
    )
