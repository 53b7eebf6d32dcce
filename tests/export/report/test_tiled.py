"""Converters and clipping: chip, map, forecast and report say the same."""

import json
import re

import numpy as np
import pytest
from maps import mapped, of_rolls, rolls

from snukeras.export.command import main
from snukeras.export.crossbar.chip import MappedChip
from snukeras.export.crossbar.load import load_map
from snukeras.export.crossbar.targets import load_target
from snukeras.export.exporter import export
from snukeras.export.report import simulation
from snukeras.export.verify.folder import verify_folder
from snukeras.export.verify.metric import measure
from snukeras.export.verify.weights import compare_map
from snukeras.network.weights import collect
from snukeras.pcm import (
    Chip,
    Crossbar,
    DifferentialPair,
    GenericPCM,
    OutputConverter,
    Tile,
    analog,
    calibrate,
)

RANDOM = np.random.default_rng(1)
SAMPLES = rolls(seed=1)
TIMES = (25.0, 86400.0)


@pytest.mark.slow
def test_chip_map_and_forecast_compute_the_same(tmp_path):
    pair = DifferentialPair(25.0, scale="column", clip=1.5)
    tile = Tile(16, 16, output=OutputConverter(6, noise=0.02))
    net = analog(of_rolls(), tile, pair=pair)
    calibrate(net, np.concatenate([feeds[0] for feeds in SAMPLES.batches]))
    report = export(net, tmp_path / "a", samples=SAMPLES, chips=2, times=TIMES)
    assert verify_folder(tmp_path / "a").ok
    found = report.forecast
    assert found.converters.tile == tile.get_config()
    assert found.converters.ranges == "the network"
    # Exact devices: the network on tiles itself, whose output noise is small.
    exact = measure([np.asarray(net(feeds[0])) for feeds in SAMPLES.batches], SAMPLES)
    assert found.converters.alone == pytest.approx(exact, rel=0.01)
    assert found.converters.alone != report.verification.metric.values["keras"]
    assert report.options.clip == 1.5 and report.map.target["tile"]["columns"] == 32

    crossbar = load_map(tmp_path / "a" / "crossbar.snumap")
    values = np.empty((2, 2))
    for chip in range(2):
        seed = simulation._seed(0, chip, 0)
        held = Chip(net, seed=seed, compensation="global")
        mapped = MappedChip(crossbar, net, seed=seed, compensation="global")
        for name, of_map in zip(held.crossbars, mapped.crossbars, strict=True):
            np.testing.assert_allclose(
                held.crossbars[name].targets, mapped.crossbars[of_map].targets, atol=1e-4
            )
        for place, t in enumerate(TIMES):
            models = held.model(t), mapped.model(t)
            outputs = [
                [np.asarray(model(feeds[0])) for feeds in SAMPLES.batches] for model in models
            ]
            for one, other in zip(*outputs, strict=True):
                np.testing.assert_allclose(one, other, atol=2e-4)
            values[chip, place] = measure(outputs[0], SAMPLES)
    np.testing.assert_allclose(found.metric["global"].mean, values.mean(axis=0), rtol=1e-3)
    # Not what the weights of a reading give.
    plain = export(net.digital(), tmp_path / "b", samples=SAMPLES, chips=2, times=TIMES)
    assert abs(plain.forecast.metric["global"].mean[0] - values[:, 0].mean()) > 0.002
    assert plain.forecast.converters is None and plain.options.clip is None

    page = (tmp_path / "a" / "report.html").read_text("utf-8")
    assert "inputs of 8 bits, outputs of 6 bits, output noise of 0.02; ranges from the network" in (
        page
    )
    assert re.search(r"--clip 1\.5 cut [0-9]+ of 6[0-9]{2} weights of ", " ".join(found.risks))
    arrays = {weight.name: weight.values for weight in collect(net.network)}
    for matrix in report.verification.map.matrices:
        weights = arrays[matrix.name]
        assert matrix.clipped == np.count_nonzero(np.abs(weights) > pair.max_weight(weights) + 1e-6)


