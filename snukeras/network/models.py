"""Copy a Keras model, and choose layers and variables in it by name or class."""

import fnmatch

import keras


def _name_matcher(pattern):
    return lambda layer: fnmatch.fnmatchcase(layer.name, pattern)


def _class_matcher(wanted):
    if not isinstance(wanted, type):
        raise ValueError(
            "`layers` must hold layer names, patterns or layer classes. "
            f"Received: {type(wanted).__name__}"
        )
    return lambda layer: isinstance(layer, wanted)


def _all_layers(layer):
    """All layers inside `layer`, also the wrapped ones, through public attributes."""
    inner = list(getattr(layer, "layers", None) or [])
    for name in ("layer", "forward_layer", "backward_layer", "cell"):
        part = getattr(layer, name, None)
        inner += [part] if isinstance(part, keras.Layer) else []
    for part in inner:
        yield part
        yield from _all_layers(part)


def copy_model(model):
    """A copy of a Keras model through its config: same weights, compiled if it was."""
    copy = type(model).from_config(model.get_config())
    if not copy.built:
        build = model.get_build_config()
        if build is None:
            raise ValueError(
                f"The model {model.name!r} cannot be rebuilt from its config; give it a `build` "
                "method or an Input."
            )
        copy.build_from_config(build)
    copy.set_weights(model.get_weights())
    if getattr(model, "compiled", False):
        copy.compile_from_config(model.get_compile_config())
    return copy
