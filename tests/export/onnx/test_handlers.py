"""A layer of another package is taught to the exporter as the guide says, and refused before."""

import re
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from networks import difference, sequences

from snukeras.export import export, load_map, verify_folder
from snukeras.export.errors import UnsupportedLayersError
from snukeras.export.network import Network
from snukeras.export.onnx import handlers, layers
from snukeras.export.onnx.build import to_onnx
from snukeras.export.onnx.handlers import CannotLowerError, handles
from snukeras.export.samples import Samples
from snukeras.export.verify.onnx import compare_onnx
from snukeras.layers import SNU
from snukeras.network import weights

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "export.md"


@keras.saving.register_keras_serializable(package="tests")
class Gain(keras.layers.Layer):
    """A product that tf2onnx cannot convert (erfinv, of zero, is in the way)."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 3), name="kernel")

    def call(self, x):
        return keras.ops.matmul(x, self.kernel) + keras.ops.erfinv(0.0 * x[..., :1])


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setattr(handlers, "_HANDLERS", dict(handlers._HANDLERS))
    monkeypatch.setattr(Gain, "tile_matrices", None, raising=False)
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((None, 6)),
            Gain(name="gain"),
            SNU(4, threshold=0.1, return_sequences=True, name="snu"),
        ]
    )


@pytest.mark.slow
def test_as_the_guide_says(model, tmp_path):
    with pytest.raises(UnsupportedLayersError, match=r"gain \(Gain: tf2onnx"):
        to_onnx(model)
    guide = Path(__file__).resolve().parents[3] / "docs" / "export.md"
    text = guide.read_text("utf-8")
    code = re.search(r"@handles\(Gain\).*?Gain.tile_matrices[^\n]*", text, re.DOTALL)[0]
    names = {"Gain": Gain}
    exec("from snukeras.export.onnx.handlers import Value, as_float, handles", names)
    exec(code, names)
    report = export(model, tmp_path / "out", streaming=True)
    assert report["verification"]["ok"] and verify_folder(tmp_path / "out")["ok"]
    assert load_map(tmp_path / "out" / "crossbar.snumap").matrices == ["gain/kernel", "snu/kernel"]
    assert np.asarray(model(sequences())).any()


def test_every_module_of_handlers_is_imported():
    """A handler in a module that nobody imports would not be found."""
    folder = Path(layers.__file__).parent
    assert {path.stem for path in folder.glob("*.py")} - {"__init__"} == {*layers.__all__}


def test_subclasses_keep_the_matrices_of_their_base(model):
    class Louder(Gain):
        pass

    Gain.tile_matrices = ("kernel",)
    layer = Louder(name="louder")
    layer.build((None, None, 6))
    (kept,) = weights.collect(keras.Sequential([keras.Input((None, 6)), layer]))
    assert kept.name == "louder/kernel" and kept.matrix


@keras.saving.register_keras_serializable(package="tests")
class Slow(SNU):
    """An SNU with another default."""

    def __init__(self, units, decay=0.95, **kwargs):
        super().__init__(units, decay=decay, **kwargs)


class Doubled(SNU):
    """An SNU that computes something else; tf2onnx has no form for its scan."""

    def call(self, sequences, initial_state=None, mask=None, training=None):
        return 2.0 * super().call(sequences, initial_state, mask, training)


def test_a_unit_with_other_defaults_has_the_form_of_its_base():
    keras.utils.set_random_seed(0)
    slow = Slow(4, threshold=0.1, return_sequences=True, name="slow")
    model = keras.Sequential([keras.Input((None, 6)), slow])
    network = Network.read(model)
    found = compare_onnx(
        network, to_onnx(model).SerializeToString(), Samples.random(network)
    ).result
    assert found.ok and found.units[0].name == "slow" and found.units[0].outputs > 0


def test_a_unit_with_a_call_of_its_own_needs_tf2onnx_or_a_form(monkeypatch):
    model = keras.Sequential([keras.Input((None, 6)), Doubled(4, name="twice")])
    assert difference(model, sequences())[0] < 1e-6
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(UnsupportedLayersError, match=r"twice .*SNU with methods .*handles"):
        to_onnx(model)


def test_a_handler_refuses_with_its_reason_or_leaves_the_call_to_tf2onnx(model):
    @handles(Gain)
    def refuse(context, call, layer, values):
        if not context.streaming:
            return None
        raise CannotLowerError("it is out of tune")

    with pytest.raises(UnsupportedLayersError, match="out of tune"):
        to_onnx(model, streaming=True)
    with pytest.raises(UnsupportedLayersError, match="tf2onnx cannot convert"):
        to_onnx(model)
