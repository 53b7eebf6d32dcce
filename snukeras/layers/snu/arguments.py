"""Check the arguments of units: refuse unknown ones, unused ones and ones of another kind."""

import inspect
from collections.abc import Callable, Mapping

import keras
import numpy as np

from snukeras import _arguments
from snukeras._types import Activation, Config, Nested, Shape, Tensor

_DECAY = "The factor on the membrane potential from one step to the next is `decay`."

# What to write for words of other packages.
_INSTEAD = {
    "activation": (
        "The output of a unit is the step, or the sigmoid for soft units; the activation g of the "
        "membrane potential is `state_activation`."
    ),
    "alpha": _DECAY,
    "beta": _DECAY,
    "inhibition": "Use `lateral_inhibition=True`.",
    "leak": _DECAY,
    "learn_beta": "Use `trainable_decay=True`.",
    "learn_threshold": "Use `trainable_threshold=True`.",
    "pseudo_derivative": (
        "Its output is the sigmoid, which has a derivative of its own. Use the spiking unit, whose "
        "name has one S: SNU."
    ),
    "spike_grad": "Use `pseudo_derivative`, such as pseudo_derivative='fast_sigmoid'.",
    "surrogate_function": "Use `pseudo_derivative`, such as pseudo_derivative='arctan'.",
    "tau": "A time constant of tau steps is `decay=1 - 1 / tau`.",
    "v_threshold": "Use `threshold`.",
}
_OF_RECURRENCE = (
    "recurrent_initializer",
    "recurrent_regularizer",
    "recurrent_constraint",
    "recurrent_dropout",
)
_OF_BIAS = ("bias_initializer", "bias_regularizer", "bias_constraint")
# What initializers are by default in Keras, or in the paper.
_OF_KERAS = {"recurrent_initializer": "glorot_uniform", "bias_initializer": "zeros"}
_UNUSED_WITHOUT = {"recurrent": _OF_RECURRENCE, "use_bias": _OF_BIAS}


def of_unit(owner: type, given: Mapping[str, object]) -> Config:
    """Check the last keyword arguments of a cell or layer of units; see `_arguments.of_keras`."""
    return _arguments.of_keras(owner, given, _INSTEAD)


def number_of(name: str, value: object) -> int:
    """Return a number of units or filters.

    Raises:
        TypeError: it is no integer.
        ValueError: it is below 1.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(
            f"Argument `{name}` must be an integer of at least 1. Received: {name}={value!r}"
        )
    return _arguments.whole(name, value)


def fraction(name: str, value: object) -> float:
    """Return a share of values to drop, of at least 0 and below 1, else raise ValueError."""
    return _arguments.number(name, value, minimum=0.0, below=1.0)


def activation(identifier: Activation) -> Callable[[Tensor], Tensor]:
    """Return the activation of the membrane potential, as `keras.activations.get` does.

    Raises:
        ValueError: Keras knows none of that name.
    """
    try:
        return keras.activations.get(identifier)
    except (ValueError, TypeError) as error:
        raise ValueError(
            "Argument `state_activation` must be the name of a Keras activation (such as 'relu', "
            "'linear', 'leaky_relu') or a callable. "
            f"Received: state_activation={identifier!r}"
        ) from error


def check_used(constructor: Callable, given: Config) -> None:
    """Refuse arguments of a unit that the unit would not use.

    Args:
        constructor: the function whose signature has the defaults.
        given: the arguments by name.

    Raises:
        ValueError: an argument is unused and not its default; the message names it.
    """
    defaults = inspect.signature(constructor).parameters
    for switch, names in _UNUSED_WITHOUT.items():
        for name in names:
            if not given[switch] and not _equal(name, given[name], defaults[name].default):
                raise ValueError(
                    f"Argument `{name}` must keep its default where {switch}=False, which leaves "
                    f"it without use. Set {switch}=True. Received: {name}={given[name]!r}"
                )
    for role in ("decay", "threshold"):
        for name in (f"{role}_regularizer", f"{role}_constraint"):
            if given[name] is not None and not given[f"trainable_{role}"]:
                raise ValueError(
                    f"Argument `{name}` must be None where trainable_{role}=False, which leaves it "
                    f"without use. Set trainable_{role}=True. Received: {name}={given[name]!r}"
                )
        value, initializer = given[role], given[f"{role}_initializer"]
        default = defaults[role].default
        if initializer is not None and value is not None and not np.array_equal(value, default):
            raise ValueError(
                f"Arguments `{role}` and `{role}_initializer` must not both be given. Received: "
                f"{role}={value!r}, {role}_initializer={initializer!r}"
            )


def _equal(name: str, value: object, default: object) -> bool:
    """Return whether an argument is its default, in whatever form Keras takes it."""
    if value is None or not name.endswith("_initializer"):
        return value == default or value is None
    # Keras's own counts as the default too: the paper has it. Keras does not know all of ours.
    plain = _OF_KERAS[name]
    own = isinstance(value, str) and value == default
    one, other = keras.initializers.get(plain if own else value), keras.initializers.get(plain)
    return type(one) is type(other) and one.get_config() == other.get_config()


def used(config: Config) -> Config:
    """Return a config without unused arguments, which files of earlier versions hold."""
    unused = {
        name
        for switch, names in _UNUSED_WITHOUT.items()
        if not config.get(switch, False)
        for name in names
    }
    return {name: value for name, value in config.items() if name not in unused}


def check_states(layer: str, shapes: Nested, wanted: Shape) -> None:
    """Check the shapes of the first states of a layer.

    Args:
        layer: name of the layer.
        shapes: what was given as `initial_state`, with shapes in the place of tensors.
        wanted: shape of each of the two states.

    Raises:
        ValueError: it is not a list of two tensors of that shape.
    """
    listed = isinstance(shapes, list) or not all(isinstance(n, int | None) for n in shapes)
    if not listed or len(shapes) != 2 or not all(_fits(shape, wanted) for shape in shapes):
        kind = "a list of tensors of shapes" if listed else "a tensor of shape"
        raise ValueError(
            f"Argument `initial_state` of layer {layer!r} must be [y, s], the outputs and membrane "
            f"potentials to start from: two tensors of shape {wanted}. Received: {kind} {shapes}"
        )


def check_mask(layer: str, shape: Shape, wanted: Shape) -> None:
    """Check the shape of a mask, which must be (batch, time).

    Raises:
        ValueError: it is another.
    """
    if not _fits(shape, wanted):
        raise ValueError(
            f"Argument `mask` of layer {layer!r} must be of shape (batch, time), here {wanted}, "
            f"False at steps to skip. Received: a tensor of shape {shape}"
        )


def _fits(shape: Shape, wanted: Shape) -> bool:
    """Return whether a shape can be the wanted one; None is a size that is not known yet."""
    return len(shape) == len(wanted) and all(
        None in (size, other) or size == other for size, other in zip(shape, wanted, strict=True)
    )
