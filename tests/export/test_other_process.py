"""What one process exports another one reads, whatever either has imported before.

The first process imports what the command does, and exports every preset. The second imports every
module of the package first, the last one first; it verifies the folders of the other, and makes
graph and map once more, to the byte.
"""

import subprocess
import sys
from pathlib import Path

import pytest

import snukeras

ROOT = Path(snukeras.__file__).resolve().parent.parent
PRESETS = snukeras.zoo.list()

EXPORT = """
import sys
import snukeras
folder, *names = sys.argv[1:]
for name in names:
    model = snukeras.zoo.load(name)
    report = snukeras.export.export(model, f"{folder}/{name}", chips=1, times=(25.0,), seed=7)
    assert report.verification.ok and report.verification.reload is None, report.verification
"""

READ = """
import importlib, pkgutil, sys
from pathlib import Path
import snukeras
folder, *names = sys.argv[1:]
modules = [m.name for m in pkgutil.walk_packages(snukeras.__path__, "snukeras.")]
for module in reversed([m for m in modules if "._data" not in m]):
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:  # a backend that is not installed
        assert error.name in ("jax", "torch"), error
import onnx
from snukeras.export.crossbar.writer import MapOptions, write_map
from snukeras.export.onnx.graph import described
from snukeras.network.weights import collect
for name in names:
    here, again = Path(folder, name), Path(folder, f"{name}.again")
    assert snukeras.export.verify_folder(here).ok
    model, crossbar = snukeras.zoo.load(name), snukeras.export.load_map(here / "crossbar.snumap")
    texts = described(onnx.load(here / "model.onnx"))
    graph = snukeras.export.to_onnx(model, metadata=texts)
    assert graph.SerializeToString(deterministic=True) == (here / "model.onnx").read_bytes(), name
    told = crossbar.description
    write_map(again, collect(model), crossbar.target, MapOptions(seed=7),
              source=told.source, onnx=told.onnx, package=told.package.version)
    assert again.read_bytes() == (here / "crossbar.snumap").read_bytes(), name
    print(name, flush=True)
"""


def run(code, *arguments):
    """Run code in a process of its own; return what it printed, and its last words on errors."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.split(), done.stderr[-2000:]


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """Which presets the second process has read, and what it complained of."""
    folder = tmp_path_factory.mktemp("exports")
    _, complaints = run(EXPORT, folder, *PRESETS)
    exported = [name for name in PRESETS if (folder / name).is_dir()]
    assert exported == PRESETS, complaints
    return run(READ, folder, *PRESETS)


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_that_one_process_exports_is_read_in_another(name, read):
    names, complaints = read
    assert name in names, complaints
