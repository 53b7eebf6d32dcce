"""Find onnxruntime-web, which a page runs networks with: two files of one version, by sha256.

The package does not hold them: they are larger than all of its models together. They come from a
folder or an archive that the user names, else from the cache, else from the public registry of npm
into the cache.
"""

import contextlib
import hashlib
import os
import sys
import tarfile
from pathlib import Path

from snukeras._files import regular
from snukeras.datasets import _fetch
from snukeras.export.errors import BadInputError
from snukeras.export.folder import WEB_RUNTIME

VERSION = "1.30.0"
VARIABLE = "SNUKERAS_WEB_RUNTIME"
SCRIPT, BINARY = WEB_RUNTIME
FILES = {
    SCRIPT: "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    BINARY: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
ARCHIVE = _fetch.Source(
    name=f"onnxruntime-web-{VERSION}.tgz",
    url=f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz",
    size=33_106_585,
    sha256="d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71",
)
# Where the files are below a folder: npm's node_modules, an unpacked archive, or the files alone.
_PLACES = ("", "dist", "package/dist", "node_modules/onnxruntime-web/dist")
_HINT = (
    f"Run `npm pack onnxruntime-web@{VERSION}` where npm and a network are, and give the "
    f"{ARCHIVE.name} that it writes with --web-runtime, or name it in {VARIABLE}."
)

Runtime = dict[str, bytes]
"""The files of the runtime, by name."""


def find(place: str | Path | None = None) -> Runtime:
    """Return the files of onnxruntime-web.

    Args:
        place: The archive of npm, or a folder that holds the files, the unpacked archive, or
            node_modules. Default: what SNUKERAS_WEB_RUNTIME names, else the archive in the cache of
            data sets, else a download into it.

    Raises:
        BadInputError: It is not there, is another version or damaged, or cannot be downloaded.
    """
    given = place if place is not None else os.environ.get(VARIABLE)
    if given:
        return _checked(_read(Path(given).expanduser()), str(given))
    cached = _fetch.cache_folder() / ARCHIVE.name
    if not cached.is_file():
        _download(cached)
    return _checked(_read(cached), str(cached))


def _download(cached: Path) -> None:
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for the result
            _fetch.download(ARCHIVE, cached)
    except ConnectionError as error:
        reason = str(error.__cause__ or error).rstrip(".")
        raise BadInputError(
            f"onnxruntime-web {VERSION}, which the page needs, could not be downloaded: {reason}.",
            _HINT,
        ) from error
    except (OSError, ValueError) as error:
        raise BadInputError(str(error), _HINT) from error


def _read(place: Path) -> dict[str, bytes]:
    """Return those of the files that a folder or an archive holds."""
    if place.is_dir():
        for inside in _PLACES:
            found = {
                name: (place / inside / name).read_bytes()
                for name in FILES
                if (place / inside / name).is_file()
            }
            if found:
                return found
        return {}
    if not place.exists():
        raise BadInputError(f"There is no {place}.", _HINT)
    try:
        with tarfile.open(regular(place)) as archive:
            members = {name: archive.extractfile(f"package/dist/{name}") for name in FILES}
            return {name: member.read() for name, member in members.items() if member is not None}
    except (tarfile.TarError, KeyError, EOFError, OSError) as error:
        raise BadInputError(f"{place} is no archive of onnxruntime-web: {error}.", _HINT) from error


def _checked(found: dict[str, bytes], where: str) -> Runtime:
    """Return the files, all there and byte for byte those of the version."""
    for name, expected in FILES.items():
        if name not in found:
            raise BadInputError(f"{where} does not hold {name} of onnxruntime-web.", _HINT)
        sha256 = hashlib.sha256(found[name]).hexdigest()
        if sha256 != expected:
            raise BadInputError(
                f"{where}: {name} is not that of onnxruntime-web {VERSION}. "
                f"Its sha256 must be {expected}. Received: {sha256}.",
                _HINT,
            )
    return found
