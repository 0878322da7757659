"""Which estimators are unbiased when the policy decides when to stop: by exact enumeration of a toy game.

The game: at each turn the policy samples 'go on' or 'stop', and at most three turns are played. Going on earns a reward
at once and may spoil the final one, so that both immediate and later rewards matter. The policy is one logit for each
turn. Every pair of rollouts is enumerated with its probability, so an expectation is a finite sum and exact.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from lightning_hub.credit import estimators
from lightning_hub.credit.batch import build_batch
from lightning_hub.rollout import EarnedReward, Rollout
from lightning_sdk.settings import Settings
from tests.trajectories.conversations import call, rollout, sample

STOP, GO = 10, 11
LOGITS = np.array([0.4, -0.3, 0.9])
"""The logit of going on, at each turn."""
BONUS = np.array([0.5, 0.25, 1.0])
"""Earned at once by going on."""
FINAL = {0: 1.0, 1: -0.75, 2: 0.5, 3: 0.0}
"""Earned at the end, by how often the policy went on."""

Game = tuple[int, ...]


def games() -> list[Game]:
    """Every course of the game, as the actions taken."""
    return [(STOP,), (GO, STOP), (GO, GO, STOP), (GO, GO, GO)]


def chance(game: Game) -> float:
    go = 1 / (1 + np.exp(-LOGITS))
    return float(np.prod([go[t] if action == GO else 1 - go[t] for t, action in enumerate(game)]))


def slope(turn: int, action: int) -> NDArray[np.float64]:
    """[3] gradient of the action's log-probability by the logits."""
    go = 1 / (1 + np.exp(-LOGITS[turn]))
    return np.eye(3)[turn] * ((1 - go) if action == GO else -go)


def earnings(game: Game) -> NDArray[np.float64]:
    """[S] what is earned after each turn."""
    values = np.array([BONUS[t] if action == GO else 0.0 for t, action in enumerate(game)])
    values[-1] += FINAL[sum(action == GO for action in game)]
    return values


def truth() -> NDArray[np.float64]:
    """[3] gradient of the expected reward, by the log-derivative over all games."""
    return np.sum(
        [
            chance(game) * earnings(game).sum() * np.sum([slope(t, action) for t, action in enumerate(game)], axis=0)
            for game in games()
        ],
        axis=0,
    )


def play(number: int, game: Game) -> Rollout:
    """The game as a rollout: a call for each turn, which continues the row, and rewards in between."""
    calls, rewards, tokens = [], [], [1]
    for turn, (action, value) in enumerate(zip(game, earnings(game), strict=True)):
        calls.append(call(10 * turn + 1, tokens, sample(action)))
        rewards.append(EarnedReward("", "step", float(value), 10 * turn + 5))
        tokens = [*tokens, action, 2]
    return rollout(number, *calls).with_rewards(tuple(rewards))


def groups(size: int) -> Iterator[tuple[float, tuple[Game, ...]]]:
    """Every group of games with its probability."""
    for group in itertools.product(games(), repeat=size):
        yield float(np.prod([chance(game) for game in group])), group


def expected_gradient(settings: Settings, size: int = 3) -> NDArray[np.float64]:
    """[3] expectation of the gradient that the product's own rows have (of the reward, so with the loss's sign)."""
    total = np.zeros(3)
    for probability, group in groups(size):
        weighed = build_batch([play(n, game) for n, game in enumerate(group)], settings)
        for row in weighed.rows:
            turns = np.flatnonzero(row.weights)
            for turn, place in enumerate(turns):
                share = float(row.weights[place]) * float(row.advantages[place])
                total += probability * share * slope(turn, int(row.tokens[place]))
    return total


def angle(gradient: NDArray[np.float64]) -> float:
    """Degrees between a gradient and the true one: 0 for one that is right up to its length."""
    cosine = gradient @ truth() / np.linalg.norm(gradient) / np.linalg.norm(truth())
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def of(**options: str) -> Settings:
    return Settings.from_dict({"sampling.max_tokens": 1, **{n.replace("__", "."): v for n, v in options.items()}})


def test_the_default_gradient_is_the_true_one() -> None:
    """Without any setting: leave-one-out and a constant denominator, exactly the gradient of the expected reward."""
    assert expected_gradient(of()) == pytest.approx(truth(), abs=1e-6)


@pytest.mark.parametrize("estimator", ["rloo", "reinforce", "running_mean"])
@pytest.mark.parametrize("returns", ["rollout", "to_go"])
def test_these_are_unbiased_however_long_the_rollout_is(estimator: str, returns: str) -> None:
    """Whole or to go, their baselines have as many terms however long the rollout itself is."""
    assert expected_gradient(of(credit__advantage=estimator, credit__returns=returns)) == pytest.approx(
        truth(), abs=1e-6
    )


@pytest.mark.parametrize("returns", ["rollout", "to_go"])
def test_the_group_mean_only_shortens_the_gradient(returns: str) -> None:
    """Dr. GRPO keeps one's own reward in the mean: (G - 1) / G of the true gradient, in its direction."""
    got = expected_gradient(of(credit__advantage="dr_grpo", credit__returns=returns))
    assert got == pytest.approx(truth() * 2 / 3, abs=1e-6)


@pytest.mark.parametrize("aggregation", ["token-mean", "seq-mean-token-mean"])
def test_denominators_that_were_sampled_bias_the_gradient(aggregation: str) -> None:
    """A share of the batch's or the sequence's own tokens turns the gradient away from the true one."""
    assert angle(expected_gradient(of(algorithm__aggregation=aggregation))) > 3
    assert angle(expected_gradient(of(algorithm__aggregation="seq-mean-token-sum"))) < 1e-3


def test_grpo_s_deviation_bends_the_gradient() -> None:
    """Dividing by the deviation of the group that one is in weighs groups by what was sampled."""
    assert angle(expected_gradient(of(credit__advantage="grpo"))) > 3


def naive(baseline: Callable[[list[NDArray[np.float64]], int, int], float], per_turn: bool) -> NDArray[np.float64]:
    """[3] expectation of an estimator written down directly, for comparison."""
    total = np.zeros(3)
    for probability, group in groups(3):
        values = [earnings(game) if per_turn else estimators.returns_to_go(earnings(game)) for game in group]
        for me, game in enumerate(group):
            own = np.array([value - baseline(values, me, turn) for turn, value in enumerate(values[me])])
            own = estimators.returns_to_go(own) if per_turn else own
            for turn, action in enumerate(game):
                total += probability / 3 * own[turn] * slope(turn, action)
    return total


def mean_reached(values: list[NDArray[np.float64]], _: int, turn: int) -> float:
    """The mean over those that reached the turn, one's own included."""
    return float(np.mean([each[turn] for each in values if len(each) > turn]))


def others(values: list[NDArray[np.float64]], me: int, turn: int) -> float:
    """The mean over the others, 0 where they had stopped."""
    return float(np.mean([each[turn] if len(each) > turn else 0.0 for n, each in enumerate(values) if n != me]))


def test_the_turn_level_baseline_of_the_literature_is_biased() -> None:
    """Subtracting each turn's mean until one's own last turn: the number of terms is an action's doing.

    MT-GRPO (arXiv:2505.11821), as found in VERL's issue 7244. It is wrong in direction, not only in length, even with
    the others' mean; and so is comparing what is still to come with those only that came as far.
    """
    assert angle(naive(others, per_turn=True)) > 2
    assert angle(naive(mean_reached, per_turn=True)) > 3
    assert angle(naive(mean_reached, per_turn=False)) > 3
    assert naive(others, per_turn=False) == pytest.approx(truth(), abs=1e-9)
