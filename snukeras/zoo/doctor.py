"""`snukeras-zoo doctor`: what is installed and in use, what is missing, and what to do about it.

Each check stands alone: where one part is broken, the others are still looked at. Nothing is
downloaded.
"""

import importlib
import importlib.util
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from snukeras._terminal import plain, start_keras

State = Literal["ok", "missing", "BROKEN"]

_MARKS: dict[State, str] = {"ok": "ok", "missing": "-", "BROKEN": "BROKEN"}
# Package, its oldest release, and what needs it: "" where nothing works without it.
_NEEDED = (
    ("keras", "3.8", ""),
    ("numpy", "1.26", ""),
    ("h5py", "3.12", ""),
    ("tensorflow", "2.18", "snukeras-zoo train and search, tf.distribute and tf2onnx"),
    ("rich", "13", "what the commands show on a terminal"),
    ("onnx", "1.17", "snukeras-export"),
    ("onnxruntime", "1.20", "snukeras-export"),
    ("jsonschema", "4.18", "snukeras-export"),
    ("scipy", "1.11", "NIR, sound in ONNX, and JSB chorales as downloaded"),
)
# Backend, and what installs it for a GPU.
_BACKENDS = {"tensorflow": "tensorflow[and-cuda]", "jax": "jax[cuda12]", "torch": "torch"}
# Module: what it is for, and what installs it.
_EXTRAS = {
    "nir": ("export as NIR", "snukeras[nir]"),
    "tf2onnx": ("ONNX of layers that the exporter does not know", "snukeras[tf2onnx]"),
    "huggingface_hub": ("models from a hub", "snukeras[hub]"),
    "distributed": ("work on a Dask cluster", "snukeras[cluster]"),
}
_DATA = {
    "jsb_chorales": "JSB chorales",
    "nottingham": "Nottingham",
    "mnist": "MNIST",
    "penn_treebank": "Penn Treebank",
    "wikitext2": "WikiText-2",
    "spoken_digits": "Free Spoken Digits",
    "shd": "Heidelberg Digits",
    "ssc": "Speech Commands",
}


@dataclass(frozen=True)
class Finding:
    """What was found of one thing.

    Attributes:
        what: The thing.
        state: "ok", "missing" where the package works without it, or "BROKEN".
        text: What was found.
        remedy: What to do, "" where nothing is to be done.
    """

    what: str
    state: State
    text: str
    remedy: str = ""


Check = Callable[[], Iterator[Finding]]


def report(content: Path | str | None = None) -> bool:
    """Print what was found, a line each, and what to do.

    Args:
        content: Folder of presets. Default: the one that ships with the package.

    Returns:
        Whether nothing that is needed is broken.
    """
    checks: tuple[tuple[str, Check], ...] = (
        ("versions", _versions),
        ("backend", _backend),
        ("zoo", lambda: _presets(content)),
        ("data", _data),
        ("plots", _plots),
        ("extras", _extras),
    )
    broken = False
    for title, check in checks:
        print(title)
        for finding in _safely(title, check):
            broken |= finding.state == "BROKEN"
            line = f"{_MARKS[finding.state]:<7}{finding.what:<20} {finding.text}"
            print("  " + plain(" ".join(line.split("\n"))).rstrip())
            if finding.remedy:
                print(f"{'':9}{'':20} -> {plain(finding.remedy)}")
    print("Something that is needed is broken: see BROKEN above." if broken else "All is well.")
    return not broken


def _safely(title: str, check: Check) -> Iterator[Finding]:
    """Yield what a check finds; an error of its own is a finding, too."""
    try:
        yield from check()
    except Exception as error:  # whatever a broken part raises
        text = (str(error).strip().splitlines() or [""])[0][:200]
        yield Finding(title, "BROKEN", f"{type(error).__name__}: {text}", "Install snukeras again.")


def _versions() -> Iterator[Finding]:
    from snukeras import __version__

    place = Path(__file__).resolve().parents[1]
    yield Finding("snukeras", "ok", f"{__version__}, in {place}")
    yield Finding("python", "ok", f"{platform.python_version()}, {platform.platform()}")
    backend = _chosen()
    # Somebody who has another backend alone installed the package without its requirements.
    partial = backend != "tensorflow" and not _is_there("tensorflow")
    for name, oldest, use in _NEEDED:
        remedy = f"pip install '{name}>={oldest}'"
        version = _version(name)
        if version is None:
            missing: State = "missing" if partial and use else "BROKEN"
            text = "not installed" + (f"; needed for {use}" if use else "")
            yield Finding(name, missing, text, remedy)
        elif _numbers(version) < _numbers(oldest):
            yield Finding(name, "BROKEN", f"{version} is older than {oldest}", remedy)
        else:
            yield Finding(name, "ok", version)
    if backend in _BACKENDS and backend != "tensorflow":
        version = _version(backend)
        if version is None:
            text = "not installed; it is the backend in use"
            yield Finding(backend, "BROKEN", text, f"pip install {backend}")
        else:
            yield Finding(backend, "ok", version)


def _chosen() -> str:
    """Return the backend that Keras takes, also where it does not start with it."""
    try:
        start_keras()
        import keras

        return keras.backend.backend()
    except Exception:  # what is wrong is a finding of `_backend`
        return os.environ.get("KERAS_BACKEND") or "tensorflow"


