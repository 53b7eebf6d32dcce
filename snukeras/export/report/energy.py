"""Estimate what a step costs on a target: energy and latency of its tiles and converters."""

from typing import Any

from snukeras.export.crossbar.map import CrossbarMap
from snukeras.export.crossbar.targets import Target, load_target
from snukeras.export.report.simulation import _round

# Targets without figures of their own borrow those of this one.
_STAND_IN = "pcm14nm-2"


def energy(crossbar: CrossbarMap) -> dict[str, Any]:
    """Energy and latency of one step as a range, with what they assume.

    The lower energy counts the weights in use, E = weights * (energy of a tile / weights of a
    tile); the upper one takes a whole product for every tile, however little of it is used.
    """
    own, target = crossbar.target, crossbar.target
    assumptions = []
    if not target.energy:
        target = load_target(_STAND_IN)
        assumptions.append(
            f"The target {own.name} has no figures of its own; those of {_STAND_IN} "
            f"({target.title}) stand in, in proportion to the cross-points of a tile."
        )
    matrices = crossbar.description["matrices"]
    weights, tiles = crossbar.totals["weights"], crossbar.totals["tiles"]
    depth = len({entry["layer"] for entry in matrices})
    part = _points(own) / _points(target)
    cases = [
        {
            "name": figure["name"],
            "low_nJ": _round(weights * figure["mvm_nJ"] / target.weights_per_tile),
            "high_nJ": _round(tiles * figure["mvm_nJ"] * part),
            "latency_ns": _round(depth * figure["mvm_ns"]),
            "source": figure["source"],
        }
        for figure in target.energy
    ]
    assumptions += [
        "Lower energy: only weights in use cost energy, each its share of a full tile.",
        "Upper energy: every tile costs a whole product, however little of it is used.",
        f"Latency: {depth} layer(s) with matrices, one after the other; a layer's matrices and "
        "tiles work at the same time.",
        "Each matrix is used once per step (a convolution: once per output position).",
        "Left out: digital neurons and adders, transfer between tiles, the host, programming. "
        "Sparse spikes save nothing here, because converters dominate.",
    ]
    return {
        "low_nJ": min((case["low_nJ"] for case in cases), default=None),
        "high_nJ": max((case["high_nJ"] for case in cases), default=None),
        "latency_ns": [case["latency_ns"] for case in cases],
        "cases": cases,
        "assumptions": assumptions,
    }


def _points(target: Target) -> int:
    return target.rows * target.columns
