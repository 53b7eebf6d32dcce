"""Estimate what a step costs on a target: energy and latency of its tiles and converters."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from snukeras._energy import Products
from snukeras._energy import energy as product_energy
from snukeras._units import rounded
from snukeras.export.crossbar.map import CrossbarMap
from snukeras.export.crossbar.targets import ReadOut, Target, load_target
from snukeras.export.network import Use
from snukeras.export.records import Record

# Targets without figures of their own borrow those of this one.
_STAND_IN = "pcm14nm-2"


@dataclasses.dataclass(frozen=True)
class Case(Record):
    """One way of reading tiles: energy of a step in nJ as a range, its latency in ns."""

    name: str
    low_nJ: float  # noqa: N815 (its name in the file)
    high_nJ: float  # noqa: N815
    latency_ns: float
    source: str


@dataclasses.dataclass(frozen=True)
class LayerCost(Record):
    """What one call of a layer costs in a step, in the cheapest and the dearest case.

    Attributes:
        call: Name of the call.
        matrices: The matrices that it uses.
        products: Matrix-vector products in a step, of all its matrices.
        low_nJ, high_nJ: Energy.
        latency_ns: Shortest and longest, by case.
    """

    call: str
    matrices: tuple[str, ...]
    products: float
    low_nJ: float  # noqa: N815
    high_nJ: float  # noqa: N815
    latency_ns: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Energy(Record):
    """Energy and latency of a step, with what they assume."""

    low_nJ: float | None  # noqa: N815
    high_nJ: float | None  # noqa: N815
    latency_ns: tuple[float, ...]
    cases: tuple[Case, ...]
    layers: tuple[LayerCost, ...]
    assumptions: tuple[str, ...]


class OnTiles(NamedTuple):
    """A matrix on tiles: its weights, and the blocks that it is cut into."""

    weights: int
    blocks: int


def energy(crossbar: CrossbarMap, uses: Sequence[Use]) -> Energy:
    """Estimate the energy and latency of a step, of a map.

    Args:
        crossbar: The map.
        uses: How often each call uses each matrix.
    """
    weights = {e.name: e.rows * e.columns for e in crossbar.description.matrices}
    blocks = dict.fromkeys(weights, 0)
    for block in crossbar.description.blocks:
        blocks[crossbar.matrices[block.matrix]] += 1
    planes = len(crossbar.significances)
    held = {name: OnTiles(planes * weights[name], planes * blocks[name]) for name in weights}
    found = estimate(crossbar.target, held, uses)
    if planes == 1:
        return found
    more = f"Each tile is {planes} tiles, one a plane, which work at the same time."
    return dataclasses.replace(found, assumptions=(more, *found.assumptions))


def estimate(own: Target, matrices: Mapping[str, OnTiles], uses: Sequence[Use]) -> Energy:
    """Estimate the energy and latency of a step.

    Every use of a matrix costs its products: a convolution one for each output position, a matrix
    that several calls share one for each call. The lower energy counts the weights in use,
    E = products * weights * (energy of a tile / weights of a tile); the upper one takes a whole
    product for every block of the matrix, however little of its tile it fills.

    Args:
        own: The target.
        matrices: The matrices by name.
        uses: How often each call uses each matrix.
    """
    target = own
    assumptions = []
    if not target.energy:
        target = load_target(_STAND_IN)
        assumptions.append(
            f"The target {own.name} has no figures of its own; those of {_STAND_IN} "
            f"({target.title}) stand in, in proportion to the cross-points of a tile."
        )
    part = _points(own) / _points(target)
    sums = [_sums(matrices, uses, figure, target, part) for figure in target.energy]
    cases = tuple(
        Case(figure.name, rounded(low), rounded(high), rounded(latency), figure.source)
        for figure, (low, high, latency) in zip(target.energy, sums, strict=True)
    )
    calls = list(dict.fromkeys(use.call for use in uses))
    layers = []
    for call in calls:
        part_of = [use for use in uses if use.call == call]
        costs = [_sums(matrices, part_of, figure, target, part) for figure in target.energy]
        layers.append(
            LayerCost(
                call=call,
                matrices=tuple(use.matrix for use in part_of),
                products=rounded(sum(use.per_step for use in part_of)),
                low_nJ=rounded(min((cost[0] for cost in costs), default=0.0)),
                high_nJ=rounded(max((cost[1] for cost in costs), default=0.0)),
                latency_ns=tuple(rounded(cost[2]) for cost in costs),
            )
        )
    most = max(uses, key=lambda use: use.per_step, default=None)
    assumptions += [
        "Lower energy: only weights in use cost energy, each its share of a full tile.",
        "Upper energy: every block of a matrix costs the product of a whole tile, however little "
        "of it the block fills.",
        f"Latency: {len(calls)} call(s) of layers with matrices, one after the other; the "
        "matrices and tiles of a call work at the same time, the positions of a convolution one "
        "after the other.",
        "Left out: digital neurons and adders, transfer between tiles, the host, programming. "
        "Sparse spikes save nothing here, because converters dominate.",
    ]
    if most is not None and most.per_step > 1:
        assumptions.insert(
            -1,
            f"{most.matrix} is used {most.per_step:,.4g} times in a step, once for each position.",
        )
    return Energy(
        low_nJ=min((case.low_nJ for case in cases), default=None),
        high_nJ=max((case.high_nJ for case in cases), default=None),
        latency_ns=tuple(case.latency_ns for case in cases),
        cases=cases,
        layers=tuple(layers),
        assumptions=tuple(assumptions),
    )


def _sums(
    matrices: Mapping[str, OnTiles],
    uses: Sequence[Use],
    figure: ReadOut,
    target: Target,
    part: float,
) -> tuple[float, float, float]:
    """Return lower energy, upper energy (nJ) and latency (ns) of some uses.

    Args:
        matrices: The matrices by name.
        uses: The uses.
        figure: What one product of a whole tile of `target` costs.
        target: The target that the figure is of.
        part: Cross-points of the map's tiles, as a share of that target's.
    """
    products = [Products(use.per_step, *matrices[use.matrix]) for use in uses]
    low, high = product_energy(products, figure.mvm_nJ, target.weights_per_tile, part)
    longest: dict[str, float] = {}
    for use in uses:
        longest[use.call] = max(longest.get(use.call, 0.0), use.per_step)
    return low, high, sum(longest.values()) * figure.mvm_ns


def _points(target: Target) -> int:
    return target.rows * target.columns
