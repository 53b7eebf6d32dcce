"""Export trained networks: ONNX, crossbar maps for analog tiles, and the proof that both hold."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snukeras.export.crossbar import CrossbarMap, load_map
    from snukeras.export.errors import (
        BadInputError,
        ExportError,
        MapError,
        OutputExistsError,
        UnsupportedLayersError,
        VerificationError,
    )
    from snukeras.export.exporter import export
    from snukeras.export.onnx_model import to_onnx
    from snukeras.export.readback import read_back
    from snukeras.export.simulation import MappedChip
    from snukeras.export.targets import Target, available_targets, load_target
    from snukeras.export.verify import verify_folder

# Loaded on first use: the command answers --help without waiting for TensorFlow.
_HOMES = {
    "BadInputError": "errors",
    "CrossbarMap": "crossbar",
    "ExportError": "errors",
    "MapError": "errors",
    "MappedChip": "simulation",
    "OutputExistsError": "errors",
    "Target": "targets",
    "UnsupportedLayersError": "errors",
    "VerificationError": "errors",
    "available_targets": "targets",
    "export": "exporter",
    "load_map": "crossbar",
    "load_target": "targets",
    "read_back": "readback",
    "to_onnx": "onnx_model",
    "verify_folder": "verify",
}

__all__ = [
    "BadInputError",
    "CrossbarMap",
    "ExportError",
    "MapError",
    "MappedChip",
    "OutputExistsError",
    "Target",
    "UnsupportedLayersError",
    "VerificationError",
    "available_targets",
    "export",
    "load_map",
    "load_target",
    "read_back",
    "to_onnx",
    "verify_folder",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"snukeras.export.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'snukeras.export' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
