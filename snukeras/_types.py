"""Types that many modules name.

Those of Keras stand in quotation marks: the commands list presets without loading it.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import keras

Tensor: TypeAlias = Any
"""A tensor of Keras's backend, or what Keras takes for one; its backends share no class."""

Nested: TypeAlias = Any
"""A `Tensor`, or several in lists, tuples and dicts, as models take and return them."""

Array: TypeAlias = Any
"""A `Tensor`, a NumPy array, or numbers in lists."""

Shape: TypeAlias = tuple[int | None, ...]
"""A shape as Keras hands it on; None stands for a size that varies."""

Dtype: TypeAlias = "str | keras.DTypePolicy | None"
"""A dtype or dtype policy by name or as an object; None stands for Keras's default."""

Config: TypeAlias = dict[str, Any]
"""What `get_config` returns: arguments by name, as JSON can hold them."""

Logs: TypeAlias = dict[str, float] | None
"""Losses and metrics by name, as Keras hands them to callbacks."""

PerUnit: TypeAlias = float | Sequence[float]
"""A number for all units, or one for each."""

Activation: TypeAlias = str | Config | Callable[[Tensor], Tensor] | None
Initializer: TypeAlias = "str | Config | keras.initializers.Initializer | None"
Regularizer: TypeAlias = "str | Config | keras.regularizers.Regularizer | None"
Constraint: TypeAlias = "str | Config | keras.constraints.Constraint | None"
"""What Keras takes for these: a name, a config or an object."""
