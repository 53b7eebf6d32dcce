"""What products on tiles cost: the least and the most energy."""

from collections.abc import Iterable
from typing import NamedTuple


class Products(NamedTuple):
    """How a step uses a matrix on tiles.

    Attributes:
        per_step: Matrix-vector products in a step.
        weights: Weights of the matrix.
        blocks: Tiles that it is cut over.
    """

    per_step: float
    weights: int
    blocks: int


def energy(
    products: Iterable[Products], tile_nJ: float, weights_per_tile: int, part: float = 1.0
) -> tuple[float, float]:
    """Return the least and the most energy of products, in nJ.

    The least counts the weights in use, each its share of a full tile; the most takes a whole
    product for every block, however little of its tile it fills.

    Args:
        products: What is computed.
        tile_nJ: What one product of a whole tile costs.
        weights_per_tile: Weights that such a tile holds.
        part: Cross-points of the tiles in use, as a share of that tile's.
    """
    products = list(products)
    low = sum(one.per_step * one.weights for one in products)
    high = sum(one.per_step * one.blocks for one in products)
    return low * tile_nJ / weights_per_tile, high * tile_nJ * part
