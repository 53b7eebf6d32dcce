"""Which weights of a layer are matrices, and how their kernels unroll."""

from typing import Any

import keras

# Layers of Keras -> names of their weights that go onto tiles. Subclasses go by their base. The
# last axis of such a weight are the columns (outputs), the others are unrolled into rows.
_OF_KERAS: dict[type, tuple[str, ...]] = {
    keras.layers.Dense: ("kernel",),
    keras.layers.Conv1D: ("kernel",),
    keras.layers.Conv2D: ("kernel",),
    keras.layers.Conv3D: ("kernel",),
    keras.layers.LSTMCell: ("kernel", "recurrent_kernel"),
    keras.layers.GRUCell: ("kernel", "recurrent_kernel"),
    keras.layers.SimpleRNNCell: ("kernel", "recurrent_kernel"),
    keras.layers.Embedding: ("embeddings",),
}


def mapped_layers() -> list[str]:
    """Return the names of all known layers and cells that have matrices for tiles."""
    registered = keras.saving.get_custom_objects().values()
    own = [cls for cls in registered if isinstance(getattr(cls, "tile_matrices", None), tuple)]
    return sorted({cls.__name__ for cls in (*_OF_KERAS, *own)})


def roles(layer: keras.Layer, embedding: bool = False) -> tuple[str, ...]:
    """Return the names of a layer's matrices.

    A layer of this package says it of itself, in its attribute `tile_matrices`.

    Args:
        layer: A layer or cell without layers inside.
        embedding: Whether tables of words count.
    """
    if isinstance(layer, keras.layers.Embedding) and not embedding:
        return ()
    own = getattr(type(layer), "tile_matrices", None)
    if isinstance(own, tuple):
        return own
    return next((_OF_KERAS[cls] for cls in type(layer).__mro__ if cls in _OF_KERAS), ())


def parameters(layer: keras.Layer) -> dict[str, tuple[Any, keras.Variable | None]]:
    """Return what else a layer computes with, by role: values, and the variable if there is one.

    A layer of this package may have constants that are no weights; it says so in its method
    `digital_parameters`.
    """
    own = getattr(layer, "digital_parameters", None)
    return own() if callable(own) else {}


def chip_variables(model, embeddings=False) -> dict[str, keras.Variable]:
    """The variables of a model that belong on crossbars, by path.

    These are the kernels: of dense, recurrent, convolution and attention layers. Biases,
    thresholds, decays and normalisation stay digital.

    Args:
        model: a built Keras model or layer.
        embeddings: whether embedding tables go on the chip too.
    """
    endings = ("kernel", "embeddings") if embeddings else ("kernel",)
    found: dict[str, keras.Variable] = {}
    for variable in model.weights:
        if variable.name.endswith(endings) and len(variable.shape) >= 2:
            path = variable.path
            while path in found:
                path += "_"
            found[path] = variable
    return found
