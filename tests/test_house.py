"""The rules of the house: arrows between modules, public API only, everything registered."""

import ast
import configparser
import graphlib
import importlib.util
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import keras
import pytest

import snukeras

PACKAGE = Path(snukeras.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
NAMES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in MODULES
}

# The order of the house: a part imports its own files, and parts of the floors below it.
FLOORS = (
    (
        "_completion",
        "_content",
        "_energy",
        "_executors",
        "_files",
        "_strategy",
        "_terminal",
        "_types",
        "_units",
        "_xla",
    ),
    ("_arguments", "_arrays", "_html", "_philox", "_random"),
    ("activations", "losses"),
    ("regularizers", "metrics", "datasets", "network"),
    ("pcm",),
    ("constraints", "callbacks", "initializers"),
    ("optimizers", "layers"),
    ("zoo",),
    ("export",),
    ("plot",),
)
FLOOR = {part: number for number, parts in enumerate(FLOORS) for part in parts}
# Parts of one floor that import each other, in one direction.
BESIDE = {("callbacks", "constraints"), ("_random", "_philox")}


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
def test_arrows_point_down(path):
    relative = path.relative_to(PACKAGE)
    part = relative.parts[0].removesuffix(".py")
    if part == "__init__":
        return
    assert part in FLOOR, f"{relative} has no floor in the house; give it one in FLOORS"
    for target in set(imported_parts(path)) - {part}:
        assert FLOOR[target] < FLOOR[part] or (part, target) in BESIDE, (
            f"{relative} must not import snukeras.{target}"
        )


def test_the_plan_in_the_documents_is_this_one():
    text = (PACKAGE.parent / "docs" / "architecture.md").read_text("utf-8")
    plan, rest = text.split("## Which way imports run")
    floors = re.findall(r"^\d+\. ((?:`\w+`(?:, )?)+)$", rest, re.MULTILINE)
    assert [set(re.findall(r"`(\w+)`", floor)) for floor in floors] == [set(f) for f in FLOORS]
    for part in (part for floor in FLOORS for part in floor if not part.startswith("_")):
        assert re.search(rf"`snukeras/{part}(\.py|/)`", plan), f"the plan lacks {part}"


def imports_at_the_start(path):
    """The modules of the package that importing a file imports, but not inside functions."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("snukeras"):
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                yield module if module in NAMES else node.module


def test_no_import_runs_in_a_circle():
    graph = {name: {*imports_at_the_start(path)} - {"snukeras"} for name, path in NAMES.items()}
    graphlib.TopologicalSorter(graph).prepare()


def test_every_subpackage_is_in_the_wheel():
    options = configparser.ConfigParser()
    options.read(PACKAGE.parent / "setup.cfg")
    listed = set(options["options"]["packages"].split())
    folders = {".".join(p.parent.relative_to(PACKAGE.parent).parts) for p in MODULES
               if p.name == "__init__.py"}  # fmt: skip
    assert listed - {"snukeras.zoo._data", "snukeras.export._data"} == folders


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_public_api_only_and_no_pickles(path):
    text = path.read_text()
    words = ["keras.src", "tensorflow.python", "allow_pickle=True"]
    # Calls go to processes of one's own, and come back, as multiprocessing sends them.
    if path.name != "_executors.py":
        words.append("import pickle")
    for word in words:
        assert word not in text


def _without_its_framework(module):
    """Whether a module is for a backend that is not installed."""
    backend = module.rpartition("_")[2]
    return backend in ("jax", "torch") and importlib.util.find_spec(backend) is None


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
        if "_data" in info.name:
            continue
        if _without_its_framework(info.name):
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


OWN = ("snukeras", "experiments", "benchmark")


def private_names(path):
    """The names with an underscore that a file takes from other modules of this project."""
    taken = {}
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OWN:
            taken |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
        elif isinstance(node, ast.Attribute) and getattr(node.value, "id", None) in taken:
            taken[f"{node.value.id}.{node.attr}"] = f"{taken[node.value.id]}.{node.attr}"
    for name in taken.values():
        if re.match(r"_[a-zA-Z]", name.rpartition(".")[2]) and name not in NAMES:
            yield name


def test_private_names_stay_in_their_module():
    beside = [path for part in OWN[1:] for path in (PACKAGE.parent / part).rglob("*.py")]
    found = {str(path): [*private_names(path)] for path in [*MODULES, *beside]}
    assert not {path: names for path, names in found.items() if names}


def test_any_is_rare():
    """At most ten in a thousand lines, imports of the word included."""
    text = "".join(path.read_text("utf-8") for path in MODULES)
    assert 100 * len(re.findall(r"\bAny\b", text)) < text.count("\n")


def test_every_module_says_what_it_is_for():
    for path in MODULES:
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_a_saved_model_loads_after_import_snukeras_alone(tmp_path):
    model = keras.Sequential([keras.Input((None, 3)), snukeras.layers.SNU(2)])
    model.save(tmp_path / "model.keras")
    code = f"import snukeras, keras; keras.models.load_model({str(tmp_path / 'model.keras')!r})"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)
