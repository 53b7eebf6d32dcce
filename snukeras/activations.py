"""The step function of spiking units and the pseudo-derivatives that train it."""

import inspect
from collections.abc import Callable
from typing import Self, TypeAlias

import keras
from keras import ops

from snukeras import _arguments
from snukeras._types import Config, Tensor


class PseudoDerivative:
    """Base of the stand-ins for the derivative of the step function.

    A pseudo-derivative is a bump of height 1 at the threshold; `slope` narrows it. Subclasses
    implement `bump(v)` for the scaled distance `v = slope * z`, element-wise.

    Args:
        slope: positive number, 1 / (units of the membrane potential).

    Raises:
        ValueError: `slope` is not a positive finite number.
    """

    def __init__(self, slope: float = 1.0) -> None:
        self.slope = _arguments.number("slope", slope, above=0.0)

    def bump(self, v: Tensor) -> Tensor:
        """Return the height of the bump at the scaled distances `v` from the threshold."""
        raise NotImplementedError

    def __call__(self, z: Tensor) -> Tensor:
        """Return the pseudo-derivative at `z` (membrane potential minus threshold, any shape)."""
        return self.bump(z if self.slope == 1.0 else self.slope * z)

    def get_config(self) -> Config:
        return {"slope": self.slope}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(**config)

    # Equal settings share one compiled kernel, so equality is by value.
    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), self.slope))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(slope={self.slope})"


@keras.saving.register_keras_serializable(package="snukeras")
class TanhDerivative(PseudoDerivative):
    """`1 - tanh(slope * z)**2`: the paper's choice (Wozniak et al. 2020) at slope 1."""

    def bump(self, v: Tensor) -> Tensor:
        return 1.0 - ops.square(ops.tanh(v))


@keras.saving.register_keras_serializable(package="snukeras")
class FastSigmoid(PseudoDerivative):
    """`1 / (1 + |slope * z|)**2` (Zenke and Ganguli, Neural Computation 2018, SuperSpike)."""

    def bump(self, v: Tensor) -> Tensor:
        return 1.0 / ops.square(1.0 + ops.abs(v))


@keras.saving.register_keras_serializable(package="snukeras")
class Arctan(PseudoDerivative):
    """`1 / (1 + (slope * z)**2)`, the derivative of the arctangent (Fang et al., ICCV 2021)."""

    def bump(self, v: Tensor) -> Tensor:
        return 1.0 / (1.0 + ops.square(v))


@keras.saving.register_keras_serializable(package="snukeras")
class Boxcar(PseudoDerivative):
    """1 where `|slope * z| < 1/2`, else 0: a rectangle of area 1 / slope (Wu et al. 2018)."""

    def bump(self, v: Tensor) -> Tensor:
        return ops.cast(ops.abs(v) < 0.5, v.dtype)


@keras.saving.register_keras_serializable(package="snukeras")
class Triangular(PseudoDerivative):
    """`max(0, 1 - |slope * z|)` (Bellec et al., NeurIPS 2018)."""

    def bump(self, v: Tensor) -> Tensor:
        return ops.relu(1.0 - ops.abs(v))


_BY_NAME: dict[str, type[PseudoDerivative]] = {
    "tanh": TanhDerivative,
    "fast_sigmoid": FastSigmoid,
    "arctan": Arctan,
    "boxcar": Boxcar,
    "rectangular": Boxcar,
    "triangular": Triangular,
}


Bump: TypeAlias = PseudoDerivative | Callable[[Tensor], Tensor]
"""A pseudo-derivative: an object of this module, or a function of z, s minus the threshold."""


