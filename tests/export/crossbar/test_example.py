"""The worked example of the specification; run as a script to write it anew."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from snukeras._content import folder
from snukeras.export.crossbar.description import OnnxFile, Source
from snukeras.export.crossbar.device_list import write_device_list
from snukeras.export.crossbar.load import load_map
from snukeras.export.crossbar.targets import Target
from snukeras.export.crossbar.writer import MapOptions, write_map
from snukeras.network.matrices import Unrolling
from snukeras.network.weights import Weight, digest


def example_weights():
    kernel = np.array(
        [[0.5, -0.2, 0.1], [0.0, 1.0, -0.7], [0.3, 0.3, 0.9], [-0.4, 0.6, 0.2], [0.8, -0.1, -1.0]],
        dtype="float32",
    )
    dense = np.array([[0.25], [-0.5], [0.1]], dtype="float32")
    return [
        Weight("snu/kernel", "snu", "kernel", kernel, Unrolling()),
        Weight("snu/threshold", "snu", "threshold", np.ones(3, "float32"), None),
        Weight("snu/decay", "snu", "decay", np.full(3, 0.8, "float32"), None),
        Weight("dense/kernel", "dense", "kernel", dense, Unrolling()),
        Weight("dense/bias", "dense", "bias", np.array([-0.5], "float32"), None),
    ]


def write_example(into):
    weights = example_weights()
    write_map(
        into / "tiny.snumap",
        weights,
        Target("tiny", "Tile of the worked example", rows=4, columns=4, levels=6),
        MapOptions(scale="tensor"),
        package="example",
        source=Source("tiny", None, digest(weights)),
        onnx=OnnxFile("tiny.onnx", "0" * 64),
    )
    crossbar = load_map(into / "tiny.snumap")
    write_device_list(crossbar, into / "tiny.csv")
    rebuilt = {
        name: [float(f"{x:.7g}") for x in values.reshape(-1)]
        for name, values in crossbar.weights().items()
    }
    text = json.dumps(rebuilt, indent=1)
    (into / "tiny.weights.json").write_text(text + "\n", encoding="utf-8")


@pytest.mark.parametrize("name", ["tiny.snumap", "tiny.csv", "tiny.weights.json"])
def test_the_example_is_what_the_package_writes(tmp_path, name):
    write_example(tmp_path)
    assert (tmp_path / name).read_bytes() == (folder("export") / "examples" / name).read_bytes()


def test_the_example_says_what_the_specification_says():
    crossbar = load_map(folder("export") / "examples" / "tiny.snumap")
    assert crossbar.totals == {"weights": 18, "devices": 36, "tiles": 5, "parameters": 7}
    plus, minus = crossbar.conductances("snu/kernel")
    assert crossbar.scales("snu/kernel").tolist() == [25.0] * 3
    assert (plus[0, 0], minus[0, 0]) == (10.0, 0.0)
    assert tuple(crossbar.address("snu/kernel", 0, 0)) == (0, 0, 0, 1)
    assert (plus[4, 2], minus[4, 2]) == (0.0, 25.0)
    assert tuple(crossbar.address("snu/kernel", 4, 2)) == (3, 0, 0, 1)
    assert crossbar.weights()["snu/kernel"][0, 0] == pytest.approx(0.4)
    adders = [(a["column"], a["columns"], a["blocks"]) for a in crossbar.description["adders"]]
    assert adders == [(0, 2, (0, 2)), (2, 1, (1, 3))]


if __name__ == "__main__":
    write_example(Path(sys.argv[1]))
