"""The energy of a step of a preset, of what was counted: for its card."""

from snukeras import _content, _files
from snukeras._energy import Products, energy
from snukeras.zoo.contents import Costs

#: The target whose figures serve; it has the tiles that were measured.
TARGET = "pcm14nm-2"


def energy_of_step(costs: Costs) -> tuple[float, float] | None:
    """Return the least and the most energy of a step in nJ; None where sizes were not kept.

    Args:
        costs: What `snukeras.zoo.publishing.costs.counted` says.
    """
    target = _files.read_json(_content.folder("export") / "targets" / f"{TARGET}.json")
    # A cross-point of this target holds a pair, which is a weight.
    high, wide = target["tile"]["rows"], target["tile"]["columns"]
    products = []
    for matrix in costs["matrices"]:
        rows, columns = matrix.get("rows"), matrix.get("columns")
        if rows is None or columns is None:
            return None
        blocks = -(-rows // high) * -(-columns // wide)
        per_step = matrix["macs_per_step"] / matrix["weights"]
        products.append(Products(per_step, matrix["weights"], blocks))
    found = [energy(products, figure["mvm_nJ"], high * wide) for figure in target["energy"]]
    return min(low for low, _ in found), max(most for _, most in found)
