"""The list of devices for the lab: one line of CSV for every device of a map."""

import csv

from snukeras.export.crossbar.map import CrossbarMap

_HEADER = (
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


def write_device_list(crossbar: CrossbarMap, path) -> None:
    """Writes one line per device for the lab; see export/crossbar-map.md."""
    share = crossbar.target.devices_per_polarity
    with open(path, "w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(_HEADER)
        for block, word, plus, minus in crossbar.blocks():
            entry = crossbar.description["matrices"][block["matrix"]]
            g_plus, g_minus = crossbar.conductances(entry["name"])
            for i, line in enumerate(word):
                row = block["row"] + i
                for j in range(block["columns"]):
                    column = block["column"] + j
                    for polarity, bit, g in (
                        ("+", plus[j], g_plus[row, column]),
                        ("-", minus[j], g_minus[row, column]),
                    ):
                        for device in range(share):
                            out.writerow(
                                (
                                    f"{block['tile']}.{line}.{bit}.{device}",
                                    block["tile"],
                                    line,
                                    bit,
                                    device,
                                    polarity,
                                    entry["name"],
                                    row,
                                    column,
                                    f"{g / share:.9g}",
                                )
                            )
