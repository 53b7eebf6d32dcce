"""Several pairs a weight, and targets for a later time: map, readers, chips and forecast agree."""

import csv
import json
import re
import struct
import subprocess

import numpy as np
import pytest
from damaged_maps import parts
from maps import jsb, mapped, of_rolls, rolls, written

from snukeras.export.command import main
from snukeras.export.crossbar.chip import MappedChip
from snukeras.export.crossbar.device_list import write_device_list
from snukeras.export.crossbar.faults import Fault
from snukeras.export.crossbar.load import load_map
from snukeras.export.crossbar.readback import read_back
from snukeras.export.crossbar.targets import load_target
from snukeras.export.errors import BadInputError, MapError
from snukeras.export.exporter import export
from snukeras.export.report import simulation
from snukeras.export.verify.folder import verify_folder
from snukeras.export.verify.metric import measure
from snukeras.network.weights import collect
from snukeras.pcm import Chip, DifferentialPair, GenericPCM, HermesPCM

SLICES, YEAR = (1.0, 0.25, 0.25), 31536e3
SAMPLES = rolls(seed=2)


def by_hand(weights, scales, slices, g_max):
    """Return what planes are to hold, (planes, 2, rows, columns) in uS, by the text of the map."""
    share, whole = weights * scales / g_max, sum(slices)
    left, found = whole * share, []
    for k, significance in enumerate(slices):
        if k == 0 or significance < slices[k - 1]:
            same = slices.count(significance)
            aim = np.clip(left / (significance * same), -1.0, 1.0)
            left = left - significance * same * aim
        found.append([np.maximum(aim, 0.0) * g_max, np.maximum(-aim, 0.0) * g_max])
    return np.array(found)


def test_the_map_says_what_each_plane_holds(tmp_path, reader, dump):
    path, weights = tmp_path / "m", jsb()
    crossbar, found = written(path, weights, slices=SLICES), reader.read(path)
    assert found.significances == list(SLICES) == list(crossbar.significances)
    assert found.programmed_for is None and crossbar.totals["devices"] == 2 * 3 * 26_400
    shares = np.array(SLICES) / sum(SLICES)
    for weight in weights:
        np.testing.assert_allclose(found.weights()[weight.name], weight.values, atol=1e-6)
        if not weight.matrix:
            continue
        planes = np.stack(found.programs(weight.name), axis=1)
        scales = found.scales(weight.name)
        wanted = by_hand(weight.values.astype("float64"), scales, SLICES, 25.0)
        np.testing.assert_allclose(planes, wanted, atol=1e-4)
        together = np.tensordot(shares, planes[:, 0] - planes[:, 1], 1) / scales
        np.testing.assert_allclose(together, weight.values, atol=1e-5)
        command = [dump, path, weight.name]
        for plane in range(3):
            done = subprocess.run(
                [*command, str(plane)], capture_output=True, text=True, check=True
            )
            got = np.array(done.stdout.split(), "float32").reshape(-1, 2).T
            np.testing.assert_array_equal(got, planes[plane].reshape(2, -1))
    assert subprocess.run([*command, "3"], capture_output=True).returncode == 2
    names = subprocess.run([dump, path], capture_output=True, text=True, check=True).stdout
    assert "plane 2: significance 0.25\n" in names


@pytest.mark.parametrize("target", ["pcm", "pcm14nm-2"])
def test_programmed_for_a_year_devices_hold_the_weights_then(tmp_path, reader, target):
    """Many devices, programmed to what the map says, come to its conductances but for a factor."""
    path, hardware = tmp_path / "m", load_target(target)
    values = np.repeat(np.linspace(0.05, 1.0, 16)[:, None], 4000, axis=1)
    weights = [w for w in jsb() if not w.matrix]
    weights += [
        type(jsb()[0])("d/kernel", "d", "kernel", values.astype("float32"), jsb()[0].unrolling)
    ]
    crossbar = written(path, weights, hardware, programmed_for=YEAR, scale="tensor")
    found = reader.read(path)
    assert found.programmed_for == YEAR and found.significances == [1.0]
    assert crossbar.description.programming.device == (
        "GenericPCM" if target == "pcm" else "HermesPCM"
    )
    device = (GenericPCM if target == "pcm" else HermesPCM)(read_noise=0.0)
    (plus, minus), (wanted, _) = found.programs("d/kernel"), found.conductances("d/kernel")
    held = np.asarray(device.drifted(device.program(plus[0], seed=1), YEAR)).mean(axis=1)
    idle = np.asarray(device.drifted(device.program(minus[0], seed=2), YEAR)).mean()
    share = (held - idle) / (held[-1] - idle)
    np.testing.assert_allclose(share, wanted[:, 0] / wanted[-1, 0], atol=0.012)
    assert np.abs(plus[0] - wanted).max() > 1e-3 * hardware.g_max


