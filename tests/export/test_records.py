"""Records: JSON objects as frozen, typed objects, and what is refused."""

import dataclasses

import pytest

from snukeras.export.records import Record, named, optional


@dataclasses.dataclass(frozen=True)
class Part(Record):
    size: int
    share: float


@dataclasses.dataclass(frozen=True)
class Whole(Record):
    kind: str = named("class")
    parts: tuple[Part, ...] = ()
    shape: tuple[int | str, ...] = ()
    by_name: dict[str, Part] = dataclasses.field(default_factory=dict)
    good: bool = True
    levels: int | None = optional()


FULL = {
    "class": "a",
    "parts": [{"size": 3, "share": 0.5}],
    "shape": ["batch", 4],
    "by_name": {"one": {"size": 1, "share": 1.0}},
    "good": False,
    "levels": 16,
}


def test_a_record_is_written_as_it_was_read():
    whole = Whole.from_dict(FULL)
    assert whole.to_dict() == FULL
    assert whole.parts == (Part(3, 0.5),) and whole.shape == ("batch", 4)
    assert whole.kind == whole["class"] == "a"


def test_what_is_none_by_default_is_left_out():
    assert Whole.from_dict({"class": "a"}).to_dict() == {
        "class": "a",
        "parts": [],
        "shape": [],
        "by_name": {},
        "good": True,
    }
    assert Whole.from_dict({"class": "a", "levels": None}).levels is None


def test_json_has_one_kind_of_number():
    part = Part.from_dict({"size": 3.0, "share": 1})
    assert part == Part(3, 1.0) and isinstance(part.size, int) and isinstance(part.share, float)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"class": 3}, r"Whole\.class must be of type str\. Received: 3"),
        ({"parts": 3}, r"Whole\.parts must be of type array\. Received: 3"),
        ({"parts": [{"size": 3.5, "share": 1}]}, r"Whole\.parts\[0\]\.size must be of type int"),
        ({"parts": [{"size": True, "share": 1}]}, r"size must be of type int\. Received: True"),
        ({"parts": [{"size": 3}]}, r"Whole\.parts\[0\] lacks share"),
        ({"by_name": {"one": []}}, r"Whole\.by_name\.one must be an object\. Received: \[\]"),
        ({"shape": [0.5]}, r"Whole\.shape\[0\] must be of type str\. Received: 0\.5"),
        ({"good": 1}, r"Whole\.good must be of type bool"),
        ({"more": "x" * 99}, r"Whole has an unknown key 'more'"),
        ({"class": ["x" * 99]}, r"Received: \['x{58}\.\.\."),
    ],
)
def test_what_is_of_another_type_is_refused_with_its_place(change, says):
    with pytest.raises(ValueError, match=says):
        Whole.from_dict({**FULL, **change})


def test_a_field_that_is_not_there_is_named():
    with pytest.raises(KeyError, match="Part has no 'kind'; it has size, share"):
        Part(1, 0.5)["kind"]
