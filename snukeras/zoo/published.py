"""Published figures to compare with: each once, with its network, its protocol and its source.

They stand in published.json of the content folder, and recipes name them. zoo/README.md specifies
the file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from snukeras import _files
from snukeras._files import JsonValue

FILE = "published.json"
FORMAT = 1

_FIGURE: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("task", "network", "protocol", "source"), str),
    "value": (int, float),
}
_SOURCE = dict.fromkeys(("citation", "url", "read"), str)


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
    _files.check_entries(content, {"sources": dict, "figures": dict}, path)
    sources = content["sources"]
    for name, source in sources.items():
        _check(source, _SOURCE, f"{path}: the source {name}")
    figures = {}
    for name, figure in content["figures"].items():
        _check(figure, _FIGURE, f"{path}: the figure {name}")
        if figure["source"] not in sources:
            raise ValueError(
                f"{path}: the figure {name} names a source that is not there. Received: "
                f"{figure['source']!r}. There are: {', '.join(sources)}"
            )
        entries = {key: value for key, value in figure.items() if key != "source"}
        figures[name] = Published(name=name, **entries, **sources[figure["source"]])
    return figures


def _check(entry: JsonValue, entries: Mapping[str, type | tuple[type, ...]], where: str) -> None:
    if not isinstance(entry, dict) or set(entry) != set(entries):
        received = ", ".join(sorted(entry)) if isinstance(entry, dict) else repr(entry)
        raise ValueError(f"{where} has to hold {', '.join(sorted(entries))}. Received: {received}")
    _files.check_entries(entry, entries, where)
