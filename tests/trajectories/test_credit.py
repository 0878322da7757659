"""Credit by hand: what each estimator, signal, schedule and length rule makes of a few rollouts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from lightning_hub.backend import Row
from lightning_hub.credit.batch import TrainingBatch, build_batch, flat_groups, is_scheduled
from lightning_hub.rollout import EarnedReward, Rollout
from lightning_sdk.errors import SettingError
from lightning_sdk.settings import Settings
from lightning_sdk.trace.call import Status
from tests.trajectories.conversations import call, rollout, sample


def of(**options: object) -> Settings:
    """Settings by dotted names with __ for the dot; every token weighs 1 / rollouts."""
    named = {name.replace("__", "."): value for name, value in options.items()}
    return Settings.from_dict({"algorithm.aggregation": "seq-mean-token-sum", **named})


def turns(number: int, *earned: float, role: str = "solver", group: str = "task-0") -> Rollout:
    """A conversation of one row, a token a turn, with a reward after each turn."""
    calls, rewards, tokens = [], [], [1]
    for turn, value in enumerate(earned):
        calls.append(call(10 * turn + 1, tokens, sample(20 + turn), role=role))
        rewards.append(EarnedReward("", "step", value, 10 * turn + 5))
        tokens = [*tokens, 20 + turn, 2]
    return rollout(number, *calls, group=group).with_rewards(tuple(rewards))


def credit(weighed: TrainingBatch, number: int, role: str = "solver") -> list[float]:
    """The advantages of the trained tokens of a role in a rollout, in the order of its rows."""
    return [
        float(row.advantages[t])
        for row in weighed.rows
        if row.rollout == f"{number:032x}" and row.role == role
        for t in np.flatnonzero(row.weights)
    ]


def test_returns_to_go_by_hand() -> None:
    """Each turn is credited with what came after its call, less the same of the other, who stands with its last."""
    made = [turns(1, 0.5, 0.0, 1.0), turns(2, 0.25, 0.0)]
    weighed = build_batch(made, of(credit__returns="to_go"))
    assert credit(weighed, 1) == [1.5 - 0.25, 1.0 - 0.0, 1.0 - 0.0]
    assert credit(weighed, 2) == [0.25 - 1.5, 0.0 - 1.0]


def test_a_row_for_each_call_learns_the_same_from_more_rows() -> None:
    """A conversation of three calls is one row, or three, whose tokens have credit and weight as in one."""
    made = [turns(1, 0.5, 0.0, 1.0), turns(2, 0.25, 0.0)]
    merged, apart = (build_batch(made, of(credit__returns="to_go", length__rows=rows)) for rows in ("lineage", "call"))
    assert [len(merged.rows), len(apart.rows)] == [2, 5]
    assert [credit(apart, number) for number in (1, 2)] == [credit(merged, number) for number in (1, 2)]
    weights = [np.concatenate([row.weights[row.weights > 0] for row in each.rows]) for each in (merged, apart)]
    np.testing.assert_array_equal(*weights)
    assert all(row.weights.astype(bool).sum() == 1 for row in apart.rows)


def test_returns_to_go_are_discounted_by_the_call() -> None:
    """A half of what the next call earns, a quarter of the one after."""
    weighed = build_batch(
        [turns(1, 0.0, 0.0, 1.0)], of(credit__returns="to_go", credit__discount=0.5, credit__advantage="reinforce")
    )
    assert credit(weighed, 1) == [0.25, 0.5, 1.0]


def test_with_a_final_reward_alone_both_returns_agree() -> None:
    """To go or whole: nothing is earned in between."""
    made = [turns(1, 0.0, 0.0, 1.0), turns(2, 0.0), turns(3, 0.0, 0.5)]
    for number in (1, 2, 3):
        whole, to_go = (credit(build_batch(made, of(credit__returns=kind)), number) for kind in ("rollout", "to_go"))
        assert whole == to_go


def test_what_was_earned_before_the_first_call_counts_for_the_whole_only() -> None:
    """No call of the role can have brought it about."""
    early = turns(1, 1.0).with_rewards((EarnedReward("", "gift", 2.0, 0), EarnedReward("", "step", 1.0, 5)))
    settings = {"credit__advantage": "reinforce"}
    assert credit(build_batch([early], of(**settings)), 1) == [3.0]
    assert credit(build_batch([early], of(credit__returns="to_go", **settings)), 1) == [1.0]


def two_roles(number: int, **rewards: float) -> Rollout:
    """A writer and a checker, with rewards by role ('whole' for the rollout)."""
    writer, checker = call(1, [1], sample(2), role="writer"), call(2, [5], sample(6), role="checker")
    return rollout(number, writer, checker, rewards={"" if n == "whole" else n: v for n, v in rewards.items()})


@pytest.mark.parametrize(("signal", "want"), [("own", 4.0), ("rollout", -1.0), ("both", 3.0)])
def test_the_signal_chooses_which_rewards_count(signal: str, want: float) -> None:
    """The checker learns from its own, from the rollout's, or from both."""
    made = [two_roles(1, whole=0.0, checker=4.0, writer=0.0), two_roles(2, whole=1.0, checker=0.0, writer=0.0)]
    weighed = build_batch(made, Settings.from_dict({"role.checker.signal": signal}))
    assert credit(weighed, 1, "checker") == [want]
    assert credit(weighed, 1, "writer") == [-1.0]


