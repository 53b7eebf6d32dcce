"""Types that many modules name."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras

Tensor: TypeAlias = Any
"""A tensor of Keras's backend, or what Keras takes for one; its backends share no class."""

Shape: TypeAlias = tuple[int | None, ...]
"""A shape as Keras hands it on; None stands for a size that varies."""

Config: TypeAlias = dict[str, Any]
"""What `get_config` returns: arguments by name, as JSON can hold them."""

PerUnit: TypeAlias = float | Sequence[float]
"""A number for all units, or one for each."""

Activation: TypeAlias = str | Config | Callable[[Tensor], Tensor] | None
Initializer: TypeAlias = str | Config | keras.initializers.Initializer | None
Regularizer: TypeAlias = str | Config | keras.regularizers.Regularizer | None
Constraint: TypeAlias = str | Config | keras.constraints.Constraint | None
"""What Keras takes for these: a name, a config or an object."""