@pytest.mark.slow
def test_the_command(tmp_path, capsys):
    path, samples = tmp_path / "m.keras", tmp_path / "s.npz"
    of_rolls().save(path)
    np.savez(samples, x=SAMPLES.batches[0][0], targets=SAMPLES.targets[0])
    given = [str(path), "--output", str(tmp_path / "a"), "--samples", str(samples)]
    more = ["--tile", "generic8", "--clip", "best", "--chips", "1", "--times", "25"]
    assert main([*given, *more]) == 0
    text = capsys.readouterr().out
    assert "products on tiles: inputs of 8 bits, outputs of 8 bits; ranges from" in text
    assert re.search(r"converters alone, with exact devices: .* [0-9.]+ .*, [0-9.]+ in Keras", text)
    report = json.loads((tmp_path / "a" / "report.json").read_text("utf-8"))
    assert (
        report["options"]["clip"] == load_map(tmp_path / "a" / "crossbar.snumap").description.clip
    )
    assert report["forecast"]["converters"]["tile"]["output"]["bits"] == 8
    assert main(["verify", str(tmp_path / "a")]) == 0
    capsys.readouterr()
    for wrong, message in (
        (["--tile", "generic9"], "one of .*'generic8'"),
        (["--tile", "8by8"], "a kind of tile, not '8by8'"),
        (["--clip", "0"], "clip"),
        (["--clip", "most"], "expected a number or best"),
        (["--clip", "2", "--target", "onnx"], "--clip is for targets with a crossbar map"),
    ):
        assert main([str(path), "--output", str(tmp_path / "c"), *wrong]) == 2
        assert re.search(message, capsys.readouterr().err), wrong


def test_a_map_that_was_not_told_to_clip_may_not(tmp_path):
    model = of_rolls()
    honest = mapped(tmp_path / "m", model, clip=1.0)
    found = compare_map(collect(model), honest)
    assert found.ok and all(matrix.clipped for matrix in found.matrices)
    object.__setattr__(honest.description, "clip", None)
    assert not compare_map(collect(model), honest).ok


@pytest.mark.slow
def test_parallel_pairs_average_their_errors(tmp_path):
    errors = {}
    for pairs in (1, 4):
        target = load_target("pcm").replace(devices_per_polarity=pairs, adc_bits=None)
        crossbar = mapped(tmp_path / f"{pairs}", of_rolls(), target)
        (found, *_) = simulation.products(
            crossbar, simulation.Conditions(GenericPCM(), times=(3600.0,))
        )
        errors[pairs] = found.relative_error["global"][0]
        assert MappedChip(crossbar, seed=1).devices == crossbar.totals["devices"]
    assert errors[4] == pytest.approx(errors[1] / 2, rel=0.15)


@pytest.mark.slow
def test_the_best_clip_is_as_good_as_the_best_of_all():
    """Error of a 256 x 256 product after a day, against clips at so many deviations."""
    matrix = np.clip(RANDOM.normal(size=(256, 256)), -10 / 3, 10 / 3).astype("float32")
    x = RANDOM.normal(size=(64, 256)).astype("float32")
    wanted = x @ matrix

    def error(clip, scale):
        pair = DifferentialPair(25.0, scale=scale, clip=clip)
        crossbar = Crossbar(matrix, GenericPCM(), pair, compensation="column", seed=1)
        return np.linalg.norm(x @ crossbar.weights(86400.0) - wanted) / np.linalg.norm(wanted)

    best = error("best", "tensor")
    assert best <= 0.14 and best <= 1.02 * min(error(k, "tensor") for k in (3.0, 2.5, 2.0))
    # Levels say nothing of noise; a heavy tail is cut, a column of one size is not.
    pair = DifferentialPair(25.0, scale="column", clip="best")
    same = np.sign(matrix[:, :1]) * 0.3
    np.testing.assert_allclose(pair.max_weight(same), [0.3], rtol=1e-5)
    assert DifferentialPair.from_config(pair.get_config()).clip == "best"
    with pytest.raises(ValueError, match='`clip` must be None, a number above 0, or "best"'):
        DifferentialPair(clip="most")
