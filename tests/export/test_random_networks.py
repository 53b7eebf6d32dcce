"""Random networks: ONNX Runtime equals Keras, and the map rebuilds the weights.

The default run is small; `pytest -m slow` tries 100 networks.
"""

import keras
import numpy as np
import pytest
from maps import written
from networks import compared

from snukeras.export.crossbar.targets import Target
from snukeras.export.samples import Samples
from snukeras.export.verify.weights import compare_map
from snukeras.layers import SNU, SSNU
from snukeras.network.weights import collect

ACTIVATIONS = ["relu", "linear", "leaky_relu", "tanh", "sigmoid", "elu", "softplus", "silu", "gelu"]


def random_network(r):
    """A stack of SNU and SSNU layers with Dense layers and masks between them."""
    features = int(r.integers(1, 20))
    inputs = keras.Input((None, features))
    x = keras.layers.Masking()(inputs) if r.random() < 0.4 else inputs
    depth = int(r.integers(1, 4))
    for level in range(depth):
        units = int(r.integers(1, 24))
        cls = SNU if r.random() < 0.6 else SSNU
        both = level < depth - 1 and r.random() < 0.2
        normal = keras.initializers.RandomNormal
        recurrent, use_bias = (bool(r.integers(2)) for _ in range(2))
        initializers = {"kernel": normal(0, 1 / np.sqrt(features), seed=int(r.integers(2**31)))}
        if recurrent:
            initializers["recurrent"] = normal(0, 0.5 / units**0.5, seed=int(r.integers(2**31)))
        if use_bias:
            initializers["bias"] = normal(0, 0.3, seed=int(r.integers(2**31)))
        layer = cls(
            units,
            state_activation=str(r.choice(ACTIVATIONS)),
            decay=r.random(units) if r.random() < 0.5 else float(r.random()),
            threshold=r.normal(0.4, 0.4, units),
            trainable_threshold=bool(r.integers(2)),
            recurrent=recurrent,
            lateral_inhibition=bool(r.random() < 0.3),
            use_bias=use_bias,
            **{f"{weight}_initializer": draw for weight, draw in initializers.items()},
            return_sequences=level < depth - 1 or bool(r.integers(2)),
            go_backwards=bool(r.random() < 0.2) and not both,
            zero_output_for_mask=bool(r.integers(2)),
            implementation="cell",
        )
        x = keras.layers.Bidirectional(layer)(x) if both else layer(x)
        if r.random() < 0.3:
            x = keras.layers.Dense(int(r.integers(1, 16)), activation="tanh")(x)
    return keras.Model(inputs, keras.layers.Dense(3, activation="sigmoid")(x)), features


def check(seed, folder):
    r = np.random.default_rng(seed)
    model, features = random_network(r)
    batches = []
    for _ in range(2):
        shape = (int(r.integers(1, 6)), int(r.integers(1, 25)), features)
        x = r.normal(size=shape).astype("float32")
        x[r.random(shape[:2]) < 0.2] = 0.0
        batches.append([x])
    found = compared(model, Samples("random", batches))
    assert found["ok"], (seed, found)
    target = Target(
        "t",
        "t",
        int(r.integers(1, 40)),
        int(r.integers(2, 40)),
        str(r.choice(["device", "pair"])),
        int(r.integers(1, 3)),
        levels=[None, 5, 64][r.integers(3)],
    )
    scale = str(r.choice(["tensor", "column"]))
    weights = collect(model)
    crossbar = written(folder / "m", weights, target, scale=scale, pack=bool(r.integers(2)))
    mapped = compare_map(weights, crossbar)
    assert mapped.ok, (seed, mapped)
    return found


@pytest.mark.some_cases(2)
@pytest.mark.parametrize("seed", range(8))
def test_networks(seed, tmp_path):
    check(seed, tmp_path)


@pytest.mark.slow
def test_a_hundred_networks(tmp_path):
    flips = outputs = 0
    for seed in range(100):
        keras.utils.clear_session()
        found = check(10_000 + seed, tmp_path)
        for unit in found["units"]:
            flips += unit["flips"]
            outputs += unit["outputs"] if unit["spiking"] else 0
    print(f"{flips} of {outputs} spikes differ, all within rounding of the threshold")
