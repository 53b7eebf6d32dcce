"""Spiking Neural Units for Keras, from training to phase-change memory.

Importing snukeras registers its classes with Keras, so that saved models load; the other modules
are imported when they are first used. In one of the package's commands all modules are: the
commands answer `--help` without waiting seconds for TensorFlow.
"""

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # For editors and type checkers, which do not run `__getattr__`.
    from snukeras import (
        activations,
        callbacks,
        constraints,
        datasets,
        export,
        initializers,
        layers,
        losses,
        metrics,
        optimizers,
        pcm,
        plot,
        regularizers,
        zoo,
    )
    from snukeras.export.summary import summary
    from snukeras.network.folding import fold
    from snukeras.network.trace import trace

__version__ = "0.1.0"
__all__ = [
    "activations",
    "callbacks",
    "constraints",
    "datasets",
    "export",
    "fold",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "optimizers",
    "pcm",
    "plot",
    "regularizers",
    "summary",
    "trace",
    "zoo",
]
# Functions of the package itself, and where they are written.
_FUNCTIONS = {
    "fold": "snukeras.network.folding",
    "summary": "snukeras.export.summary",
    "trace": "snukeras.network.trace",
}


if not TYPE_CHECKING:

    def __getattr__(name: str) -> ModuleType | Callable:
        if name in _FUNCTIONS:
            return getattr(importlib.import_module(_FUNCTIONS[name]), name)
        if name in __all__:
            return importlib.import_module(f"snukeras.{name}")
        raise AttributeError(f"module 'snukeras' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


if "_snukeras_command" not in sys.modules:
    for _name in (
        "activations",
        "constraints",
        "initializers",
        "layers",
        "losses",
        "metrics",
        "optimizers",
        "pcm",
        "regularizers",
    ):
        importlib.import_module(f"snukeras.{_name}")
