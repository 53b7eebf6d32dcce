"""What the report predicts: products, likelihood, energy and risks."""

import dataclasses
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from maps import mapped

from snukeras.export.crossbar.targets import load_target
from snukeras.export.errors import BadInputError
from snukeras.export.exporter import export
from snukeras.export.network import Network
from snukeras.export.report import forecast as module
from snukeras.export.report import risks, simulation
from snukeras.export.report.energy import energy
from snukeras.export.report.forecast import Simulated, forecast
from snukeras.export.report.simulation import TIMES, OverTime
from snukeras.export.report.terminal import show
from snukeras.export.samples import Samples
from snukeras.export.verify.figures import frame_nll
from snukeras.export.verify.results import MetricResult, OnnxResult, Verification
from snukeras.export.verify.weights import compare_map
from snukeras.layers import SNU
from snukeras.network.weights import collect


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((None, 88)),
            SNU(150, return_sequences=True, threshold=0.3, name="snu"),
            keras.layers.Dense(88, activation="sigmoid", name="out"),
        ]
    )


def verified(model, crossbar, **others):
    """A verification that held, but for what is given."""
    found = Verification(
        ok=True,
        samples="none",
        batches=0,
        onnx=OnnxResult(True, {}, ()),
        streaming=None,
        map=compare_map(collect(model), crossbar),
        device_list=None,
        nir=None,
        metric=None,
        metric_left_out="there are no samples with a metric",
    )
    return dataclasses.replace(found, **others)


def known(value, **others):
    """What the verification says of the metric."""
    found = MetricResult(
        "frame_nll", "negative log-likelihood", "nats per step", True, {"keras": value}
    )
    return dataclasses.replace(found, **others)


def predicted(tmp_path, model, target, samples=None, chips=3, **options):
    """The forecast of a network, its risks among it."""
    held = {key: options.pop(key) for key in ("metric", "ok") if key in options}
    crossbar = mapped(tmp_path / "m", model, target, **options)
    network, found = Network.read(model), verified(model, crossbar, **held)
    samples = samples or Samples("none", [])
    made = forecast(network, crossbar, samples, found, Simulated(chips))
    return dataclasses.replace(made, risks=risks.risks(crossbar, found, made))


def test_energy_of_the_worked_example(tmp_path, model):
    """88-150-88 on the 14-nm core: two tiles, 26,400 weights."""
    crossbar = mapped(tmp_path / "m", model, load_target("pcm14nm-2"))
    found = energy(crossbar, Network.read(model).uses)
    one, four = found["cases"]
    assert (one["low_nJ"], one["high_nJ"]) == (pytest.approx(5.4, abs=0.05), 26.8)
    assert (four["low_nJ"], four["high_nJ"]) == (pytest.approx(21.3, abs=0.05), 105.8)
    assert (one["latency_ns"], four["latency_ns"]) == (266, 1042)
    assert (found["low_nJ"], found["high_nJ"]) == (one["low_nJ"], 105.8)
    assert not any("stand in" in text for text in found["assumptions"])


def test_energy_of_a_target_without_figures_is_borrowed_in_proportion(tmp_path, model):
    target = load_target("pcm").replace(rows=128)
    found = energy(mapped(tmp_path / "m", model, target), Network.read(model).uses)
    assert "pcm14nm-2" in found["assumptions"][0]
    tiles = 2 + 2
    assert found["cases"][0]["high_nJ"] == pytest.approx(tiles * 13.4 / 2)


@pytest.mark.some_cases(1)
@pytest.mark.parametrize("name", ["pcm", "pcm14nm-1", "pcm14nm-2"])
def test_products_get_worse_with_time_and_compensation_helps(tmp_path, model, name):
    found = predicted(tmp_path, model, load_target(name))
    assert [entry["name"] for entry in found["products"]] == ["snu/kernel", "out/kernel"]
    for entry in found["products"]:
        bare, helped = (np.array(entry["relative_error"][k]) for k in ("none", "global"))
        assert np.all(np.diff(bare) > 0) and np.all(helped[1:] < bare[1:])
        assert helped[0] > 0.02 and bare[-1] > 1.3 * helped[-1]
    assert found["metric"] is None and "no samples" in found["metric_left_out"]


@pytest.mark.slow
def test_coarse_levels_show_in_the_products(tmp_path, model):
    fine, coarse = (
        predicted(tmp_path, model, load_target("pcm").replace(levels=levels))["products"][0]
        for levels in (None, 3)
    )
    # The chip is told to hold the rounded weights, and is compared with them: rounding is the
    # error of the mapping, reported beside this one.
    assert coarse["relative_error"]["global"][0] < 2 * fine["relative_error"]["global"][0]


@pytest.mark.slow
def test_metric_over_time(tmp_path, model, monkeypatch):
    rolls = [(np.random.default_rng(i).random((9, 88)) < 0.05).astype("uint8") for i in (0, 1)]
    songs = Samples.songs(rolls, "songs")
    exact = frame_nll([np.asarray(model(feeds[0])) for feeds in songs.batches], songs.targets)
    before = model.get_weights()
    found = predicted(tmp_path, model, "pcm", songs, 2, metric=known(exact))
    for values in found.metric.values():
        assert len(values.mean) == 4
        for low, mean, high in zip(values.min, values.mean, values.max, strict=True):
            assert low <= mean <= high and abs(mean - exact) < 0.2 * exact
    assert found.metric["none"] != found.metric["global"]
    assert any(f"{exact:.2f} nats per step in Keras" in text for text in found.risks)
    assert found.metric_by_scale["column"] == found.metric
    assert found.metric_by_scale["tensor"] != found.metric
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    monkeypatch.setattr(module, "MAX_WEIGHTS", 10)
    found = predicted(tmp_path, model, "pcm", songs, 1, metric=known(exact))
    assert found.metric is None and "more than 10" in found.metric_left_out


