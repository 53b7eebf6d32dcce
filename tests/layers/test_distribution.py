"""Training on two replicas ends at the weights of training on one device, to rounding.

Each training runs in processes of its own: devices and clusters are set before TensorFlow starts.
"""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).with_name("train_distributed.py")
SECONDS = 240


def start(folder, mode, name, **environment):
    path = folder / f"{name}.npz"
    log = open(folder / f"{name}.log", "w+")  # noqa: SIM115  (the process writes on)
    checkout = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join([checkout, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), mode, str(path)],
        env={**os.environ, "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": "-1", **environment},
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    return process, path, log


def finish(started):
    """Wait for processes that depend on one another, for a bounded time, and read their results."""
    deadline = time.monotonic() + SECONDS
    try:
        for process, _, _ in started:
            process.wait(timeout=max(1.0, deadline - time.monotonic()))
    finally:
        for process, _, log in started:
            if process.poll() is None:
                process.kill()
                process.wait()
            log.seek(0)
            output = log.read()
            log.close()
            assert process.returncode == 0, output[-3000:]
    return [dict(np.load(path)) for _, path, _ in started]


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    (result,) = finish([start(tmp_path_factory.mktemp("one"), "one", "one")])
    return result


def assert_same_training(result, reference):
    assert reference["replicas"] == 1 and result["replicas"] == 2
    assert reference["losses"][-1] < reference["losses"][0]
    np.testing.assert_allclose(result["losses"], reference["losses"], rtol=1e-5)
    for name in reference:
        if name.startswith("after/"):
            moved = np.abs(reference[name] - reference[name.replace("after/", "before/")]).max()
            assert moved > 1e-5, name
            np.testing.assert_allclose(result[name], reference[name], atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_mirrored_strategy(one_device, tmp_path):
    (result,) = finish([start(tmp_path, "mirrored", "mirrored")])
    assert_same_training(result, one_device)


@pytest.mark.slow
def test_multi_worker_mirrored_strategy(one_device, tmp_path):
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    workers = []
    for index in range(2):
        config = {
            "cluster": {"worker": addresses},
            "task": {"type": "worker", "index": index},
        }
        workers.append(start(tmp_path, "workers", f"worker{index}", TF_CONFIG=json.dumps(config)))
    for result in finish(workers):
        assert_same_training(result, one_device)


@pytest.mark.slow
def test_data_parallel_on_jax(tmp_path):
    if importlib.util.find_spec("jax") is None:
        pytest.skip("JAX is not installed")
    virtual = "--xla_force_host_platform_device_count=2"
    one, two = (
        finish([start(tmp_path, mode, mode, KERAS_BACKEND="jax", **environment)])[0]
        for mode, environment in (("one", {}), ("parallel", {"XLA_FLAGS": virtual}))
    )
    assert_same_training(two, one)
