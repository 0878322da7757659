"""Roles that speak in some rollouts only, an optional sub-agent or a handoff: by exact enumeration of a toy game.

The planner answers by itself or asks a helper, whose answer is good or bad. The policy is one logit for the planner's
choice and one for the helper's. Every group of three rollouts is enumerated with its probability.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from lightning_hub.credit.batch import build_batch, flat_groups
from lightning_hub.diagnosis.diagnosis import DiagnosisInput, diagnose
from lightning_hub.rollout import EarnedReward, Rollout
from lightning_sdk.settings import Settings
from lightning_sdk.trace.call import Status
from tests.trajectories.conversations import call, rollout, sample

ASK, ANSWER, GOOD, BAD = 10, 11, 20, 21
Game = tuple[int, ...]
GAMES: list[Game] = [(ANSWER,), (ASK, GOOD), (ASK, BAD)]
LOGITS = np.array([-0.8, 0.3])
"""The logits of asking, and of a good answer."""
WORTH = {(ANSWER,): 0.25, (ASK, GOOD): 1.0, (ASK, BAD): -0.5}
#: What the roles earn: one number for both, or one for each, with or without one for a helper who is not asked.
REWARDS = {
    "one number": {game: {"": worth} for game, worth in WORTH.items()},
    "each role": {
        (ANSWER,): {"planner": 0.25, "helper": -0.75},
        (ASK, GOOD): {"planner": 1.0, "helper": 0.5},
        (ASK, BAD): {"planner": -0.5, "helper": 0.125},
    },
    "who spoke": {
        (ANSWER,): {"planner": 0.25},
        (ASK, GOOD): {"planner": 1.0, "helper": 0.5},
        (ASK, BAD): {"planner": -0.5, "helper": 0.125},
    },
}


def likelihood(place: int, action: int) -> float:
    yes = float(1 / (1 + np.exp(-LOGITS[place])))
    return yes if action in (ASK, GOOD) else 1 - yes


def chance(game: Game) -> float:
    return float(np.prod([likelihood(place, action) for place, action in enumerate(game)]))


def slope(place: int, action: int) -> float:
    """Derivative of the action's log-probability by its logit."""
    return 1 - likelihood(place, action) if action in (ASK, GOOD) else likelihood(place, action) - 1


def truth(rewards: str) -> NDArray[np.float64]:
    """[2] gradient of what each role is expected to earn by its own logit."""
    total = np.zeros(2)
    for game in GAMES:
        given = REWARDS[rewards][game]
        for place, action in enumerate(game):
            earned = given.get("", 0.0) + given.get(("planner", "helper")[place], 0.0)
            total[place] += chance(game) * earned * slope(place, action)
    return total


def play(number: int, game: Game, rewards: str = "one number", group: str = "task-0") -> Rollout:
    calls = [call(1, [1], sample(game[0]), role="planner")]
    calls += [call(10, [2], sample(game[1]), role="helper")] if len(game) == 2 else []
    return rollout(number, *calls, rewards=REWARDS[rewards][game], group=group)


def expected_gradient(rewards: str = "one number", **options: str) -> NDArray[np.float64]:
    """[2] expectation of the gradient that the product's own rows have."""
    settings = Settings.from_dict({"sampling.max_tokens": 1, **{n.replace("__", "."): v for n, v in options.items()}})
    total = np.zeros(2)
    for group in itertools.product(GAMES, repeat=3):
        probability = float(np.prod([chance(game) for game in group]))
        for row in build_batch([play(n, game, rewards) for n, game in enumerate(group)], settings).rows:
            share = float(row.weights[1]) * float(row.advantages[1])
            place = ("planner", "helper").index(row.role)
            total[place] += probability * share * slope(place, int(row.tokens[1]))
    return total


