"""The folder of an export: names of its files, written whole or not at all, checksums."""

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from snukeras._files import sha256_of
from snukeras.export.errors import BadInputError, OutputExistsError, VerificationError

ONNX, STREAMING, MAP = "model.onnx", "model-streaming.onnx", "crossbar.snumap"
INT8 = "model-int8.onnx"
CSV, SOURCE, SAMPLES = "devices.csv", "model.keras", "samples.npz"
NIR, VECTORS = "model.nir", "vectors.npz"
C, C_HEADER = "model.c", "model.h"
C_INT8, C_INT8_HEADER = "model_int8.c", "model_int8.h"
C_MAIN, C_INPUT, C_EXPECTED = "main.c", "sequence.csv", "expected.csv"
C_FILES = (C, C_HEADER, C_INT8, C_INT8_HEADER, C_MAIN, C_INPUT, C_EXPECTED)
WEB, WEB_NETWORK, WEB_PAGE = "model-web.onnx", "network.json", "index.html"
WEB_PLAYER, WEB_STYLE, WEB_LICENCE = "player.js", "player.css", "onnxruntime-license.txt"
WEB_FILES = (WEB, WEB_NETWORK, WEB_PAGE, WEB_PLAYER, WEB_STYLE, WEB_LICENCE)
WEB_RUNTIME = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
REPORT, PAGE, CHECKSUMS = "report.json", "report.html", "checksums.sha256"
FILES = frozenset(
    {ONNX, INT8, STREAMING, NIR, VECTORS, *C_FILES, *WEB_FILES, *WEB_RUNTIME, MAP, CSV, SOURCE}
    | {SAMPLES, REPORT, PAGE, CHECKSUMS}
)

Progress = Callable[[str], None]

__all__ = ["beside", "check_output", "check_sums", "sha256_of"]


def check_output(output: Path, overwrite: bool) -> None:
    """Raise where an export cannot or must not be written to `output`.

    An earlier export is replaced with `overwrite` alone, and only if every file in the folder is
    as the export wrote it: files that the user added or changed are never deleted.

    Raises:
        BadInputError: The folder around it does not exist.
        OutputExistsError: It exists; the message says what to do.
    """
    if "\0" in str(output):
        raise BadInputError(f"{str(output)!r} cannot be the name of a folder.")
    if not output.parent.is_dir():
        raise BadInputError(f"There is no folder {output.parent}.", "Make it first.")
    if not output.exists() and not output.is_symlink():
        return
    if not output.is_dir() or output.is_symlink():
        raise OutputExistsError(f"{output} exists and is not a folder.", "Choose another --output.")
    present = {path.name for path in output.iterdir()}
    if not present:
        return
    if not (output / CHECKSUMS).is_file():
        raise OutputExistsError(
            f"{output} exists and is not an export, so it is left alone.",
            "Choose another --output.",
        )
    if not overwrite:
        raise OutputExistsError(f"{output} exists.", "Add --overwrite, or choose another --output.")
    if own := sorted(name for name in present if not _is_ours(output, name)):
        listed = ", ".join(own[:3]) + (" ..." if len(own) > 3 else "")
        raise OutputExistsError(
            f"{output} holds files that were added or changed since its export, so it is left "
            f"alone: {listed}.",
            "Move them elsewhere, or choose another --output.",
        )


def _is_ours(folder: Path, name: str) -> bool:
    """Return whether a file is one of an export, as its list of checksums has it."""
    if name == CHECKSUMS:
        return True
    if name not in FILES or not (folder / name).is_file() or (folder / name).is_symlink():
        return False
    lines = (folder / CHECKSUMS).read_bytes().splitlines()
    return f"{sha256_of(folder / name)}  {name}".encode() in lines


@contextlib.contextmanager
def beside(output: Path, overwrite: bool) -> Iterator[Path]:
    """Give a temporary folder beside `output` that takes its place when all is done.

    First `sweep` repairs what killed processes left beside `output`.
    """
    sweep(output)
    folder = output.parent / f".{output.name}.part-{os.getpid()}-{secrets.token_hex(4)}"
    folder.mkdir()
    try:
        yield folder
        old = None
        check_output(output, overwrite)
        if output.is_dir() and any(output.iterdir()):
            old = output.parent / folder.name.replace(".part-", ".old-")
            os.rename(output, old)
        try:
            os.rename(folder, output)
        except BaseException:
            if old is not None:
                os.rename(old, output)
            raise
        if old is not None:
            shutil.rmtree(old)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def sweep(output: Path) -> None:
    """Remove the temporary folders of processes that ended without doing so.

    A process that was killed between its two renames left the earlier export under a temporary
    name; that one gets its own name back.
    """
    pattern = re.compile(rf"\.{re.escape(output.name)}\.(part|old)-([0-9]+)(-[0-9a-f]{{8}})?")
    for path in sorted(output.parent.glob(".*")):
        match = pattern.fullmatch(path.name)
        if match is None or path.is_symlink() or not path.is_dir() or _runs(int(match[2])):
            continue
        if match[1] == "old" and not output.exists():
            os.rename(path, output)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _runs(number: int) -> bool:
    """Return whether a process of this number is running on this machine."""
    try:
        os.kill(number, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it runs as somebody else
        return True
    return True


def check_sums(folder: Path) -> None:
    """Compare every file with the list of checksums.

    Raises:
        VerificationError: A file is missing, changed or not listed, or the list was changed.
    """
    hint = "Export the model again."
    listed = _listed(folder, hint)
    for name in (REPORT, PAGE, ONNX, SOURCE, SAMPLES):
        if name not in listed:
            raise VerificationError(f"{folder / CHECKSUMS} does not list {name}.", hint)
    present = {path.name for path in folder.iterdir()} - {CHECKSUMS}
    for name in sorted((present & FILES) - set(listed)):
        raise VerificationError(f"{folder / name} is not in {CHECKSUMS}.", hint)
    for name, expected in listed.items():
        path = folder / name
        if not path.is_file():
            raise VerificationError(f"{path} is missing.", hint)
        if sha256_of(path) != expected:
            raise VerificationError(f"{path} was changed: it has another sha256.", hint)


def _listed(folder: Path, hint: str) -> dict[str, str]:
    """Read the list of checksums: sha256 by name."""
    try:
        lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise VerificationError(f"{folder / CHECKSUMS} was changed.", hint) from error
    listed: dict[str, str] = {}
    for line in lines:
        match = re.fullmatch(r"([0-9a-f]{64})  ([A-Za-z0-9][A-Za-z0-9._-]*)", line)
        if match is None or match[2] in listed:
            raise VerificationError(f"{folder / CHECKSUMS} was changed: {line[:80]!r}.", hint)
        listed[match[2]] = match[1]
    text = "".join(f"{value}  {name}\n" for name, value in listed.items())
    if (folder / CHECKSUMS).read_bytes() != text.encode():
        raise VerificationError(f"{folder / CHECKSUMS} was changed.", hint)
    return listed
