"""The list of devices for the lab: one line of CSV for every device of a map."""

import csv
from collections.abc import Iterator
from pathlib import Path

from snukeras.export.crossbar.map import CrossbarMap

HEADER = (
    "device",
    "tile",
    "word_line",
    "bit_line",
    "parallel",
    "polarity",
    "matrix",
    "row",
    "column",
    "target_uS",
)
# A spreadsheet takes a cell that begins with one of these for a formula, and runs it.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

Row = tuple[str | int, ...]


def header(crossbar: CrossbarMap) -> tuple[str, ...]:
    """Return the names of the columns: a map whose tiles have several planes has one more."""
    if len(crossbar.significances) == 1:
        return HEADER
    place = HEADER.index("parallel")
    return (*HEADER[:place], "plane", *HEADER[place:])


def write_device_list(crossbar: CrossbarMap, path: str | Path) -> None:
    """Write one line per device for the lab; see export/crossbar-map.md."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(header(crossbar))
        out.writerows(device_rows(crossbar))


def device_rows(crossbar: CrossbarMap) -> Iterator[Row]:
    """Iterate over the lines of the list, without its header."""
    share = crossbar.target.devices_per_polarity
    several = len(crossbar.significances) > 1
    for block, (word, plus, minus) in crossbar.blocks():
        name = crossbar.description.matrices[block.matrix].name
        g_plus, g_minus = crossbar.programs(name)
        cell = f"'{name}" if name.startswith(_FORMULA) else name
        for i, line in enumerate(word):
            row = block.row + i
            for j in range(block.columns):
                column = block.column + j
                for polarity, bit, planes in (
                    ("+", plus[j], g_plus[:, row, column]),
                    ("-", minus[j], g_minus[:, row, column]),
                ):
                    for plane, g in enumerate(planes):
                        own = (plane,) if several else ()
                        for device in range(share):
                            at = (block.tile, int(line), int(bit), *own, device)
                            yield (
                                ".".join(map(str, at)),
                                *at,
                                polarity,
                                cell,
                                row,
                                column,
                                f"{g / share:.9g}",
                            )