def test_named_rewards_are_weighed_and_a_weight_of_0_takes_one_out() -> None:
    """right + 0.25 brief, and for the checker without brief."""

    def make(number: int, right: float, brief: float) -> Rollout:
        rewards = (EarnedReward("", "right", right, 50), EarnedReward("", "brief", brief, 50))
        return two_roles(number, whole=0.0).with_rewards(rewards)

    settings = Settings.from_dict({"credit.rewards.brief": 0.25, "role.checker.rewards.brief": 0.0})
    weighed = build_batch([make(1, 1.0, 2.0), make(2, 0.0, 4.0)], settings)
    assert (credit(weighed, 1, "writer"), credit(weighed, 1, "checker")) == ([0.5], [1.0])
    assert weighed.metrics["reward_mean/writer"] == 1.25
    assert weighed.metrics["reward_mean/checker"] == 0.5


@pytest.mark.parametrize("settings", [{}, {"credit.returns": "to_go"}, {"credit.advantage": "grpo"}])
def test_weights_and_advantages_are_the_same_with_reasons(settings: dict[str, str]) -> None:
    """The words of a reward change no number of what is learned, nor of what is told about it."""

    def make(why: str) -> list[Rollout]:
        made = [turns(1, 0.5, 0.0, 1.0), turns(2, 0.25, 0.0), turns(3, 0.0)]
        return [
            each.with_rewards(tuple(r._replace(why=why and f"{why} {n}") for n, r in enumerate(each.rewards)))
            for each in made
        ]

    without, reasoned = (build_batch(make(why), Settings.from_dict(settings)) for why in ("", "unit missing"))
    assert len(without.rows) == len(reasoned.rows) == 3
    for one, other in zip(without.rows, reasoned.rows, strict=True):
        assert np.any(one.advantages)
        np.testing.assert_array_equal(one.advantages, other.advantages)
        np.testing.assert_array_equal(one.weights, other.weights)
    assert without.metrics == reasoned.metrics


def test_a_role_has_its_own_weight_and_estimator() -> None:
    """The writer counts half; the checker has no baseline."""
    settings = Settings.from_dict(
        {
            "algorithm.aggregation": "token-mean",
            "role.writer.weight": 0.5,
            "role.checker.advantage": "reinforce",
        }
    )
    weighed = build_batch([two_roles(1, whole=1.0), two_roles(2, whole=0.0)], settings)
    assert [float(row.weights.max()) for row in weighed.rows] == [0.25, 0.5, 0.25, 0.5]
    assert (credit(weighed, 1, "writer"), credit(weighed, 1, "checker")) == ([1.0], [1.0])
    assert (credit(weighed, 2, "writer"), credit(weighed, 2, "checker")) == ([-1.0], [0.0])


@pytest.mark.parametrize(
    ("schedule", "steps"),
    [
        ("always", [1, 2, 3, 4, 5, 6]),
        ("never", []),
        ("2-4", [2, 3, 4]),
        ("5-", [5, 6]),
        ("0-2", [1, 2]),
        ("1/2", [1, 3, 5]),
        ("2/2", [2, 4, 6]),
        ("2/3:2", [3, 4]),
    ],
)
def test_schedules(schedule: str, steps: list[int]) -> None:
    """When a role is trained, over six steps."""
    assert [step for step in range(1, 7) if is_scheduled(schedule, step)] == steps


def test_a_frozen_role_has_no_row_and_changes_nobody_s_weight() -> None:
    """Its tokens are counted as masked; the other's rows are as without the schedule."""
    made = [two_roles(1, whole=1.0), two_roles(2, whole=0.0)]
    free, frozen = build_batch(made, of()), build_batch(made, of(role={"checker": {"schedule": "never"}}))
    assert {row.role for row in frozen.rows} == {"writer"}
    assert (frozen.metrics["tokens_masked/checker"], frozen.metrics["tokens_trained/checker"]) == (2, 0)
    assert [row.weights.tolist() for row in frozen.rows] == [
        r.weights.tolist() for r in free.rows if r.role == "writer"
    ]


