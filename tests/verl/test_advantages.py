"""Advantages equal VERL's, from finished rollouts to the number of each token; and where they do not, how they differ.

VERL computes in float64 here, and our rows hold float32.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from verl.trainer.ppo.core_algos import (
    compute_gae_advantage_return,
    compute_reinforce_plus_plus_outcome_advantage,
    compute_rloo_outcome_advantage,
)

from lightning_hub.backend import Row
from lightning_hub.credit import estimators
from lightning_hub.credit.batch import build_batch
from lightning_sdk.settings import Settings
from tests.trajectories.conversations import call, rollout
from tests.verl.responses import PROMPT, Responses, responses

Theirs = Callable[..., tuple[Tensor, Tensor]]
CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 2e-6}


def rows_of(made: Responses, settings: Settings, **changes: Any) -> list[Row]:
    """Ours; every rollout has one row."""
    rows = build_batch(made.rollouts, Settings.from_dict({**settings.flat(), **changes}), scoring=made).rows
    assert len(rows) == len(made.rollouts)
    return rows


def advantages(made: Responses, settings: Settings, **changes: Any) -> Tensor:
    """[B, L] ours."""
    return made.pad(rows_of(made, settings, **changes), "advantages")


def assert_close(made: Responses, own: Tensor, other: Tensor) -> None:
    """At every sampled token; where nothing was sampled ours are 0."""
    torch.testing.assert_close(own, other * made.mask, **CLOSE)
    assert len(set(own[made.mask.bool()].tolist())) > 3


@pytest.mark.same("core_algos.compute_grpo_outcome_advantage", "credit.advantage=grpo")
def test_grpo(theirs: Theirs, settings: Settings, seed: int) -> None:
    """Less the group's mean, over its deviation."""
    made = responses(seed)
    assert_close(made, advantages(made, settings), theirs(made.rewards.clone(), made.mask, made.index)[0])


@pytest.mark.same("core_algos.compute_grpo_vectorized_outcome_advantage", "credit.advantage=grpo")
def test_grpo_vectorized(theirs: Theirs, settings: Settings, seed: int) -> None:
    """VERL's other implementation, which computes in float32."""
    made = responses(seed)
    assert_close(made, advantages(made, settings), theirs(made.rewards.clone(), made.mask, made.index)[0])


@pytest.mark.same("core_algos.compute_grpo_outcome_advantage", "credit.advantage=dr_grpo")
def test_dr_grpo(theirs: Theirs, settings: Settings, seed: int) -> None:
    """norm_adv_by_std_in_grpo=False."""
    made = responses(seed)
    other, _ = theirs(made.rewards.clone(), made.mask, made.index, norm_adv_by_std_in_grpo=False)
    assert_close(made, advantages(made, settings), other)


@pytest.mark.same("core_algos.compute_rloo_outcome_advantage", "credit.advantage=rloo")
def test_rloo(theirs: Theirs, settings: Settings, seed: int) -> None:
    """Less the mean of the others."""
    made = responses(seed)
    assert_close(made, advantages(made, settings), theirs(made.rewards.clone(), made.mask, made.index)[0])


@pytest.mark.same("core_algos.compute_rloo_vectorized_outcome_advantage", "credit.advantage=rloo")
def test_rloo_vectorized(theirs: Theirs, settings: Settings, seed: int) -> None:
    """VERL's other implementation, with groups of one as well: 0, as ours."""
    made = responses(seed, groups=(3, 1, 4, 1))
    assert_close(made, advantages(made, settings), theirs(made.rewards.clone(), made.mask, made.index)[0])


@pytest.mark.same("core_algos.compute_reinforce_plus_plus_outcome_advantage", "credit.advantage=reinforce++")
def test_reinforce_plus_plus(theirs: Theirs, settings: Settings, seed: int) -> None:
    """Normalised over the batch's tokens."""
    made = responses(seed)
    other, _ = theirs(made.rewards.clone(), made.mask, config=SimpleNamespace(gamma=1.0))
    assert_close(made, advantages(made, settings), other)


