"""Paired tests: exact for few differences, near the normal law for many, and as often wrong as they say."""

from __future__ import annotations

import random

import pytest

from lightning_prompts.best_of import expected_luck
from lightning_prompts.races import LEVEL, chance, is_ahead, is_behind


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([], 1.0),
        ([0.0, 0.0], 1.0),
        ([1.0], 1 / 2),
        ([1.0, 1.0], 1 / 4),
        ([1.0, 1.0, -1.0], 1 / 2),
        ([3.0, -1.0], 1 / 2),
        ([1.0] * 5, 1 / 32),
        ([-1.0], 1.0),
    ],
)
def test_chance_counts_signs(differences: list[float], expected: float) -> None:
    assert chance(differences) == pytest.approx(expected)


def test_many_differences_are_near_few() -> None:
    """Where all signs can no longer be tried, the normal law stands in."""
    exact, near = chance([1.0] * 8 + [-1.0] * 4), chance([1.0] * 9 + [-1.0] * 4)
    assert 0.05 < near < exact < 0.3


def test_wins_without_a_loss_are_enough() -> None:
    assert is_ahead([0.0, 1.0, 0.0]) and not is_ahead([0.0, 0.0]) and is_behind([0.0, -1.0])
    assert not is_ahead([1.0, 1.0, -1.0]) and not is_behind([1.0, 1.0, -1.0])


def test_equal_candidates_are_seldom_ahead() -> None:
    """No more often than the level says, on 20 tasks of which each is solved in 60 of 100 cases."""
    drawn = random.Random(1)

    def pairs(better: float) -> list[float]:
        return [(drawn.random() < 0.6 + better) - float(drawn.random() < 0.6) for _ in range(20)]

    rates = {better: sum(is_ahead(pairs(better)) for _ in range(2000)) / 2000 for better in (0.0, 0.1, 0.2)}
    assert rates[0.0] < LEVEL < rates[0.1] + 0.2 and rates[0.2] > 0.6 > rates[0.1] > 1.5 * rates[0.0]


def test_luck_is_what_simulations_show() -> None:
    """The best of 11 equally good candidates on 29 tasks seems 0.14 better; a single one does not."""
    drawn = random.Random(2)
    table = [[float(drawn.random() < 0.6) for _ in range(29)] for _ in range(11)]
    assert expected_luck(table) == pytest.approx(0.141, abs=0.03)
    assert expected_luck(table[:1]) == 0 == expected_luck([])


def test_tasks_that_are_hard_for_all_give_no_luck() -> None:
    """Candidates that agree on every task cannot be told apart by chance."""
    assert expected_luck([[0.0, 1.0, 0.0, 1.0]] * 6) == 0
