"""The readers for everybody: one of NumPy alone and one in C99, against the package's own."""

import random
import subprocess
import sys

import numpy as np
import pytest
from damaged_maps import FORGERIES, TINY, described, forge

from snukeras import zoo
from snukeras._content import folder
from snukeras.export.crossbar.description import OnnxFile, Source
from snukeras.export.crossbar.load import load_map
from snukeras.export.crossbar.targets import load_target
from snukeras.export.crossbar.writer import write_map
from snukeras.export.network import Network
from snukeras.network.matrices import Unrolling
from snukeras.network.weights import Weight

READERS = folder("export") / "readers"
# Forged entries that a reader of weights and addresses does not use: they are in the JSON alone.
UNUSED = {
    "tile not listed", "tile renumbered", "tile gone", "device count", "totals", "smaller range",
    "no range", "no hash", "extra key", "adder gone", "adder of another block", "adder too many",
    "off its levels", "fault elsewhere", "fault of another conductance",
}  # fmt: skip
# Reads the files named on its command line, and says of each what is wrong, or "good".
MANY = """
#define SNUMAP_IMPLEMENTATION
#include "snumap.h"
int main(int count, char **given)
{
    struct snumap map;
    char error[SNUMAP_ERROR];
    int i;
    for (i = 1; i < count; i++) {
        const int good = snumap_read(&map, given[i], error);
        puts(good ? "good" : error);
        snumap_free(&map);
    }
    return 0;
}
"""


@pytest.fixture(scope="module")
def many(build, tmp_path_factory):
    source = tmp_path_factory.mktemp("programs") / "many.c"
    source.write_text(MANY)
    return build(source)


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    """The map of a preset, and one whose weights lie on tiles by axes of their own."""
    place = tmp_path_factory.mktemp("maps")
    kernel = np.random.default_rng(0).normal(size=(3, 2, 4, 5)).astype("float32")
    others = [
        Weight("depth wise/kernel", "depth wise", "kernel", kernel, Unrolling((0, 1), (2, 3))),
        Weight("transposed/kernel", "transposed", "kernel", kernel, Unrolling((3, 0, 1), (2,))),
        Weight('né"/bias', 'né"', "bias", kernel[0, 0, 0], None),
        Weight("one/number", "one", "number", np.float32(3.5), None),
    ]
    target = load_target("pcm14nm-2").replace(rows=10, columns=7)
    for name, weights in (
        ("preset", Network.read(zoo.load("jsb_snu")).weights),
        ("axes", others),
    ):
        source, onnx = Source(name, None, "0" * 64), OnnxFile("model.onnx", "0" * 64)
        where = load_target("pcm") if name == "preset" else target
        write_map(place / f"{name}.snumap", weights, where, source=source, onnx=onnx)
    return place


@pytest.mark.parametrize("name", ["preset", "axes"])
def test_numpy_alone_reads_what_the_package_reads(maps, reader, name):
    path = maps / f"{name}.snumap"
    wanted, found = load_map(path), reader.read(path)
    assert found.matrices == wanted.matrices
    weights = found.weights()
    assert list(weights) == list(wanted.weights())
    for key, values in wanted.weights().items():
        assert weights[key].dtype == values.dtype
        np.testing.assert_array_equal(weights[key], values)
    for key in wanted.matrices:
        for one, two in zip(found.conductances(key), wanted.conductances(key), strict=True):
            np.testing.assert_array_equal(one, two)
        last = tuple(size - 1 for size in found.conductances(key)[0].shape)
        assert found.address(key, *last) == tuple(wanted.address(key, *last))
    with pytest.raises(KeyError, match="no matrix 'nothing'"):
        found.scales("nothing")
    with pytest.raises(IndexError, match="no weight at row -1"):
        found.address(wanted.matrices[0], -1, 0)


