"""Crossbar maps: weights to devices and back, by the package and by the specification alone."""

import csv
import hashlib
import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from maps import jsb, matrix, parameter, written

from snukeras.export.crossbar.device_list import write_device_list
from snukeras.export.crossbar.faults import Fault
from snukeras.export.crossbar.placement import place
from snukeras.export.crossbar.targets import Target, load_target
from snukeras.export.errors import BadInputError


def read_by_the_specification(path):
    """A reader written from export/crossbar-map.md, without the package's own."""
    data = path.read_bytes()
    magic, version, zero, offset, length, digest = struct.unpack("<8sIIQQ32s", data[:64])
    assert magic == bytes.fromhex("89534E554D41500A") and version == 1 and zero == 0
    assert offset + length == len(data)
    text = data[offset:]
    assert hashlib.sha256(text).digest() == digest
    description = json.loads(text)

    def array(reference):
        kind, size = {"float32": ("f", 4), "float64": ("d", 8), "uint32": ("I", 4)}[
            reference["dtype"]
        ]
        count = 1
        for extent in reference["shape"]:
            count *= extent
        raw = data[reference["offset"] : reference["offset"] + count * size]
        assert hashlib.sha256(raw).hexdigest() == reference["sha256"]
        return struct.unpack(f"<{count}{kind}", raw)

    weights, devices = {}, {}
    blocks = [
        {
            **block,
            **{
                key: array(block[key])
                for key in ("word_lines", "bit_lines_plus", "bit_lines_minus")
            },
        }
        for block in description["blocks"]
    ]
    for index, entry in enumerate(description["matrices"]):
        rows, columns = entry["rows"], entry["columns"]
        plus, minus, scale = (array(entry[key]) for key in ("g_plus", "g_minus", "scale"))
        values = []
        for i in range(rows):
            for j in range(columns):
                (block,) = [
                    b
                    for b in blocks
                    if b["matrix"] == index
                    and b["row"] <= i < b["row"] + b["rows"]
                    and b["column"] <= j < b["column"] + b["columns"]
                ]
                at = (block["tile"], block["word_lines"][i - block["row"]])
                for lines, g in (("bit_lines_plus", plus), ("bit_lines_minus", minus)):
                    address = (*at, block[lines][j - block["column"]])
                    assert address not in devices
                    devices[address] = g[i * columns + j]
                values.append((plus[i * columns + j] - minus[i * columns + j]) / scale[j])
        weights[entry["name"]] = np.array(values).reshape(entry["shape"])
    for entry in description["parameters"]:
        weights[entry["name"]] = np.array(array(entry["values"])).reshape(entry["values"]["shape"])
    return description, weights, devices


def test_the_network_of_the_paper(tmp_path):
    crossbar = written(tmp_path / "m", jsb())
    assert crossbar.totals == {"weights": 26_400, "devices": 52_800, "tiles": 3, "parameters": 388}
    assert [len(tile["blocks"]) for tile in crossbar.description["tiles"]] == [1, 1, 1]
    # 150 columns need 300 bit lines: 128 columns on tile 0, the other 22 on tile 1.
    assert tuple(crossbar.address("snu/kernel", 87, 127)) == (0, 87, 254, 255)
    assert tuple(crossbar.address("snu/kernel", 0, 128)) == (1, 0, 0, 1)
    assert written(tmp_path / "p", jsb(), pack=True).totals["tiles"] == 1
    core = written(tmp_path / "c", jsb(), load_target("pcm14nm-2"))
    assert core.totals["devices"] == 105_600 and core.totals["tiles"] == 2


