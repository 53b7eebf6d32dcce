"""Spiking Neural Units for Keras, from training to phase-change memory.

Importing snukeras registers its classes with Keras, so that saved models load; the other modules
are imported when they are first used. When Python was started by one of the package's commands
all modules are: the commands answer `--help` without waiting seconds for TensorFlow.
"""

import importlib
import sys
from pathlib import Path
from typing import Any

__version__ = "0.1.0"
__all__ = [
    "activations",
    "callbacks",
    "constraints",
    "datasets",
    "export",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "optimizers",
    "pcm",
    "regularizers",
    "trace",
    "zoo",
]


def __getattr__(name: str) -> Any:
    if name == "trace":
        return importlib.import_module("snukeras.network.trace").trace
    if name in __all__:
        return importlib.import_module(f"snukeras.{name}")
    raise AttributeError(f"module 'snukeras' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def _started_by_a_command() -> bool:
    program = Path(sys.argv[0] if sys.argv else "").stem
    in_module = any(word.startswith("snukeras.") for word in sys.orig_argv[1:3])
    return in_module or program in ("snukeras-export", "snukeras-zoo")


if not _started_by_a_command():
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
