"""Load a .keras file in Keras's safe mode, and say what is wrong with one that does not load."""

import zipfile
from pathlib import Path

import keras

from snukeras.export.errors import BadInputError


def load_model(path) -> keras.Model:
    """Loads a .keras file in Keras's safe mode.

    Raises:
        BadInputError: there is no such file, or Keras cannot or will not load it.
    """
    path = Path(path)
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
