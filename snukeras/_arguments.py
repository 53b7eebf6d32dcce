"""Check arguments; each error names the argument, what is allowed, and what was received."""

import difflib
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, TypedDict

import numpy as np


class LayerArguments(TypedDict, total=False):
    """The arguments that every Keras layer takes, which layers hand on to `keras.layers.Layer`."""

    name: str | None
    dtype: Any
    trainable: bool
    autocast: bool
    input_shape: Any


# What else they take; a layer may have an argument of its own for it.
_ALSO = ("activity_regularizer", "input_dim")


def of_keras(
    owner: type, given: Mapping[str, Any], hints: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the last keyword arguments of a layer; raise TypeError if one is not Keras's own.

    Args:
        owner: the class that was given them.
        given: its `**kwargs`.
        hints: what to do instead of an argument that the class does not have, by name.
    """
    for name, value in given.items():
        if name in LayerArguments.__annotations__ or name in _ALSO:
            continue
        allowed = [*parameters(owner), *LayerArguments.__annotations__]
        advice = (hints or {}).get(name)
        if advice is None:
            near = difflib.get_close_matches(name, allowed, n=1)
            advice = f"Did you mean `{near[0]}`?" if near else f"Allowed are: {', '.join(allowed)}."
        raise TypeError(
            f"{owner.__name__} has no argument `{name}`. {advice} Received: {name}={value!r}"
        )
    return dict(given)


def parameters(function: Callable) -> list[str]:
    """Return the names of the parameters that a class or function has for itself, in order."""
    gathering = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    found = inspect.signature(function).parameters.values()
    return [parameter.name for parameter in found if parameter.kind not in gathering]


def chosen(function: Callable, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a class or function takes of the arguments in the `locals()` of its caller."""
    return {name: given[name] for name in parameters(function) if name in given}


def whole(name: str, value: Any, minimum: int = 1) -> int:
    """Return an integer of at least `minimum`, else raise ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < minimum:
        raise ValueError(
            f"Argument `{name}` must be an integer of at least {minimum}. "
            f"Received: {name}={value!r}"
        )
    return int(value)


def number(name: str, value: Any) -> float:
    """Return a finite number of at least 0, else raise ValueError."""
    if not isinstance(value, int | float | np.number) or not 0 <= value < math.inf:
        raise ValueError(
            f"Argument `{name}` must be a finite number of at least 0. Received: {name}={value!r}"
        )
    return float(value)


def fraction(name: str, value: Any) -> float:
    """Return a number of at least 0 and below 1, else raise ValueError."""
    if not isinstance(value, int | float | np.number) or not 0.0 <= value < 1.0:
        raise ValueError(
            f"Argument `{name}` must be a number of at least 0 and below 1. "
            f"Received: {name}={value!r}"
        )
    return float(value)


def inside(name: str, value: Any, low: float, high: float) -> float:
    """Return a number above `low` and below `high`, else raise ValueError."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float | np.number)
        or not low < value < high
    ):
        raise ValueError(
            f"Argument `{name}` must be a number above {low:g} and below {high:g}. "
            f"Received: {name}={value!r}"
        )
    return float(value)


def sizes(name: str, value: Any, rank: int) -> tuple[int, ...]:
    values = (value,) * rank if isinstance(value, int | np.integer) else value
    if (
        not isinstance(values, tuple | list)
        or len(values) != rank
        or not all(isinstance(v, int | np.integer) and not isinstance(v, bool) for v in values)
        or not all(1 <= v < math.inf for v in values)
    ):
        raise ValueError(
            f"Argument `{name}` must be a positive integer, or {rank} of them. "
            f"Received: {name}={value!r}"
        )
    return tuple(int(v) for v in values)


def per_unit(
    name: str, value: Any, units: int, low: float = -math.inf, high: float = math.inf
) -> float | list[float]:
    """Check a number, or one number per unit; return it as JSON can hold it."""
    try:
        values = np.asarray(value, dtype="float64")
    except (TypeError, ValueError):
        raise TypeError(
            f"Argument `{name}` must be a number or a list of {units} numbers. "
            f"Received: {name}={value!r}"
        ) from None
    if values.shape not in ((), (units,)):
        raise ValueError(
            f"Argument `{name}` must be a number or a list of {units} numbers, one per unit. "
            f"Received: {name} of shape {values.shape}"
        )
    if not (np.all(np.isfinite(values)) and np.all(values >= low) and np.all(values <= high)):
        allowed = "finite" if math.isinf(low) else f"finite and between {low:g} and {high:g}"
        raise ValueError(f"Argument `{name}` must be {allowed}. Received: {name}={value!r}")
    return values.tolist()
