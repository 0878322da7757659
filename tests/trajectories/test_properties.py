"""What holds for every set of calls, searched by hypothesis."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_hub.credit.batch import build_batch
from lightning_hub.credit.estimators import grpo, rloo
from lightning_hub.rollout import Rollout
from lightning_hub.trajectories.trajectory import Trajectory, merge
from lightning_hub.trajectories.transition import Transition, transitions
from lightning_sdk.settings import Settings
from lightning_sdk.trace.call import Call, Status
from tests.trajectories.conversations import call, rollout

RLOO = Settings.from_dict({"algorithm.aggregation": "token-mean"})
GRPO = Settings.from_dict({"algorithm.aggregation": "token-mean", "credit.advantage": "grpo"})
# Few different ids, so that prefixes collide often.
IDS = st.lists(st.integers(0, 2), min_size=1, max_size=4)


@st.composite
def agents(draw: st.DrawFn) -> list[Call]:
    """The calls of an agent that goes on, branches, retries, edits history, asks for two choices, in any order.

    Each sampled token has a different log-prob, so that it can be found again.
    """
    made: list[Call] = []
    told: list[list[int]] = [draw(IDS)]
    number = 0
    for index in range(draw(st.integers(1, 7))):
        prompt = [*draw(st.sampled_from(told)), *draw(st.lists(st.integers(0, 2), max_size=3))]
        choices = []
        for _ in range(draw(st.integers(1, 2))):
            ids = draw(IDS)
            choices.append((ids, [-(number + each + 1) / 1024 for each in range(len(ids))]))
            number += len(ids)
            told.append([*prompt, *ids])
        role, temperature = draw(st.sampled_from(["a", "a", "a", "b"])), draw(st.sampled_from([1.0, 1.0, 1.0, 0.5]))
        version = draw(st.integers(0, 3))
        made.append(call(index, prompt, *choices, role=role, temperature=temperature, version=version))
    return made


def of(calls: Sequence[Call]) -> list[Transition]:
    return [each for made in calls for each in transitions(made)]


def facts(row: Trajectory) -> tuple[object, ...]:
    arrays = (row.tokens, row.mask, row.logprobs, row.versions)
    return row.role, row.temperature, row.calls, *(tuple(array.tolist()) for array in arrays)


@given(agents())
def test_each_sampled_token_is_trained_once_with_its_own_log_prob_and_version(calls: list[Call]) -> None:
    """Over all rows, the marked tokens are exactly the sampled tokens."""
    want = Counter(
        (float(p), int(i), int(v), each.role, each.temperature)
        for each in of(calls)
        for i, p, v in zip(each.completion_ids, each.logprobs, each.versions, strict=True)
    )
    got = Counter(
        (float(row.logprobs[t]), int(row.tokens[t]), int(row.versions[t]), row.role, row.temperature)
        for row in merge(of(calls))
        for t in np.flatnonzero(row.mask)
    )
    assert got == want
    assert max(got.values()) == 1


@given(agents())
def test_each_sampled_token_follows_the_very_ids_that_the_model_saw(calls: list[Call]) -> None:
    """The row before a sampled token is its call's prompt and what was sampled before it; context carries nothing."""
    seen = {
        float(each.logprobs[t]): [*each.prompt_ids.tolist(), *each.completion_ids[:t].tolist()]
        for each in of(calls)
        for t in range(len(each.completion_ids))
    }
    for row in merge(of(calls)):
        for t in np.flatnonzero(row.mask):
            assert row.tokens[:t].tolist() == seen[float(row.logprobs[t])]
        assert not row.mask[0]
        assert not row.logprobs[~row.mask].any()
        assert (row.versions[~row.mask] == -1).all()


@given(agents(), st.randoms(use_true_random=False))
def test_the_rows_do_not_depend_on_the_order_of_the_calls(calls: list[Call], shuffle: random.Random) -> None:
    """Calls under way at once may end in any order."""
    shuffled = list(calls)
    shuffle.shuffle(shuffled)
    assert Counter(map(facts, merge(of(shuffled)))) == Counter(map(facts, merge(of(calls))))


@given(agents())
def test_no_row_could_have_been_joined_to_another_open_one(calls: list[Call]) -> None:
    """A row is opened only where no row fits: none begins with the whole of a row whose prompts are all shorter."""
    made = merge(of(calls))
    for row in made:
        first = int(np.flatnonzero(row.mask)[0])
        for other in made:
            if other is row or (other.role, other.temperature) != (row.role, row.temperature):
                continue
            assert row.tokens[:first].tolist() != other.tokens.tolist()


@given(agents())
def test_there_are_as_few_rows_as_can_be(calls: list[Call]) -> None:
    """The fewest chains in which each call's whole text begins the next one's prompt, by a maximum matching.

    In an order that is transitive, a smallest cover by chains has one chain for each element that nothing follows in a
    largest matching of elements with their followers (Dilworth's theorem, in Fulkerson's form).
    """
    made = of(calls)
    follows = [[place for place, later in enumerate(made) if _continues(later, earlier)] for earlier in made]
    assert len(merge(made)) == len(made) - _largest_matching(follows)


