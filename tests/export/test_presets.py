"""Every preset of the zoo exports: ONNX equals Keras on its golden input, the map holds it."""

import keras
import pytest
from maps import written
from networks import compared

import snukeras
from snukeras.export.samples import Samples
from snukeras.export.verify.weights import compare_map
from snukeras.network.weights import collect
from snukeras.zoo import presets

# These are checked at every run; the others take longer.
QUICK = {"jsb_snu", "jsb_snu_pcm", "jsb_lstm", "mnist_snu", "nottingham_ssnu"}


@pytest.mark.some_cases(2)
@pytest.mark.parametrize(
    "name",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in snukeras.zoo.list()
    ],
)
def test_it_exports(name, tmp_path):
    model = presets.load(name)
    given, _ = presets.golden(name)
    given = given.astype(keras.backend.standardize_dtype(model.inputs[0].dtype))
    found = compared(model, Samples("golden", [[given]]))
    assert found.ok, found
    weights = collect(model)
    assert compare_map(weights, written(tmp_path / "m", weights)).ok
