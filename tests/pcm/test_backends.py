"""Devices and chips on the other backends of Keras, in processes of their own."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("check_backend.py")


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_chip_on_another_backend(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    run = subprocess.run(
        [sys.executable, str(SCRIPT)],
        env={
            **os.environ,
            "KERAS_BACKEND": backend,
            "PYTHONPATH": f"{SCRIPT.parents[2]}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