def angle(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(np.degrees(np.arccos(np.clip(one @ other / np.linalg.norm(one) / np.linalg.norm(other), -1, 1))))


@pytest.mark.parametrize("rewards", ["one number", "each role"])
def test_the_default_gradient_is_the_true_one(rewards: str) -> None:
    """Both roles', although the helper is asked in three of ten rollouts only."""
    assert expected_gradient(rewards) == pytest.approx(truth(rewards), abs=1e-6)


@pytest.mark.parametrize("estimator", ["rloo", "reinforce", "running_mean"])
@pytest.mark.parametrize("returns", ["rollout", "to_go"])
def test_these_are_unbiased_whether_or_not_a_role_is_asked(estimator: str, returns: str) -> None:
    """Whole or to go: a rollout in which the role was silent stands with all that it came to."""
    got = expected_gradient(credit__advantage=estimator, credit__returns=returns)
    assert got == pytest.approx(truth("one number"), abs=1e-6)


@pytest.mark.parametrize("returns", ["rollout", "to_go"])
def test_the_group_mean_shortens_every_role_s_gradient_alike(returns: str) -> None:
    """Dr. GRPO has (G - 1) / G of the true gradient, and not another part of it for each role."""
    got = expected_gradient(credit__advantage="dr_grpo", credit__returns=returns)
    assert got == pytest.approx(truth("one number") * 2 / 3, abs=1e-6)


@pytest.mark.parametrize("aggregation", ["token-mean", "seq-mean-token-mean"])
def test_denominators_count_rollouts_or_they_bias(aggregation: str) -> None:
    """All rollouts of the batch, those in which a role was silent among them; its own tokens depend on who was asked.

    A role's only token in a rollout is all of its sequence, so here the mean over sequences is unbiased too.
    """
    got = expected_gradient(algorithm__aggregation=aggregation)
    if aggregation == "token-mean":
        assert angle(got, truth("one number")) > 3
    else:
        assert got == pytest.approx(truth("one number"), abs=1e-6)


@pytest.mark.parametrize("estimator", ["grpo", "reinforce++", "reinforce++_baseline"])
def test_divisions_by_a_deviation_bend_the_gradient(estimator: str) -> None:
    """As they do where every role speaks."""
    assert angle(expected_gradient(credit__advantage=estimator), truth("one number")) > 2


def test_a_role_that_earns_only_when_asked_is_compared_with_those_asked() -> None:
    """No reward is made up where nobody gave one: the helper's gradient is then shorter, as docs/credit.md says."""
    asked = likelihood(0, ASK)
    want = truth("who spoke") * [1, 1 - (1 - asked) ** 2]
    assert expected_gradient("who spoke") == pytest.approx(want, abs=1e-6)


def test_the_only_rollout_that_asked_and_won_teaches_the_helper() -> None:
    """One of eight asked, and earned 1 where the others earned 0: that is what there is to learn."""
    made = [play(n, (ANSWER,)).with_rewards(rollout(n).rewards) for n in range(7)]
    made.append(play(7, (ASK, GOOD)))
    weighed = build_batch(made, Settings())
    (row,) = (row for row in weighed.rows if row.role == "helper")
    assert row.advantages[1] == 1
    assert weighed.metrics["groups_without_signal/helper"] == 0
    assert weighed.metrics["rewards_missing/helper"] == 0
    assert flat_groups(made, Settings.from_dict({"roles": ("helper",)})) == set()
    (helper,) = (each for each in diagnose(DiagnosisInput(rollouts=made)).rewards if each.role == "helper")
    assert (helper.rollouts, helper.groups, helper.groups_with_signal) == (1, 1, 1)


def test_a_group_in_which_nobody_asked_is_not_the_helper_s() -> None:
    """It has no tokens of the helper: neither with nor without a signal."""
    made = [play(0, (ASK, GOOD)), play(1, (ASK, BAD))]
    made += [play(n, (ANSWER,), group="task-1") for n in (2, 3)]
    signal = build_batch(made, Settings()).metrics
    assert (signal["groups/planner"], signal["groups_without_signal/planner"]) == (2, 1)
    assert (signal["groups/helper"], signal["groups_without_signal/helper"]) == (1, 0)
    found = {each.role: each for each in diagnose(DiagnosisInput(rollouts=made)).rewards}
    assert (found["planner"].groups, found["planner"].groups_with_signal) == (2, 1)
    assert (found["helper"].groups, found["helper"].groups_with_signal) == (1, 1)


def test_a_rollout_that_earned_what_its_group_did_on_average_has_no_signal() -> None:
    """The silent rollouts differ, and yet nothing moves the helper."""
    worths = [((ANSWER,), 0.0), ((ANSWER,), 1.0), ((ASK, GOOD), 0.5)]
    made = [play(n, game).with_rewards((EarnedReward("", "final", x, 20),)) for n, (game, x) in enumerate(worths)]
    signal = build_batch(made, Settings()).metrics
    assert (signal["groups_without_signal/helper"], signal["groups_without_signal/planner"]) == (1, 0)
    found = {each.role: each.groups_with_signal for each in diagnose(DiagnosisInput(rollouts=made)).rewards}
    assert found == {"helper": 0, "planner": 1}


def test_failed_rollouts_stay_out_of_a_silent_role_s_baseline() -> None:
    """That a role did not speak there says nothing; `failure.*` decides for them as for all."""
    failed = rollout(2, call(1, [1], sample(ANSWER), role="planner"), rewards={"": 9.0}, status=Status.TIMEOUT)
    made = [play(0, (ANSWER,)), play(1, (ASK, GOOD)), failed]
    rows = {row.role: row for row in build_batch(made, Settings()).rows if row.rollout.endswith("1")}
    assert rows["helper"].advantages[1] == 0.75
    trained = Settings.from_dict({"failure.timeout": "train", "failure.reward": -9.0})
    rows = {row.role: row for row in build_batch(made, trained).rows if row.rollout.endswith("1")}
    assert rows["helper"].advantages[1] == 0.875
