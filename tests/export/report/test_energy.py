"""Energy and latency of a step, by hand."""

import keras
import pytest
from maps import mapped

from snukeras._units import (
    energy_text,
    latency_text,
    range_text,
    size_text,
    time_text,
)
from snukeras.export.network import Network
from snukeras.export.report.energy import energy
from snukeras.layers import SNU


def test_a_convolution_pays_for_each_position(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(4, 5, name="conv"),
            keras.layers.Flatten(),
            keras.layers.Dense(10, name="out"),
        ]
    )
    crossbar = mapped(tmp_path / "m", model, "pcm14nm-2")
    found = energy(crossbar, Network.read(model).uses)
    places, conv, out = 24 * 24, 25 * 4, 24 * 24 * 4 * 10
    one = found.cases[0]
    weights = crossbar.target.weights_per_tile
    assert one.low_nJ == pytest.approx((places * conv + out) * 13.4 / weights, rel=1e-5)
    # The dense matrix is cut over nine tiles.
    assert one.high_nJ == pytest.approx((places + 9) * 13.4, rel=1e-5)
    assert one.latency_ns == (places + 1) * 133
    assert [layer.call for layer in found.layers] == ["conv", "out"]
    assert found.layers[0].products == places
    assert any("conv/kernel is used 576 times" in text for text in found.assumptions)
    # A layer's part adds up to the whole.
    assert sum(layer.high_nJ for layer in found.layers) == pytest.approx(found.high_nJ, rel=1e-5)


def test_the_matrices_of_a_call_work_at_the_same_time(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((None, 6)),
            SNU(4, recurrent=True, return_sequences=True, name="snu"),
            keras.layers.Dense(3, name="out"),
        ]
    )
    found = energy(mapped(tmp_path / "m", model, "pcm14nm-2"), Network.read(model).uses)
    assert [layer.products for layer in found.layers] == [2, 1]
    assert found.cases[0].latency_ns == 2 * 133
    assert [layer.latency_ns[0] for layer in found.layers] == [133, 133]


def test_units_that_read_well():
    assert energy_text(0.0213) == "21.3 pJ" and energy_text(5.4) == "5.4 nJ"
    assert energy_text(11_500) == "11.5 uJ" and energy_text(2.2e7) == "22 mJ"
    assert latency_text(266) == "266 ns" and latency_text(1042) == "1.04 us"
    assert latency_text(3.3e9) == "3.3 s" and latency_text(999.9) == "1 us"
    assert range_text("5.4 nJ", "106 nJ") == "5.4 to 106 nJ"
    assert range_text("5.4 nJ", "1 uJ") == "5.4 nJ to 1 uJ" and range_text("1 s", "1 s") == "1 s"
    assert size_text(12) == "12 B" and size_text(3 * 2**20) == "3.0 MiB"
    assert [time_text(t) for t in (0, 25, 90, 7200, 86400, 172800, 31536000)] == [
        "0 s", "25 s", "1.5 min", "2 h", "1 day", "2 days", "1 year"
    ]  # fmt: skip