@pytest.mark.slow
def test_a_large_network_gets_one_chip_unless_more_are_asked_for(tmp_path, model, monkeypatch):
    assert predicted(tmp_path, model, "pcm", chips=None).chips == 3
    monkeypatch.setattr(module, "LARGE", 10)
    assert [predicted(tmp_path, model, "pcm", chips=n).chips for n in (None, 3)] == [1, 3]


@pytest.mark.parametrize(
    ("chips", "times", "word"),
    [
        (0, (25.0,), "chips"),
        (1001, (25.0,), "chips"),
        (1, (), "Times"),
        (1, (5.0, 5.0), "ascending"),
        (1, (-1.0,), "Times"),
        (1, (float("nan"),), "Times"),
        (1, (1e300,), "Times"),
    ],
)
def test_what_cannot_be_simulated_is_refused(chips, times, word):
    with pytest.raises(BadInputError, match=word):
        Simulated(chips, times)


def test_a_matrix_larger_than_a_tile_is_the_tile_of_its_largest_weight(tmp_path, model):
    """With a scale for each column, every column has a largest conductance: it tells nothing."""
    kernel = model.get_layer("snu").get_weights()[0]
    crossbar = mapped(tmp_path / "m", model, load_target("pcm").replace(rows=16, columns=32))
    tile, scales = simulation.largest_tile(crossbar, "snu/kernel", (16, 16))
    row, column = np.unravel_index(np.argmax(np.abs(kernel)), kernel.shape)
    row, column = (int(at) // 16 * 16 for at in (row, column))
    assert column > 0  # not where the first largest conductance is
    np.testing.assert_allclose(tile, kernel[row : row + 16, column : column + 16], rtol=1e-5)
    np.testing.assert_array_equal(scales, crossbar.scales("snu/kernel")[column : column + 16])


@pytest.mark.slow
def test_risks_say_what_the_numbers_say(tmp_path, model):
    weights = model.get_weights()
    try:
        outlier = weights[0].copy()
        outlier[3, 4] = 50.0
        model.set_weights([outlier, *weights[1:]])
        text = " ".join(predicted(tmp_path, model, load_target("pcm14nm-2"))["risks"])
        assert "rms value" not in text  # one column of many
        tensor = predicted(tmp_path, model, load_target("pcm14nm-2"), scale="tensor")["risks"]
        said = "snu/kernel have an rms value of 1% of the largest, so"
        assert said in " ".join(tensor) and "with --scale column." in " ".join(tensor)
        assert "20.1% of the devices of 2 tiles" in text and "continuous" in text
    finally:
        model.set_weights(weights)
    coarse = predicted(tmp_path, model, load_target("pcm").replace(levels=4, rows=64))["risks"]
    text = " ".join(coarse)
    assert "4 levels round the weights" in text and "split over word lines" in text
    assert "outlier" not in text and "rms value of 1%" not in text
    found = predicted(tmp_path, model, "pcm", ok=False)
    assert found.risks[0].startswith("The export did not pass")


def test_compensation_that_harms_is_said():
    made = {
        "none": OverTime((2.0,) * 4, (1.9,) * 4, (2.1, 2.1, 2.1, 2.6)),
        "global": OverTime((2.5,) * 4, (2.0, 2.2, 2.2, 2.2), (2.6,) * 4),
    }
    text = " ".join(text for _, text in risks._decay(made, known(2.0), TIMES))
    assert "without compensation at 1 h, 1 day. Where" in text
    assert "2.50 after 1 year with drift compensation and 2.00 without" in text
    # The same figures of a metric where more is better.
    better = known(2.6, name="accuracy", title="accuracy", unit="%", lower_is_better=False)
    found = list(risks._decay(made, better, TIMES))
    assert not any("without compensation at" in text for _, text in found)
    ((gravity, text),) = found
    assert gravity > 2.5 and "is 2.60 % in Keras" in text and "little loss" not in text


def test_a_better_choice_of_scales_is_named():
    def at(first, last):
        means = (first, first, last, last)
        return {"global": OverTime(means, means, means)}

    def said(other):
        found = SimpleNamespace(
            metric=at(2.0, 2.2), metric_by_scale={"tensor": other}, times_s=TIMES
        )
        return [text for _, text in risks._other_scale(found, known(1.8), "column")]

    (text,) = said(at(1.98, 2.1))
    assert text.startswith("With --scale tensor the negative log-likelihood would be 1.98 instead")
    assert "2.10 instead of 2.20 after 1 year" in text
    assert said(at(1.995, 2.1)) == []  # half a percent is no gain
    assert said(at(2.4, 2.1)) == []


def test_exact_devices_hold_the_weights_whatever_is_planned_for_later(tmp_path, model):
    """They set the ranges of converters, and tell what these cost by themselves."""
    crossbar = mapped(tmp_path / "m", model, "pcm14nm-2", programmed_for=31536e3)
    held, wanted = simulation.exact_chip(crossbar).weights(), crossbar.weights()
    for name in crossbar.matrices:
        np.testing.assert_allclose(held[name], wanted[name], atol=1e-6)


def test_a_matrix_of_zeros_has_no_relative_error(tmp_path, capsys):
    model = keras.Sequential(
        [keras.Input((4,), name="x"), keras.layers.Dense(3, kernel_initializer="zeros", name="d")]
    )
    report = export(model, tmp_path / "out")
    assert report.forecast.products == ()
    show(report, tmp_path / "out")
    assert "Energy per step" in capsys.readouterr().out
    assert (
        "Not simulated: 1 (smaller matrices, or zeros)"
        in (tmp_path / "out" / "report.html").read_text()
    )
