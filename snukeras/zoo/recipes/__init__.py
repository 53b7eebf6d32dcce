"""Recipes: what a model is and how it is trained, as JSON data.

`read` checks a recipe; `network`, `optimizer`, `noise` and `tiles` make the Keras objects that it
describes; `on_chips` measures what is on tiles.
zoo/README.md explains every key.
"""

from snukeras.zoo.recipes.analog import calibrate, on_chips, tiles
from snukeras.zoo.recipes.networks import network
from snukeras.zoo.recipes.optimizers import noise, optimizer
from snukeras.zoo.recipes.recipe import FORMAT, Recipe, check, read

__all__ = [
    "FORMAT",
    "Recipe",
    "calibrate",
    "check",
    "network",
    "noise",
    "on_chips",
    "optimizer",
    "read",
    "tiles",
]