def _continues(later: Transition, earlier: Transition) -> bool:
    whole = [*earlier.prompt_ids.tolist(), *earlier.completion_ids.tolist()]
    same = (later.role, later.temperature) == (earlier.role, earlier.temperature)
    return same and later.prompt_ids.tolist()[: len(whole)] == whole


def _largest_matching(follows: list[list[int]]) -> int:
    """How many elements can each have a different follower: augmenting paths."""
    before: dict[int, int] = {}

    def grow(element: int, seen: set[int]) -> bool:
        for place in follows[element]:
            if place not in seen:
                seen.add(place)
                if place not in before or grow(before[place], seen):
                    before[place] = element
                    return True
        return False

    return sum(grow(element, set()) for element in range(len(follows)))


REWARDS = st.lists(st.floats(-4, 4, width=16), min_size=1, max_size=6)


@st.composite
def batches(draw: st.DrawFn) -> list[Rollout]:
    """Rollouts of two groups, some of which failed, with rewards for the whole or for each role."""
    made = []
    for number in range(draw(st.integers(1, 6))):
        value = draw(st.integers(-8, 8)) / 4
        rewards = draw(st.sampled_from([{"": value}, {"a": value, "b": -value}, {"a": 1.0, "": value}]))
        status = draw(st.sampled_from([Status.OK, Status.OK, Status.OK, Status.TIMEOUT]))
        group = draw(st.sampled_from(["g0", "g1"]))
        made.append(rollout(number, *draw(agents()), rewards=rewards, group=group, status=status))
    return made


@settings(max_examples=40)
@given(batches(), st.sampled_from([RLOO, GRPO]))
def test_every_sampled_token_of_a_role_has_the_same_weight(made: list[Rollout], wanted: Settings) -> None:
    """A role's weights sum to 1 over all ok rollouts, also those without signal; context has no weight."""
    weighed = build_batch(made, wanted)
    ok = [each for each in made if each.status == Status.OK]
    totals = Counter[str]()
    for each in (each for rollout_ in ok for each in rollout_.calls):
        totals[each.meta.role] += each.output_tokens
    assert weighed.metrics["tokens_trained"] == totals.total()
    for row in weighed.rows:
        counted = row.weights != 0
        assert row.weights[counted] == pytest.approx(1 / totals[row.role])
        assert not row.advantages[~counted].any()
        assert row.weights.dtype == row.advantages.dtype == np.float32
        assert np.array_equal(counted, row.logprobs != 0)
    assert sum(float(row.weights.sum()) for row in weighed.rows) == pytest.approx(len(totals))


@given(REWARDS, st.floats(-8, 8, width=16))
def test_leave_one_out_advantages_sum_to_zero_and_ignore_a_shift(rewards: list[float], shift: float) -> None:
    """r_i minus the mean of the others, by its definition; what every rollout gets teaches nothing."""
    got = rloo(rewards)
    others = [np.mean(rewards[:i] + rewards[i + 1 :]) if len(rewards) > 1 else r for i, r in enumerate(rewards)]
    assert got == pytest.approx(np.asarray(rewards) - np.asarray(others), abs=1e-5)
    assert got.sum() == pytest.approx(0, abs=1e-5)
    assert rloo([r + shift for r in rewards]) == pytest.approx(got, abs=1e-5)


@given(REWARDS, st.floats(0.5, 8, width=16))
def test_group_relative_advantages_ignore_shift_and_scale(rewards: list[float], scale: float) -> None:
    """Mean 0 and deviation 1, whatever the unit of the reward, unless all are equal or nearly."""
    got = grpo(rewards)
    assert got.sum() == pytest.approx(0, abs=1e-4)
    if np.ptp(rewards) > 0.1:
        assert got.std(ddof=1) == pytest.approx(1, abs=1e-3)
        assert grpo([r * scale + 1 for r in rewards]) == pytest.approx(got, abs=1e-2)


@settings(max_examples=40)
@given(batches())
def test_the_gradient_is_the_same_for_one_row_or_many_in_any_order(made: list[Rollout]) -> None:
    """Each token keeps its weight x advantage when each call is a separate row and rollouts are shuffled."""
    want = shares(build_batch(made, RLOO).rows)
    split = [broken_up(each) for each in reversed(made)]
    got = shares(build_batch(split, RLOO).rows)
    assert got.keys() == want.keys()
    for token, share in want.items():
        assert got[token] == pytest.approx(share, abs=1e-6)


ESTIMATORS = st.sampled_from(["rloo", "grpo", "dr_grpo", "reinforce++_baseline"])
RETURNS = st.sampled_from(["rollout", "to_go"])


