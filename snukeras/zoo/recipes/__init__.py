"""Recipes: what a model is and how it is trained, as JSON data.

`read` checks a recipe; `network`, `optimizer` and `noise` make the Keras objects that it describes.
zoo/README.md explains every key.
"""

from snukeras.zoo.recipes.networks import network
from snukeras.zoo.recipes.optimizers import noise, optimizer
from snukeras.zoo.recipes.recipe import FORMAT, Recipe, check, read

__all__ = ["FORMAT", "Recipe", "check", "network", "noise", "optimizer", "read"]
