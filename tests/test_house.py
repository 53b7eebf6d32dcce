"""The rules of the house: arrows between modules, public API only, everything registered."""

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import keras
import pytest

import snukeras

PACKAGE = Path(snukeras.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# part -> the parts of snukeras that it may import
ALLOWED = {
    "activations": set(),
    "pcm": {"pcm", "_files", "_xla"},
    "constraints": {"pcm"},
    "callbacks": {"pcm", "constraints"},
    "optimizers": {"optimizers", "pcm", "constraints"},
    # The synapses and neurons of all-memristive layers are devices of pcm, which knows no layer.
    "layers": {"layers", "activations", "constraints", "pcm", "regularizers", "_xla"},
    "datasets": {"datasets"},
    "benchmark": {"benchmark", "layers", "_files"},
    "losses": set(),
    "regularizers": set(),
    "metrics": {"losses"},
    "zoo": {"zoo", "layers", "activations", "datasets", "losses", "metrics", "constraints",
            "callbacks", "optimizers", "pcm", "_resources", "_files"},
    # Experiments use everything; nothing but the tests uses them.
    "experiments": {"experiments", "zoo", "layers", "activations", "datasets", "losses", "metrics",
                    "constraints", "callbacks", "optimizers", "pcm", "export", "regularizers",
                    "benchmark"},
    "export": {"export", "layers", "activations", "losses", "metrics", "pcm", "_resources"},
}  # fmt: skip
# The one place where export meets the zoo: the command line resolves the name of a preset.
EXCEPTIONS = {("export/command.py", "zoo")}


def imported_parts(path):
    """The parts of snukeras that a file imports, at any depth of its code."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            pieces = name.split(".")
            if pieces[0] == "snukeras" and len(pieces) > 1 and pieces[1] != "__version__":
                yield pieces[1]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_arrows_point_one_way(path):
    relative = path.relative_to(PACKAGE)
    part = relative.parts[0].removesuffix(".py")
    if part not in ALLOWED:
        return
    for target in set(imported_parts(path)):
        if (relative.as_posix(), target) not in EXCEPTIONS:
            assert target in ALLOWED[part], f"{relative} must not import snukeras.{target}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_public_api_only_and_no_pickles(path):
    text = path.read_text()
    for word in ("keras.src", "tensorflow.python", "import pickle", "allow_pickle=True"):
        assert word not in text


def test_every_public_keras_object_is_registered_with_a_config():
    bases = (
        keras.layers.Layer,
        keras.constraints.Constraint,
        keras.losses.Loss,
        keras.metrics.Metric,
        keras.optimizers.Optimizer,
    )
    found = 0
    for info in pkgutil.walk_packages([str(PACKAGE)], "snukeras."):
        # Benchmarks may import packages that are not installed.
        if "_data" in info.name or ".benchmark" in info.name:
            continue
        module = importlib.import_module(info.name)
        for name, thing in inspect.getmembers(module, inspect.isclass):
            if (
                name.startswith("_")
                or thing.__module__ != info.name
                or not issubclass(thing, bases)
            ):
                continue
            found += 1
            registered = keras.saving.get_registered_name(thing)
            # losses.FrameNLL and metrics.FrameNLL share their last name.
            home = info.name.rsplit(".", 1)[1]
            assert registered in (f"snukeras>{name}", f"snukeras>{home}.{name}")
            own = next(c for c in thing.__mro__ if "get_config" in vars(c))
            assert own.__module__.startswith("snukeras."), f"{name} inherits its get_config"
    assert found >= 8


def test_every_module_says_what_it_is_for():
    for path in MODULES:
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_a_saved_model_loads_after_import_snukeras_alone(tmp_path):
    model = keras.Sequential([keras.Input((None, 3)), snukeras.layers.SNU(2)])
    model.save(tmp_path / "model.keras")
    code = f"import snukeras, keras; keras.models.load_model({str(tmp_path / 'model.keras')!r})"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)
