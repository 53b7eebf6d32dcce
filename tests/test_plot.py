"""Pictures: what they draw, how they name it, and what they say where something is missing."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from maps import matrix, written

import snukeras
from snukeras import plot
from snukeras.export.crossbar.targets import load_target
from snukeras.layers import Spatial

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

from matplotlib import pyplot  # noqa: E402


@pytest.fixture(autouse=True)
def figures_are_closed():
    yield
    pyplot.close("all")


@pytest.fixture
def ax():
    return pyplot.subplots()[1]


def spikes(*shape):
    return (np.random.default_rng(0).random(shape) < 0.3).astype("float32")


def trace(*shape):
    return {"spikes": spikes(*shape), "membranes": spikes(*shape) - 0.5}


def test_a_raster_has_a_mark_for_each_spike(ax):
    values = spikes(2, 9, 4)
    assert plot.raster({"spikes": values}, sample=1, ax=ax) is ax
    marks = [tuple(line.mean(axis=0)) for line in ax.collections[0].get_segments()]
    assert sorted(marks) == sorted(map(tuple, np.argwhere(values[1])))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "unit")
    assert f"{int(values[1].sum())} spikes" in ax.get_title(loc="left")


def test_a_raster_counts_seconds_and_lays_maps_side_by_side(ax):
    plot.raster(spikes(1, 5, 3, 2), dt=0.5, ax=ax)
    assert ax.get_xlabel() == "time (s)" and ax.get_xlim() == (-0.25, 2.25)
    assert ax.get_ylim() == (-0.5, 5.5)


def test_a_raster_of_soft_units_is_an_image(ax):
    values = np.random.default_rng(0).random((5, 3))
    plot.raster(values, ax=ax)
    np.testing.assert_array_equal(ax.images[0].get_array(), values.T)
    assert ax.figure.axes[1].get_ylabel() == "output"


def test_membranes_show_potentials_spikes_and_thresholds(ax):
    found = trace(1, 9, 4)
    plot.membranes(found, [0.1, 0.2, 0.3, 0.3], units=[1, 2, 3], ax=ax)
    lines = {line.get_label(): line for line in ax.lines}
    np.testing.assert_array_equal(lines["unit 2"].get_ydata(), found["membranes"][0, :, 2])
    dashes = {lines[f"unit {unit}"].get_linestyle() for unit in (1, 2, 3)}
    assert len(dashes) == 3
    marked = [line for line in ax.lines if line.get_marker() not in ("None", "", None)]
    assert [len(line.get_xdata()) for line in marked] == [*found["spikes"][0, :, 1:].sum(axis=0)]
    levels = [line.get_ydata()[0] for line in ax.lines if len(set(line.get_ydata())) == 1]
    assert {0.2, 0.3} <= set(levels)
    assert "membrane potential" in ax.get_ylabel()
    assert "threshold" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_without_units_the_busiest_are_shown(ax):
    found = trace(9, 5)
    found["spikes"][:, 4] = 1.0
    plot.membranes(found, ax=ax)
    assert ax.get_legend().get_texts()[0].get_text() == "unit 4"


def test_rates_have_a_point_for_each_unit_and_a_mean(ax):
    found = {"first": trace(2, 9, 4), "second": trace(2, 9, 3, 3, 5)}
    found["first"]["spikes"][..., 0] = 0.0
    plot.rates(found, ax=ax)
    each, mean = (ax.collections[place].get_offsets()[:, 0] for place in (2, 3))
    expected = found["second"]["spikes"].mean(axis=(0, 1, 2, 3))
    np.testing.assert_allclose(each, expected, rtol=1e-6)
    assert mean[0] == pytest.approx(expected.mean())
    assert [label.get_text() for label in ax.get_yticklabels()] == ["first", "second"]
    assert ax.get_xlabel() == "rate of a unit (spikes a step)"
    assert "1 of 4 silent" in ax.texts[0].get_text()


def test_conductances_count_all_devices_of_a_chip_and_a_map(ax, tmp_path):
    weights = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    chip = snukeras.pcm.Chip({"w": weights}, snukeras.pcm.IdealDevice(), seed=0)
    plot.conductances(chip, "w", ax=ax)
    assert sum(bar.get_height() for bar in ax.patches[:50]) == 24
    assert "uS" in ax.get_xlabel() and "devices" in ax.get_ylabel()
    assert "48 devices of w" in ax.get_title(loc="left")
    crossbar = written(tmp_path / "m", [matrix("a/kernel", weights)], load_target("pcm"))
    assert "48 devices of all" in plot.conductances(crossbar).get_title(loc="left")
    with pytest.raises(ValueError, match=r"one of \['w'\]. Received: 'v'"):
        plot.conductances(chip, "v")


def test_drift_shows_errors_and_the_metric(ax):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="out")])
    chip = snukeras.pcm.Chip(model, snukeras.pcm.IdealDevice(), seed=0)
    asked = []

    def metric(on_chip):
        asked.append(on_chip.count_params())
        return len(asked)

    plot.drift(chip, (25.0, 3600.0), metric, "loss (nats)", ax)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [0.0, 0.0], atol=1e-6)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["25 s", "1 h"]
    beside = ax.figure.axes[1]
    assert [*beside.lines[0].get_ydata()] == [1.0, 2.0] and asked == [8, 8]
    assert "loss (nats)" in beside.get_ylabel() and "error of the weights" in ax.get_ylabel()


def test_tiles_show_where_each_matrix_is(ax, tmp_path):
    target = load_target("pcm").replace(rows=8, columns=8)
    weights = [matrix("a/kernel", np.ones((10, 4))), matrix("b/kernel", np.ones((3, 2)))]
    plot.tiles(written(tmp_path / "m", weights, target), ax=ax)
    tiles = [patch for patch in ax.patches if not patch.get_fill()]
    parts = [patch for patch in ax.patches if patch.get_fill()]
    assert len(tiles) == 3 and {(p.get_width(), p.get_height()) for p in tiles} == {(8, 8)}
    assert [(p.get_height(), p.get_width()) for p in parts] == [(8, 8), (2, 8), (3, 4)]
    assert len({p.get_hatch() for p in parts}) == 2
    assert [text.get_text() for text in ax.get_xticklabels()] == ["0", "8", "0", "8"]
    assert ax.get_xlabel() == "bit line (8 a tile)"
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["a/kernel", "b/kernel"]


def test_connections_show_neurons_and_the_strongest_weights(ax):
    network = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(4, name="a"), keras.layers.Dense(5, name="b")]
    )
    model = Spatial(network, seed=0)
    plot.connections(model, share=0.25, ax=ax)
    lines, *neurons = ax.collections
    assert len(lines.get_segments()) == 5
    for points, places in zip(neurons, model.positions.values(), strict=True):
        np.testing.assert_allclose(points.get_offsets(), places, rtol=1e-6)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["a", "b"]
    assert "position" in ax.get_xlabel()
    with pytest.raises(ValueError, match="at least two dimensions"):
        plot.connections(Spatial(network, dimensions=1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plot.raster(np.zeros(3)), r"\(samples, time, units\).*Received: \(3,\)"),
        (lambda: plot.raster(np.zeros((2, 3, 4)), sample=2), "must be 0 to 1. Received: 2"),
        (lambda: plot.membranes(np.zeros((3, 4))), "what snukeras.trace gives of a layer"),
        (lambda: plot.raster({"a": {}, "b": {}}), "gives of a layer.*Received: a dict of 'a', 'b'"),
        (lambda: plot.membranes(trace(3, 4), units=[4]), "must hold 0 to 3. Received: 4"),
        (lambda: plot.rates({}), "what snukeras.trace returns"),
    ],
)
def test_what_cannot_be_drawn_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_without_ax_there_is_a_new_figure():
    before = pyplot.get_fignums()
    assert plot.raster(spikes(4, 3)).figure.number not in before


def test_without_matplotlib_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'snukeras\[plot\]'"):
        plot.raster(spikes(4, 3))


@pytest.mark.slow
def test_the_command_makes_the_pictures_of_the_page(tmp_path):
    docs = Path(snukeras.__file__).parents[1] / "docs"
    code = (docs / "examples" / "pictures.py").read_text("utf-8")
    code = code.replace(
        'DOCS / "pictures" / picture.name', f"Path({str(tmp_path)!r}, picture.name)"
    )
    code = code.replace("Path(__file__).resolve().parents[1]", f"Path({str(docs)!r})")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=docs.parent)
    made = {path.name for path in tmp_path.iterdir()}
    assert made == {path.name for path in (docs / "pictures").glob("plot_*.png")} and made
