"""Means with intervals that say what is known, and no more."""

import math
import random

import pytest

from lightning_hub.interval import Interval, difference, interval


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(7, 10, 0.3968, 0.8922), (0, 10, 0.0, 0.2775), (200, 200, 0.9812, 1.0), (1, 1, 0.2065, 1.0)],
)
def test_scores_of_zero_and_one_have_the_wilson_interval(successes: int, n: int, low: float, high: float) -> None:
    """Values of the published formula; all right is not 'exactly 1'."""
    got = interval([1.0] * successes + [0.0] * (n - successes))
    assert (got.low, got.high) == pytest.approx((low, high), abs=1e-4)
    assert (got.mean, got.n, got.method) == (successes / n, n, "wilson")


def test_other_scores_have_a_bootstrap_interval_that_is_the_same_every_time() -> None:
    """Close to the normal approximation for many values, and seeded."""
    noise = random.Random(5)
    values = [noise.gauss(0.4, 0.2) for _ in range(400)]
    got = interval(values)
    assert got.method == "bootstrap"
    half = 1.96 * 0.2 / math.sqrt(400)
    assert (got.mean - got.low, got.high - got.mean) == pytest.approx((half, half), rel=0.15)
    assert interval(values) == got


def test_a_lower_level_gives_a_narrower_interval() -> None:
    """The level is honoured by both methods."""
    for values in ([0.0, 1.0] * 20, [0.1, 0.5, 0.7] * 20):
        wide, narrow = interval(values, 0.99), interval(values, 0.5)
        assert wide.low < narrow.low <= narrow.mean <= narrow.high < wide.high


def test_no_values_and_a_single_one_have_no_interval() -> None:
    """Not 0, and not an interval of no width."""
    nothing, one = interval([]), interval([0.3])
    assert (nothing.n, nothing.method, nothing.as_dict()["mean"], str(nothing)) == (0, "none", None, "no values")
    assert (one.mean, one.method, one.as_dict()["low"], one.as_dict()["high"]) == (0.3, "none", None, None)


def test_a_value_that_is_not_finite_is_refused() -> None:
    """It would turn the whole score into nothing."""
    with pytest.raises(ValueError, match="not finite: nan"):
        interval([1.0, float("nan")])


def test_plain_data_comes_back_as_the_same_interval() -> None:
    """Also where there is none, although JSON has no NaN."""
    for made in (interval([0.0, 1.0, 1.0]), interval([0.2, 0.4]), interval([]), interval([0.3])):
        assert str(Interval.from_dict(made.as_dict())) == str(made)


def test_pairing_shows_what_two_intervals_hide() -> None:
    """Tasks differ a lot, each gains a little: the difference is certain though the intervals overlap."""
    noise = random.Random(1)
    before = [noise.random() for _ in range(60)]
    after = [value + 0.05 + noise.gauss(0, 0.01) for value in before]
    change = difference(before, after)
    assert 0.04 < change.low < change.mean < change.high < 0.06
    assert interval(before).high > interval(after).low


def test_too_few_changed_tasks_prove_nothing() -> None:
    """Five of five better happens by chance in one of sixteen; six of six is enough at 95%."""
    same = [0.0] * 20
    assert difference(same, [1.0] * 5 + same[5:]).method == "none"
    assert difference(same, [1.0] * 6 + same[6:]).low > 0
    assert difference([], []).n == 0
    with pytest.raises(ValueError, match="2 and 1 values"):
        difference([1, 2], [1])
