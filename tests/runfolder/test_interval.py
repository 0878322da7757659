"""Means with intervals that say what is known, and no more."""

import random
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from lightning_hub.statistics.interval import difference, interval
from lightning_hub.statistics.mean_bounds import chance_of
from lightning_hub.statistics.reward_range import RangeSource, RewardRange, TrainingRange, reward_range
from lightning_sdk.results.score import Interval


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(7, 10, 0.3475, 0.9333), (0, 10, 0.0, 0.3085), (200, 200, 0.9817, 1.0), (1, 1, 0.025, 1.0)],
)
def test_scores_of_zero_and_one_have_the_exact_interval(successes: int, n: int, low: float, high: float) -> None:
    """Values of the published tables of Clopper and Pearson; all right is not 'exactly 1'."""
    got = interval([1.0] * successes + [0.0] * (n - successes))
    assert (got.low, got.high) == pytest.approx((low, high), abs=1e-4)
    assert (got.mean, got.n, got.method) == (successes / n, n, "clopper-pearson")


def test_a_score_that_never_varies_is_not_certain() -> None:
    """Three times 0.5 of a reward from 0 to 1 leaves nearly all of it possible; three times 1.1 says nothing of what
    else there is, and gets no interval instead of one without width."""
    half, more = interval([0.5] * 3), interval([1.1] * 3)
    assert (half.low, half.high) == pytest.approx((0.146, 0.854), abs=1e-3)
    assert (more.mean, more.low, more.high) == (pytest.approx(1.1), None, None) and "all scores are 1.1" in more.missing
    many = interval([0.5] * 300)
    assert many.low is not None and 0.49 < many.low < 0.5


def test_a_lower_level_gives_a_narrower_interval() -> None:
    """The level is honoured for every kind of score."""
    for values in ([0.0, 1.0] * 20, [0.1, 0.5, 0.7] * 20, [1.0, 5.0, 7.0] * 20):
        wide, narrow = interval(values, 0.99), interval(values, 0.5)
        assert wide.low is not None and wide.high is not None and narrow.low is not None and narrow.high is not None
        assert narrow.mean is not None and wide.low < narrow.low <= narrow.mean <= narrow.high < wide.high


def test_no_values_have_no_interval() -> None:
    """Not 0, and no number that is none: what is not known is None, also in JSON."""
    nothing = interval([])
    assert (nothing.n, nothing.method, nothing.as_dict()["mean"], str(nothing)) == (0, "none", None, "no values")
    assert difference([], []) == Interval(
        mean=None, low=None, high=None, n=0, method="none", missing="no task has a score"
    )


def test_few_scores_of_unknown_range_have_no_interval() -> None:
    """From 20 on they have; a range that is given needs no number of them."""
    values = [1.0, 2.0, 4.0] * 6
    assert interval(values).missing.startswith("too few tasks (18) for a reward of unknown range: at least 20, or set")
    assert interval([*values, 3.0, 2.5]).low is not None
    assert interval(values[:3], within=RewardRange(0, 5, RangeSource.SET)).low is not None
    outside = interval(values, within=RewardRange(0, 3, RangeSource.SET))
    assert outside.low is None and "a score of 4 lies outside" in outside.missing and "0 to 3" in outside.missing


def test_a_value_that_is_not_finite_is_refused() -> None:
    """It would turn the whole score into nothing."""
    with pytest.raises(ValueError, match="not finite: nan"):
        interval([1.0, float("nan")])


def test_plain_data_comes_back_as_the_same_interval() -> None:
    """Also where there is none."""
    for made in (interval([0.0, 1.0, 1.0]), interval([0.2, 0.4]), interval([]), interval([3.0])):
        assert Interval.from_dict(made.as_dict()) == made


def test_a_range_is_what_is_set_or_usual_or_was_seen() -> None:
    """The narrowest usual one that holds all; else what was seen and more, which training makes better known."""
    assert str(reward_range([0.2, 0.4])) == "0 to 1" and str(reward_range([0.2, -0.4])) == "-1 to 1"
    assert str(reward_range([0.2], (0.0, 0.5))) == "0 to 0.5" and reward_range([7.0, 7.0]) is None
    guessed, seen = reward_range([2.0, 4.0]), reward_range([2.0, 4.0], None, TrainingRange(1.0, 5.0, 300))
    assert guessed == RewardRange(0.0, 6.0, RangeSource.GUESSED) and seen == RewardRange(0.0, 6.0, RangeSource.SEEN)
    assert reward_range([0.0, 1.0], None, TrainingRange(-1.0, 1.0, 8)) == RewardRange(-1.0, 1.0, RangeSource.USUAL)


def test_pairing_shows_what_two_intervals_hide() -> None:
    """Tasks differ a lot, each gains a little: the difference is certain though the intervals overlap."""
    noise = random.Random(1)
    before = [0.9 * noise.random() for _ in range(200)]
    after = [value + 0.05 + noise.gauss(0, 0.01) for value in before]
    change, first, second = difference(before, after), interval(before), interval(after)
    assert change.is_above(0.02) and change.is_below(0.08)
    assert first.high is not None and second.low is not None and first.high > second.low