@pytest.mark.same(
    "core_algos.compute_reinforce_plus_plus_baseline_outcome_advantage", "credit.advantage=reinforce++_baseline"
)
def test_reinforce_plus_plus_baseline(theirs: Theirs, settings: Settings, seed: int) -> None:
    """Less the group's mean, then normalised so."""
    made = responses(seed)
    assert_close(made, advantages(made, settings), theirs(made.rewards.clone(), made.mask, made.index)[0])


@pytest.mark.same("torch_functional.masked_whiten", "credit.advantage=reinforce++")
def test_whiten(theirs: Callable[..., Tensor], settings: Settings, seed: int) -> None:
    """Mean 0 and variance 1 over what counts, with the same constants."""
    made = responses(seed)
    values, masks = made.values.numpy().astype(np.float32), made.mask.bool().numpy()
    own = estimators.whiten(list(values), list(masks))
    assert_close(made, torch.from_numpy(np.stack(own)).double(), theirs(made.values, made.mask))


@pytest.mark.same(
    "core_algos.compute_reinforce_plus_plus_outcome_advantage",
    "credit.advantage=reinforce++ credit.returns=to_go credit.discount=0.9",
)
def test_reinforce_plus_plus_to_go(theirs: Theirs, settings: Settings, seed: int) -> None:
    """With rewards on the way and a discount, as long as every call samples one token: ours is by the call."""
    made = responses(seed, tokens=1, calls=6, step_rewards=True)
    other, _ = theirs(made.rewards.clone(), made.mask, config=SimpleNamespace(gamma=0.9))
    assert_close(made, advantages(made, settings), other)


@pytest.mark.same("core_algos.compute_gae_advantage_return", "credit.advantage=gae value.gae_lambda=0.95")
@pytest.mark.parametrize("step_rewards", [False, True])
def test_gae(theirs: Theirs, settings: Settings, seed: int, step_rewards: bool) -> None:
    """Advantages, and what the value head learns, with a lambda for each token; rewards at the end or on the way."""
    made = responses(seed, step_rewards=step_rewards)
    other, returns = theirs(made.rewards, made.values, made.mask, 1.0, 0.95)
    rows = rows_of(made, settings)
    assert_close(made, made.pad(rows, "advantages"), other)
    torch.testing.assert_close(made.pad(rows, "returns") * made.mask, returns * made.mask, **CLOSE)


@pytest.mark.same(
    "core_algos.compute_gae_advantage_return", "credit.advantage=gae credit.discount=0.9 value.gae_lambda=0.8"
)
def test_gae_discounted(theirs: Theirs, settings: Settings, seed: int) -> None:
    """With a discount, as long as every call samples one token."""
    made = responses(seed, tokens=1, calls=6, step_rewards=True)
    other, _ = theirs(made.rewards, made.values, made.mask, 0.9, 0.8)
    assert_close(made, advantages(made, settings), other)


PAID = "divergence.place=reward divergence.coefficient=0.3"


@pytest.mark.same("core_algos.kl_penalty", f"{PAID} credit.advantage=gae")
@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_gae_with_the_divergence_in_the_reward(
    theirs: Callable[..., Tensor], settings: Settings, seed: int, estimator: str
) -> None:
    """Each token pays for itself, as with VERL's use_kl_in_reward."""
    made = responses(seed, step_rewards=True)
    own = advantages(made, settings, **{"divergence.estimator": estimator})
    paid = made.rewards - 0.3 * theirs(made.sampler, made.reference, estimator) * made.mask
    other, _ = compute_gae_advantage_return(paid, made.values, made.mask, 1.0, 0.95)
    assert_close(made, own, other)


