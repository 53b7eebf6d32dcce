"""Kinds of tile: names, files, and what cannot be one."""

import dataclasses
import json

import keras
import pytest

from snukeras._content import folder
from snukeras.pcm import InputConverter, OutputConverter, Tile, get_tile, tile_names


def test_names():
    assert {"ideal", "generic8", "aihwkit", "pcm", "pcm14nm-1", "pcm14nm-2"} <= set(tile_names())
    assert get_tile("ideal").ideal and not get_tile("generic8").ideal
    for name in tile_names():
        tile = get_tile(name)
        assert (
            keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(tile)) == tile
        )
        assert tile.calibrates == (name not in ("ideal", "aihwkit"))
    eight = get_tile("generic8")
    assert eight.input.bits == eight.output.bits == 8
    # One polarity at each cross-point: two columns a weight; a whole pair: one.
    assert (get_tile("pcm").columns, get_tile("pcm14nm-1").columns) == (128, 256)


def test_files(tmp_path):
    own = Tile(64, 32, InputConverter(6, "vector"), OutputConverter(5, 9.0, noise=0.1), 0.35)
    path = tmp_path / "own.json"
    own.save(path)
    assert get_tile(path) == get_tile(str(path)) == own
    target = folder("export") / "targets" / "pcm.json"
    assert get_tile(target) == get_tile("pcm")
    without = json.loads(target.read_text())
    del without["converters"]
    path.write_text(json.dumps(without))
    assert get_tile(path).ideal
    for text in ("{}", "no json", '{"format": "other"}'):
        path.write_text(text)
        with pytest.raises(ValueError, match="must be a file of a target"):
            get_tile(path)
    with pytest.raises(ValueError, match=r"one of \['ideal', 'generic8'"):
        get_tile("generic9")
    with pytest.raises(ValueError, match=r"must be a snukeras\.pcm\.Tile"):
        get_tile(8)


def test_they_cannot_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        get_tile("generic8").rows = 3


@pytest.mark.parametrize("make, what", [
    (lambda: InputConverter(1), "`bits`"),
    (lambda: InputConverter(True), "`bits`"),
    (lambda: OutputConverter(1), "`bits`"),
    (lambda: OutputConverter(8.5), "`bits`"),
    (lambda: InputConverter(8, 0.0), "`range`"),
    (lambda: InputConverter(8, float("nan")), "`range`"),
    (lambda: InputConverter(8, "auto"), "`range` must be one of 'vector', 'calibrated'"),
    (lambda: OutputConverter(8, -1.0), "`range`"),
    (lambda: OutputConverter(8, "vector"), "`range` must be one of 'calibrated', 'learned'"),
    (lambda: OutputConverter(8, None), "`range` must be given"),
    (lambda: OutputConverter(noise=-1.0), "`noise`"),
    (lambda: InputConverter(per="row"), "`per`"),
    (lambda: Tile(rows=0), "`rows`"),
    (lambda: Tile(columns=2.5), "`columns`"),
    (lambda: Tile(wire_resistance=-1.0), "`wire_resistance`"),
    (lambda: Tile(input=8), "`input` must be a snukeras.pcm.InputConverter"),
    (lambda: Tile(output=InputConverter()), "`output` must be a snukeras.pcm.OutputConverter"),
])  # fmt: skip
def test_what_is_no_tile(make, what):
    with pytest.raises(ValueError, match=what):
        make()
