"""The folder of an export: names of its files, written whole or not at all, checksums."""

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from snukeras.export.errors import BadInputError, OutputExistsError, VerificationError

ONNX, STREAMING, MAP = "model.onnx", "model-streaming.onnx", "crossbar.snumap"
CSV, SOURCE, SAMPLES = "devices.csv", "model.keras", "samples.npz"
NIR = "model.nir"
REPORT, PAGE, CHECKSUMS = "report.json", "report.html", "checksums.sha256"

Progress = Callable[[str], None]


def check_output(output, overwrite):
    if not output.parent.is_dir():
        raise BadInputError(f"There is no folder {output.parent}.", "Make it first.")
    if not output.exists() and not output.is_symlink():
        return
    if not output.is_dir() or output.is_symlink():
        raise OutputExistsError(f"{output} exists and is not a folder.", "Choose another --output.")
    if not any(output.iterdir()):
        return
    if not (output / CHECKSUMS).is_file():
        raise OutputExistsError(
            f"{output} exists and is not an export, so it is left alone.",
            "Choose another --output.",
        )
    if not overwrite:
        raise OutputExistsError(f"{output} exists.", "Add --overwrite, or choose another --output.")


@contextlib.contextmanager
def beside(output, overwrite) -> Iterator[Path]:
    """A temporary folder beside `output` that takes its place when all is done."""
    folder = output.parent / f".{output.name}.part-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
        old = None
        check_output(output, overwrite)
        if output.is_dir() and any(output.iterdir()):
            old = output.parent / f".{output.name}.old-{os.getpid()}"
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


def check_sums(folder):
    """Compares every file with the list of checksums."""
    hint = "Export the model again."
    try:
        lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise VerificationError(f"{folder / CHECKSUMS} was changed.", hint) from error
    listed = {}
    for line in lines:
        match = re.fullmatch(r"([0-9a-f]{64})  ([A-Za-z0-9][A-Za-z0-9._-]*)", line)
        if match is None or match[2] in listed:
            raise VerificationError(f"{folder / CHECKSUMS} was changed: {line[:80]!r}.", hint)
        listed[match[2]] = match[1]
    text = "".join(f"{value}  {name}\n" for name, value in listed.items())
    if (folder / CHECKSUMS).read_bytes() != text.encode():
        raise VerificationError(f"{folder / CHECKSUMS} was changed.", hint)
    for name in (REPORT, PAGE, ONNX, SOURCE, SAMPLES):
        if name not in listed:
            raise VerificationError(f"{folder / CHECKSUMS} does not list {name}.", hint)
    present = {path.name for path in folder.iterdir()} - {CHECKSUMS}
    known = {ONNX, STREAMING, NIR, MAP, CSV, SOURCE, SAMPLES, REPORT, PAGE}
    for name in sorted((present & known) - set(listed)):
        raise VerificationError(f"{folder / name} is not in {CHECKSUMS}.", hint)
    for name, expected in listed.items():
        path = folder / name
        if not path.is_file():
            raise VerificationError(f"{path} is missing.", hint)
        if sha256_of(path) != expected:
            raise VerificationError(f"{path} was changed: it has another sha256.", hint)


def sha256_of(path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
