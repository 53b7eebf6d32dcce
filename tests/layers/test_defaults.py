"""What units are when nothing is said: defaults that learn, beside the paper's."""

import json

import keras
import numpy as np
import pytest

import snukeras
from snukeras.activations import Arctan, TanhDerivative
from snukeras.initializers import FluctuationDriven
from snukeras.layers import PAPER, SNU, SSNU, ConvSNU2D, SNUCell
from snukeras.zoo import presets, recipes


def spikes(shape, rate):
    return (np.random.default_rng(0).random(shape) < rate).astype("float32")


@pytest.mark.some_cases(1)
@pytest.mark.parametrize("rate", [0.04, 0.15, 0.4])
@pytest.mark.parametrize("features", [40, 700])
def test_no_layer_of_a_deep_stack_is_silent_and_gradients_reach_the_first(rate, features):
    keras.utils.set_random_seed(1)
    hidden = [SNU(100, return_sequences=True) for _ in range(8)]
    model = keras.Sequential([keras.Input((20, features)), *hidden, keras.layers.Dense(1)])
    x = spikes((16, 20, features), rate)
    for values in snukeras.trace(model, x).values():
        rates = values["spikes"].mean(axis=(0, 1))
        assert 0.05 < rates.mean() < 0.45
        assert (rates == 0).mean() < 0.4
    model.compile(keras.optimizers.SGD(1.0), "mse")
    before = [layer.get_weights() for layer in hidden]
    model.fit(x, np.ones((16, 20, 1)), batch_size=16, verbose=0)
    for layer, old in zip(hidden, before, strict=True):
        assert all(np.any(a != b) for a, b in zip(old, layer.get_weights(), strict=True))


@pytest.mark.parametrize("layer, maps", [
    (lambda **given: SNU(200, recurrent=True, **given), ()),
    (lambda **given: ConvSNU2D(24, 3, padding="same", recurrent=True, **given), (6, 6)),
], ids=["SNU", "ConvSNU2D"])  # fmt: skip
def test_recurrent_weights_add_a_quarter_of_the_variance(layer, maps):
    keras.utils.set_random_seed(1)
    made = layer()
    made.build((None, 5, *maps, made.cell.units))  # as many inputs as the layer has units
    kernel, recurrent = (np.std(made.cell.kernel), np.std(made.cell.recurrent_kernel))
    assert recurrent == pytest.approx(0.5 * kernel, rel=0.05)
    again = type(made).from_config(json.loads(json.dumps(made.get_config())))
    assert again.cell.recurrent_initializer.get_config()["share"] == 0.25
    paper = layer(**PAPER).cell.recurrent_initializer
    assert isinstance(paper, keras.initializers.GlorotUniform)


def test_without_recurrence_initializers_of_it_are_of_no_use():
    for allowed in ("fluctuation_driven", "glorot_uniform"):
        SNU(3, recurrent_initializer=allowed)
    with pytest.raises(ValueError, match="recurrent_initializer` must keep its default"):
        SNU(3, recurrent_initializer="orthogonal")


def test_the_paper_silences_the_same_stack():
    keras.utils.set_random_seed(1)
    hidden = [SNU(100, return_sequences=True, **PAPER) for _ in range(4)]
    model = keras.Sequential([keras.Input((20, 40)), *hidden])
    traced = snukeras.trace(model, spikes((16, 20, 40), 0.04))
    assert list(traced.values())[-1]["spikes"].sum() == 0


def test_the_settings_of_the_paper_are_those_of_its_units():
    layer = SNU(3, **PAPER)
    config = layer.get_config()
    assert (config["state_activation"], config["decay"], config["threshold"]) == ("relu", 0.8, 1.0)
    assert layer.pseudo_derivative == TanhDerivative(1.0)
    assert isinstance(layer.kernel_initializer, keras.initializers.GlorotUniform)
    soft = SSNU(3).get_config()
    assert {key: soft[key] for key in ("state_activation", "decay", "threshold")} == {
        key: PAPER[key] for key in ("state_activation", "decay", "threshold")
    }
    assert isinstance(SSNU(3).kernel_initializer, keras.initializers.GlorotUniform)


def test_pseudo_derivative_and_kernel_follow_the_arguments_of_the_unit():
    layer = SNU(2, decay=[0.2, 0.9], threshold=[0.4, 0.8], state_activation="relu")
    assert layer.pseudo_derivative == Arctan(2.0)
    assert layer.kernel_initializer.get_config() == {
        **FluctuationDriven(decay=[0.2, 0.9], threshold=[0.4, 0.8]).get_config(),
        "rectified": True,
    }
    # Units that spike without input, or have drawn thresholds, start like others.
    assert SNU(2, threshold=[-1.0, 0.5]).kernel_initializer.threshold == [1.0, 0.5]
    drawn = SNU(2, threshold_initializer=keras.initializers.RandomUniform(0.5, 1.0))
    assert drawn.kernel_initializer.threshold == 1.0


@pytest.mark.parametrize("layer", [SNU(4), ConvSNU2D(4, 3), SNUCell(4)], ids=lambda x: x.name)
def test_a_config_says_all_of_the_defaults(layer):
    config = json.loads(json.dumps(layer.get_config()))
    again = type(layer).from_config(config)
    assert again.get_config() == layer.get_config()
    assert config["kernel_initializer"]["class_name"] == "FluctuationDriven"
    assert config["pseudo_derivative"]["config"] == {"slope": 6.0}


@pytest.mark.some_cases(6)
@pytest.mark.parametrize("name", sorted(set(presets.list()) & set(presets.recipes())))
def test_a_recipe_still_means_the_network_that_ships(name):
    """Recipes leave out what was the default when they were written, and is the paper's."""
    built = recipes.network(recipes.read(name), seed=0)
    shipped = snukeras.zoo.load(name)
    for new, old in zip(built.layers, shipped.layers, strict=True):
        for key in PAPER:
            if key == "decay" and isinstance(old.get_config().get(key), list):
                continue  # drawn by the seed
            if key == "kernel_initializer" and key in old.get_config():
                one, other = getattr(new, key), getattr(old, key)
                assert type(one) is type(other)
                assert one.get_config() | {"seed": 0} == other.get_config() | {"seed": 0}
            else:
                assert new.get_config().get(key) == old.get_config().get(key), (old.name, key)
