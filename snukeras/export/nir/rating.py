"""What became of each node of an NIR file."""

import dataclasses
from typing import Final

from snukeras.export.records import Record

FAITHFUL: Final = "faithful"
APPROXIMATE: Final = "approximate"
UNSUPPORTED: Final = "unsupported"


@dataclasses.dataclass(frozen=True)
class NodeRating(Record):
    """A node.

    Attributes:
        name: Its name in the file.
        kind: Its kind, such as "LIF".
        rating: "faithful": computes what the writer ran, but for rounding; "approximate": the
            writer's own run may differ; "unsupported": cannot be read.
        layer: The Keras layer that computes it; "" where none does.
        note: What the file leaves open and how it was read, or why it cannot be.
    """

    name: str
    kind: str
    rating: str
    layer: str
    note: str


@dataclasses.dataclass(frozen=True)
class NirRating(Record):
    """How an NIR file is read; printed, a table.

    Attributes:
        file: Its name.
        version: Of the library nir that wrote it.
        writer: Whose conventions are followed: "snntorch", "norse", "sinabs", "spyx",
            "spikingjelly", "snukeras", or "nir" for the equations alone.
        recognised: Whether the writer was told by the numbers of the file.
        dt: Seconds of a step (steps of sinabs and spyx count as 1).
        nodes: In the order in which they compute.
    """

    file: str
    version: str
    writer: str
    recognised: bool
    dt: float
    nodes: tuple[NodeRating, ...]

    def count(self, rating: str) -> int:
        """Return how many nodes have a rating."""
        return sum(node.rating == rating for node in self.nodes)

    def __str__(self) -> str:
        how = "as NIR's equations say" if self.writer == "nir" else f"as {self.writer} steps it"
        told = " (told by its numbers)" if self.recognised else ""
        counts = ", ".join(
            f"{self.count(word)} {word}" for word in (FAITHFUL, APPROXIMATE, UNSUPPORTED)
        )
        rows = [("node", "kind", "rating", "layer", "note")]
        rows += [(n.name, n.kind, n.rating, n.layer, n.note) for n in self.nodes]
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = [f"{self.file}, read {how}{told}, dt {self.dt:g}: {counts}"]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True))
            lines.append(f"  {'  '.join(cells)}".rstrip())
        return "\n".join(lines)
