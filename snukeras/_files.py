"""Write files whole or not at all, and read JSON with errors that name the file."""

import errno
import hashlib
import json
import os
import re
import sys
import time
import types
import typing
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
"""What JSON holds."""

JsonObject: TypeAlias = dict[str, Any]
"""An object of a JSON file by its keys, where the file may hold more than its readers know."""

_PARTIAL = ".partial."
_LOCK = ".lock"
_NUMBERS = re.compile(r"\[\n\s+((?:-?\d[-+.\deE]*,\n\s+)*-?\d[-+.\deE]*)\n\s+\]")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its place when the block succeeds.

    The temporary name is of this call alone, so that two processes never write into one file. It
    ends like `path`, since Keras judges files by their ending.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{_PARTIAL}{uuid.uuid4().hex}.{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path, what: str, patience: float = 0.0) -> Iterator[None]:
    """Hold a folder for this process within the block, and clear what killed ones left.

    The system gives the lock back when a process ends, however it ends.

    Args:
        folder: The folder; it is made where it is not there.
        what: What holds it, for the error: "training".
        patience: Seconds to wait for a process that holds it, and may be about to end.

    Raises:
        RuntimeError: Another process holds the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / _LOCK, "a+b") as file:
        until = time.monotonic() + patience
        while True:
            try:
                _lock(file.fileno())
                break
            except (BlockingIOError, PermissionError) as error:
                if time.monotonic() >= until:
                    raise RuntimeError(
                        f"Another {what} works in {folder}. Wait for it, or choose another folder."
                    ) from error
                time.sleep(0.1)
        for left in folder.glob(f"{_PARTIAL}*"):
            left.unlink(missing_ok=True)
        yield


def _lock(descriptor: int) -> None:
    """Lock an open file against other processes, or raise OSError at once."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text."""
    with replacing(path) as temporary:
        temporary.write_text(text, "utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write JSON that people can read: an entry a line, lists of numbers on one."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    text = _NUMBERS.sub(lambda found: f"[{', '.join(found[1].split())}]".replace(",,", ","), text)
    write_text(path, text + "\n")


def regular(path: str | Path) -> Path:
    """Return the path of a file that has an end: no pipe and no device, where reading may hang.

    Raises:
        OSError: It is a folder, a pipe or a device.
    """
    found = Path(path)
    if found.exists() and not found.is_file():
        raise OSError(errno.EINVAL, "it is a folder, a pipe or a device, not a file", str(path))
    return found


def read_json(path: Path) -> JsonObject:
    """Read a JSON object.

    Raises:
        ValueError: The file holds something else; the message names it.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a file. Put a JSON file in its place.")
    try:
        content = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a JSON file: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} has to hold a JSON object. Received: {type(content).__name__}")
    return content


def check_type(value: Any, hint: Any, where: object) -> None:
    """Check what was read from JSON against the type that its readers take it for.

    Args:
        value: What was read.
        hint: A TypedDict, `list[...]`, `dict[str, ...]`, a union, a Literal, Any, or a class of the
            values of JSON. Objects may hold other entries beside those of a TypedDict; a whole
            number does for a float, and a bool for neither.
        where: The file, or the place in it, for the message.

    Raises:
        ValueError: The value, or one within it, is of another type; the message says which.
    """
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if typing.is_typeddict(hint) and isinstance(value, dict):
        for key, kind in typing.get_type_hints(hint).items():
            if key in value:
                check_type(value[key], kind, f"{where}: `{key}`")
            elif key in hint.__required_keys__:
                raise ValueError(f"{where} has to hold `{key}`. Received: {', '.join(value)}")
        return
    if origin is list and isinstance(value, list):
        for number, part in enumerate(value):
            check_type(part, parts[0], f"{where}: entry {number}")
        return
    if origin is dict and isinstance(value, dict):
        for name, part in value.items():
            check_type(part, parts[1], f"{where}: {name}")
        return
    kinds = parts if origin in (types.UnionType, typing.Union) else (hint,)
    if not any(_is_kind(value, kind, where) for kind in kinds):
        names = " or ".join(_kind_name(kind) for kind in kinds)
        raise ValueError(f"{where} must be {names}. Received: {value!r:.80}")


def _is_kind(value: Any, kind: Any, where: object) -> bool:
    """Return whether a value is of a type, and check what it holds."""
    origin = typing.get_origin(kind)
    if kind is Any or isinstance(kind, str | typing.ForwardRef):  # JsonValue: whatever JSON holds
        return True
    if origin is Literal:
        return value in typing.get_args(kind)
    if isinstance(value, bool):
        return kind is bool
    plain = dict if typing.is_typeddict(kind) else origin or kind
    if not isinstance(value, (int, float) if plain is float else plain):
        return False
    if origin or typing.is_typeddict(kind):
        check_type(value, kind, where)
    return True


def _kind_name(kind: Any) -> str:
    """Return the name of a type for people who write JSON."""
    plain = dict if typing.is_typeddict(kind) else typing.get_origin(kind) or kind
    if plain is Literal:
        return " or ".join(map(repr, typing.get_args(kind)))
    names = {dict: "an object", list: "a list", NoneType: "null", str: "a text", int: "an integer"}
    names |= {float: "a number", bool: "true or false"}
    return names.get(plain, str(plain))


def write_arrays(
    path: Path | str, arrays: "Mapping[str, np.ndarray]", compress: bool = False
) -> None:
    """Write arrays as .npz by their names, without pickles."""
    import numpy as np

    write = np.savez_compressed if compress else np.savez
    named: dict[str, Any] = {**arrays}  # for NumPy's types a name could be that of an option
    write(path, **named)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_json(content: Any) -> str:
    """Return the sha256 of JSON content, whatever its order and layout."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
