"""What the documentation says of other simulators runs, where they are installed."""

import keras
import numpy as np
import pytest

from snukeras.export import export, load_map
from snukeras.layers import SNU


def test_aihwkit_takes_the_weights_of_a_map(tmp_path):
    nn = pytest.importorskip("aihwkit.nn", reason="needs aihwkit")
    torch = pytest.importorskip("torch")
    configs = pytest.importorskip("aihwkit.simulator.configs")
    model = keras.Sequential([keras.Input((None, 5)), SNU(7, return_sequences=True, name="snu")])
    export(model, tmp_path / "exported", target="pcm")
    weights = load_map(tmp_path / "exported" / "crossbar.snumap").weights()["snu/kernel"]
    layer = nn.AnalogLinear(
        *weights.shape, bias=False, rpu_config=configs.TorchInferenceRPUConfig()
    )
    layer.set_weights(torch.from_numpy(weights.T.copy()))
    np.testing.assert_allclose(layer.get_weights()[0].numpy().T, weights)