@pytest.mark.parametrize("target", ["pcm", "pcm14nm-1", "pcm14nm-2"])
@pytest.mark.parametrize("pack", [False, True])
def test_the_specification_is_enough(tmp_path, target, pack):
    weights = [*jsb()[:1], matrix("conv/kernel", np.random.default_rng(3).normal(size=(3, 2, 9)))]
    weights += [parameter("conv/bias", np.arange(9))]
    chosen = load_target(target).replace(rows=40, columns=60, levels=33)
    crossbar = written(tmp_path / "m", weights, chosen, pack=pack)
    description, rebuilt, devices = read_by_the_specification(tmp_path / "m")
    own = crossbar.weights()
    assert set(rebuilt) == set(own) == {"snu/kernel", "conv/kernel", "conv/bias"}
    for name in own:
        np.testing.assert_allclose(rebuilt[name], own[name], rtol=1e-6)
    assert len(devices) * chosen.devices_per_polarity == description["totals"]["devices"]
    for tile in range(crossbar.totals["tiles"]):
        grid = crossbar.tile_conductances(tile)
        mine = {key[1:]: g for key, g in devices.items() if key[0] == tile}
        assert {(int(i), int(j)) for i, j in np.argwhere(~np.isnan(grid))} == set(mine)
        assert all(grid[at] == np.float32(g) for at, g in mine.items())


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=4),
    rows=st.integers(1, 20),
    columns=st.integers(2, 20),
    cell=st.sampled_from(["device", "pair"]),
    levels=st.sampled_from([None, 2, 3, 16, 101]),
    g_min=st.sampled_from([0.0, 0.1, 5.0]),
    scale=st.sampled_from(["tensor", "column"]),
    pack=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_weights_survive(
    tmp_path_factory, shapes, rows, columns, cell, levels, g_min, scale, pack, seed
):
    r = np.random.default_rng(seed)
    weights = [
        matrix(f"layer{i}/kernel", r.normal(size=shape) * 10.0 ** r.integers(-4, 4))
        for i, shape in enumerate(shapes)
    ]
    if seed % 5 == 0:
        weights[0].values[:] = 0.0
    target = Target("t", "t", rows, columns, cell, 1, g_min, 25.0, levels)
    path = tmp_path_factory.mktemp("map") / "m"
    crossbar = written(path, weights, target, scale=scale, pack=pack)
    step = 0.0 if levels is None else (25.0 - g_min) / (levels - 1)
    for weight in weights:
        error = np.abs(crossbar.weights()[weight.name] - weight.values)
        # Half a level, and float32 rounding of conductances up to 25 uS.
        assert np.all(
            error <= (step / 2 * (1 + 1e-6) + 25 * 2.0**-21) / crossbar.scales(weight.name)
        )
    again = path.with_name("again")
    written(again, weights, target, scale=scale, pack=pack)
    assert again.read_bytes() == path.read_bytes()


@settings(max_examples=50, deadline=None)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=12),
    rows=st.integers(1, 16),
    columns=st.integers(2, 17),
)
def test_packing_keeps_devices_apart_and_needs_no_more_tiles(shapes, rows, columns):
    target = Target("t", "t", rows, columns)
    packed, loose = place(shapes, target, pack=True), place(shapes, target)
    taken = set()
    for block in packed:
        assert block.word_lines.max() < rows and block.bit_lines_minus.max() < columns
        for line in block.word_lines.tolist():
            for bit in (*block.bit_lines_plus.tolist(), *block.bit_lines_minus.tolist()):
                assert (block.tile, line, bit) not in taken
                taken.add((block.tile, line, bit))
    assert len(taken) == 2 * sum(a * b for a, b in shapes)
    tiles = {block.tile for block in packed}
    assert tiles == set(range(len(tiles))) and len(tiles) <= len(loose)


def test_partial_sums_have_adders(tmp_path):
    weights = [matrix("d/kernel", np.ones((10, 3)))]
    crossbar = written(tmp_path / "m", weights, Target("t", "t", 4, 4))
    adders = crossbar.description["adders"]
    assert [(a["column"], a["columns"], len(a["blocks"])) for a in adders] == [(0, 2, 3), (2, 1, 3)]
    for adder in adders:
        rows = [crossbar.description["blocks"][b]["row"] for b in adder["blocks"]]
        assert rows == [0, 4, 8]


