"""Checks of arguments: what passes, and what each error says."""

import re

import numpy as np
import pytest

from snukeras import _arguments
from snukeras.activations import FastSigmoid


@pytest.mark.parametrize(
    ("bounds", "passes", "fails", "allowed"),
    [
        ({}, [-1e9, 0, 2.5], [np.nan, np.inf], "a finite number"),
        ({"minimum": 0.0}, [0, 3], [-1e-9], "a finite number of at least 0"),
        ({"above": 0.0}, [1e-9], [0.0, -1], "a finite number above 0"),
        (
            {"above": 0.0, "maximum": 2.0}, [1, 2], [0, 2.1],
            "a finite number above 0 and of at most 2",
        ),
        (
            {"minimum": 0.0, "below": 1.0}, [0, 0.9], [-0.1, 1],
            "a finite number of at least 0 and below 1",
        ),
    ],
)  # fmt: skip
def test_numbers(bounds, passes, fails, allowed):
    for value in passes:
        found = _arguments.number("n", value, **bounds)
        assert type(found) is float and found == value
    for value in [*fails, True, "1", None, [1.0, 2.0][:0]]:
        message = f"Argument `n` must be {allowed}. Received: n={value!r}"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            _arguments.number("n", value, **bounds)


def test_numbers_of_other_libraries_pass():
    for value in (np.float32(0.5), np.int64(2), np.array(0.25)):
        assert _arguments.number("n", value) == float(value)


def test_choices():
    assert _arguments.choice("word", "b", ("a", "b")) == "b"
    with pytest.raises(ValueError, match=r"^Argument `word` must be one of 'a', 'b'. Received: w"):
        _arguments.choice("word", "c", ("a", "b"))


def test_whole_numbers_and_sizes():
    assert _arguments.whole("n", np.int32(1)) == 1
    for value in (0, 1.0, True, "1"):
        with pytest.raises(ValueError, match="Argument `n` must be an integer of at least 1"):
            _arguments.whole("n", value)
    assert _arguments.sizes("size", 3, 2) == (3, 3)
    for value in (0, (1, 2, 3), (1, True), "33"):
        with pytest.raises(ValueError, match="Argument `size` must be a positive integer, or 2"):
            _arguments.sizes("size", value, 2)


def test_the_slope_of_a_pseudo_derivative():
    with pytest.raises(ValueError, match="Argument `slope` must be a finite number above 0"):
        FastSigmoid(0.0)
