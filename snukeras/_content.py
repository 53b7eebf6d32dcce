"""Find the content folders (zoo, export) in an installed wheel or in a checkout."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def folder(name: str) -> Path:
    """Return the folder that holds the content of `snukeras.<name>`.

    In a wheel the content is the data package `snukeras/<name>/_data`; in a checkout (also when
    installed as editable) it is the folder `<name>` beside the package.

    Args:
        name: "zoo" or "export".

    Raises:
        FileNotFoundError: neither place exists; the message names both.
    """
    places = (_PACKAGE / name / "_data", _PACKAGE.parent / name)
    for place in places:
        if place.is_dir():
            return place
    raise FileNotFoundError(
        f"The content of snukeras.{name} is missing; it should be in {places[0]} (wheel) or "
        f"{places[1]} (checkout). Install the package again."
    )