@pytest.mark.parametrize("name", ["preset", "axes"])
def test_c_reads_what_the_package_reads(maps, dump, name):
    path = maps / f"{name}.snumap"
    wanted = load_map(path)

    def run(*given):
        return subprocess.run([dump, path, *given], capture_output=True, text=True, check=True)

    assert [line.split(": ")[0] for line in run().stdout.splitlines()] == list(wanted.weights())
    for key, values in wanted.weights().items():
        got = np.array(run(key).stdout.split(), "float32")
        np.testing.assert_array_equal(got, values.ravel())
    key = wanted.matrices[-1]
    row, column = (size - 1 for size in wanted.conductances(key)[0].shape)
    at = wanted.address(key, row, column)
    assert run(key, str(row), str(column)).stdout == (
        f"tile {at.tile}, word line {at.word_line}, "
        f"bit lines {at.bit_line_plus} and {at.bit_line_minus}\n"
    )


def test_the_python_reader_needs_numpy_alone(maps):
    code = (
        "import sys, runpy; sys.modules.update(dict.fromkeys(('snukeras', 'keras', 'tensorflow')));"
        f"sys.argv = ['snumap_reader.py', {str(maps / 'axes.snumap')!r}];"
        f"runpy.run_path({str(READERS / 'snumap_reader.py')!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "depth wise/kernel: 6 rows, 20 columns on tiles" in done.stdout


def damaged():
    """Damaged files by what was done to them."""
    found = {f"cut to {size}": TINY[:size] for size in (0, 1, 63, 64, 65, 500, len(TINY) - 1)}
    found["longer"] = TINY + b"\0"
    found["another version"] = TINY[:8] + b"\2" + TINY[9:]
    found["a later version"] = TINY[:8] + b"\3" + TINY[9:]
    found["another file"] = b"PK\3\4" + bytes(500)
    huge = (2**64 - 64).to_bytes(8, "little")
    found["huge offset"] = TINY[:16] + huge + TINY[24:]
    found["huge length"] = TINY[:24] + huge + TINY[32:]
    for name, change in FORGERIES.items():
        description = described()
        change(description)
        if name not in UNUSED:
            found[name] = forge(description)
    texts = (b"[]", b"3", b"{", b"", b"\xff\xfe", b'{"a": NaN}', b'{"a": 1, "a": 2}', b'"\\', b"-",
             b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}", b'{"a": "\xed\xa0\x80"}', b'{"a": 01}',
             b'{"a" 1}', b'{"a": tru}', b"{} {}", b'"\\u12', b"[1 2]")  # fmt: skip
    found |= {f"JSON {number}": forge(text) for number, text in enumerate(texts)}
    r = random.Random(0)
    for position in sorted({*range(64), *r.sample(range(64, len(TINY)), 80)}):
        data = bytearray(TINY)
        data[position] ^= 1 << r.randrange(8)
        found[f"bit at {position}"] = bytes(data)
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    place = tmp_path_factory.mktemp("damaged")
    found = {}
    for number, (name, data) in enumerate(damaged().items()):
        found[name] = place / f"{number}.snumap"
        found[name].write_bytes(data)
    (place / "good.snumap").write_bytes(forge(described()))
    return {"good": place / "good.snumap", **found, "none": place / "no.snumap", "folder": place}


def test_damaged_files_are_refused_in_a_sentence(files, reader):
    assert reader.read(files["good"]).matrices == ["snu/kernel", "dense/kernel"]
    for name, path in list(files.items())[1:]:
        with pytest.raises(reader.SnumapError, match=r"^\S+ .+\.$"):
            pytest.fail(f"{name} is taken: {reader.read(path).matrices}")


def test_damaged_files_are_refused_in_a_sentence_by_c(files, many):
    done = subprocess.run([many, *files.values()], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:2000]
    said = dict(zip(files, done.stdout.splitlines(), strict=True))
    assert said.pop("good") == "good"
    # The C reader hands out no name of an ONNX file.
    assert said.pop("path") == "good"
    for name, line in said.items():
        assert line.startswith("/") and line.endswith("."), (name, line)
