"""Bounds of a mean, against what is known of them in other ways."""

import math

import numpy as np
import pytest

from lightning_hub.statistics.mean_bounds import chance_of, mean_bounds


def binomial_tail(successes: int, n: int, chance: float) -> float:
    """That so many or more of n succeed."""
    return math.fsum(math.comb(n, k) * chance**k * (1 - chance) ** (n - k) for k in range(successes, n + 1))


@pytest.mark.parametrize(("successes", "n"), [(3, 3), (7, 10), (1, 40), (150, 200), (700, 1000)])
@pytest.mark.parametrize("mean", [0.02, 0.3, 0.72])
def test_of_zero_and_one_it_is_the_binomial_chance(successes: int, n: int, mean: float) -> None:
    """Exactly; of many values within a few percent."""
    values = [1.0] * successes + [0.0] * (n - successes)
    expected = binomial_tail(successes, n, mean)
    precision = 1e-9 if n <= 200 else 0.05
    assert chance_of(values, 0.0, mean) == pytest.approx(expected, rel=precision, abs=1e-12)


@pytest.mark.parametrize(("up", "down", "same"), [(6, 0, 14), (12, 3, 5), (40, 22, 138)])
def test_of_paired_zeros_and_ones_it_is_the_sign_test(up: int, down: int, same: int) -> None:
    """Tasks that did not change say nothing about whether the change is 0."""
    changes = [1.0] * up + [-1.0] * down + [0.0] * same
    assert chance_of(changes, -1.0, 0.0) == pytest.approx(binomial_tail(up, up + down, 0.5), rel=1e-9)


@pytest.mark.parametrize("n", [4, 30, 500])
def test_of_other_values_it_is_the_chance_of_random_weights(n: int) -> None:
    """As 40,000 draws of the weights say."""
    generator = np.random.default_rng(n)
    values = generator.normal(0.1, 0.3, n).clip(-1, 1)
    mean = float(values.mean()) - 0.5 / math.sqrt(n)
    times = generator.exponential(size=(40_000, n + 1))
    drawn = float(np.mean(times @ (np.append(values, -1.0) - mean) <= 0))
    assert chance_of(values.tolist(), -1.0, mean) == pytest.approx(drawn, abs=0.01)


def test_bounds_are_where_the_chance_is_the_error() -> None:
    """On both sides, for few and for many values, and within the range."""
    generator = np.random.default_rng(2)
    for n in (1, 7, 60, 600):
        values = generator.random(n)
        low, high = mean_bounds(values.tolist(), 0.0, 1.0, 0.025)
        assert 0 <= low < values.mean() < high <= 1
        assert chance_of(values.tolist(), 0.0, low) == pytest.approx(0.025, rel=0.02)
        assert chance_of((-values).tolist(), -1.0, -high) == pytest.approx(0.025, rel=0.02)


def test_what_lies_at_the_end_of_the_range_can_go_no_further() -> None:
    """All 1 of 1, all 0 of 0; one value says little."""
    assert mean_bounds([1.0] * 50, 0.0, 1.0, 0.025)[1] == 1.0
    assert mean_bounds([0.0] * 50, 0.0, 1.0, 0.025)[0] == 0.0
    assert mean_bounds([1.0], 0.0, 1.0, 0.025) == pytest.approx((0.025, 1.0), abs=1e-4)
