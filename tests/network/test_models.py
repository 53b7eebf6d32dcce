"""Copies of models: through their config, or refused with what is missing."""

import keras
import numpy as np
import pytest

from snukeras.layers import SNU
from snukeras.network.models import copy_model


class Rebuilt(keras.Model):
    """A subclass as Keras saves and loads it."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.units = units
        self.hidden = SNU(units, return_sequences=True)

    def call(self, x):
        return self.hidden(x)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class NothingTaken(Rebuilt):
    def __init__(self):
        super().__init__(5)


class UnitsForgotten(Rebuilt):
    def get_config(self):
        return keras.Model.get_config(self)


def test_a_copy_of_a_subclass_computes_the_same():
    x = np.random.default_rng(0).random((4, 6, 3)).astype("float32")
    model = Rebuilt(5)
    expected = model(x)
    copy = copy_model(model)
    assert copy is not model
    np.testing.assert_array_equal(copy(x), expected)


@pytest.mark.parametrize("model", [NothingTaken, lambda: UnitsForgotten(5)])
def test_a_subclass_that_cannot_be_rebuilt_is_told_what_it_lacks(model):
    made = model()
    made(np.zeros((1, 6, 3), "float32"))
    with pytest.raises(ValueError, match=r"\*\*options.*`get_config` return its other arguments"):
        copy_model(made)


class OfTwoInputs(Rebuilt):
    """A subclass that Keras does not build without a call."""

    def call(self, x, y):
        return self.hidden(x + y)


def test_a_subclass_that_its_config_does_not_build_is_told_so():
    x = np.zeros((1, 6, 3), "float32")
    made = OfTwoInputs(5)
    made(x, x)
    with pytest.raises(ValueError, match="give it a `build` method that does, or an Input"):
        copy_model(made)
