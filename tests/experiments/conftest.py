"""What the tests of experiments share."""

import numpy as np
import pytest


@pytest.fixture
def two_tasks():
    """Random images and labels of two tasks, as `spatial.load` returns them."""
    random = np.random.default_rng(0)
    x = random.random((40, 1568)).astype("float32")
    y = random.integers(0, 10, (40, 2)).astype("int32")
    return {name: (x, y) for name in ("train", "valid", "test")}
