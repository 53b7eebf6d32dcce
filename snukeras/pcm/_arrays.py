"""Let every function of snukeras.pcm take NumPy arrays and tensors alike, and check its numbers."""

import math
from typing import Any, TypeAlias

import keras
import numpy as np

#: A tensor or variable of the backend, which may be symbolic.
Tensor: TypeAlias = Any
#: A tensor, a NumPy array, or numbers in lists.
Array: TypeAlias = Any


def is_tensor(x: Any) -> bool:
    """Return True for a backend tensor or variable, which may be symbolic; False for host data."""
    return isinstance(x, keras.Variable) or keras.ops.is_tensor(x)


def host_array(x: Any, name: str) -> np.ndarray:
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
            f"`{name}` must be finite. Received: {bad} of {array.size} values are NaN or infinite; "
            "look for a diverged training run or a broken file."
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


def check_number(
    name: str,
    value: Any,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
) -> float:
    """Return `value` as a finite float within the bounds (`above` is exclusive), else an error."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    wanted = ["a finite number"]
    wanted += [] if minimum is None else [f"at least {minimum:g}"]
    wanted += [] if above is None else [f"above {above:g}"]
    wanted += [] if maximum is None else [f"at most {maximum:g}"]
    if (
        isinstance(value, bool)
        or not math.isfinite(number)
        or (minimum is not None and number < minimum)
        or (above is not None and number <= above)
        or (maximum is not None and number > maximum)
    ):
        raise ValueError(f"`{name}` must be {', '.join(wanted)}. Received: {value!r}")
    return number


def check_choice(name: str, value: Any, allowed: tuple) -> Any:
    """Return `value` if it is one of `allowed`, else an error that lists them."""
    if value not in allowed:
        raise ValueError(
            f"`{name}` must be one of {', '.join(map(repr, allowed))}. Received: {value!r}"
        )
    return value
