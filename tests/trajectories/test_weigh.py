"""From rollouts to weighed rows: who is compared with whom, what is counted, what is refused."""

import dataclasses

import numpy as np
import pytest

from lightning_hub.credit.batch import TrainingBatch, build_batch
from lightning_hub.credit.estimators import grpo
from lightning_hub.rollout import Rollout
from lightning_sdk.errors import NothingToTrain, RewardError
from lightning_sdk.settings import Settings
from lightning_sdk.trace.call import Status
from tests.trajectories.conversations import call, rollout, sample

RLOO = Settings.from_dict({"algorithm.aggregation": "token-mean"})


def simple(number: int, reward: float, rewards: dict[str, float] | None = None, **options: object) -> Rollout:
    """A rollout of one call with this reward."""
    made = rollout(number, call(1, [1, 2], sample(3, 4)), rewards=rewards or {"": reward})
    return dataclasses.replace(made, **options)  # type: ignore[arg-type]


def advantage_of(weighed: TrainingBatch, number: int, role: str = "solver") -> float:
    """The one advantage of this role's sampled tokens in this rollout."""
    (value,) = {
        float(row.advantages[t])
        for row in weighed.rows
        if row.rollout == f"{number:032x}" and row.role == role
        for t in np.flatnonzero(row.weights)
    }
    return value


def test_leave_one_out_by_hand() -> None:
    """Rewards 1, 0, 0: the winner is 1 above the others' mean, the losers 0.5 below."""
    weighed = build_batch([simple(1, 1.0), simple(2, 0.0), simple(3, 0.0)], RLOO)
    assert [advantage_of(weighed, n) for n in (1, 2, 3)] == [1.0, -0.5, -0.5]
    assert [row.rollout[-1] for row in weighed.rows] == ["1", "2", "3"]
    assert weighed.rows[0].tokens.tolist() == [1, 2, 3, 4]
    assert weighed.rows[0].weights.tolist() == pytest.approx([0, 0, 1 / 6, 1 / 6])
    assert (weighed.rows[0].version, weighed.rows[0].temperature) == (3, 1.0)


def test_group_relative_by_hand() -> None:
    """(r - mean) / std with std of the sample: 1, 0, 0, 0 has mean 0.25 and deviation 0.5."""
    assert grpo([1, 0, 0, 0]) == pytest.approx([1.5, -0.5, -0.5, -0.5], abs=1e-5)


def test_groups_are_compared_apart() -> None:
    """A good reward in a hard task does not count against an easy one."""
    made = [simple(1, 1.0), simple(2, 0.0), simple(3, 9.0, group="task-1"), simple(4, 7.0, group="task-1")]
    weighed = build_batch(made, RLOO)
    assert [advantage_of(weighed, n) for n in (1, 2, 3, 4)] == [1.0, -1.0, 2.0, -2.0]
    assert weighed.metrics["groups"] == 2


def test_groups_without_signal_keep_their_weight_and_are_counted() -> None:
    """Equal rewards and a rollout alone teach nothing, yet their tokens count in the mean."""
    made = [simple(1, 0.1 + 0.2), simple(2, 0.3), simple(3, 1.0, group="task-1")]
    weighed = build_batch(made, RLOO)
    assert weighed.metrics["groups_without_signal"] == weighed.metrics["groups"] == 2
    assert len(weighed.rows) == 3
    assert sum(row.weights.sum() for row in weighed.rows) == pytest.approx(1)
    assert not any(row.advantages.any() for row in weighed.rows)


def test_a_failed_rollout_is_not_a_reward_of_zero() -> None:
    """It is neither trained on nor part of anyone's baseline."""
    made = [simple(1, 1.0), simple(2, 0.5), simple(3, 0.0, status=Status.TIMEOUT)]
    weighed = build_batch(made, RLOO)
    assert [advantage_of(weighed, n) for n in (1, 2)] == [0.5, -0.5]
    assert weighed.metrics["rollouts_trained"] == 2


def test_each_role_has_its_own_reward_and_baseline() -> None:
    """A reward named for a role is added to that of the whole rollout, for that role only."""

    def two_roles(number: int, rewards: dict[str, float]) -> Rollout:
        writer, checker = call(1, [1], sample(2), role="writer"), call(2, [5], sample(6), role="checker")
        return rollout(number, writer, checker, rewards=rewards)

    weighed = build_batch([two_roles(1, {"": 1.0, "checker": 0.0}), two_roles(2, {"": 0.0, "checker": 4.0})], RLOO)
    assert (advantage_of(weighed, 1, "writer"), advantage_of(weighed, 1, "checker")) == (1.0, -3.0)
    assert weighed.metrics["reward_mean/checker"] == 2.5
    assert weighed.metrics["reward_std/writer"] == 0.5
    assert weighed.metrics["reward_mean"] == 0.5


def test_a_missing_reward_leaves_the_rollout_out_and_is_counted() -> None:
    """Rewards for other roles say nothing of this one."""
    weighed = build_batch([simple(1, 1.0), simple(2, 0.0), simple(3, 0.0, rewards={"critic": 1.0})], RLOO)
    assert weighed.metrics["rewards_missing"] == 1
    assert {row.rollout[-1] for row in weighed.rows} == {"1", "2"}


def test_diagnostics_count_rows_and_tokens() -> None:
    """A retry makes a second row of a rollout."""
    retried = rollout(1, call(1, [1, 2], sample(3)), call(2, [1, 2], sample(4)), rewards={"": 1.0})
    weighed = build_batch([retried, simple(2, 0.0)], RLOO)
    signal = weighed.metrics
    assert (signal["rows"], signal["rows_per_rollout"]) == (3, 1.5)
    assert (signal["tokens_trained"], signal["tokens_context"]) == (4, 6)
    assert signal["breaks/branch"] == signal["breaks/branch/solver"] == 1


def test_an_unusable_call_keeps_its_rollout_in_the_baseline() -> None:
    """The call is left out with its reason; the reward of its rollout still counts for the others."""
    lame = rollout(2, call(1, [1], sample(2), problem="no log-probs"), rewards={"": 0.0})
    weighed = build_batch([simple(1, 1.0), lame], RLOO)
    assert advantage_of(weighed, 1) == 1.0
    assert weighed.metrics["calls_unusable"] == 1
    assert "no log-probs" in weighed.problems[0]


def test_nothing_but_failed_rollouts_is_an_empty_batch() -> None:
    """The trainer decides what many failures mean."""
    assert build_batch([simple(1, 1.0, status=Status.AGENT_ERROR)], RLOO).rows == []


NOTHING = [
    (rollout(1), "the agent made no model call in 1 rollout,"),
    (rollout(1, call(1, [1], sample(2), role="judge", trainable=False)), "there were 1 of judge.*trainable=True"),
    (rollout(1, call(1, [1], sample(2), problem="no ids")), "the only trainable call cannot be trained on.*no ids"),
    (rollout(1, call(1, [1], sample(2)), rewards={}), "the only rollout has no reward for solver"),
]


@pytest.mark.parametrize(("made", "why"), NOTHING, ids=[why for _, why in NOTHING])
def test_rollouts_that_hold_nothing_to_learn_say_why(made: Rollout, why: str) -> None:
    """Not an empty step: an error with the reason and what to do."""
    with pytest.raises(NothingToTrain, match=why):
        build_batch([made], RLOO)


def test_a_reward_that_is_not_finite_is_refused() -> None:
    """One NaN would spread over its whole group."""
    with pytest.raises(RewardError, match="has reward 'final' = nan for the whole rollout"):
        build_batch([simple(1, float("nan"))], RLOO)
