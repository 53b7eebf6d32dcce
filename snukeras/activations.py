"""The step function of spiking units and the pseudo-derivatives that train it."""

import math
from typing import Any

import keras
from keras import ops


class PseudoDerivative:
    """Base of the stand-ins for the derivative of the step function.

    A pseudo-derivative is a bump of height 1 at the threshold; `slope` narrows it. Subclasses
    implement `bump(v)` for the scaled distance `v = slope * z`, element-wise.

    Args:
        slope: positive number, 1 / (units of the membrane potential).

    Raises:
        ValueError: `slope` is not a positive finite number.
    """

    def __init__(self, slope: float = 1.0):
        if not (isinstance(slope, int | float) and math.isfinite(slope) and slope > 0):
            raise ValueError(
                f"Argument `slope` must be a positive finite number. Received: slope={slope!r}"
            )
        self.slope = float(slope)

    def bump(self, v: Any) -> Any:
        raise NotImplementedError

    def __call__(self, z: Any) -> Any:
        """Return the pseudo-derivative at `z` (membrane potential minus threshold, any shape)."""
        return self.bump(z if self.slope == 1.0 else self.slope * z)

    def get_config(self) -> dict:
        return {"slope": self.slope}

    @classmethod
    def from_config(cls, config: dict) -> "PseudoDerivative":
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

    def bump(self, v: Any) -> Any:
        return 1.0 - ops.square(ops.tanh(v))


@keras.saving.register_keras_serializable(package="snukeras")
class FastSigmoid(PseudoDerivative):
    """`1 / (1 + |slope * z|)**2` (Zenke and Ganguli, Neural Computation 2018, SuperSpike)."""

    def bump(self, v: Any) -> Any:
        return 1.0 / ops.square(1.0 + ops.abs(v))


@keras.saving.register_keras_serializable(package="snukeras")
class Arctan(PseudoDerivative):
    """`1 / (1 + (slope * z)**2)`, the derivative of the arctangent (Fang et al., ICCV 2021)."""

    def bump(self, v: Any) -> Any:
        return 1.0 / (1.0 + ops.square(v))


@keras.saving.register_keras_serializable(package="snukeras")
class Boxcar(PseudoDerivative):
    """1 where `|slope * z| < 1/2`, else 0: a rectangle of area 1 / slope (Wu et al. 2018)."""

    def bump(self, v: Any) -> Any:
        return ops.cast(ops.abs(v) < 0.5, v.dtype)


@keras.saving.register_keras_serializable(package="snukeras")
class Triangular(PseudoDerivative):
    """`max(0, 1 - |slope * z|)` (Bellec et al., NeurIPS 2018)."""

    def bump(self, v: Any) -> Any:
        return ops.relu(1.0 - ops.abs(v))


_BY_NAME: dict[str, type[PseudoDerivative]] = {
    "tanh": TanhDerivative,
    "fast_sigmoid": FastSigmoid,
    "arctan": Arctan,
    "boxcar": Boxcar,
    "rectangular": Boxcar,
    "triangular": Triangular,
}


def get_pseudo_derivative(identifier: Any) -> PseudoDerivative:
    """Resolve a pseudo-derivative from a name, a serialised config or an object.

    Args:
        identifier: one of "tanh", "fast_sigmoid", "arctan", "boxcar" (also "rectangular"),
            "triangular"; a `PseudoDerivative`; or its serialised config.

    Raises:
        ValueError: the identifier is none of these.
    """
    if isinstance(identifier, str) and identifier in _BY_NAME:
        return _BY_NAME[identifier]()
    if isinstance(identifier, dict):
        identifier = keras.saving.deserialize_keras_object(identifier)
    if isinstance(identifier, PseudoDerivative):
        return identifier
    raise ValueError(
        "Argument `pseudo_derivative` must be one of "
        f"{sorted(_BY_NAME)}, or a snukeras.activations.PseudoDerivative object. "
        f"Received: pseudo_derivative={identifier!r}"
    )


@keras.saving.register_keras_serializable(package="snukeras")
class Step:
    """The step function with a pseudo-derivative: `y = 1 if z > 0 else 0`.

    Forward values are exactly 0 and 1 (0 at `z = 0`); in the backward pass the upstream gradient
    is multiplied by the pseudo-derivative at `z`.

    Args:
        pseudo_derivative: name, object or config, see `get_pseudo_derivative`.
    """

    def __init__(self, pseudo_derivative: Any = "tanh"):
        self.pseudo_derivative = get_pseudo_derivative(pseudo_derivative)

    def __call__(self, z: Any) -> Any:
        return _step(z, self.pseudo_derivative)

    def value(self, z: Any) -> Any:
        """The forward value alone."""
        return ops.cast(z > 0, z.dtype)

    def derivative(self, z: Any, y: Any) -> Any:
        """The derivative used in the backward pass, at `z` with value `y`."""
        return self.pseudo_derivative(z)

    def get_config(self) -> dict:
        return {"pseudo_derivative": keras.saving.serialize_keras_object(self.pseudo_derivative)}

    @classmethod
    def from_config(cls, config: dict) -> "Step":
        return cls(**config)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Step) and self.pseudo_derivative == other.pseudo_derivative

    def __hash__(self) -> int:
        return hash((Step, self.pseudo_derivative))


def _step(z: Any, pseudo_derivative: PseudoDerivative) -> Any:
    @ops.custom_gradient
    def step(z):
        def grad(*args, upstream=None):
            if upstream is None:
                (upstream,) = args
            return ops.multiply(upstream, pseudo_derivative(z))

        return ops.cast(z > 0, z.dtype), grad

    return step(z)


@keras.saving.register_keras_serializable(package="snukeras")
class SoftStep:
    """The sigmoid in the place of the step: the output function of the soft unit (sSNU)."""

    def __call__(self, z: Any) -> Any:
        return ops.sigmoid(z)

    value = __call__

    def derivative(self, z: Any, y: Any) -> Any:
        """The derivative at `z` with value `y`."""
        return y * (1.0 - y)

    def get_config(self) -> dict:
        return {}

    @classmethod
    def from_config(cls, config: dict) -> "SoftStep":
        return cls(**config)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SoftStep)

    def __hash__(self) -> int:
        return hash(SoftStep)
