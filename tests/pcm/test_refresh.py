"""When a chip is programmed again, and what that costs."""

import math

import pytest

from snukeras.pcm import refresh_plan

DAY, YEAR = 86400.0, 31536e3


def rows(figures, metric="accuracy"):
    """Two chips around each mean."""
    return [
        {"chip": chip, "time": t, metric: value + step}
        for chip, step in ((0, 0.001), (1, -0.001))
        for t, value in figures.items()
    ]


def test_it_is_programmed_before_the_metric_leaves_the_limit():
    found = rows({25.0: 0.99, DAY: 0.98, YEAR: 0.96})
    plan = refresh_plan(found, "accuracy", 0.97, devices=1000, life=10 * YEAR, write_time=1e-3,
                        pulses=20, endurance=1e6)  # fmt: skip
    # Halfway between a day and a year, in the logarithm of time.
    assert plan.every == pytest.approx(math.sqrt((DAY + 1) * (YEAR + 1)) - 1, rel=1e-6)
    assert plan.measured and plan.programmings == math.ceil(10 * YEAR / plan.every)
    assert plan.writes == 1000 * plan.programmings
    assert plan.busy == pytest.approx(1e-3 * plan.writes)
    assert plan.wear == pytest.approx(20 * plan.programmings / 1e6)


def test_beyond_what_was_measured_nothing_is_known():
    falling = refresh_plan(rows({25.0: 8.5, YEAR: 8.6}, "nll"), "nll", 8.7, devices=1)
    assert (falling.every, falling.measured, falling.programmings) == (YEAR, False, 10)
    assert falling.busy == falling.wear == 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metric": "loss"}, r"`metric` must be one of \['accuracy'\]"),
        ({"limit": 0.995}, "`limit` must be worse than the mean at 25 s, 0.99"),
        ({"devices": 0}, "`devices`"),
        ({"life": 0.0}, "`life`"),
        ({"endurance": -1.0}, "`endurance`"),
        ({"rows": rows({25.0: 0.9})}, "two times or more"),
        ({"rows": []}, "`rows` must hold what evaluate_chips returns"),
    ],
)
def test_refused(arguments, message):
    given = {"rows": rows({25.0: 0.99, YEAR: 0.9}), "metric": "accuracy", "limit": 0.95}
    with pytest.raises(ValueError, match=message):
        refresh_plan(**{**given, "devices": 10, **arguments})
