"""The layers on the other backends of Keras.

A backend is chosen before Keras starts, so the checks run in a process of their own.
"""

import functools
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).with_name("check_backend.py")
CHECKS = [
    "imports",
    "watched",
    "values",
    "gradients",
    "saving",
    "masks",
    "stateful",
    "padding",
    "fused",
    "large",
    "convolutions",
    "second_derivatives",
    "sound",
    "images",
    "lif",
]


OTHER_PARTS = [
    "constraint",
    "noise",
    "clipping",
    "devices_as_noise",
    "noise_undone",
    "monitor",
    "untold",
    "monitor_warns",
    "optimizer",
    "grapes",
    "analog",
    "chip",
    "trace",
    "zoo",
    "export",
    "refused",
    "torch_format",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("backends")


@functools.cache
def errors_on(backend, script, folder):
    """Run all checks of a script on a backend, once; the errors by check."""
    checkout = str(Path(__file__).resolve().parents[2])
    run = subprocess.run(
        [sys.executable, str(script), str(folder)],
        env={
            **os.environ,
            "KERAS_BACKEND": backend,
            "PYTHONPATH": checkout + os.pathsep + os.environ.get("PYTHONPATH", ""),
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_backend(backend, check, folder):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    error = errors_on(backend, SCRIPT, folder)[check]
    assert error is None, error


@pytest.mark.parametrize("check", OTHER_PARTS)
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_parts(backend, check, folder):
    """The checks hold, and their figures are those of TensorFlow.

    Random numbers of devices differ; of these, mean and deviation are compared.
    """
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    figures = []
    for each in (backend, "tensorflow"):
        error = errors_on(each, SCRIPT.with_name("check_other_parts.py"), folder)[check]
        assert error is None, f"{each}: {error}"
        with np.load(folder / each / "figures.npz") as held:
            figures.append({n: held[n] for n in held if n.startswith(f"{check}/")})
    found, expected = figures
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        loose = {"rtol": 0.05, "atol": 0.02} if name.endswith("statistics") else {"atol": 2e-5}
        np.testing.assert_allclose(found[name], value, **loose, err_msg=name)


# What stands among the requirements of the package, and layers do without.
BARE = """
import sys

for name in sys.argv[2:]:
    sys.modules[name] = None  # as if it were not installed
import keras
import numpy as np

import snukeras

for name in snukeras.__all__:
    getattr(snukeras, name)
x = np.ones((4, 3, 5), "float32")
model = keras.Sequential([keras.Input((3, 5)), snukeras.layers.SNU(2)])
model.compile("adam", "mse")
model.fit(x, x[:, 0, :2], verbose=0, callbacks=[snukeras.callbacks.PCMNoise()])
snukeras.zoo.load("jsb_snu")
from snukeras.export.command import main as export
from snukeras.zoo.command import main as zoo

assert zoo(["list"]) == 0
assert zoo(["verify", "jsb_snu"]) == 0
assert zoo(["doctor"]) == 0
assert export(["zoo:jsb_snu", "--output", sys.argv[1]]) == 5
assert not [name for name in sys.argv[2:] if sys.modules[name]]
"""


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_without_requirements(backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    missing = ["tensorflow", "onnx", "onnxruntime", "jsonschema"]
    missing += ["scipy"] if backend == "torch" else []  # JAX itself needs SciPy
    checkout = str(Path(__file__).resolve().parents[2])
    run = subprocess.run(
        [sys.executable, "-c", BARE, str(tmp_path / "out"), *missing],
        env={
            **os.environ,
            "KERAS_BACKEND": backend,
            "PYTHONPATH": checkout + os.pathsep + os.environ.get("PYTHONPATH", ""),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    assert "tensorflow           not installed" in run.stdout
    told = run.stderr.strip().splitlines()[-2:]
    assert "is not installed, and an export needs it" in told[0], run.stderr
