"""The exporter's exceptions: what was wrong, and a hint at the next step."""

from snukeras.network.errors import BadInputError
from snukeras.network.errors import HintedError as ExportError

__all__ = [
    "BadInputError",
    "ExportError",
    "ExportWarning",
    "MapError",
    "OutputExistsError",
    "UnsupportedLayersError",
    "VerificationError",
]


class UnsupportedLayersError(ExportError):
    """Layers that cannot be exported.

    Args:
        problems: Layer name to reason, for all such layers at once.
    """

    exit_code = 3

    def __init__(self, problems: dict[str, str]) -> None:
        self.problems = dict(problems)
        listing = "; ".join(f"{name} ({reason})" for name, reason in problems.items())
        super().__init__(
            f"{len(problems)} layer(s) cannot be exported: {listing}.",
            "See `snukeras-export --list-layers`.",
        )


class OutputExistsError(ExportError):
    """The output folder is there already and nobody asked to replace it."""

    exit_code = 4


class MapError(ExportError):
    """A crossbar map is damaged, altered, or not a crossbar map of a known version."""


class ExportWarning(Warning):
    """Something that the user has to know of an export that was made."""


class VerificationError(ExportError):
    """An export is not what its report says, or differs from its Keras model."""

    exit_code = 1
