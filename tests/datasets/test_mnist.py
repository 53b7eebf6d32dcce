"""MNIST: the arrays, however they were packed."""

import hashlib

import numpy as np
import pytest

from snukeras.datasets import mnist


def test_real_file(data_folder):
    (x, y), (x_test, y_test) = mnist.load_data()
    assert x.shape == (60_000, 28, 28) and x_test.shape == (10_000, 28, 28)
    assert x.dtype == y.dtype == np.uint8
    np.testing.assert_array_equal(y[:8], [5, 0, 4, 1, 9, 2, 1, 3])
    np.testing.assert_array_equal(y_test[:6], [7, 2, 1, 0, 4, 1])
    assert np.bincount(y).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


@pytest.fixture
def small(monkeypatch):
    """Arrays of which the loader believes that they are MNIST."""
    shapes = {"x_train": (5, 28, 28), "y_train": (5,), "x_test": (2, 28, 28), "y_test": (2,)}
    rng = np.random.default_rng(0)
    arrays = {name: rng.integers(0, 10, shape, np.uint8) for name, shape in shapes.items()}
    digest = hashlib.sha256(b"".join(array.tobytes() for array in arrays.values())).hexdigest()
    monkeypatch.setattr(mnist, "ARRAYS", shapes)
    monkeypatch.setattr(mnist, "ARRAYS_SHA256", digest)
    return arrays


@pytest.mark.parametrize("pack", [np.savez, np.savez_compressed])
def test_packing_does_not_matter(small, pack, tmp_path, monkeypatch):
    pack(tmp_path / "mnist.npz", **small)
    for path in (tmp_path, tmp_path / "mnist.npz"):
        (x, _), (_, y_test) = mnist.load_data(path)
        np.testing.assert_array_equal(x, small["x_train"])
        np.testing.assert_array_equal(y_test, small["y_test"])
    monkeypatch.setenv("SNUKERAS_DATA", str(tmp_path))
    np.testing.assert_array_equal(mnist.load_data()[0][1], small["y_train"])


def test_other_arrays_are_refused(small, tmp_path):
    file = tmp_path / "mnist.npz"
    small["x_test"][0, 0, 0] += 1
    np.savez(file, **small)
    with pytest.raises(ValueError, match=r"not MNIST: its arrays have sha256 .*Fetch it again"):
        mnist.load_data(file)
    np.savez(file, **{**small, "x_test": small["x_test"][:1]})
    with pytest.raises(ValueError, match=r"x_test is uint8 \(1, 28, 28\)"):
        mnist.load_data(file)
    np.savez(file, x_train=small["x_train"])
    with pytest.raises(ValueError, match="cannot be read"):
        mnist.load_data(file)
    file.write_bytes(b"PK\3\4 and then nothing")
    with pytest.raises(ValueError, match="cannot be read"):
        mnist.load_data(file)


def test_absent_file_says_what_to_fetch(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"mnist\.npz"):
        mnist.load_data(tmp_path / "absent")
