"""The choice of the cases that run by default."""

import itertools

import some_cases


def test_every_value_and_then_every_pair_is_chosen_first():
    cases = [dict(zip("abc", case, strict=True)) for case in itertools.product("xyz", "01", "pq")]
    kept = [cases[i] for i in some_cases.chosen(cases, 3)]
    assert cases[0] in kept and {case["a"] for case in kept} == set("xyz")
    assert {case["b"] for case in kept} == set("01") and {case["c"] for case in kept} == set("pq")
    kept = [cases[i] for i in some_cases.chosen(cases, 7)]
    assert {(case["a"], case["b"]) for case in kept} == set(itertools.product("xyz", "01"))


def test_fewer_cases_than_asked_for_are_all_chosen():
    assert some_cases.chosen([{"a": 1}, {"a": 2}], 5) == [0, 1]
    assert some_cases.chosen([], 5) == []
