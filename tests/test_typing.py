"""What editors and type checkers know of the package, as it is installed."""

import ast
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import keras
import pytest

import snukeras

ROOT = Path(__file__).resolve().parent.parent
# All that a wheel is built from.
SOURCES = ("snukeras", "zoo", "export", "_snukeras_command.py", "setup.py", "setup.cfg",
           "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")  # fmt: skip

RIGHT = """
import keras

import snukeras

layer = snukeras.layers.SNU(
    150, return_sequences=True, kernel_constraint=snukeras.constraints.PCMConstraint(levels=16)
)
image = snukeras.layers.ConvSNU2D(16, (5, 5), strides=2, name="image", dtype="float32")
soft = snukeras.layers.SSNU(8, **snukeras.layers.PAPER)
model = keras.Sequential([layer, keras.layers.Dense(88, activation="sigmoid")])
optimizer = snukeras.optimizers.PCMOptimizer("adam", device=snukeras.pcm.NandakumarPCM())
model.compile(
    optimizer,
    loss=snukeras.losses.FrameNLL(from_logits=False),
    weighted_metrics=[snukeras.metrics.FrameNLL()],
)
callbacks = [snukeras.callbacks.PCMNoise(0.038), snukeras.callbacks.SpikeMonitor()]
chip = snukeras.pcm.Chip(snukeras.fold(model), snukeras.pcm.GenericPCM(), seed=1)
spikes = snukeras.trace(model, [[0.0]])["snu"]["spikes"].mean(axis=(0, 1))
rates = snukeras.initializers.calibrate(model, [[0.0]], rate=0.1)
cost = snukeras.regularizers.SpikeRate(low=0.02)
bump = snukeras.activations.FastSigmoid(slope=2.0)
train, valid, test = snukeras.datasets.jsb_chorales.load_data()
loaded = snukeras.zoo.load("jsb_snu")
snukeras.export.export(loaded, "folder", target="pcm")
"""

WRONG = """
import snukeras

snukeras.layers.SNU(3, nonsense=3)
snukeras.layers.SNU("three")
snukeras.typo
snukeras.layer.SNU(3)
snukeras.layers.SNUU(3)
snukeras.export.exprt
snukeras.pcm.Chip(None, device=3)
from snukeras.layers import snu_layer
"""
WRONG_LINES = [line for line, text in enumerate(WRONG.splitlines(), 1) if line > 2 and text]


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """The folder of a user's two scripts."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "right.py").write_text(RIGHT)
    (folder / "wrong.py").write_text(WRONG)
    return folder


@pytest.fixture(scope="module", params=["normal", "editable"])
def python(request, tmp_path_factory):
    """The interpreter of an environment with snukeras installed; all else is this one's."""
    pytest.importorskip("pip")
    # Copied, because a build leaves files behind.
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    folder = tmp_path_factory.mktemp(request.param) / "env"
    venv.create(folder, with_pip=False)
    (site,) = [*folder.glob("lib/python*/site-packages"), *folder.glob("Lib/site-packages")]
    (site / "others.pth").write_text(str(Path(keras.__file__).resolve().parents[1]))
    (python,) = [*folder.glob("bin/python"), *folder.glob("Scripts/python.exe")]
    what = [source] if request.param == "normal" else ["--editable", source]
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps",
         *what],
        check=True, cwd=folder,
    )  # fmt: skip
    return python


def checked(command, script):
    """The lines of a script in which a type checker finds errors."""
    paths = ("PYTHONPATH", "MYPYPATH")
    env = {name: value for name, value in os.environ.items() if name not in paths}
    run = subprocess.run(
        [*command, script.name], capture_output=True, text=True, cwd=script.parent, env=env
    )
    found = [text.split(":") for text in run.stdout.splitlines() if " error" in text]
    assert run.returncode in (0, 1), run.stdout + run.stderr
    return sorted({int(parts[1]) for parts in found if parts[0].endswith(script.name)}), run.stdout


@pytest.mark.slow
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_a_users_script_is_checked(checker, python, scripts):
    pytest.importorskip(checker)
    if checker == "mypy":
        options = ["--python-executable", python, "--ignore-missing-imports", "--cache-dir", ".c"]
    else:
        options = ["--pythonpath", python]
    command = [sys.executable, "-m", checker, *options]
    lines, output = checked(command, scripts / "right.py")
    assert lines == [], output
    lines, output = checked(command, scripts / "wrong.py")
    assert lines == WRONG_LINES, output


def test_editors_are_shown_all_that_the_package_offers():
    body = ast.parse(Path(snukeras.__file__).read_text("utf-8")).body
    shown = next(
        node
        for node in body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    names = {alias.name for node in shown.body for alias in node.names}
    assert names == set(snukeras.__all__)
