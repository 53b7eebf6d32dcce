"""Place matrices on tiles: cut them into blocks and give every block its lines."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from snukeras.export.crossbar.targets import Target
from snukeras.export.errors import BadInputError

# Limits that keep the size of a map, and the time to write it, reasonable.
MAX_WEIGHTS, MAX_BLOCKS = 10**10, 50_000

Space = tuple[int, int, int, int]  # first word line, first bit line, word lines, bit lines


@dataclasses.dataclass(frozen=True)
class Block:
    """A rectangle of one matrix that sits on one tile.

    Attributes:
        matrix: Index of the matrix.
        row, rows, column, columns: The rectangle, in weights.
        tile: Index of the tile.
        word_lines: Word line of each row, uint32 (rows,).
        bit_lines_plus, bit_lines_minus: Bit lines of each column's G+ and G-, uint32 (columns,).
    """

    matrix: int
    row: int
    rows: int
    column: int
    columns: int
    tile: int
    word_lines: np.ndarray
    bit_lines_plus: np.ndarray
    bit_lines_minus: np.ndarray


def place(
    shapes: Sequence[tuple[int, int]],
    target: Target,
    pack: bool = False,
    faults: Sequence[tuple[int, int, int]] = (),
) -> list[Block]:
    """Cut matrices (rows, columns) into blocks and place them; the result is deterministic.

    A matrix is cut at every full tile. Without `pack` each block has a tile of its own; with it,
    blocks that do not fill a tile share tiles, which are then used for one block at a time.
    G+ and G- of a column are neighbours, plus first.

    Args:
        shapes: Rows (inputs) and columns (outputs) of each matrix.
        target: The tile.
        pack: Let blocks share tiles.
        faults: (tile, word line, bit line) of devices that are stuck. On a tile that holds one
            block only, the lines with the fewest of them are taken.

    Raises:
        BadInputError: There are more weights than a map can hold.
    """
    total = sum(rows * columns for rows, columns in shapes)
    if total > MAX_WEIGHTS:
        raise BadInputError(f"The model has {total:,} weights on tiles; at most {MAX_WEIGHTS:,}.")
    count = sum(
        -(-rows // target.rows) * -(-columns // (target.bit_lines // 2)) for rows, columns in shapes
    )
    if count > MAX_BLOCKS:
        raise BadInputError(
            f"The model needs {count:,} tiles of {target.rows}x{target.columns} cross-points; at "
            f"most {MAX_BLOCKS:,}.",
            "Choose a larger tile (--tile).",
        )
    pieces = [piece for index, shape in enumerate(shapes) for piece in _cut(index, shape, target)]
    if pack:
        corners = _pack([(rows, 2 * columns) for _, _, rows, _, columns in pieces], target)
    else:
        corners = [(tile, 0, 0) for tile in range(len(pieces))]
    crowd: dict[int, int] = {}
    for tile, _, _ in corners:
        crowd[tile] = crowd.get(tile, 0) + 1
    stuck: dict[int, list[tuple[int, int]]] = {}
    for tile, word_line, bit_line in faults:
        stuck.setdefault(tile, []).append((word_line, bit_line))

    blocks = []
    for piece, (tile, word_line, bit_line) in zip(pieces, corners, strict=True):
        index, row, rows, column, columns = piece
        word_lines = word_line + np.arange(rows, dtype="uint32")
        plus = bit_line + 2 * np.arange(columns, dtype="uint32")
        if tile in stuck and crowd[tile] == 1:
            word_lines, plus = _avoid(rows, columns, stuck[tile], target)
        blocks.append(
            Block(index, row, rows, column, columns, tile, word_lines, plus, plus + np.uint32(1))
        )
    return blocks


def _cut(index: int, shape: tuple[int, int], target: Target) -> list[tuple[int, ...]]:
    """Return the blocks of one matrix: (matrix, row, rows, column, columns), row by row."""
    rows, columns = shape
    high, wide = target.rows, target.bit_lines // 2
    return [
        (index, row, min(high, rows - row), column, min(wide, columns - column))
        for row in range(0, rows, high)
        for column in range(0, columns, wide)
    ]


def _avoid(
    rows: int, columns: int, stuck: Sequence[tuple[int, int]], target: Target
) -> tuple[np.ndarray, np.ndarray]:
    """Return the `rows` word lines and `columns` bit-line pairs with the fewest stuck devices."""
    pairs = target.bit_lines // 2
    grid = np.zeros((target.rows, pairs), dtype="int64")
    for word_line, bit_line in stuck:
        if word_line < target.rows and bit_line < 2 * pairs:
            grid[word_line, bit_line // 2] += 1
    word_lines = np.sort(np.argsort(grid.sum(axis=1), kind="stable")[:rows])
    chosen = np.sort(np.argsort(grid[word_lines].sum(axis=0), kind="stable")[:columns])
    return word_lines.astype("uint32"), (2 * chosen).astype("uint32")


def _pack(sizes: Sequence[tuple[int, int]], target: Target) -> list[tuple[int, int, int]]:
    """Return corners (tile, word line, bit line) for rectangles, on as few tiles as possible.

    The largest comes first, each into the free rectangle that it fits best (the "maximal
    rectangles" heuristic of two-dimensional bin packing). The result is deterministic, but not
    always the fewest tiles.
    """
    order = sorted(range(len(sizes)), key=lambda i: (-sizes[i][0] * sizes[i][1], -sizes[i][0], i))
    whole = (0, 0, target.rows, 2 * (target.bit_lines // 2))
    free: dict[int, list[Space]] = {}
    corners: list[tuple[int, int, int]] = [(0, 0, 0)] * len(sizes)
    tiles = 0
    for i in order:
        rows, lines = sizes[i]
        best = None
        for tile, spaces in free.items():
            for top, left, high, wide in spaces:
                if rows <= high and lines <= wide:
                    slack = (min(high - rows, wide - lines), max(high - rows, wide - lines))
                    score = (*slack, tile, top, left)
                    best = score if best is None or score < best else best
        if best is None:
            tile, top, left = tiles, 0, 0
            free[tile] = [whole]
            tiles += 1
        else:
            tile, top, left = best[2:]
        corners[i] = (tile, top, left)
        free[tile] = _cut_away(free[tile], (top, left, rows, lines))
        if not free[tile]:
            del free[tile]
    return corners


def _cut_away(spaces: Sequence[Space], taken: Space) -> list[Space]:
    """Return the maximal free rectangles that remain when `taken` is occupied."""
    t_top, t_left, t_high, t_wide = taken
    t_bottom, t_right = t_top + t_high, t_left + t_wide
    rest = []
    for top, left, high, wide in spaces:
        bottom, right = top + high, left + wide
        if t_top >= bottom or t_bottom <= top or t_left >= right or t_right <= left:
            rest.append((top, left, high, wide))
            continue
        rest += [(top, left, t_top - top, wide)] if t_top > top else []
        rest += [(t_bottom, left, bottom - t_bottom, wide)] if t_bottom < bottom else []
        rest += [(top, left, high, t_left - left)] if t_left > left else []
        rest += [(top, t_right, high, right - t_right)] if t_right < right else []

    def inside(a: Space, b: Space) -> bool:
        return (
            a[0] >= b[0]
            and a[1] >= b[1]
            and a[0] + a[2] <= b[0] + b[2]
            and a[1] + a[3] <= b[1] + b[3]
        )

    unique = sorted(set(rest))
    return [a for a in unique if not any(a != b and inside(a, b) for b in unique)]


def traffic(blocks: Sequence[Block], matrices: Sequence[np.ndarray]) -> list[dict[str, int]]:
    """Count the values that cross between tiles when each matrix is used once.

    A block takes a value over each row in which it has a weight that is not 0, since its inputs
    come from another tile or from outside. A column that is cut over several blocks is summed at
    the first of them that has a weight that is not 0 in it: each other one sends a partial sum.
    A block of zeros alone needs neither tile nor traffic.

    Args:
        blocks: What `place` returned.
        matrices: The weights, (rows, columns) each.

    Returns:
        For each matrix the numbers of "inputs", of "partial_sums" and of "tiles" that are needed.
    """
    found = []
    for index, matrix in enumerate(matrices):
        used = np.asarray(matrix) != 0
        tiles: set[int] = set()
        inputs = 0
        senders = np.zeros(used.shape[1], dtype="int64")
        for block in blocks:
            if block.matrix != index:
                continue
            part = used[
                block.row : block.row + block.rows, block.column : block.column + block.columns
            ]
            inputs += int(part.any(axis=1).sum())
            senders[block.column : block.column + block.columns] += part.any(axis=0)
            if part.any():
                tiles.add(block.tile)
        partial = int(np.maximum(senders - 1, 0).sum())
        found.append({"inputs": inputs, "partial_sums": partial, "tiles": len(tiles)})
    return found