@pytest.mark.same("core_algos.kl_penalty", f"{PAID} credit.advantage=rloo")
@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_rloo_with_the_divergence_in_the_reward(
    theirs: Callable[..., Tensor], settings: Settings, seed: int, estimator: str
) -> None:
    """A rollout is compared with the others net of what its tokens pay."""
    made = responses(seed)
    own = advantages(made, settings, **{"divergence.estimator": estimator})
    paid = made.rewards - 0.3 * theirs(made.sampler, made.reference, estimator) * made.mask
    other, _ = compute_rloo_outcome_advantage(paid, made.mask, made.index)
    assert_close(made, own, other)


@pytest.mark.same("core_algos.compute_rewards", f"{PAID} divergence.estimator=k1 credit.advantage=gae")
def test_rewards_less_divergence(theirs: Callable[..., Tensor], settings: Settings, seed: int) -> None:
    """VERL's own function for that, of k1 alone."""
    made = responses(seed)
    paid = theirs(made.rewards, made.sampler, made.reference, 0.3) * made.mask
    other, _ = compute_gae_advantage_return(paid, made.values, made.mask, 1.0, 0.95)
    assert_close(made, advantages(made, settings), other)


# --- where VERL means something else


@pytest.mark.differs("core_algos.compute_gae_advantage_return", "credit.advantage=gae credit.discount=0.9")
def test_discount_by_call_or_token(theirs: Theirs, settings: Settings, seed: int) -> None:
    """VERL discounts from token to token, so a long answer loses part of its reward. Ours discounts from call to call:
    with a single call the estimates are the same as without a discount."""
    made = responses(seed, calls=1)
    rows = rows_of(made, settings)
    _, by_token = theirs(made.rewards, made.values, made.mask, 0.9, 0.95)
    _, free = theirs(made.rewards, made.values, made.mask, 1.0, 0.95)
    # The last token is one of its call: there 0.9 applies in both, to what follows, which is nothing.
    torch.testing.assert_close(made.pad(rows, "returns"), free * made.mask, **CLOSE)
    assert not torch.allclose(by_token * made.mask, free * made.mask, atol=0.05)


@pytest.mark.differs(
    "core_algos.compute_reinforce_plus_plus_outcome_advantage",
    "credit.advantage=reinforce++ credit.returns=to_go credit.discount=0.9",
)
def test_returns_discounted_by_token(theirs: Theirs, settings: Settings, seed: int) -> None:
    """Before normalisation, VERL's return of a token that comes n tokens before the reward is 0.9 ** n times the
    reward; ours is the whole reward."""
    made = responses(seed, calls=1)
    _, returns = theirs(made.rewards.clone(), made.mask, config=SimpleNamespace(gamma=0.9))
    before = made.mask.flip(1).cumsum(1).flip(1) - 1
    own = advantages(made, settings, **{"credit.advantage": "reinforce"})
    torch.testing.assert_close(returns, own * 0.9**before, **CLOSE)
    assert bool((before[own != 0] > 0).any())


@pytest.mark.differs("core_algos.compute_grpo_outcome_advantage", "credit.advantage=grpo")
@pytest.mark.parametrize("norm", [True, False])
def test_a_group_of_one(theirs: Theirs, settings: Settings, norm: bool) -> None:
    """For the only rollout of a group, VERL's advantage is the reward itself, which does not say what was better; ours
    is 0."""
    made = responses(7, groups=(1, 1, 1))
    other, _ = theirs(made.rewards.clone(), made.mask, made.index, norm_adv_by_std_in_grpo=norm)
    torch.testing.assert_close(other, made.rewards.sum(1, True) * made.mask, rtol=2e-6, atol=0)
    assert bool(other.any())
    assert not advantages(made, settings).any()


@pytest.mark.differs("core_algos.compute_rloo_outcome_advantage", "credit.advantage=rloo")
def test_a_group_of_one_with_rloo(theirs: Theirs, settings: Settings) -> None:
    """For the only rollout of a group, VERL's advantage is its reward. VERL's other implementation of RLOO gives 0, as
    ours does."""
    made = responses(7, groups=(1, 1, 1))
    other, _ = theirs(made.rewards.clone(), made.mask, made.index)
    torch.testing.assert_close(other, made.rewards.sum(1, True) * made.mask)
    assert bool(other.any())
    assert not advantages(made, settings).any()