def test_list_of_devices(tmp_path):
    weights = [matrix("d/kernel", np.array([[1.0, -0.5], [0.25, 0.0], [0.1, 0.2]]))]
    crossbar = written(tmp_path / "m", weights, load_target("pcm14nm-2").replace(rows=2, columns=2))
    write_device_list(crossbar, tmp_path / "devices.csv")
    with open(tmp_path / "devices.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == crossbar.totals["devices"] == len({row["device"] for row in rows})
    total = sum(float(row["target_uS"]) for row in rows)
    plus, minus = crossbar.conductances("d/kernel")
    assert total == pytest.approx(float(plus.sum() + minus.sum()), rel=1e-6)
    first = rows[0]
    assert first["device"] == "0.0.0.0" and first["polarity"] == "+"
    assert float(first["target_uS"]) == pytest.approx(20.7 / 2)


def test_faults_are_avoided_where_lines_are_left(tmp_path):
    weights = [matrix("d/kernel", np.random.default_rng(0).normal(size=(6, 3)))]
    target = Target("t", "t", 8, 8)
    faults = (Fault(0, 2, 1, 25.0), Fault(0, 5, 1, 0.0), Fault(0, 7, 3, 12.0))
    crossbar = written(tmp_path / "m", weights, target, faults=faults)
    assert crossbar.description.faults == ()
    lines = crossbar.description["blocks"][0]
    assert lines["tile"] == 0
    np.testing.assert_allclose(
        crossbar.weights()["d/kernel"], weights[0].values, rtol=1e-5, atol=1e-6
    )


def test_faults_are_compensated_and_what_remains_is_listed(tmp_path):
    values = np.array([[1.0, -1.0], [0.4, 0.2]])
    weights = [matrix("d/kernel", values)]
    target = Target("t", "t", 2, 4)
    # G- of (1, 0) stuck at 5 uS: G+ takes 15 instead of 10. G+ of (0, 0) stuck at 0: lost.
    faults = (Fault(0, 1, 1, 5.0), Fault(0, 0, 0, 0.0))
    crossbar = written(tmp_path / "m", weights, target, faults=faults)
    plus, minus = crossbar.conductances("d/kernel")
    assert plus[1, 0] == pytest.approx(15.0) and minus[1, 0] == 5.0
    found = {(f["row"], f["column"]): f["weight_error"] for f in crossbar.description["faults"]}
    assert found[(1, 0)] == pytest.approx(0.0, abs=1e-6)
    assert found[(0, 0)] == pytest.approx(-1.0)
    assert len(found) == 2
    assert crossbar.weights()["d/kernel"][1, 0] == pytest.approx(0.4)


def test_a_fault_may_lie_out_of_the_range(tmp_path):
    faults = (Fault(0, 0, 0, 40.0),)
    crossbar = written(
        tmp_path / "m", [matrix("d/kernel", [[1.0]])], Target("t", "t", 1, 2), faults=faults
    )
    assert crossbar.conductances("d/kernel")[0][0, 0] == 40.0


@pytest.mark.parametrize("fault", [Fault(0, 9, 0, 1.0), Fault(0, 0, 9, 1.0), Fault(3, 0, 0, 1.0)])
def test_faults_off_the_tile(tmp_path, fault):
    with pytest.raises(BadInputError, match="counted from 0"):
        written(
            tmp_path / "m", [matrix("d/kernel", [[1.0]])], Target("t", "t", 4, 4), faults=(fault,)
        )


def test_nothing_to_map(tmp_path):
    with pytest.raises(BadInputError, match="no weight matrix"):
        written(tmp_path / "m", [parameter("a/gamma", [1.0])])


def test_unknown_names(tmp_path):
    crossbar = written(tmp_path / "m", jsb())
    with pytest.raises(KeyError, match="it has snu/kernel, dense/kernel"):
        crossbar.scales("lstm/kernel")
    with pytest.raises(IndexError, match="88 rows and 150 columns"):
        crossbar.address("snu/kernel", 88, 0)


def test_a_notebook_shows_the_map_as_a_table(tmp_path):
    html = written(tmp_path / "<m>", jsb(), load_target("pcm14nm-2"))._repr_html_()
    for text in ("&lt;m&gt;", "snu/kernel", "88 x 150", "52,800", "continuous", "0 to 20.7 uS"):
        assert text in html, text
    assert "<m>" not in html and html.count("<tr>") == 4
