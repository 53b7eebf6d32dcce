"""The layers on the other backends of Keras.

A backend is chosen before Keras starts, so the checks run in a process of their own.
"""

import functools
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

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
    "convolutions",
    "second_derivatives",
    "sound",
]


OTHER_PARTS = ["constraint", "optimizer", "grapes", "analog", "trace", "zoo", "export", "refused"]


@functools.cache
def errors_on(backend, script=SCRIPT):
    """Run all checks of a script on a backend, once; the errors by check."""
    checkout = str(Path(__file__).resolve().parents[2])
    with tempfile.TemporaryDirectory() as folder:
        run = subprocess.run(
            [sys.executable, str(script), folder],
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
def test_backend(backend, check):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    error = errors_on(backend)[check]
    assert error is None, error


@pytest.mark.parametrize("check", OTHER_PARTS)
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_parts(backend, check):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    error = errors_on(backend, SCRIPT.with_name("check_other_parts.py"))[check]
    assert error is None, error
