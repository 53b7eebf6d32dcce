"""Nothing of the user's is deleted; what killed processes left is put right."""

import os
import subprocess
import sys

import pytest

from snukeras.export.errors import BadInputError, OutputExistsError
from snukeras.export.folder import CHECKSUMS, beside, check_output, sha256_of


def an_export(folder):
    folder.mkdir()
    (folder / "model.onnx").write_text("x")
    (folder / "report.json").write_text("{}")
    names = ("model.onnx", "report.json")
    lines = [f"{sha256_of(folder / name)}  {name}\n" for name in names]
    (folder / CHECKSUMS).write_text("".join(lines))
    return folder


def content(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def finished():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    "change",
    [
        lambda f: (f / "notes.txt").write_text("mine"),
        lambda f: (f / "devices.csv").write_text("measured for a week"),
        lambda f: (f / "report.json").write_text('{"edited": true}'),
        lambda f: (f / "figures").mkdir(),
        lambda f: (f / "crossbar.snumap").symlink_to("/etc/hostname"),
    ],
)
def test_files_that_no_export_wrote_are_left_alone(tmp_path, change):
    folder = an_export(tmp_path / "out")
    change(folder)
    before = content(folder)
    with pytest.raises(OutputExistsError, match="added or changed since its export"):
        check_output(folder, True)
    assert content(folder) == before


def test_an_export_alone_is_replaced(tmp_path):
    folder = an_export(tmp_path / "out")
    with pytest.raises(OutputExistsError, match="Add --overwrite"):
        check_output(folder, False)
    with beside(folder, True) as new:
        (new / "model.onnx").write_text("y")
    assert content(tmp_path) == {"out/model.onnx": b"y"}


def test_a_file_that_appears_meanwhile_is_kept(tmp_path):
    folder = an_export(tmp_path / "out")
    with pytest.raises(OutputExistsError), beside(folder, True) as new:
        (new / "model.onnx").write_text("y")
        (folder / "notes.txt").write_text("mine")
    assert (folder / "notes.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_leftovers_of_killed_processes_are_swept(tmp_path):
    gone = finished()
    for name in (f".out.part-{gone}", f".out.part-{gone}-0123abcd", f".out.old-{gone}-0123abcd"):
        (tmp_path / name).mkdir()
    others = [f".out.part-{os.getpid()}-0123abcd", f".other.part-{gone}", ".out.part-mine"]
    for name in others:
        (tmp_path / name).mkdir()
    an_export(tmp_path / "out")
    with beside(tmp_path / "out", True):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"out", *others}


def test_an_export_that_lost_its_name_gets_it_back(tmp_path):
    """The process was killed between its two renames."""
    an_export(tmp_path / f".out.old-{finished()}-0123abcd")
    with pytest.raises(OutputExistsError), beside(tmp_path / "out", False):
        pass
    assert (tmp_path / "out" / "model.onnx").read_text() == "x"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_name_that_no_folder_can_have(tmp_path):
    with pytest.raises(BadInputError, match="name of a folder"):
        check_output(tmp_path / "a\0b", False)
