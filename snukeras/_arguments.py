"""Check arguments; each error names the argument, what is allowed, and what was received."""

import contextlib
import difflib
import inspect
import math
from collections.abc import Callable, Mapping
from typing import SupportsFloat, TypedDict, TypeVar

import numpy as np

from snukeras._types import Array, Config, Dtype, Shape


class LayerArguments(TypedDict, total=False):
    """The arguments that every Keras layer takes, which layers hand on to `keras.layers.Layer`."""

    name: str | None
    dtype: Dtype
    trainable: bool
    autocast: bool
    input_shape: Shape


# Further arguments of Keras layers, which a layer may declare itself.
_ALSO = ("activity_regularizer", "input_dim")


def of_keras(
    owner: type, given: Mapping[str, object], hints: Mapping[str, str] | None = None
) -> Config:
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


def chosen(function: Callable, given: Mapping[str, object]) -> Config:
    """Return what a class or function takes of the arguments in the `locals()` of its caller."""
    return {name: given[name] for name in parameters(function) if name in given}


def whole(name: str, value: object, minimum: int = 1) -> int:
    """Return an integer of at least `minimum`, else raise ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < minimum:
        raise ValueError(
            f"Argument `{name}` must be an integer of at least {minimum}. "
            f"Received: {name}={value!r}"
        )
    return int(value)


def number(
    name: str,
    value: object,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    below: float | None = None,
) -> float:
    """Return a finite number within the bounds that are given, else raise ValueError.

    Args:
        name: of the argument, for the message.
        value: what the caller was given.
        minimum, maximum: bounds that the number may reach.
        above, below: bounds that it may not reach.
    """
    found = math.nan
    if isinstance(value, SupportsFloat) and not isinstance(value, bool):
        with contextlib.suppress(TypeError):  # an array of several numbers has a __float__ as well
            found = float(value)
    if (
        not math.isfinite(found)
        or (minimum is not None and found < minimum)
        or (above is not None and found <= above)
        or (maximum is not None and found > maximum)
        or (below is not None and found >= below)
    ):
        words = {"of at least": minimum, "above": above, "of at most": maximum, "below": below}
        bounds = [f"{word} {bound:g}" for word, bound in words.items() if bound is not None]
        wanted = " ".join(["a finite number", " and ".join(bounds)]).rstrip()
        raise ValueError(f"Argument `{name}` must be {wanted}. Received: {name}={value!r}")
    return found


_Choice = TypeVar("_Choice")


def choice(name: str, value: _Choice, allowed: tuple[_Choice, ...]) -> _Choice:
    """Return `value` if it is one of `allowed`, else raise ValueError."""
    if value not in allowed:
        raise ValueError(
            f"Argument `{name}` must be one of {', '.join(map(repr, allowed))}. "
            f"Received: {name}={value!r}"
        )
    return value


def sizes(name: str, value: object, rank: int) -> tuple[int, ...]:
    """Return `rank` positive integers, given as one for all axes or one for each.

    Raises:
        ValueError: the value is neither.
    """
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
    name: str, value: Array, units: int, low: float = -math.inf, high: float = math.inf
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
