"""Copy a Keras model, and choose layers in it by name, pattern or class."""

import fnmatch
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import keras

_Model = TypeVar("_Model", bound=keras.Model)
Chooser = Callable[[keras.Layer], bool]


def name_matcher(pattern: str) -> Chooser:
    """Return a test for layers whose name fits a pattern such as "dense_*"."""
    return lambda layer: fnmatch.fnmatchcase(layer.name, pattern)


def class_matcher(wanted: object) -> Chooser:
    """Return a test for layers of a class.

    Raises:
        ValueError: `wanted` is no class.
    """
    if not isinstance(wanted, type):
        raise ValueError(
            "Argument `layers` must hold layer names, patterns or layer classes. "
            f"Received: {type(wanted).__name__}"
        )
    return lambda layer: isinstance(layer, wanted)


def all_layers(layer: keras.Layer) -> Iterator[keras.Layer]:
    """Yield all layers inside a layer, also the wrapped ones, through public attributes."""
    inner = list(getattr(layer, "layers", None) or [])
    for name in ("layer", "forward_layer", "backward_layer", "cell"):
        part = getattr(layer, name, None)
        inner += [part] if isinstance(part, keras.Layer) else []
    for part in inner:
        yield part
        yield from all_layers(part)


def within_layer(path: str, pattern: str) -> bool:
    """Return whether a variable's path leads through a layer whose name fits a pattern."""
    return any(fnmatch.fnmatchcase(part, pattern) for part in path.split("/")[:-1])


def layer_names(layers: str | keras.Layer | Sequence[str | keras.Layer] | None) -> list[str] | None:
    """Return names and patterns of layers; None stands for all layers.

    Raises:
        ValueError: Something else than names, patterns and layers, or nothing.
    """
    if layers is None:
        return None
    given = [layers] if isinstance(layers, str | keras.Layer) else layers
    names = [layer.name if isinstance(layer, keras.Layer) else layer for layer in given]
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(
            "Argument `layers` must be None or a list of layer names, patterns or layers. "
            f"Received: layers={layers!r}"
        )
    return names


def copy_model(model: _Model, compiled: bool = True) -> _Model:
    """Copy a Keras model through its config: same weights, compiled if it was.

    Args:
        model: The model.
        compiled: Whether the copy is to be compiled, if the model is.

    Raises:
        ValueError: The model cannot be built from its config.
    """
    try:
        copy = type(model).from_config(model.get_config())
    except (TypeError, NotImplementedError) as error:
        raise ValueError(
            f"The model {model.name!r} cannot be rebuilt from its config, nor loaded once it is "
            f"saved. Let the constructor of {type(model).__name__} take `name`, `trainable` and "
            "`dtype` and hand them on (`**options` to `super().__init__`), and `get_config` return "
            "its other arguments."
        ) from error
    if not copy.built and (build := model.get_build_config()) is not None:
        copy.build_from_config(build)
    if len(copy.weights) != len(model.weights):
        raise ValueError(
            f"The model {model.name!r} cannot be rebuilt from its config, which does not build its "
            "layers; give it a `build` method that does, or an Input."
        )
    copy.set_weights(model.get_weights())
    if compiled and getattr(model, "compiled", False):
        copy.compile_from_config(model.get_compile_config())
    return copy
