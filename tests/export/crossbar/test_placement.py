"""Traffic between tiles: counted against loops over single weights."""

import numpy as np
import pytest

from snukeras.export.crossbar.placement import place, traffic
from snukeras.export.crossbar.targets import load_target

TARGET = load_target("pcm").replace(rows=4, columns=3, crosspoint="pair")


def slow(blocks, index, matrix):
    """Inputs, partial sums and tiles of one matrix, weight after weight."""
    inputs, adders, tiles = set(), set(), set()
    for block in blocks:
        if block.matrix != index:
            continue
        for i in range(block.row, block.row + block.rows):
            for j in range(block.column, block.column + block.columns):
                if matrix[i, j]:
                    inputs.add((block.tile, i))
                    adders.add((block.tile, j))
                    tiles.add(block.tile)
    columns = {j for _, j in adders}
    return {
        "inputs": len(inputs), "partial_sums": len(adders) - len(columns), "tiles": len(tiles)
    }  # fmt: skip


@pytest.mark.parametrize("share", [0.0, 0.7, 0.95, 1.0])
def test_traffic_is_that_of_single_weights(share):
    random = np.random.default_rng(0)
    matrices = [
        random.normal(size=s) * (random.random(s) >= share) for s in ((9, 7), (7, 10), (3, 2))
    ]
    blocks = place([m.shape for m in matrices], TARGET)
    assert traffic(blocks, matrices) == [slow(blocks, i, m) for i, m in enumerate(matrices)]


def test_a_matrix_of_blocks_needs_less_than_a_full_one():
    full = np.ones((8, 6))
    parted = np.kron(np.eye(2), np.ones((4, 3)))
    blocks = place([full.shape], TARGET)
    assert traffic(blocks, [full]) == [{"inputs": 16, "partial_sums": 6, "tiles": 4}]
    assert traffic(blocks, [parted]) == [{"inputs": 8, "partial_sums": 0, "tiles": 2}]