def get_pseudo_derivative(identifier: str | Config | Bump) -> Bump:
    """Resolve a pseudo-derivative from a name, a serialised config, an object or a function.

    Args:
        identifier: one of "tanh", "fast_sigmoid", "arctan", "boxcar" (also "rectangular"),
            "triangular"; a `PseudoDerivative`; its serialised config; or a function of z, the
            membrane potential minus the threshold, made of `keras.ops`. A model with a function
            loads again only if the function is registered with
            `keras.saving.register_keras_serializable`, or given to `keras.models.load_model` in
            `custom_objects`; a lambda needs `safe_mode=False` there.

    Raises:
        ValueError: the identifier is none of these.
    """
    if isinstance(identifier, str) and identifier in _BY_NAME:
        return _BY_NAME[identifier]()
    found = identifier
    if isinstance(identifier, dict):
        found = keras.saving.deserialize_keras_object(identifier)
    if isinstance(found, PseudoDerivative):
        return found
    if callable(found) and not inspect.isclass(found):
        return found
    hint = ""
    if inspect.isclass(found) and issubclass(found, PseudoDerivative):
        hint = f". Give an object of the class: {found.__name__}()"
    raise ValueError(
        f"Argument `pseudo_derivative` must be one of {sorted(_BY_NAME)}, a "
        "snukeras.activations.PseudoDerivative object, or a function of the membrane potential "
        f"minus the threshold. Received: pseudo_derivative={identifier!r}{hint}"
    )


def serialize_pseudo_derivative(bump: Bump) -> Config | Callable[[Tensor], Tensor]:
    """Return what a config holds of a pseudo-derivative.

    A function stands there itself, as activations do in the configs of Keras's layers: a copy
    within the process keeps it, and Keras serialises it when it saves a model.
    """
    if isinstance(bump, PseudoDerivative):
        return keras.saving.serialize_keras_object(bump)
    return bump


@keras.saving.register_keras_serializable(package="snukeras")
class Step:
    """The step function with a pseudo-derivative: `y = 1 if z > 0 else 0`.

    Forward values are exactly 0 and 1 (0 at `z = 0`); in the backward pass the upstream gradient
    is multiplied by the pseudo-derivative at `z`.

    Args:
        pseudo_derivative: name, object, function or config, see `get_pseudo_derivative`.
    """

    def __init__(self, pseudo_derivative: str | Config | Bump = "tanh") -> None:
        self.pseudo_derivative = get_pseudo_derivative(pseudo_derivative)

    def __call__(self, z: Tensor) -> Tensor:
        return _step(z, self.pseudo_derivative)

    def value(self, z: Tensor) -> Tensor:
        """Return the forward value alone."""
        return ops.cast(z > 0, z.dtype)

    def derivative(self, z: Tensor, y: Tensor) -> Tensor:
        """Return the derivative used in the backward pass, at `z` with value `y`."""
        return self.pseudo_derivative(z)

    def get_config(self) -> Config:
        return {"pseudo_derivative": serialize_pseudo_derivative(self.pseudo_derivative)}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(**config)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Step) and self.pseudo_derivative == other.pseudo_derivative

    def __hash__(self) -> int:
        return hash((Step, self.pseudo_derivative))


def _step(z: Tensor, pseudo_derivative: Bump) -> Tensor:
    @ops.custom_gradient
    def step(z: Tensor) -> tuple[Tensor, Callable[..., Tensor]]:
        def grad(*args: Tensor, upstream: Tensor = None) -> Tensor:
            if upstream is None:
                (upstream,) = args
            return ops.multiply(upstream, pseudo_derivative(z))

        return ops.cast(z > 0, z.dtype), grad

    return step(z)


@keras.saving.register_keras_serializable(package="snukeras")
class SoftStep:
    """The sigmoid in the place of the step: the output function of the soft unit (sSNU)."""

    pseudo_derivative = None

    def __call__(self, z: Tensor) -> Tensor:
        return ops.sigmoid(z)

    value = __call__

    def derivative(self, z: Tensor, y: Tensor) -> Tensor:
        """Return the derivative at `z` with value `y`."""
        return y * (1.0 - y)

    def get_config(self) -> Config:
        return {}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(**config)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SoftStep)

    def __hash__(self) -> int:
        return hash(SoftStep)
