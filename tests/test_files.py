"""Files are written whole, under names of their own, and a folder has one writer."""

import subprocess
import sys
import threading
from typing import Literal, NotRequired, TypedDict

import pytest

from snukeras import _files


def test_two_writers_of_one_file_never_share_a_temporary_one(tmp_path):
    path = tmp_path / "a.weights.h5"
    with _files.replacing(path) as one, _files.replacing(path) as two:
        assert one != two
        assert one.name.endswith(".a.weights.h5") and two.name.endswith(".a.weights.h5")
        one.write_text("one")
        two.write_text("two")
    assert path.read_text() == "one"  # the outer block ends last
    assert [*tmp_path.iterdir()] == [path]


def test_a_block_that_fails_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "a.json"
    _files.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="halt"), _files.replacing(path) as temporary:
        temporary.write_text("half")
        raise ValueError("halt")
    assert _files.read_json(path) == {"a": 1} and [*tmp_path.iterdir()] == [path]


@pytest.mark.slow
def test_a_folder_has_one_writer(tmp_path):
    with _files.locked(tmp_path, "training"):
        refused = pytest.raises(RuntimeError, match=f"Another training works in {tmp_path}")
        with refused, _files.locked(tmp_path, "training"):
            pass
        other = subprocess.run(
            [sys.executable, "-c", OTHER, str(tmp_path)], capture_output=True, text=True
        )
        assert "Another training works in" in other.stderr
    with _files.locked(tmp_path, "training"):
        pass


OTHER = """
import pathlib, sys
from snukeras import _files
with _files.locked(pathlib.Path(sys.argv[1]), "training"):
    pass
"""


def test_threads_are_told_apart_too(tmp_path):
    refused = []

    def try_it():
        try:
            with _files.locked(tmp_path, "training"):
                pass
        except RuntimeError as error:
            refused.append(error)

    with _files.locked(tmp_path, "training"):
        thread = threading.Thread(target=try_it)
        thread.start()
        thread.join()
    assert len(refused) == 1


def test_what_a_killed_process_left_is_cleared(tmp_path):
    (tmp_path / "state.npz").write_text("whole")
    (tmp_path / ".partial.0123.state.npz").write_text("half")
    with _files.locked(tmp_path, "training"):
        assert {path.name for path in tmp_path.iterdir()} == {"state.npz", ".lock"}


def test_lists_of_numbers_stand_on_a_line(tmp_path):
    content = {"a": [1, -2.5, 3e-07], "b": [], "c": ["1", 2], "d": [[1, 2], [3]], "e": {"f": [7]}}
    _files.write_json(tmp_path / "a.json", content)
    assert _files.read_json(tmp_path / "a.json") == content
    text = (tmp_path / "a.json").read_text()
    assert '"a": [1, -2.5, 3e-07],' in text and '"f": [7]' in text and "[3]" in text


class Figure(TypedDict):
    mean: float
    deviation: NotRequired[float | None]
    kind: NotRequired[Literal["a", "b"]]


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        ({}, Figure, r"x has to hold `mean`"),
        ({"mean": "1"}, Figure, r"x: `mean` must be a number\. Received: '1'"),
        ({"mean": True}, Figure, r"x: `mean` must be a number\. Received: True"),
        ({"mean": 1, "deviation": []}, Figure, "`deviation` must be a number or null"),
        ({"mean": 1, "kind": "c"}, Figure, "`kind` must be 'a' or 'b'"),
        ([1, 2.5], list[int], r"x: entry 1 must be an integer\. Received: 2\.5"),
        ({"a": {"mean": None}}, dict[str, Figure], "x: a: `mean` must be a number"),
        ([], Figure | None, "x must be an object or null"),
        ({"mean": []}, Figure | None, "`mean` must be a number"),
        ({}, list[int], "x must be a list"),
    ],
)
def test_values_of_another_type_are_named_by_their_place(value, hint, message):
    with pytest.raises(ValueError, match=message):
        _files.check_type(value, hint, "x")


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ({"mean": 1, "more": []}, Figure),
        ({"mean": 1.5, "deviation": None, "kind": "a"}, Figure),
        (None, Figure | None),
        ([[], {}, None], list[_files.JsonValue]),
        ({"a": [1]}, _files.JsonObject),
    ],
)
def test_values_of_the_type_pass(value, hint):
    _files.check_type(value, hint, "x")
