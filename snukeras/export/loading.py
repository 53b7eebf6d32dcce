"""Load a .keras file in Keras's safe mode, and say what is wrong with one that does not load."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import keras

from snukeras._files import JsonValue
from snukeras.export.errors import BadInputError

# Modules whose classes the command knows by itself.
_KNOWN = ("keras", "snukeras", "builtins")


def load_model(path: str | Path) -> keras.Model:
    """Load a .keras file in Keras's safe mode.

    Raises:
        BadInputError: There is no such file, or Keras cannot or will not load it.
    """
    path = Path(path)
    if "\0" in str(path):
        raise BadInputError(f"{str(path)!r} cannot be the name of a file.")
    if path.suffix != ".keras":
        raise BadInputError(
            f"{path} is not a .keras file.", "Save the model with model.save('NAME.keras')."
        )
    if not path.is_file():
        raise BadInputError(f"There is no file {path}.", "Give a .keras file or zoo:NAME.")
    if not zipfile.is_zipfile(path):
        raise BadInputError(f"{path} is damaged or not a .keras file.", "Save the model again.")
    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever its parts raise
        text = str(error).strip().splitlines()
        reason = (text[0] if text else type(error).__name__)[:300]
        hint = "Save it again with the Keras that is installed."
        if "safe" in str(error) or "lambda" in str(error).lower():
            hint = "Replace Lambda layers by registered classes; files load in safe mode only."
        elif "deserialized" in str(error) or "Could not locate class" in str(error):
            hint = "Import the module that registers its classes, and export from Python."
        raise BadInputError(f"Keras cannot load {path}: {reason}", hint) from error
    if not isinstance(model, keras.Model):
        raise BadInputError(f"{path} holds a {type(model).__name__}, not a model.")
    return model


def reload_problem(model: keras.Model, path: str | Path) -> str | None:
    """Return why `snukeras-export verify` cannot load a saved model in its own process, or None.

    Args:
        model: The model.
        path: The file that it was saved to.
    """
    foreign = sorted(set(_foreign(keras.saving.serialize_keras_object(model))))
    if foreign:
        return (
            f"it has classes that only your code knows: {', '.join(foreign)}. Import their module, "
            "then call snukeras.export.verify_folder from Python"
        )
    try:
        load_model(path)
    except BadInputError as error:
        reason = error.message.replace(str(path), Path(path).name).split(". ")[0]
        return f"{reason}. {error.hint}".strip().rstrip(".")
    return None


def _foreign(config: JsonValue) -> Iterator[str]:
    """Iterate over the names of classes and functions of other packages in a config."""
    if isinstance(config, dict):
        module, registered = config.get("module"), config.get("registered_name")
        if config.get("class_name") == "function":
            registered = config.get("config")
        package, found, _ = str(registered).partition(">")
        if found and package not in _KNOWN:
            yield str(registered)
        elif isinstance(module, str) and module.split(".")[0] not in _KNOWN:
            yield f"{module}.{config.get('class_name')}"
        for value in config.values():
            yield from _foreign(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _foreign(value)
