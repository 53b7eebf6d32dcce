"""Export trained networks: ONNX, crossbar maps for analog tiles, and the proof that both hold."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snukeras.export.crossbar.bridges import AnalogMatrix, to_aihwkit, to_crosssim
    from snukeras.export.crossbar.chip import MappedChip
    from snukeras.export.crossbar.load import load_map
    from snukeras.export.crossbar.map import CrossbarMap
    from snukeras.export.crossbar.readback import read_back
    from snukeras.export.crossbar.targets import Target, available_targets, load_target
    from snukeras.export.errors import (
        BadInputError,
        ExportError,
        ExportWarning,
        MapError,
        OutputExistsError,
        UnsupportedLayersError,
        VerificationError,
    )
    from snukeras.export.exporter import export
    from snukeras.export.nir.rating import NirRating, NodeRating
    from snukeras.export.nir.read import rate_nir, read_nir
    from snukeras.export.onnx.build import to_onnx
    from snukeras.export.verify.folder import verify_folder

# Loaded on first use: the command answers --help without waiting for TensorFlow.
_HOMES = {
    "AnalogMatrix": "crossbar.bridges",
    "BadInputError": "errors",
    "CrossbarMap": "crossbar.map",
    "ExportError": "errors",
    "ExportWarning": "errors",
    "MapError": "errors",
    "MappedChip": "crossbar.chip",
    "NirRating": "nir.rating",
    "NodeRating": "nir.rating",
    "OutputExistsError": "errors",
    "Target": "crossbar.targets",
    "UnsupportedLayersError": "errors",
    "VerificationError": "errors",
    "available_targets": "crossbar.targets",
    "export": "exporter",
    "load_map": "crossbar.load",
    "load_target": "crossbar.targets",
    "rate_nir": "nir.read",
    "read_back": "crossbar.readback",
    "read_nir": "nir.read",
    "to_aihwkit": "crossbar.bridges",
    "to_crosssim": "crossbar.bridges",
    "to_onnx": "onnx.build",
    "verify_folder": "verify.folder",
}

__all__ = [
    "AnalogMatrix",
    "BadInputError",
    "CrossbarMap",
    "ExportError",
    "ExportWarning",
    "MapError",
    "MappedChip",
    "NirRating",
    "NodeRating",
    "OutputExistsError",
    "Target",
    "UnsupportedLayersError",
    "VerificationError",
    "available_targets",
    "export",
    "load_map",
    "load_target",
    "rate_nir",
    "read_back",
    "read_nir",
    "to_aihwkit",
    "to_crosssim",
    "to_onnx",
    "verify_folder",
]


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name in _HOMES:
            return getattr(importlib.import_module(f"snukeras.export.{_HOMES[name]}"), name)
        raise AttributeError(f"module 'snukeras.export' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
