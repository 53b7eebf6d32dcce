"""The proof of an ONNX file finds what is wrong, and explains what is not."""

import dataclasses

import keras
import pytest
from networks import compared, holes, sequences

from snukeras.export.onnx.build import to_onnx
from snukeras.export.onnx.layers import snu_scan
from snukeras.export.samples import Samples
from snukeras.layers import SNU, SSNU


def network(cls=SNU, **options):
    inputs = keras.Input((None, 6))
    options = {"threshold": 0.1, "recurrent": True, "return_sequences": True, **options}
    x = cls(8, name="unit", **options)(keras.layers.Masking()(inputs))
    return keras.Model(inputs, keras.layers.Dense(3, activation="sigmoid", name="out")(x))


def samples():
    return Samples("test", [[sequences()], [holes(sequences(seed=4))]])


def test_a_good_export_holds():
    model = network()
    found = compared(model, samples())
    assert found["ok"] and found["outputs"]["out"]["max_difference"] < 1e-6
    (unit,) = found["units"]
    assert unit["name"] == "unit" and unit["outputs"] == 2 * 3 * 13 * 8
    assert unit["flips"] == unit["contradictions"] == 0


def test_every_kind_of_layer_is_traced():
    inputs = keras.Input((None, 6))
    unit = SNU(4, return_sequences=True, threshold=0.1, name="unit")
    x = keras.layers.Bidirectional(unit, name="both")(inputs)
    x = SSNU(5, go_backwards=True, return_sequences=True, name="back")(x)
    y, s = keras.Input((3,)), keras.Input((3,))
    x = SNU(3, threshold=0.1, name="last")(x, initial_state=[y, s])
    model = keras.Model([inputs, y, s], x)
    found = compared(model, Samples.random(model, 1))
    names = [unit["name"] for unit in found["units"]]
    assert names == ["both/forward_unit", "both/backward_unit", "back", "last"]
    assert found["ok"], found
    for unit in found["units"]:
        assert unit["max_potential_difference"] < 1e-5


@pytest.mark.parametrize("cls", [SNU, SSNU])
def test_a_wrong_lowering_is_found(monkeypatch, cls):
    model = network(cls)
    honest = snu_scan.Unit.of.__func__

    def wrong(kind, cell, name):
        unit = honest(kind, cell, name)
        return dataclasses.replace(unit, decay=unit.decay * 0.9)

    monkeypatch.setattr(snu_scan.Unit, "of", classmethod(wrong))
    found = compared(model, samples())
    assert not found["ok"]
    (unit,) = found["units"]
    assert not unit["ok"] and unit["max_potential_difference"] > 1e-3
    assert cls is SNU or unit["max_difference"] > 1e-3


def test_wrong_decisions_are_found(monkeypatch):
    model = network()
    honest = snu_scan.Unit.of.__func__

    def wrong(kind, cell, name):
        unit = honest(kind, cell, name)
        return dataclasses.replace(unit, threshold=unit.threshold + 0.1)

    monkeypatch.setattr(snu_scan.Unit, "of", classmethod(wrong))
    found = compared(model, samples())
    (unit,) = found["units"]
    assert unit["flips"] > 0 and unit["contradictions"] > 0 and not found["ok"]


def test_another_models_file_is_found():
    model, other = network(SSNU), network(SSNU)
    found = compared(model, samples(), to_onnx(other))
    assert not found["ok"] and not found["outputs"]["out"]["ok"]
