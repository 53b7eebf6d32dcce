"""Maps in other simulators: CrossSim and aihwkit where they are installed."""

import dataclasses
import sys
import types
from typing import Any

import numpy as np
import pytest
from maps import matrix, written

import snukeras
from snukeras.export.crossbar.targets import load_target
from snukeras.export.errors import BadInputError


@pytest.fixture(scope="module")
def crossbar(tmp_path_factory):
    kernel = np.random.default_rng(0).normal(size=(12, 7)).astype("float32")
    target = load_target("pcm").replace(rows=8, columns=10, g_min=1.0, g_max=20.0)
    weights = [matrix("snu/kernel", kernel)]
    return written(tmp_path_factory.mktemp("bridges") / "m.snumap", weights, target)


def test_crosssim_holds_the_conductances_of_the_map(crossbar):
    simulator = pytest.importorskip("simulator", reason="CrossSim is not installed")
    if not hasattr(simulator, "AnalogCore"):
        pytest.skip("CrossSim is not installed")
    (found,) = snukeras.export.to_crosssim(crossbar).values()
    weights = crossbar.weights()["snu/kernel"]
    x = np.random.default_rng(1).normal(size=12).astype("float32")
    np.testing.assert_allclose(found.scale * (found.analog @ x), weights.T @ x, atol=1e-5)
    plus, minus = crossbar.conductances("snu/kernel")
    core = found.analog.cores[0][0]
    rows, columns = core.core_pos.matrix.shape
    for part, g in ((core.core_pos, plus), (core.core_neg, minus)):
        np.testing.assert_allclose(20.0 * part.matrix, g.T[:rows, :columns], rtol=1e-5)
    params = simulator.CrossSimParameters()
    params.xbar.device.read_noise.enable = True
    params.xbar.device.read_noise.model = "NormalProportionalDevice"
    params.xbar.device.read_noise.magnitude = 0.1
    (noisy,) = snukeras.export.to_crosssim(crossbar, params).values()
    off = np.abs(noisy.scale * (noisy.analog @ x) - weights.T @ x)
    assert 1e-4 < off.max() < 2 and params.core.rows_max == 0  # the given ones stay as they are


class Linear:
    """What aihwkit 1.2 documents of AnalogLinear, without devices."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True,
                 rpu_config: Any = None, tile_module_class: Any = None) -> None:  # fmt: skip
        self.shape, self.bias, self.config = (out_features, in_features), bias, rpu_config

    def set_weights(self, weight: np.ndarray, bias: Any = None) -> None:
        assert weight.shape == self.shape and weight.flags.c_contiguous
        self.weight = weight

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return x @ self.weight.T


@dataclasses.dataclass
class Mapping:
    weight_scaling_omega: float = 0.5
    max_input_size: int = 512
    max_output_size: int = 512


@dataclasses.dataclass
class Config:
    noise_model: Any = None
    mapping: Mapping = dataclasses.field(default_factory=Mapping)


def test_aihwkit_gets_the_differences_and_the_range(crossbar, monkeypatch):
    def module(name, **names):
        found = types.ModuleType(name)
        found.__dict__.update(names)
        monkeypatch.setitem(sys.modules, name, found)

    def pair(g_max=None, g_min=None):
        return g_max, g_min

    def noise(g_converter=None):
        return g_converter

    module("torch", from_numpy=lambda array: array)
    for name in ("aihwkit", "aihwkit.simulator"):
        module(name)
    module("aihwkit.nn", AnalogLinear=Linear)
    module("aihwkit.inference", SinglePairConductanceConverter=pair, PCMLikeNoiseModel=noise)
    module("aihwkit.simulator.configs", TorchInferenceRPUConfig=Config)
    (found,) = snukeras.export.to_aihwkit(crossbar).values()
    x = np.random.default_rng(1).normal(size=(3, 12)).astype("float32")
    weights = crossbar.weights()["snu/kernel"]
    np.testing.assert_allclose(found.analog(x) * found.scale, x @ weights, atol=1e-5)
    assert np.abs(found.analog.weight).max() == 1.0 and not found.analog.bias
    assert found.analog.config.noise_model == (20.0, 1.0)
    assert found.analog.config.mapping == Mapping(0.0, 8, 5)
    own = Config("mine")
    (found,) = snukeras.export.to_aihwkit(crossbar, own).values()
    assert found.analog.config.noise_model == "mine" and own.mapping.weight_scaling_omega == 0.5


def test_aihwkit_computes_the_products_of_the_map(crossbar):
    """The real package: PCM without noise of converters, then programmed and a day old."""
    pytest.importorskip("aihwkit.nn", reason="aihwkit is not installed")
    import torch
    from aihwkit.simulator.configs import TorchInferenceRPUConfig

    weights = crossbar.weights()["snu/kernel"]
    x = np.random.default_rng(1).normal(size=(3, 12)).astype("float32")

    def product(found):
        with torch.no_grad():
            return found.analog(torch.from_numpy(x)).numpy() * found.scale

    exact = TorchInferenceRPUConfig()
    exact.forward.is_perfect = True
    (found,) = snukeras.export.to_aihwkit(crossbar, exact).values()
    np.testing.assert_allclose(product(found), x @ weights, atol=1e-5)
    (found,) = snukeras.export.to_aihwkit(crossbar).values()
    tiles = list(found.analog.analog_tiles())
    assert len(tiles) == 4  # 12 inputs on tiles of 8 rows, 7 outputs on tiles of 5 pairs
    found.analog.eval()
    fresh = np.abs(product(found) - x @ weights).max()
    found.analog.program_analog_weights()
    found.analog.drift_analog_weights(86_400.0)
    old = np.abs(product(found) - x @ weights).max()
    size = np.abs(x @ weights).max()
    assert fresh < 0.25 * size and 0.0 < old < size, (fresh, old, size)


def test_a_network_of_aihwkit_layers_is_the_network(tmp_path):
    """The outputs of two Dense layers, their products in aihwkit, are those of Keras."""
    pytest.importorskip("aihwkit.nn", reason="aihwkit is not installed")
    import keras
    import torch
    from aihwkit.simulator.configs import TorchInferenceRPUConfig

    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(9, "relu", name="a"),
            keras.layers.Dense(4, name="b"),
        ]
    )
    snukeras.export.export(model, tmp_path / "out", target="pcm")
    mapped = snukeras.export.load_map(tmp_path / "out" / "crossbar.snumap")
    exact = TorchInferenceRPUConfig()
    exact.forward.is_perfect = True
    layers = snukeras.export.to_aihwkit(mapped, exact)
    x = np.random.default_rng(0).normal(size=(5, 6)).astype("float32")
    with torch.no_grad():
        y = torch.from_numpy(x)
        for name in ("a", "b"):
            found = layers[f"{name}/kernel"]
            y = found.analog(y) * torch.from_numpy(found.scale)
            y = y + torch.from_numpy(np.asarray(model.get_layer(name).bias))
            y = torch.relu(y) if name == "a" else y
    np.testing.assert_allclose(y.numpy(), model.predict(x, verbose=0), atol=1e-5)


@pytest.mark.parametrize("name, module", [("to_aihwkit", "torch"), ("to_crosssim", "simulator")])
def test_a_missing_package_is_named(crossbar, monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BadInputError, match=f"{name} needs") as caught:
        getattr(snukeras.export, name)(crossbar)
    assert "nstall" in caught.value.hint
