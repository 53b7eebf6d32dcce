"""Published figures to compare with: each once, with its network, its protocol and its source.

They stand in published.json of the content folder, and recipes name them. zoo/README.md specifies
the file.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from snukeras import _files
from snukeras._files import JsonObject

FILE = "published.json"
FORMAT = 1


class _Figure(TypedDict):
    """A figure as published.json has it."""

    task: str
    value: float
    network: str
    protocol: str
    source: str


class _Source(TypedDict):
    """A source as published.json has it."""

    citation: str
    url: str
    read: str


class _Content(TypedDict):
    """published.json."""

    sources: dict[str, _Source]
    figures: dict[str, _Figure]


@dataclass(frozen=True)
class Published:
    """A figure of other people's.

    Attributes:
        name: What recipes call it.
        task: The task's name in recipes.
        value: The figure, in the unit of the task, on its test split.
        network: Kind and size of the network.
        protocol: What else one has to know to compare.
        citation: Who published it.
        url: Where.
        read: Where it was read, and what was not known.
    """

    name: str
    task: str
    value: float
    network: str
    protocol: str
    citation: str
    url: str
    read: str

    def __str__(self) -> str:
        return f"{self.value:g}: {self.network}; {self.protocol} ({self.citation})"


def read(folder: Path) -> dict[str, Published]:
    """Return the published figures of a content folder by name; none where it has no file.

    Raises:
        ValueError: An entry is missing or unknown, or a figure names a source that is not there.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    content = _files.read_json(path)
    if content.get("format") != FORMAT:
        raise ValueError(
            f"{path} has format {content.get('format')!r}; this version of snukeras reads {FORMAT}."
        )
    _files.check_type(content, _Content, path)
    sources = content["sources"]
    for name, source in sources.items():
        _check(source, _Source, f"{path}: the source {name}")
    figures = {}
    for name, figure in content["figures"].items():
        _check(figure, _Figure, f"{path}: the figure {name}")
        if figure["source"] not in sources:
            raise ValueError(
                f"{path}: the figure {name} names a source that is not there. Received: "
                f"{figure['source']!r}. There are: {', '.join(sources)}"
            )
        entries = {key: value for key, value in figure.items() if key != "source"}
        figures[name] = Published(name=name, **entries, **sources[figure["source"]])
    return figures


def _check(entry: JsonObject, kind: type, where: str) -> None:
    """Refuse an entry with more than its type has."""
    if set(entry) != set(kind.__annotations__):
        raise ValueError(
            f"{where} has to hold {', '.join(sorted(kind.__annotations__))}. Received: "
            f"{', '.join(sorted(entry))}"
        )
