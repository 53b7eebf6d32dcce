"""Constructors name all their arguments, and refuse what they do not know."""

import inspect

import pytest

import snukeras.layers
from snukeras._arguments import LayerArguments
from snukeras.layers import SNU, SSNU, ConvSNU1D, ConvSNU2D, ConvSSNU1D, ConvSSNU2D

CLASSES = [getattr(snukeras.layers, name) for name in snukeras.layers.__all__]
OF_KERAS = {*LayerArguments.__annotations__}


def example(cls):
    """Return an instance of a class of layers."""
    given = {
        "units": 2,
        "filters": 2,
        "kernel_size": 1,
        "rank": 1,
        "steps": 3,
        "input_dim": 4,
        "output_dim": 2,
        "levels": [1.0, 2.0],
        "coupling": snukeras.layers.Uncoupled(),
    }
    parameters = inspect.signature(cls).parameters
    return cls(**{name: value for name, value in given.items() if name in parameters})


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if cls is not snukeras.layers.Spatial])
def test_a_signature_names_every_argument_of_the_config(cls):
    config = {*example(cls).get_config()}
    parameters = {*inspect.signature(cls).parameters}
    assert config - parameters - OF_KERAS == set()


@pytest.mark.parametrize("cls", [SNU, SSNU, ConvSNU1D, ConvSNU2D, ConvSSNU1D, ConvSSNU2D])
def test_a_signature_is_that_of_the_cell_and_of_the_layer(cls):
    layer = example(cls)
    of_cell = inspect.signature(type(layer.cell)).parameters
    parameters = inspect.signature(cls).parameters
    for name in {*of_cell} - {"rank", "kwargs"}:
        assert parameters[name].default == of_cell[name].default, name
    for name in ("return_sequences", "stateful", "implementation"):
        assert name in parameters


@pytest.mark.parametrize(
    "cls, arguments, words",
    [
        (SNU, {"treshold": 1.0}, ["SNU", "`treshold`", "`threshold`", "1.0"]),
        (SSNU, {"pseudo_derivative": "tanh"}, ["SSNU", "sigmoid", "SNU"]),
        (ConvSNU2D, {"nonsense": 3}, ["ConvSNU2D", "`nonsense`", "padding", "nonsense=3"]),
        (ConvSSNU1D, {"convolution": {}}, ["ConvSSNU1D", "`convolution`"]),
    ],
)
def test_an_unknown_argument_is_named(cls, arguments, words):
    with pytest.raises(TypeError) as raised:
        cls(2, **({} if cls in (SNU, SSNU) else {"kernel_size": 1}), **arguments)
    for word in words:
        assert word in str(raised.value)


def test_the_arguments_of_every_keras_layer_pass():
    layer = ConvSSNU2D(2, 3, name="unit", dtype="float64", trainable=False)
    assert (layer.name, layer.dtype, layer.trainable) == ("unit", "float64", False)
    assert layer.cell.dtype == "float64" and not layer.cell.trainable