def test_maps_without_either_are_of_version_1(tmp_path):
    written(tmp_path / "m", jsb())
    assert (tmp_path / "m").read_bytes()[8] == 1
    written(tmp_path / "n", jsb(), slices=(1.0, 1.0))
    assert (tmp_path / "n").read_bytes()[8] == 2


def forged(data, change, version=2):
    """A map of version 2 with another description, whose header fits."""
    import hashlib

    arrays, text = parts(data)
    description = json.loads(text)
    change(description)
    text = json.dumps(description).encode()
    head = (b"\x89SNUMAP\n", version, 0, 64 + len(arrays), len(text), hashlib.sha256(text).digest())
    return struct.pack("<8sIIQQ32s", *head) + arrays + text


FORGERIES = {
    "none": None,
    "one plane less": lambda d: d["programming"].update(significances=[1.0, 0.25]),
    "ascending": lambda d: d["programming"].update(significances=[0.25, 0.25, 1.0]),
    "nothing": lambda d: d["programming"].update(significances=[0.0, 0.0, 0.0]),
    "words": lambda d: d["programming"].update(significances=["1", "1", "1"]),
    "many": lambda d: d["programming"].update(significances=[1.0] * 17),
    "before": lambda d: d["programming"].update(time_s=-1.0),
    "no time": lambda d: d["programming"].update(time_s=True),
    "time in words": lambda d: d["programming"].update(time_s="null"),
    "no programming": lambda d: d.pop("programming"),
    "no programs": lambda d: d["matrices"][1].pop("program_minus"),
    "other programs": lambda d: d["matrices"][0].update(program_plus=d["matrices"][0]["g_plus"]),
    "version 1 inside": lambda d: d.update(version=1),
    "version 1 outside": lambda d: None,
}


def test_forged_maps_are_refused_in_a_sentence(tmp_path, reader, dump):
    written(tmp_path / "m", jsb()[:4], slices=SLICES)
    data = (tmp_path / "m").read_bytes()
    for name, change in FORGERIES.items():
        path = tmp_path / f"{name}.snumap"
        version = 1 if name == "version 1 outside" else 2
        path.write_bytes(forged(data, change or (lambda d: None), version))
        done = subprocess.run([dump, path], capture_output=True, text=True)
        if name == "none":
            assert load_map(path).significances == SLICES and not done.returncode
            continue
        with pytest.raises(MapError, match=r"\.$|consistent"):
            pytest.fail(f"{name} is taken: {load_map(path)}")
        with pytest.raises(reader.SnumapError, match=r"^\S+.* .+\.$"):
            pytest.fail(f"{name} is taken: {reader.read(path)}")
        assert done.returncode == 2 and re.match(r"/.+\.\n", done.stderr), (name, done.stderr)


