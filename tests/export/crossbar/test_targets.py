"""Hardware targets: the files that ship, the user's own, and what is refused."""

import json

import pytest

from snukeras.export.crossbar.targets import Target, available_targets, load_target
from snukeras.export.errors import BadInputError


@pytest.mark.parametrize("name", available_targets())
def test_shipped_targets_load_and_name_themselves(name):
    target = load_target(name)
    assert target.name == name
    assert Target.from_dict(target.to_dict()) == target
    assert target.sources


def test_lines_and_capacity():
    pcm, core = load_target("pcm"), load_target("pcm14nm-2")
    assert (pcm.bit_lines, pcm.weights_per_tile, pcm.devices_per_tile) == (256, 32_768, 65_536)
    assert (core.bit_lines, core.weights_per_tile, core.devices_per_tile) == (512, 65_536, 262_144)


def test_own_file(tmp_path):
    data = load_target("pcm").to_dict() | {"name": "mine"}
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(data))
    assert load_target(str(path)).name == "mine"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"tile": {"rows": 0, "columns": 8, "crosspoint": "device", "devices_per_polarity": 1}},
            "rows",
        ),
        (
            {"tile": {"rows": 8, "columns": 1, "crosspoint": "device", "devices_per_polarity": 1}},
            "2 bit",
        ),
        ({"conductance": {"g_min_uS": 5, "g_max_uS": 5, "levels": None}}, "g_min < g_max"),
        ({"conductance": {"g_min_uS": 0, "g_max_uS": 5, "levels": 1}}, "levels"),
        ({"version": 2}, "version"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_bad_files(tmp_path, change, message):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(load_target("pcm").to_dict() | change))
    with pytest.raises(BadInputError, match=message):
        load_target(str(path))


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"a": NaN}'])
def test_files_that_are_no_json(tmp_path, text):
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(BadInputError, match="JSON"):
        load_target(str(path))


def test_unknown_name_lists_what_exists():
    with pytest.raises(BadInputError, match=r"Known: .*pcm, pcm14nm-1, pcm14nm-2.*PATH\.json"):
        load_target("tpu")


def test_entry_points(monkeypatch):
    from snukeras.export.crossbar import targets

    class Entry:
        def load(self):
            return lambda: load_target("pcm").to_dict() | {"name": "lab"}

    monkeypatch.setattr(targets, "_entry_points", lambda: {"lab": Entry()})
    assert load_target("lab").name == "lab"
    assert "lab" in available_targets()