def test_roles_that_alternate_may_leave_a_step_empty() -> None:
    """A step in which no role trains is not an error: there is nothing to update."""
    assert build_batch([turns(1, 1.0), turns(2, 0.0)], of(credit__schedule="2/2"), step=1).rows == []


def test_the_running_mean_is_of_earlier_steps() -> None:
    """The first step compares with the others of its batch; the next one with the mean so far, its own left out."""
    settings = of(credit__advantage="running_mean", credit__momentum=0.5)
    first = build_batch([turns(1, 1.0), turns(2, 0.0, group="task-1")], settings)
    assert (credit(first, 1), first.means) == ([1.0], {"solver": 0.5})
    second = build_batch([turns(1, 4.0)], settings, step=2, means=first.means)
    assert (credit(second, 1), second.means) == ([3.5], {"solver": 2.25})
    assert second.metrics["running_mean/solver"] == 2.25


def test_reinforce_plus_plus_normalises_over_tokens() -> None:
    """Mean 0 and deviation 1 over the role's sampled tokens: a longer rollout counts more often."""
    weighed = build_batch([turns(1, 0.0, 0.0, 1.0), turns(2, 0.0, group="task-1")], of(credit__advantage="reinforce++"))
    got = credit(weighed, 1) + credit(weighed, 2)
    assert got == pytest.approx([0.5, 0.5, 0.5, -1.5], abs=1e-6)


def test_a_failed_rollout_is_trained_on_where_the_user_says_so() -> None:
    """With the reward that the user names, beside what it had earned; other failures stay out."""
    failed = Status.AGENT_ERROR
    made = [turns(1, 1.0), rollout(2, call(1, [1], sample(2)), rewards={"": 0.5}, status=failed)]
    assert credit(build_batch(made, of()), 2) == []
    weighed = build_batch(made, of(failure__agent_error="train", failure__reward=-2.0))
    assert (credit(weighed, 2), credit(weighed, 1)) == ([-2.5], [2.5])
    assert credit(build_batch(made, of(failure__timeout="train", failure__reward=-2.0)), 2) == []


# --- length


def truncate(number: int, reward: float) -> Rollout:
    """Two calls, the second of which ended at the token limit."""
    calls = call(1, [1], sample(2, 3)), call(2, [1, 2, 3, 4], sample(5, 6, 7), finish_reason="length")
    return rollout(number, *calls, rewards={"": reward})


@pytest.mark.parametrize(("policy", "trained", "masked"), [("train", 5, 0), ("mask", 2, 3), ("exclude", 0, 5)])
def test_truncated_completions(policy: str, trained: int, masked: int) -> None:
    """Trained, masked, or their whole part left out; the baseline of the other rollout knows of them all the same."""
    weighed = build_batch([truncate(1, 0.0), turns(2, 1.0)], of(length__truncated=policy))
    assert len(credit(weighed, 1)) == trained
    assert weighed.metrics["tokens_masked"] == masked
    assert weighed.metrics["completions_truncated"] == pytest.approx(1 / 3)
    assert credit(weighed, 2) == [1.0]
    assert {float(row.weights.max()) for row in weighed.rows} == {0.5}


@pytest.mark.parametrize(("policy", "trained"), [("cut", 3), ("exclude", 0)])
def test_rows_that_are_too_long(policy: str, trained: int) -> None:
    """Cut at the bound or left out; either is counted."""
    weighed = build_batch([truncate(1, 0.0), turns(2, 1.0)], of(length__max_row=5, length__long_rows=policy))
    assert len(credit(weighed, 1)) == trained
    assert weighed.metrics["tokens_masked"] == 5 - trained
    assert all(len(row.tokens) <= 5 for row in weighed.rows)


@pytest.mark.parametrize(
    ("limit", "buffer", "want"), [(10, 4, 1.0), (6, 4, 0.625), (5, 4, 0.5), (4, 4, 0.5), (4, 0, 0.5), (5, 0, 1.0)]
)
def test_the_soft_punishment_of_long_rollouts(limit: int, buffer: int, want: float) -> None:
    """DAPO's equation 13 for 5 sampled tokens, times a penalty of 0.5, off a reward of 1."""
    settings = of(length__limit=limit, length__buffer=buffer, length__penalty=0.5, credit__advantage="reinforce")
    assert credit(build_batch([truncate(1, 1.0)], settings), 1) == [pytest.approx(want)] * 5


# --- scores of the backend


