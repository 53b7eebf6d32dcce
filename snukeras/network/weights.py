"""Sort a model's weights: matrices that go onto tiles, and parameters that stay digital."""

import dataclasses
import hashlib
from collections.abc import Iterator

import keras
import numpy as np

from snukeras._types import Array
from snukeras.network.errors import BadInputError
from snukeras.network.matrices import Unrolling, leaves, parameters, roles, unused


def rebuilt_model(model: keras.Model, weights: dict[str, np.ndarray]) -> keras.Model:
    """Copy the model, with the weights of a map."""
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
        unrolling: how it lies on tiles; None if it stays digital.
        variable: the Keras variable, or None for a constant of the configuration.
    """

    name: str
    layer: str
    role: str
    values: np.ndarray
    unrolling: Unrolling | None
    variable: keras.Variable | None = None

    @property
    def matrix(self) -> bool:
        """Whether it goes onto tiles."""
        return self.unrolling is not None


def collect(model: keras.Model, embedding: bool = False) -> list[Weight]:
    """Collect all weights of a model, in the order of its layers.

    Matrices are those of `snukeras.network.matrices`; everything else is digital.

    Raises:
        BadInputError: a weight is NaN or infinite.
    """
    found: list[Weight] = []
    seen: set[int] = set()
    names: set[str] = set()
    for layer_name, layer in leaves(model):
        for role, values, unrolling, variable in _own(layer, embedding):
            if variable is not None and id(variable) in seen:
                continue
            if variable is not None:
                seen.add(id(variable))
            name = unused(f"{layer_name}/{role}", names)
            values = np.asarray(values, dtype="float32")
            if not np.all(np.isfinite(values)):
                raise BadInputError(
                    f"{name} holds weights that are NaN or infinite.",
                    "Look for a training run that diverged.",
                )
            found.append(Weight(name, layer_name, role, values, unrolling, variable))
    return found


def assign(model: keras.Model, values: dict[str, np.ndarray]) -> None:
    """Write arrays, named as `collect` names them, into the variables of a model."""
    for weight in collect(model):
        if weight.variable is not None and weight.name in values:
            weight.variable.assign(values[weight.name])


def digest(weights: list[Weight]) -> str:
    """Compute the sha256 over names, shapes and values of all weights.

    Unlike the hash of a .keras file it is the same for every save of the same network.
    """
    total = hashlib.sha256()
    for weight in weights:
        values = np.ascontiguousarray(weight.values, dtype="<f4")
        total.update(f"{weight.name} {values.shape}\n".encode())
        total.update(values.tobytes())
    return total.hexdigest()


def _own(
    layer: keras.Layer, embedding: bool
) -> Iterator[tuple[str, Array, Unrolling | None, keras.Variable | None]]:
    """Yield role, values, unrolling and variable of all that a layer computes with."""
    for role, unrolling in roles(layer, embedding).items():
        variable = getattr(layer, role)
        yield role, variable, unrolling, variable
    for role, (values, variable) in parameters(layer).items():
        yield role, values, None, variable
    for variable in layer.weights:
        yield variable.name, variable, None, variable
