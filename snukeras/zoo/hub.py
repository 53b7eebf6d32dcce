"""Models of a hub: `load("hf://owner/name")`, with huggingface_hub where it is installed.

A repository holds what `snukeras-zoo publish --hub` writes: the files of a preset, and its card.
They are data; a config that names other code than that of Keras and snukeras is refused.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from snukeras import _files
from snukeras._files import JsonValue

SCHEME = "hf://"
REMEDY = (
    "The repository holds another file than its preset.json says: ask its owner, or name a "
    "revision (hf://owner/name@revision). A damaged download is fetched again once it is deleted."
)

# As hubs name things: letters, digits, "-", "_" and ".", with a letter or digit at both ends.
_PART = r"[a-z0-9](?:[\w.-]{0,94}[a-z0-9])?"
_ADDRESS = re.compile(rf"hf://({_PART}/{_PART})(?:@([\w./-]+))?/?", re.ASCII | re.IGNORECASE)
# Modules whose classes a config may name.
_KNOWN = ("keras", "snukeras")


class Address(NamedTuple):
    """Where a model is: the repository, and its revision, None for the newest."""

    repository: str
    revision: str | None


def parse(address: str) -> Address:
    """Read "hf://owner/name" or "hf://owner/name@revision".

    Raises:
        ValueError: It is none.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise ValueError(
            "A model of a hub is named hf://owner/name, or hf://owner/name@revision. "
            f"Received: {address!r}"
        )
    return Address(found[1], found[2])


def fetch(address: str, files: Sequence[str], preset: str) -> Path:
    """Return a folder with the files of a model of a hub.

    huggingface_hub keeps them in its cache, and finds them there without a network.

    Args:
        address: "hf://owner/name", or with "@revision".
        files: Files that are needed.
        preset: The file that says that it is a model of this package; it is fetched first.

    Raises:
        ValueError: The address is none, there is no such repository or revision, or it holds no
            model of this package.
        ImportError: huggingface_hub is not installed.
        ConnectionError: The hub does not answer, and the files are not in the cache.
    """
    repository, revision = parse(address)
    try:
        import huggingface_hub as hub
        from huggingface_hub import errors
    except ImportError:
        raise ImportError(
            "Models of a hub need huggingface_hub: pip install 'snukeras[hub]'."
        ) from None
    place = Path()
    for file in (preset, *files):
        try:
            place = Path(hub.hf_hub_download(repository, file, revision=revision)).parent
            if re.fullmatch(r"[0-9a-f]{40}", place.name):
                revision = place.name  # all files of one commit, also if a new one comes
        except errors.LocalEntryNotFoundError as error:
            raise ConnectionError(_unreachable(address, error)) from error
        except errors.RevisionNotFoundError as error:
            raise ValueError(
                f"{address} has no revision {revision!r}. Name one that the repository has."
            ) from error
        except errors.RepositoryNotFoundError as error:
            raise ValueError(
                f"There is no repository {repository!r} that you may read. Look for its name on "
                "the hub; for a private one, log in with `hf auth login`."
            ) from error
        except errors.EntryNotFoundError as error:
            raise ValueError(
                f"{address} is no model of snukeras: it has no {file}. `snukeras-zoo publish NAME "
                "--hub DIR` writes the folder of one."
            ) from error
        except (OSError, errors.HfHubHTTPError) as error:
            raise ConnectionError(_unreachable(address, error)) from error
    return place


def check_config(path: Path) -> None:
    """Refuse the config of a model that names other code than that of Keras and snukeras.

    Raises:
        ValueError: It does, or it has a Lambda layer.
    """
    named = sorted(set(_foreign(_files.read_json(path))))
    if named:
        raise ValueError(
            f"{path} names code that is not loaded from a hub: {', '.join(named)}. Allowed are "
            "classes of keras and snukeras, and no Lambda layers. Get the model from its maker, "
            "with its code."
        )


def _foreign(config: JsonValue) -> Iterator[str]:
    """Yield the classes and functions of a config that are not known."""
    if isinstance(config, dict):
        module, name = config.get("module"), config.get("class_name")
        package = str(config.get("registered_name") or "").rpartition(">")[0]
        if name in ("Lambda", "__lambda__", "function"):
            yield str(name)
        elif module is not None and str(module).split(".")[0] not in _KNOWN:
            yield f"{module}.{name}"
        elif package and package not in _KNOWN:
            yield str(config["registered_name"])
        for value in config.values():
            yield from _foreign(value)
    elif isinstance(config, list):
        for value in config:
            yield from _foreign(value)


def _unreachable(address: str, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return (
        f"{address} could not be downloaded: {reason} Load it once where there is a network, or "
        "set HF_ENDPOINT to a mirror; what was loaded once is in the cache of huggingface_hub."
    )
