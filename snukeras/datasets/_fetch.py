"""Find the file of a data set: given, in a folder, in the cache, or downloaded; always checked.

`keras.utils.get_file` does not serve here: it writes straight to the final name (a killed download
leaves half a file there), keeps a file whose hash is wrong, and says of a missing network neither
what to fetch nor where to put it.
"""

import hashlib
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "SNUKERAS_DATA"
_BLOCK = 1 << 16
_TIMEOUT_S = 60.0
_AT_HAND: ContextVar[bool] = ContextVar("at_hand", default=False)


@dataclass(frozen=True)
class Source:
    """A public file: its name, address, size in bytes and checksum.

    Attributes:
        name: The file's name in folders and in the cache.
        url: Its public address.
        size: In bytes; approximate for a file that its host packs anew. None where it is not
            known, which takes a `check`.
        sha256: Of the file; with `check`, of its contents, or "" where none is published.
        check: For a file whose bytes may change while its contents stay: called with the path of a
            download, raises ValueError where the contents are not those expected.
        checksum: How messages identify the file. Default: its sha256.
    """

    name: str
    url: str
    size: int | None
    sha256: str
    check: Callable[[Path], None] | None = None
    checksum: str = ""

    def __post_init__(self) -> None:
        if not self.checksum:
            object.__setattr__(self, "checksum", f"sha256 {self.sha256}")


def cache_folder() -> Path:
    """Return the folder that downloads are kept in."""
    home = os.environ.get("KERAS_HOME")
    return (Path(home) if home else Path.home() / ".keras") / "datasets" / "snukeras"


@contextmanager
def at_hand() -> Iterator[None]:
    """Let loaders take files that are on this machine within the block, and download none.

    A file that would have to be downloaded raises ConnectionError.
    """
    token = _AT_HAND.set(True)
    try:
        yield
    finally:
        _AT_HAND.reset(token)


def fetch(
    source: Source, path: str | os.PathLike[str] | None = None, by_content: bool = False
) -> Path:
    """Return the path of a file that is `source`, byte for byte.

    Args:
        source: The wanted file.
        path: A file, or a folder that holds it under its own name. Default: the folder named by
            SNUKERAS_DATA, else the cache, else a download into the cache.
        by_content: Only a download is compared with `source`; the caller checks what a file that
            is there already holds. For data that is in use under several packings. Implied by
            `source.check`.

    Raises:
        FileNotFoundError: `path` or SNUKERAS_DATA does not hold the file.
        ValueError: The file found is not the one expected; the message says what differs.
        ConnectionError: It has to be downloaded and cannot be.
        OSError: The disk does not take what was downloaded.
    """
    by_content = by_content or source.check is not None
    if path is not None:
        given = Path(path).expanduser()
        return _existing(
            source,
            given / source.name if given.is_dir() else given,
            "Argument `path`",
            by_content,
        )
    folder = os.environ.get(VARIABLE)
    if folder:
        return _existing(
            source, Path(folder).expanduser() / source.name, f"Variable {VARIABLE}", by_content
        )
    cached = cache_folder() / source.name
    if not cached.exists():
        if _AT_HAND.get():
            raise ConnectionError(f"{source.name} is not on this machine.")
        download(source, cached)
    elif not by_content:
        _check(source, cached, f"Delete {cached} to have it downloaded again.")
    return cached


def _existing(source: Source, file: Path, origin: str, by_content: bool) -> Path:
    if not file.is_file():
        raise FileNotFoundError(
            f"{origin} leads to {file}, which is not a file. Put {source.name} there "
            f"({source.checksum}, from {source.url}), or leave it unset to have it downloaded."
        )
    if not by_content:
        _check(source, file, f"Fetch it again from {source.url}.")
    return file


def _check(source: Source, file: Path, remedy: str) -> None:
    size = file.stat().st_size
    with open(file, "rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    _compare(source, str(file), size, sha256, remedy)


def _compare(source: Source, where: str, size: int, sha256: str, remedy: str) -> None:
    differences = []
    if source.size is not None and size != source.size:
        state = "truncated" if size < source.size else "too long"
        differences.append(f"size {size} bytes instead of {source.size} ({state})")
    if sha256 != source.sha256:
        differences.append(f"sha256 {sha256} instead of {source.sha256}")
    if differences:
        raise ValueError(f"{where} is not {source.name}: {'; '.join(differences)}. {remedy}")


def _blocks(source: Source, target: Path) -> Iterator[bytes]:
    """Yield what the public address sends, block by block, and show progress.

    Raises:
        ConnectionError: It sends nothing, or stops.
    """
    from keras.utils import Progbar

    size = 0
    try:
        with urllib.request.urlopen(source.url, timeout=_TIMEOUT_S) as stream:
            print(f"Downloading {source.name} from {source.url}")
            bar = Progbar(source.size, unit_name="byte")
            while block := stream.read(_BLOCK):
                yield block
                size += len(block)
                if source.size is None:
                    bar.update(size)
                    continue
                bar.update(min(size, source.size), finalize=size >= source.size)
                # A server that sends without end is cut off; a file packed anew may be longer.
                if size > source.size * (1 if source.check is None else 2):
                    break
    except (OSError, urllib.error.URLError) as error:
        raise ConnectionError(
            f"{source.name} could not be downloaded ({error}). Fetch {source.url} on another "
            f"machine ({source.checksum}) and put it at {target}, or in a folder that the "
            f"environment variable {VARIABLE} names."
        ) from error


def download(source: Source, target: Path) -> None:
    """Download to a temporary name, check, and only then give the file its name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{source.name}.", dir=target.parent)
    temporary = Path(name)
    try:
        digest = hashlib.sha256()
        size = 0
        try:
            with os.fdopen(handle, "wb") as out:
                for block in _blocks(source, target):
                    out.write(block)
                    digest.update(block)
                    size += len(block)
        except ConnectionError:
            raise
        except OSError as error:
            raise OSError(
                error.errno,
                f"{source.name} was downloaded and could not be written after {size} bytes "
                f"({error.strerror}). Make room in {target.parent}, or name another folder in the "
                "environment variable KERAS_HOME",
            ) from error
        if source.check is not None:
            source.check(temporary)
        else:
            _compare(
                source,
                f"What {source.url} sent",
                size,
                digest.hexdigest(),
                f"Try again, or put the right file at {target}.",
            )
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