def test_measured_planes_come_back_as_weights(tmp_path):
    crossbar = written(tmp_path / "m", jsb()[:1], slices=(1.0, 0.125))
    write_device_list(crossbar, tmp_path / "d.csv")
    with open(tmp_path / "d.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len({row["device"] for row in rows}) == 4 * 88 * 150

    def measured(change, columns=("tile", "word_line", "bit_line", "plane", "measured_uS")):
        with open(tmp_path / "g.csv", "w", newline="") as file:
            out = csv.DictWriter(file, columns, extrasaction="ignore")
            out.writeheader()
            for row in rows:
                out.writerow({**row, "measured_uS": change(float(row["target_uS"]), row)})
        return read_back(crossbar, tmp_path / "g.csv")

    wanted = crossbar.weights()["snu/kernel"]
    exact = measured(lambda g, row: g)
    np.testing.assert_allclose(exact.weights["snu/kernel"], wanted, atol=1e-5)
    # A plane of an eighth counts for an eighth.
    off = measured(
        lambda g, row: g + (0.9 if row["plane"] == "1" and row["polarity"] == "+" else 0)
    )
    shift = (off.weights["snu/kernel"] - wanted) * crossbar.scales("snu/kernel")
    np.testing.assert_allclose(shift, 0.9 / 9, atol=1e-4)
    with pytest.raises(BadInputError, match=r"lacks the column.* plane"):
        measured(lambda g, row: g, ("tile", "word_line", "bit_line", "measured_uS"))
    rows.pop()
    with pytest.raises(BadInputError, match=r"lacks parallel devices: .* 1 on each of 2 planes"):
        measured(lambda g, row: g)


@pytest.mark.slow
@pytest.mark.parametrize("tile", [None, "generic8"])
def test_the_forecast_is_that_of_chips_with_the_same_settings(tmp_path, tile):
    model, times = of_rolls(), (25.0, YEAR)
    given = {"slices": (1.0, 0.125), "programmed_for": YEAR}
    report = export(
        model, tmp_path / "a", target="pcm14nm-2", samples=SAMPLES, chips=2, times=times, clip=2.0,
        csv=True, tile=tile, **given,
    )  # fmt: skip
    assert report.verification.ok and verify_folder(tmp_path / "a").ok
    assert report.options.slices == (1.0, 0.125) and report.options.programmed_for == YEAR
    crossbar = load_map(tmp_path / "a" / "crossbar.snumap")
    text = "2 planes a tile, of significance 1, 0.125; targets to be held after 1 year"
    assert text in (tmp_path / "a" / "report.html").read_text("utf-8")
    assert any("Each tile is 2 tiles" in said for said in report.forecast.energy.assumptions)
    values = np.empty((2, 2))
    for chip in range(2):
        seed = simulation._seed(0, chip, 0)
        of_map = MappedChip(crossbar, model, seed=seed, compensation="global")
        pair = DifferentialPair(20.7, scale="column", clip=2.0)
        own = Chip(
            model, HermesPCM(2, seed=seed), seed=seed, compensation="global", pair=pair,
            tile_size=(256, 256), **given,
        )  # fmt: skip
        assert own.devices == of_map.devices
        for place, t in enumerate(times):
            read, names = own.model(t), of_map.weights(t)  # a reading of each
            for held in collect(read):
                if held.matrix:
                    np.testing.assert_allclose(held.values, names[held.name], atol=3e-4)
            outputs = [np.asarray(read(feeds[0])) for feeds in SAMPLES.batches]
            values[chip, place] = measure(outputs, SAMPLES)
    if tile is None:
        np.testing.assert_allclose(report.forecast.metric["global"].mean, values.mean(0), rtol=2e-3)
    # What planes and targets are for: products after a year.
    plain = export(
        model, tmp_path / "b", target="pcm14nm-2", samples=SAMPLES, chips=2, times=times, tile=tile
    )
    for one, other in zip(report.forecast.products, plain.forecast.products, strict=True):
        assert one.relative_error["global"][1] < 0.6 * other.relative_error["global"][1]


@pytest.mark.slow
def test_the_command(tmp_path, capsys):
    path = tmp_path / "m.keras"
    of_rolls().save(path)
    given = [str(path), "--output", str(tmp_path / "a"), "--chips", "1", "--times", "25"]
    assert main([*given, "--slices", "1,0.125", "--programmed-for", "86400", "--csv"]) == 0
    text = capsys.readouterr().out
    assert (
        "programming: 2 planes a tile, of significance 1, 0.125; targets to be held after" in text
    )
    assert main(["verify", str(tmp_path / "a")]) == 0
    capsys.readouterr()
    faults = tmp_path / "f.json"
    stuck = {"tile": 0, "word_line": 0, "bit_line": 0, "conductance_uS": 0.0}
    faults.write_text(json.dumps({"format": "snukeras-faults", "version": 1, "stuck": [stuck]}))
    for wrong, message in (
        (["--slices", "0.1,1"], "the largest first"),
        (["--slices", "a"], "expected significances such as 1,0.125"),
        (["--slices", ",".join("1" * 17)], "16 slices at most"),
        (["--slices", "1,1", "--levels", "8"], "continuous conductances"),
        (["--programmed-for", "-1"], "programmed_for"),
        (["--programmed-for", "nan"], "programmed_for"),
        (["--programmed-for", "0", "--target", "onnx"], "for targets with a crossbar map"),
        (["--slices", "1,1", "--faults", str(faults)], "those of one plane"),
    ):
        assert main([str(path), "--output", str(tmp_path / "c"), *wrong]) == 2, wrong
        assert re.search(message, capsys.readouterr().err), wrong


def test_stuck_devices_stay_where_they_are_on_targets_for_later(tmp_path):
    faults = (Fault(0, 3, 8, 12.5),)
    full = load_target("pcm").replace(rows=20, columns=60)  # no line to spare
    crossbar = mapped(tmp_path / "m", of_rolls(), full, faults=faults, programmed_for=YEAR)
    name = crossbar.matrices[0]
    assert crossbar.programs(name)[0][0, 3, 4] == crossbar.conductances(name)[0][3, 4] == 12.5