def test_an_interval_is_neither_above_nor_below_what_it_holds_nor_where_there_is_none() -> None:
    """So nothing is called better or worse for want of an interval."""
    for each in (difference([1.0] * 3, [2.0] * 3), difference([], []), difference([0.0] * 9, [0.0] * 8 + [1.0])):
        assert not each.is_above(0) and not each.is_below(0)


def test_too_few_changed_tasks_prove_nothing() -> None:
    """Five of five better happens by chance in one of 32; six of six is enough, as by the exact sign test."""
    same = [0.0] * 20
    assert not difference(same, [1.0] * 5 + same[5:]).is_above(0)
    assert difference(same, [1.0] * 6 + same[6:]).is_above(0)
    with pytest.raises(ValueError, match="2 and 1 values"):
        difference([1, 2], [1])


def test_eight_changed_tasks_of_which_one_fell_prove_nothing() -> None:
    """Resampling them says better; that seven or more of eight coins fall alike happens once in fourteen times."""
    before, after = [0.0] * 7 + [1.0] + [0.0] * 100, [1.0] * 7 + [0.0] * 101
    change = difference(before, after)
    assert not change.is_above(0) and change.mean == pytest.approx(6 / 108)
    assert difference([0.0] * 8 + before, [1.0] * 8 + after).is_above(0)


def test_a_gain_of_unknown_range_needs_a_range() -> None:
    """Thirty tasks that go from 1.1 to 1.3 show nothing of what the reward can cost."""
    before, after = [1.1] * 30, [1.3] * 30
    assert "too few training rollouts to know the range" in difference(before, after).missing
    assert difference(before, after, within=RewardRange(1.0, 2.0, RangeSource.SET)).is_above(0)
    assert not difference(before, after, within=RewardRange(0.0, 10.0, RangeSource.SET)).is_above(0)


# --- simulations of whole experiments: what an interval has to keep in the long run; benchmarks/intervals.py has more

Scores = tuple[list[float], list[float]]
Draw = Callable[[np.random.Generator, int], Scores]
EXPERIMENTS = 400


def grade(generator: np.random.Generator, tasks: int, gain: float) -> Scores:
    """Before and after on tasks of all difficulties, between 0 and 1."""
    talent = generator.random(tasks)
    before, after = (np.clip(each + generator.normal(0, 0.1, tasks), 0, 1) for each in (talent, talent + gain))
    return before.tolist(), after.tolist()


def solve(generator: np.random.Generator, tasks: int) -> Scores:
    """Before and after, 0 or 1, of one and the same model on tasks that are mostly easy or hopeless."""
    chance = generator.beta(0.3, 0.3, tasks)
    return (generator.random(tasks) < chance).astype(float).tolist(), (
        (generator.random(tasks) < chance).astype(float).tolist()
    )


def rare_losses(generator: np.random.Generator, tasks: int) -> Scores:
    """All gain 0.1 but one in ten, which loses 0.9: nothing was gained, and few tasks often show no loss at all."""
    return [0.9] * tasks, np.where(generator.random(tasks) < 0.1, 0.0, 1.0).tolist()


def rare_gains(generator: np.random.Generator, tasks: int) -> Scores:
    before, after = rare_losses(generator, tasks)
    return [1 - each for each in before], [1 - each for each in after]


@pytest.mark.parametrize("tasks", [3, 8, 20, 100])
@pytest.mark.parametrize("draw", [partial(grade, gain=0.0), solve, rare_losses, rare_gains])
def test_chance_is_seldom_called_better(draw: Draw, tasks: int) -> None:
    """Where nothing was learned at most 2.5% of experiments may say better, and as many worse; of 400, by chance, at
    most 4.5%."""
    generator = np.random.default_rng(11)
    changes = [np.subtract(after, before) for before, after in (draw(generator, tasks) for _ in range(EXPERIMENTS))]
    assert np.mean([chance_of(each.tolist(), -1.0, 0.0) < 0.025 for each in changes]) <= 0.045
    assert np.mean([chance_of((-each).tolist(), -1.0, 0.0) < 0.025 for each in changes]) <= 0.045


@pytest.mark.parametrize("tasks", [3, 12, 100])
def test_a_score_covers_the_truth_at_least_as_often_as_it_says(tasks: int) -> None:
    """The mean over all tasks there could be, of which an experiment sees some: even three, of a reward that is mostly
    the same."""
    generator = np.random.default_rng(3)
    found = [np.where(generator.random(tasks) < 0.1, 0.0, 0.9) for _ in range(EXPERIMENTS)]
    too_high = [chance_of(each.tolist(), 0.0, 0.81) < 0.025 for each in found]
    too_low = [chance_of((-each).tolist(), -1.0, -0.81) < 0.025 for each in found]
    assert np.mean(too_high) + np.mean(too_low) <= 0.07


def test_a_clear_gain_is_found() -> None:
    """Caution costs little: of experiments with 60 graded tasks that gain 0.15 each, nine of ten are called better."""
    generator = np.random.default_rng(5)
    found = [difference(*grade(generator, 60, 0.15)) for _ in range(20)]
    assert np.mean([each.is_above(0) for each in found]) >= 0.9
