"""The container: every damaged or forged file gives a MapError, never anything else."""

import hashlib

import numpy as np
import pytest
from damaged_maps import FORGERIES, TINY, described, forge, parts
from hypothesis import given, settings
from hypothesis import strategies as st

from snukeras.export.crossbar.load import load_map
from snukeras.export.errors import ExportError, MapError


def load(tmp_path, data):
    path = tmp_path / "map.snumap"
    path.write_bytes(data)
    return load_map(path)


def test_the_forger_forges_well(tmp_path):
    assert load(tmp_path, forge(described())).totals["weights"] == 18


def test_every_byte_counts(tmp_path):
    path = tmp_path / "map.snumap"
    for position in range(len(TINY)):
        if position % 29 and position > 200:  # all of the header, a sample of the rest
            continue
        data = bytearray(TINY)
        data[position] ^= 0x20
        path.write_bytes(data)
        with pytest.raises(MapError):
            load_map(path)


def test_gaps_count_too(tmp_path):
    references = [r for m in described()["matrices"] for r in (m["g_plus"], m["scale"])]
    end = max(r["offset"] + 4 for r in references if r["shape"] == [1])
    data = bytearray(TINY)
    data[end + 10] = 1
    with pytest.raises(MapError, match=r"altered|unexpected bytes"):
        load(tmp_path, bytes(data))


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 500, len(TINY) - 1])
def test_truncated(tmp_path, size):
    with pytest.raises(MapError, match=r"too short|cut off"):
        load(tmp_path, TINY[:size])


def test_longer(tmp_path):
    with pytest.raises(MapError, match="cut off or altered"):
        load(tmp_path, TINY + b"\0")


def test_another_version(tmp_path):
    data = bytearray(TINY)
    data[8] = 3
    with pytest.raises(MapError, match="version 3; this reader knows versions 1 and 2"):
        load(tmp_path, bytes(data))
    data[8] = 2
    with pytest.raises(MapError, match="no map of version 2"):
        load(tmp_path, bytes(data))


def test_another_file(tmp_path):
    with pytest.raises(MapError, match="not a crossbar map"):
        load(tmp_path, b"PK\x03\x04" + bytes(500))


def test_no_file(tmp_path):
    with pytest.raises(MapError, match="cannot be read"):
        load_map(tmp_path / "missing.snumap")
    with pytest.raises(MapError, match="cannot be read"):
        load_map(tmp_path)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.integers(0, len(TINY) - 1))
def test_noise(tmp_path_factory, noise, position):
    path = tmp_path_factory.mktemp("noise") / "map.snumap"
    path.write_bytes(TINY[:position] + noise + TINY[position + len(noise) + 1 :])
    with pytest.raises(MapError):
        load_map(path)


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"3",
        b"{",
        b"\xff\xfe",
        b'{"a": NaN}',
        b'{"format": 1, "format": 2}',
        b"[" * 100_000,
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
)
def test_bad_json(tmp_path, text):
    with pytest.raises(MapError):
        load(tmp_path, forge(text))


@pytest.mark.parametrize("name", FORGERIES)
def test_forged(tmp_path, name):
    description = described()
    FORGERIES[name](description)
    with pytest.raises((MapError, ValueError)) as caught:
        load(tmp_path, forge(description))
    assert isinstance(caught.value, ExportError)


def test_two_devices_at_one_cross_point(tmp_path):
    description = described()
    block = description["blocks"][0]
    block["bit_lines_minus"] = description["blocks"][1]["bit_lines_plus"]
    description["blocks"][0]["columns"] = 2
    with pytest.raises(MapError):
        load(tmp_path, forge(description))

    arrays = bytearray(parts(TINY)[0])
    reference = described()["blocks"][0]["bit_lines_minus"]
    start = reference["offset"] - 64
    arrays[start : start + 8] = np.array([0, 3], "<u4").tobytes()
    description = described()
    digest = hashlib.sha256(arrays[start : start + 8]).hexdigest()
    description["blocks"][0]["bit_lines_minus"]["sha256"] = digest
    with pytest.raises(MapError, match="two devices share a cross-point of tile 0"):
        load(tmp_path, forge(description, bytes(arrays)))


def test_parameters_must_be_numbers(tmp_path):
    arrays, description = bytearray(parts(TINY)[0]), described()
    reference = description["parameters"][0]["values"]
    start = reference["offset"] - 64
    arrays[start : start + 4] = np.array([np.nan], "<f4").tobytes()
    size = 4 * int(np.prod(reference["shape"]))
    reference["sha256"] = hashlib.sha256(arrays[start : start + size]).hexdigest()
    with pytest.raises(MapError, match="is not finite float32"):
        load(tmp_path, forge(description, bytes(arrays)))


def test_unchecked_loading_still_stays_inside_the_file(tmp_path):
    path = tmp_path / "map.snumap"
    description = described()
    description["matrices"][0]["g_plus"]["offset"] = 64 * 10**6
    path.write_bytes(forge(description))
    with pytest.raises(MapError, match="no array fits"):
        load_map(path, check=False).weights()