class Scorer:
    """Stands for a backend: values are the token ids / 10, reference log-probs the sampler's less 0.5."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def score(self, rows: Sequence[Row], what: str) -> list[NDArray[np.float32]]:
        self.asked.append(what)
        values = [row.tokens / 10 if what == "values" else row.logprobs - 0.5 for row in rows]
        return [np.where(row.weights != 0, each, 0).astype(np.float32) for row, each in zip(rows, values, strict=True)]


def estimates(rewards: list[float], values: list[float], decay: float) -> tuple[list[float], list[float]]:
    """GAE by its definition, a sum over what is to come (arXiv:1506.02438, eq. 16), whitened; and the returns."""
    nexts = [*values[1:], 0.0]
    deltas = [r + v_next - v for r, v, v_next in zip(rewards, values, nexts, strict=True)]
    raw = np.array([sum(decay**k * d for k, d in enumerate(deltas[t:])) for t in range(len(deltas))])
    return list((raw - raw.mean()) / np.sqrt(raw.var(ddof=1) + 1e-8)), list(raw + values)


@pytest.mark.parametrize("apart", [False, True], ids=["one row", "a row for each call"])
def test_estimates_go_along_the_tokens_in_the_order_of_calls(apart: bool) -> None:
    """One row or many: the last token of a call is followed by the first of the next."""
    second = [9, 9, 9] if apart else [1, 2, 3, 4]
    made = rollout(1, call(1, [1], sample(2, 3)), call(20, second, sample(5, 6, 7)))
    made = made.with_rewards((EarnedReward("", "step", 1.0, 10), EarnedReward("", "final", 2.0, 30)))
    weighed = build_batch([made], of(credit__advantage="gae", value__gae_lambda=0.5), scoring=Scorer())
    want, returns = estimates([0, 1.0, 0, 0, 2.0], [0.2, 0.3, 0.5, 0.6, 0.7], 0.5)
    assert credit(weighed, 1) == pytest.approx(want, abs=1e-5)
    got = [float(row.returns[t]) for row in weighed.rows for t in np.flatnonzero(row.weights)]  # type: ignore[index]
    assert got == pytest.approx(returns, abs=1e-5)
    assert len(weighed.rows) == 1 + apart


def test_divergence_in_the_reward_is_paid_by_the_step_that_caused_it() -> None:
    """k1 is 0.5 for each token here: two turns of one token each pay 0.1 x 0.5."""
    settings = of(
        divergence__coefficient=0.1,
        divergence__place="reward",
        divergence__estimator="k1",
        credit__advantage="reinforce",
        credit__returns="to_go",
    )
    scorer = Scorer()
    weighed = build_batch([turns(1, 0.0, 1.0)], settings, scoring=scorer)
    assert credit(weighed, 1) == pytest.approx([0.9, 0.95])
    assert scorer.asked == ["reference"]
    assert weighed.metrics["reward_mean"] == 1.0, "what people see is what was given"


def test_divergence_in_the_reward_is_paid_by_each_token_under_gae() -> None:
    """Token by token, not in one sum at the end."""
    made = rollout(1, call(1, [1], sample(2, 3, 4)), rewards={"": 1.0})
    settings = of(
        divergence__coefficient=1.0,
        divergence__place="reward",
        divergence__estimator="k2",
        credit__advantage="gae",
        value__gae_lambda=0.5,
    )
    want, _ = estimates([-0.125, -0.125, 0.875], [0.2, 0.3, 0.4], 0.5)
    assert credit(build_batch([made], settings, scoring=Scorer()), 1) == pytest.approx(want, abs=1e-5)


def test_settings_that_need_scores_say_so() -> None:
    """A backend that cannot score is told from the setting."""
    with pytest.raises(SettingError, match=r"credit\.advantage='gae' needs a backend that scores tokens"):
        build_batch([turns(1, 1.0)], of(credit__advantage="gae"))


# --- signals


def test_signals_by_role() -> None:
    """Each role's own numbers beside those of the batch."""
    weighed = build_batch([two_roles(1, whole=1.0, checker=2.0), two_roles(2, whole=1.0)], of(), version=5)
    signal = weighed.metrics
    assert (signal["groups"], signal["groups_without_signal"]) == (2, 1)
    assert (signal["groups_without_signal/writer"], signal["groups_without_signal/checker"]) == (1, 0)
    assert signal["advantage_std/writer"] == 0 < signal["advantage_std/checker"]
    assert (signal["staleness_mean/writer"], signal["staleness_max"]) == (2, 2)
    assert signal["rows/checker"] == signal["tokens_trained/checker"] == 2


def test_groups_without_signal_are_found_for_dynamic_sampling() -> None:
    """Equal rewards, a rollout alone, and a group of which only one role is told apart."""
    made = [
        turns(1, 1.0),
        turns(2, 1.0),
        turns(3, 1.0, group="alone"),
        turns(4, 1.0, group="told"),
        turns(5, 0.0, group="told"),
    ]
    assert flat_groups(made, of()) == {"task-0", "alone"}
    mixed = [two_roles(1, whole=1.0, checker=2.0), two_roles(2, whole=1.0, checker=0.0)]
    assert flat_groups(mixed, of()) == set()