def _is_there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _version(module: str) -> str | None:
    """Return the version of a package, or None where it is not installed."""
    if not _is_there(module):
        return None
    try:
        return metadata.version(module)
    except metadata.PackageNotFoundError:
        # Some have another name for it, as tensorflow-cpu.
        return metadata.version(metadata.packages_distributions()[module][0])


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _backend() -> Iterator[Finding]:
    try:
        start_keras()
        import keras

        backend = keras.backend.backend()
    except Exception as error:  # whatever a broken installation raises
        text = f"does not start: {type(error).__name__}: {str(error).strip()[:200]}"
        yield Finding("keras", "BROKEN", text, _other_backend())
        return
    named = os.environ.get("KERAS_BACKEND")
    yield Finding("keras", "ok", f"backend {backend}" + (" (KERAS_BACKEND)" if named else ""))
    from snukeras.layers import SNU

    try:
        SNU(2, implementation="fused")(keras.ops.zeros((1, 2, 3)))
        compiled = "" if backend == "torch" else "compiled "
        yield Finding("fast path", "ok", f"in use: units run as one {compiled}scan")
    except ValueError as error:
        remedy = f"KERAS_BACKEND={(_installed_backends() or ['tensorflow'])[0]}, which has it"
        yield Finding("fast path", "missing", f"not in use: {str(error).splitlines()[0]}", remedy)
    found = _accelerators(backend)
    remedy = f"With an NVIDIA card, on Linux: pip install '{_BACKENDS.get(backend, backend)}'"
    if found:
        yield Finding("GPU", "ok", ", ".join(found))
    else:
        yield Finding("GPU", "missing", "none; all runs on the CPU", remedy)


def _installed_backends() -> list[str]:
    return [name for name in _BACKENDS if _is_there(name)]


def _other_backend() -> str:
    """Say what to do where Keras does not start."""
    chosen = os.environ.get("KERAS_BACKEND") or "tensorflow"
    installed = _installed_backends()
    if chosen in installed:
        return f"pip install --force-reinstall keras {chosen}"
    others = f", or KERAS_BACKEND={installed[0]}, which is installed" if installed else ""
    return f"pip install {chosen}{others}"


def _accelerators(backend: str) -> list[str]:
    if backend == "tensorflow":
        import tensorflow as tf

        return [device.name for device in tf.config.list_physical_devices("GPU")]
    if backend == "jax":
        jax = importlib.import_module("jax")
        return [str(device) for device in jax.devices() if device.platform != "cpu"]
    if backend == "torch":
        cuda = importlib.import_module("torch").cuda
        return [cuda.get_device_name(number) for number in range(cuda.device_count())]
    return []


def _presets(content: Path | str | None) -> Iterator[Finding]:
    from snukeras.zoo import presets

    names = presets.list(content=content)
    folder = presets.content_folder(content)
    if not names:
        remedy = "Install snukeras again, or name another folder with --content."
        yield Finding("presets", "BROKEN", f"none in {folder}", remedy)
        return
    wrong = []
    for name in names:
        files = presets.info(name, content)["files"]
        wrong += [
            f"{name}/{file}"
            for file, pinned in files.items()
            if not (path := folder / name / file).is_file()
            or path.stat().st_size != pinned["bytes"]
        ]
    if wrong:
        text = f"missing or of another size: {', '.join(wrong[:5])}"
        yield Finding("presets", "BROKEN", text, "Install snukeras again.")
    else:
        yield Finding("presets", "ok", f"{len(names)}, all their files of the right size")


def _data() -> Iterator[Finding]:
    from snukeras.datasets._fetch import VARIABLE, Source, cache_folder

    named = os.environ.get(VARIABLE)
    folder = Path(named).expanduser() if named else cache_folder()
    if named and not folder.is_dir():
        text = f"{VARIABLE} names {folder}, which is no folder"
        yield Finding("folder", "BROKEN", text, f"Set {VARIABLE} to a folder, or unset it.")
        return
    yield Finding("folder", "ok", f"{folder}" + (f" ({VARIABLE})" if named else ""))
    for module, title in _DATA.items():
        try:
            held = vars(importlib.import_module(f"snukeras.datasets.{module}"))
        except ImportError as error:
            yield Finding(title, "BROKEN", str(error), "Install snukeras again.")
            continue
        sources = held.get("SOURCES") or (held["SOURCE"],)
        files = [source.name for source in sources if isinstance(source, Source)]
        packed = held.get("PACKED")
        there = all((folder / file).is_file() for file in files)
        if there or (packed is not None and (folder / packed.name).is_file()):
            yield Finding(title, "ok", "found")
        elif named:
            yield Finding(title, "missing", "not found", f"Put there: {', '.join(files)}")
        else:
            yield Finding(title, "missing", "not found; it is fetched on first use")


def _plots() -> Iterator[Finding]:
    yield _installed("matplotlib", "pictures", "snukeras[plot]")


def _extras() -> Iterator[Finding]:
    for module, (use, extra) in _EXTRAS.items():
        yield _installed(module, use, extra)
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler:
        yield Finding("C compiler", "ok", compiler)
    else:
        yield Finding("C compiler", "missing", "checks of exported C", "Install gcc or clang.")


def _installed(module: str, use: str, extra: str) -> Finding:
    """Say whether a module that is not needed can be imported."""
    remedy = f"pip install '{extra}'"
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        other = (error.name or module).partition(".")[0]
        if other != module and not _is_there(other):
            text = f"needs {other}, which is not installed; for {use}"
            return Finding(module, "missing", text, f"pip install {other}")
        if error.name == module:
            return Finding(module, "missing", f"not installed; for {use}", remedy)
        return Finding(module, "BROKEN", str(error), f"pip install --force-reinstall '{extra}'")
    except Exception as error:  # whatever a broken installation raises
        text = f"{type(error).__name__}: {str(error).strip()[:200]}"
        return Finding(module, "BROKEN", text, f"pip install --force-reinstall '{extra}'")
    return Finding(module, "ok", f"{metadata.version(module.replace('_', '-'))}, for {use}")
