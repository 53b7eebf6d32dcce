"""Let functions take NumPy arrays and tensors alike."""

import keras
import numpy as np

from snukeras._types import Array, Tensor


def is_tensor(x: Array) -> bool:
    """Return True for a backend tensor or variable, which may be symbolic; False for host data."""
    return isinstance(x, keras.Variable) or keras.ops.is_tensor(x)


def host_array(x: Array, name: str) -> np.ndarray:
    """Return `x` as a finite NumPy array, float64 if it was float64, else float32."""
    try:
        array = np.asarray(x)
        array = array.astype("float64" if array.dtype == np.float64 else "float32", copy=False)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"`{name}` must be numbers in one array. Received: {type(x).__name__}"
        ) from error
    if not np.all(np.isfinite(array)):
        bad = int(array.size - np.count_nonzero(np.isfinite(array)))
        raise ValueError(
            f"`{name}` must be finite. Received: {bad} of {array.size} values are NaN or "
            "infinite; look for a diverged training run or a broken file."
        )
    return array


def to_tensor(x: Array, name: str) -> Tensor:
    """Return `x` as a floating tensor.

    Host data are checked for NaN and infinity. Tensors are not: they may be symbolic, and in
    eager code the check would wait for the device.
    """
    if not is_tensor(x):
        return keras.ops.convert_to_tensor(host_array(x, name))
    x = keras.ops.convert_to_tensor(x)
    if keras.backend.standardize_dtype(x.dtype) not in ("float32", "float64"):
        x = keras.ops.cast(x, "float32")
    return x


def like(result: Tensor, reference: Array) -> Array:
    """Return `result` as a NumPy array where `reference` is host data, else unchanged."""
    return result if is_tensor(reference) else keras.ops.convert_to_numpy(result)