@settings(max_examples=40)
@given(batches(), ESTIMATORS, RETURNS, st.floats(-8, 8, width=16))
def test_a_shift_of_all_rewards_changes_nothing(made: list[Rollout], name: str, returns: str, shift: float) -> None:
    """What every rollout of a group gets teaches nothing; weights and tokens stay as they are."""
    chosen = Settings.from_dict({"credit.advantage": name, "credit.returns": returns})
    plain, shifted = (
        build_batch(made, chosen),
        build_batch([with_rewards(each, lambda v: v + shift) for each in made], chosen),
    )
    for one, other in zip(plain.rows, shifted.rows, strict=True):
        assert np.array_equal(one.weights, other.weights) and np.array_equal(one.tokens, other.tokens)
        assert other.advantages == pytest.approx(one.advantages, abs=2e-2 if name == "grpo" else 1e-4)


@settings(max_examples=40)
@given(batches(), RETURNS, st.floats(0.5, 8, width=16))
def test_a_scale_of_all_rewards_scales_the_advantages_alone(made: list[Rollout], returns: str, scale: float) -> None:
    """Leave-one-out is linear; weights and tokens stay as they are."""
    chosen = Settings.from_dict({"credit.returns": returns})
    plain, scaled = (
        build_batch(made, chosen),
        build_batch([with_rewards(each, lambda v: v * scale, True) for each in made], chosen),
    )
    for one, other in zip(plain.rows, scaled.rows, strict=True):
        assert np.array_equal(one.weights, other.weights) and np.array_equal(one.tokens, other.tokens)
        assert other.advantages == pytest.approx(one.advantages * scale, abs=1e-3)


AGGREGATIONS = st.sampled_from(["seq-mean-token-sum-norm", "token-mean", "seq-mean-token-mean", "seq-mean-token-sum"])


@settings(max_examples=40)
@given(batches(), AGGREGATIONS, st.integers(1, 3))
def test_a_role_s_rows_do_not_depend_on_what_another_role_said(made: list[Rollout], how: str, times: int) -> None:
    """Role b says other things, and more of them: not one number of role a's rows changes."""
    chosen = Settings.from_dict({"algorithm.aggregation": how, "credit.advantage": "reinforce++"})
    changed = [retold(each, "b", times) for each in made]
    plain, other = ([row for row in build_batch(each, chosen).rows if row.role == "a"] for each in (made, changed))
    for one, same in zip(plain, other, strict=True):
        for name in ("tokens", "weights", "advantages", "logprobs"):
            assert np.array_equal(getattr(one, name), getattr(same, name))


def retold(made: Rollout, role: str, times: int) -> Rollout:
    """The rollout, in which this role sampled its tokens several times over, each one higher."""
    calls = []
    for index, each in enumerate(made.calls):
        ids = [np.frombuffer(choice.token_ids, "<i4").tolist() for choice in each.choices]
        if each.meta.role == role:
            ids = [[token + 1 for token in choice] * times for choice in ids]
        floats = [np.frombuffer(choice.logprobs, "<f4").tolist() * times for choice in each.choices]
        prompt = np.frombuffer(each.prompt_ids, "<i4").tolist()
        choices = [(choice, logprobs[: len(choice)]) for choice, logprobs in zip(ids, floats, strict=True)]
        again = call(index, prompt, *choices, role=each.meta.role)
        calls.append(dataclasses.replace(again, meta=each.meta, request=each.request))
    return dataclasses.replace(made, calls=tuple(calls))


def with_rewards(made: Rollout, change: Callable[[float], float], every: bool = False) -> Rollout:
    """The rollout with its rewards changed: that of the whole, which is part of each role's, or `every` one."""
    wholes = every or any(not reward.role for reward in made.rewards)
    return made.with_rewards(
        tuple(
            each._replace(value=change(each.value)) if every or not each.role or not wholes else each
            for each in made.rewards
        )
    )


def shares(rows: Sequence[object]) -> dict[tuple[object, ...], float]:
    """Sampled token, by rollout and log-prob -> its share of the gradient."""
    return {
        (row.rollout, row.role, float(row.logprobs[t])): float(row.weights[t] * row.advantages[t])  # type: ignore[attr-defined]
        for row in rows
        for t in np.flatnonzero(row.weights)  # type: ignore[attr-defined]
    }


def broken_up(made: Rollout) -> Rollout:
    """The same rollout, with prompts that share no first token, so that no call continues another."""
    calls = []
    for index, each in enumerate(made.calls):
        choices = [
            (np.frombuffer(c.token_ids, "<i4").tolist(), np.frombuffer(c.logprobs, "<f4").tolist())
            for c in each.choices
        ]
        calls.append(call(index, [1000 + index], *choices, role=each.meta.role))
    return rollout(
        int(made.id, 16),
        *calls,
        rewards={each.role: each.value for each in made.rewards},
        group=made.group,
        status=made.status,
    )
