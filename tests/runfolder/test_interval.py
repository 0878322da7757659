"""Means with intervals that say what is known, and no more."""

import math
import random
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from lightning_hub import interval as module
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


# --- simulations of whole experiments: what an interval of 95% has to keep, in the long run


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fifth of the resamples, for thousands of intervals."""
    monkeypatch.setattr(module, "RESAMPLES", 2000)


Scores = tuple[list[float], list[float]]
Draw = Callable[[np.random.Generator, int], Scores]


def graded(generator: np.random.Generator, tasks: int, gain: float) -> Scores:
    """Before and after on tasks of all difficulties, the mean of three seeds' graded scores; tasks gain unequally."""
    talent = generator.random(tasks)
    gained = talent + generator.normal(gain, 0.1, tasks)
    before, after = (generator.normal(each[:, None], 0.25, (tasks, 3)).mean(axis=1) for each in (talent, gained))
    return before.tolist(), after.tolist()


def solved(generator: np.random.Generator, tasks: int) -> Scores:
    """Before and after, 0 or 1, of one and the same model on tasks that are mostly easy or hopeless."""
    chance = generator.beta(0.3, 0.3, tasks)
    return (generator.random(tasks) < chance).tolist(), (generator.random(tasks) < chance).tolist()


def few_changed(generator: np.random.Generator, tasks: int) -> Scores:
    """Before and after of two models that are equally good and differ in about seven tasks."""
    turned = np.where(generator.random(tasks) < 7 / tasks, generator.integers(0, 2, tasks) * 2.0 - 1, 0.0)
    before = np.where(turned == 0, generator.integers(0, 2, tasks), turned < 0)
    return before.tolist(), (before + turned).tolist()


def skewed(generator: np.random.Generator, tasks: int) -> Scores:
    """Before and after of one model whose scores have a long tail, on tasks without anything in common."""
    return generator.lognormal(size=tasks).tolist(), generator.lognormal(size=tasks).tolist()


@pytest.mark.usefixtures("coarse")
@pytest.mark.parametrize("tasks", [12, 25, 100])
def test_the_difference_covers_the_truth_as_often_as_it_says(tasks: int) -> None:
    """95% intervals hold the true gain in 93 to 97% of 600 experiments, with few tasks too."""
    generator = np.random.default_rng(7)
    found = [difference(*graded(generator, tasks, 0.08)) for _ in range(600)]
    assert 0.93 <= np.mean([each.low <= 0.08 <= each.high for each in found]) <= 0.97


@pytest.mark.usefixtures("coarse")
@pytest.mark.parametrize("tasks", [12, 25, 100])
def test_a_score_covers_the_truth_as_often_as_it_says(tasks: int) -> None:
    """The mean over all tasks there could be, of which an experiment sees some, three seeds each."""
    generator = np.random.default_rng(3)
    found = [interval(graded(generator, tasks, 0.0)[0]) for _ in range(600)]
    assert 0.93 <= np.mean([each.low <= 0.5 <= each.high for each in found]) <= 0.97


@pytest.mark.usefixtures("coarse")
@pytest.mark.parametrize("tasks", [8, 20, 100])
@pytest.mark.parametrize("draw", [partial(graded, gain=0.0), solved, few_changed, skewed])
def test_chance_is_seldom_called_better(draw: Draw, tasks: int) -> None:
    """Where nothing was learned, at most 3.5% of 500 experiments say better, and as many worse."""
    generator = np.random.default_rng(11)
    found = [difference(*draw(generator, tasks)) for _ in range(500)]
    assert np.mean([each.low > 0 for each in found]) <= 0.035
    assert np.mean([each.high < 0 for each in found]) <= 0.035


@pytest.mark.usefixtures("coarse")
def test_a_clear_gain_is_found() -> None:
    """Caution costs little: 30 graded tasks that gain 0.15 each are called better nine times of ten."""
    generator = np.random.default_rng(5)
    found = [difference(*graded(generator, 30, 0.15)) for _ in range(200)]
    assert np.mean([each.low > 0 for each in found]) >= 0.9


def test_eight_changed_tasks_of_which_one_fell_prove_nothing() -> None:
    """Resampling them says better; that seven or more of eight coins fall alike happens once in fourteen times."""
    before, after = [0.0] * 7 + [1.0] + [0.0] * 100, [1.0] * 7 + [0.0] * 101
    change = difference(before, after)
    assert change.low == 0.0 and change.mean == pytest.approx(6 / 108) and change.high > change.mean
    assert difference(after, before).high == 0.0
    assert difference([0.0] * 8 + before, [1.0] * 8 + after).low > 0