@pytest.mark.differs(
    "core_algos.compute_reinforce_plus_plus_baseline_outcome_advantage", "credit.advantage=reinforce++_baseline"
)
def test_a_group_of_one_with_a_baseline(theirs: Theirs, settings: Settings, seed: int) -> None:
    """VERL normalises the bare reward of a group of one together with the differences in other groups; ours is 0
    there."""
    made = responses(seed, groups=(3, 1, 4))
    own, (other, _) = advantages(made, settings), theirs(made.rewards.clone(), made.mask, made.index)
    alone = made.index == "task-1"
    made.rewards[torch.from_numpy(alone)] = 0.0
    again, _ = theirs(made.rewards.clone(), made.mask, made.index)
    torch.testing.assert_close(own, again, **CLOSE)
    assert other.shape == again.shape


@pytest.mark.differs("core_algos.compute_grpo_outcome_advantage", "credit.advantage=grpo")
def test_equal_rewards_in_float32(theirs: Theirs, settings: Settings) -> None:
    """Equal rewards teach nothing, so ours is 0. In VERL's float32 the mean of equal numbers may be off by a rounding
    error, which the division by a deviation of almost 0 makes visible."""
    rewards = torch.full((7, 1), 0.1, dtype=torch.float32) * torch.tensor([1.0, 3.0, 7.0])
    found = [theirs(each[:, None].clone(), torch.ones(7, 1), np.array(["task"] * 7))[0] for each in rewards.T]
    assert any(bool(each.any()) for each in found)
    assert not estimators.grpo(rewards[:, 1].numpy()).any()


@pytest.mark.differs("core_algos.compute_grpo_outcome_advantage", "credit.advantage=dr_grpo")
def test_a_rollout_of_several_rows(theirs: Theirs, settings: Settings) -> None:
    """A rollout whose history was rewritten has two rows. VERL's baseline counts it twice, ours once."""
    twice = rollout(1, call(1, PROMPT, ([5, 6], [-1.0, -1.0])), call(11, [9, 9], ([7], [-1.0])), rewards={"": 1.0})
    once = rollout(2, call(1, PROMPT, ([8], [-1.0])), rewards={"": 0.0})
    rows = build_batch([twice, once], settings).rows
    assert [row.rollout for row in rows] == [twice.id, twice.id, once.id]
    own = [float(row.advantages[row.weights != 0][0]) for row in rows]
    index = np.array(["task"] * 3)
    other, _ = theirs(torch.tensor([[1.0], [1.0], [0.0]]), torch.ones(3, 1), index, norm_adv_by_std_in_grpo=False)
    assert own == [0.5, 0.5, -0.5]
    assert other[:, 0].tolist() == pytest.approx([1 / 3, 1 / 3, -2 / 3])


@pytest.mark.differs(
    "core_algos.kl_penalty", f"{PAID} divergence.estimator=k1 credit.advantage=reinforce++ credit.returns=to_go"
)
def test_returns_less_divergence_by_call(theirs: Callable[..., Tensor], settings: Settings, seed: int) -> None:
    """In VERL's returns each token pays for itself and for what follows. With `to_go`, ours pays for its whole call,
    which is what VERL's first token of the call pays."""
    made = responses(seed, step_rewards=True)
    own = advantages(made, settings, **{"credit.advantage": "reinforce"})
    paid = made.rewards - 0.3 * theirs(made.sampler, made.reference, "k1") * made.mask
    config = SimpleNamespace(gamma=1.0)
    _, returns = compute_reinforce_plus_plus_outcome_advantage(paid, made.mask, config=config)
    sampled = made.mask.bool()
    first = sampled & ~torch.nn.functional.pad(sampled, (1, -1))
    torch.testing.assert_close(own[first], returns[first], **CLOSE)
    assert not torch.allclose(own[sampled & ~first], returns[sampled & ~first], atol=0.01)
