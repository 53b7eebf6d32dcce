"""Sort a model's weights: matrices that go onto tiles, and parameters that stay digital."""

import dataclasses
import hashlib
from collections.abc import Iterator

import keras
import numpy as np

from snukeras.network.errors import BadInputError
from snukeras.network.matrices import parameters, roles


def rebuilt_model(model: keras.Model, weights: dict[str, np.ndarray]) -> keras.Model:
    """A copy of the model with the weights of a map."""
    twin = keras.models.clone_model(model)
    if not twin.built:
        twin.build(model.input_shape)
    twin.set_weights(model.get_weights())
    assign(twin, weights)
    return twin


@dataclasses.dataclass(frozen=True)
class Weight:
    """One array of weights of a model.

    Attributes:
        name: layer names and role, joined by "/": "snu/kernel".
        layer: name of the layer, "snu".
        role: "kernel", "recurrent_kernel", "bias", "threshold", "decay", ...
        values: float32 array.
        matrix: True if it goes onto tiles, with the last axis as columns and the others unrolled
            into rows; False if it stays digital.
        variable: the Keras variable, or None for a constant of the configuration.
    """

    name: str
    layer: str
    role: str
    values: np.ndarray
    matrix: bool
    variable: keras.Variable | None = None


def collect(model: keras.Model, embedding: bool = False) -> list[Weight]:
    """All weights of a model, in the order of its layers.

    Matrices are the kernels of Dense and of convolutions (not depthwise or transposed ones), the
    kernels and recurrent kernels of SNU, SSNU, LSTM, GRU and SimpleRNN, and on request Embedding
    tables. Everything else is digital.

    Raises:
        BadInputError: a weight is NaN or infinite.
    """
    found: list[Weight] = []
    seen: set[int] = set()
    names: set[str] = set()
    for layer_name, layer in _leaves(model, ""):
        for role, values, matrix, variable in _own(layer, embedding):
            if variable is not None and id(variable) in seen:
                continue
            if variable is not None:
                seen.add(id(variable))
            name = f"{layer_name}/{role}"
            count = 1
            while name in names:
                count += 1
                name = f"{layer_name}/{role}_{count}"
            names.add(name)
            values = np.asarray(values, dtype="float32")
            if not np.all(np.isfinite(values)):
                raise BadInputError(
                    f"{name} holds weights that are NaN or infinite.",
                    "Look for a training run that diverged.",
                )
            found.append(Weight(name, layer_name, role, values, matrix, variable))
    return found


def assign(model: keras.Model, values: dict[str, np.ndarray]) -> None:
    """Writes arrays, named as `collect` names them, into the variables of a model."""
    for weight in collect(model):
        if weight.variable is not None and weight.name in values:
            weight.variable.assign(values[weight.name])


def digest(weights: list[Weight]) -> str:
    """sha256 over the names, shapes and values of all weights.

    Unlike the hash of a .keras file it is the same for every save of the same network.
    """
    total = hashlib.sha256()
    for weight in weights:
        values = np.ascontiguousarray(weight.values, dtype="<f4")
        total.update(f"{weight.name} {values.shape}\n".encode())
        total.update(values.tobytes())
    return total.hexdigest()


def _leaves(layer, name) -> Iterator[tuple[str, keras.layers.Layer]]:
    """Layers without layers inside, each with its path of names; inner ones first."""

    def under(child):
        return f"{name}/{child.name}" if name else child.name

    if isinstance(layer, keras.Model):
        for child in layer.layers:
            yield from _leaves(child, under(child))
    elif isinstance(layer, keras.layers.Bidirectional):
        for child in (layer.forward_layer, layer.backward_layer):
            yield from _leaves(child, under(child))
    elif isinstance(layer, keras.layers.Wrapper):
        yield from _leaves(layer.layer, name)
    elif isinstance(layer, keras.layers.RNN):
        yield from _leaves(layer.cell, name)
    elif isinstance(layer, keras.layers.StackedRNNCells):
        for child in layer.cells:
            yield from _leaves(child, under(child))
    yield name or layer.name, layer


def _own(layer, embedding):
    """(role, values, matrix, variable) of one layer without layers inside."""
    for role in roles(layer, embedding):
        variable = getattr(layer, role, None)
        if variable is not None:
            yield role, variable, True, variable
    for role, (values, variable) in parameters(layer).items():
        yield role, values, False, variable
    for variable in layer.weights:
        yield variable.name, variable, False, variable
