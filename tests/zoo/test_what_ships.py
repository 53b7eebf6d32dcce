"""What the zoo ships is what its recipes, cards and documents say."""

import numpy as np
import pytest

from snukeras.constraints import PCMConstraint
from snukeras.network.matrices import chip_variables
from snukeras.pcm import AnalogNetwork
from snukeras.zoo import presets, recipes
from snukeras.zoo.tasks import TASKS

NAMES = presets.list()
WITH_LEVELS = [name for name in NAMES if (recipes.read(name).constraint or {}).get("levels")]
ON_TILES = [name for name in NAMES if recipes.read(name).analog]


def test_there_are_presets_with_levels():
    assert {"jsb_snu_pcm", "mnist_snu_pcm", "mnist_ssnu_pcm"} <= set(WITH_LEVELS)


@pytest.mark.parametrize("name", WITH_LEVELS)
def test_weights_are_on_their_grid(name):
    entry = recipes.read(name).constraint
    kernels = chip_variables(presets.load(name))
    assert kernels
    for path, kernel in kernels.items():
        assert isinstance(kernel.constraint, PCMConstraint), path
        values = np.asarray(kernel)
        levels, largest = entry["levels"], entry["w_max"]
        assert np.abs(values).max() <= largest, path
        steps = values * ((levels - 1) / largest)
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-4, err_msg=path)
        assert len(np.unique(np.round(steps))) <= 2 * levels - 1, path


@pytest.mark.parametrize("name", ON_TILES)
def test_presets_for_chips_are_the_plain_network_of_the_seed_that_chips_chose(name):
    preset = presets.info(name)
    seeds = preset["results"]["seeds"]
    pick = min if preset["results"]["lower_is_better"] else max
    chosen = pick(seeds, key=lambda seed: seed["valid_on_chips"])
    assert preset["seed"] == chosen["seed"] and preset["valid"] == chosen["valid"]
    model, constraint = presets.load(name), recipes.read(name).constraint
    assert not isinstance(model, AnalogNetwork)
    if constraint is not None:
        for path, kernel in chip_variables(model).items():
            assert np.abs(np.asarray(kernel)).max() <= constraint["w_max"], path


@pytest.mark.some_cases(8)
@pytest.mark.parametrize("name", NAMES)
def test_every_entry_of_a_recipe_is_used(name):
    recipe = recipes.read(name)
    TASKS[recipe.task].check(recipe)
    recipes.network(recipe, seed=0)


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("_pcm")])
def test_figures_on_chips_are_of_the_weights_that_ship(name):
    preset = presets.info(name)
    found = preset["results"].get("chips")
    if found is not None:
        assert found["weights_sha256"] == preset["files"][presets.WEIGHTS]["sha256"]
