"""Rewards: which of a rollout's rewards count for a role, each times the weight of its name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lightning_hub.rollout import EarnedReward, Rollout
from lightning_sdk.errors import RewardError
from lightning_sdk.settings import Settings
from lightning_sdk.settings.groups import Credit
from lightning_sdk.trace.call import Status

#: Name of the reward of a failed rollout where `failure.*` says 'train'.
FAILED = "failure"


def rollout_to_train(rollout: Rollout, settings: Settings) -> Rollout | None:
    """The rollout if it is trained on: it ended ok, or `failure.*` says so, when it earns `failure.reward` too."""
    if rollout.status == Status.OK:
        return rollout
    if getattr(settings.failure, rollout.status) != "train" or settings.failure.reward is None:
        return None
    last = max((reward.time_ns for reward in rollout.rewards), default=0)
    last = max([last, *(call.meta.ended_ns for call in rollout.calls)])
    failed = EarnedReward("", FAILED, float(np.float32(settings.failure.reward)), last)
    return rollout.with_rewards((*rollout.rewards, failed))


def rewards_for(rollout: Rollout, role: str, credit: Credit) -> list[EarnedReward]:
    """The rewards that count for `role`, by the credit's signal, each times the weight of its name.

    RewardError for a value that is not finite. A name of weight 0 does not count as given.
    """
    wanted = {"own": {role}, "rollout": {""}, "both": {role, ""}}[credit.signal]
    found = []
    for reward in rollout.rewards:
        weight = credit.rewards.get(reward.name, 1.0)
        if reward.role not in wanted or not weight:
            continue
        if not math.isfinite(reward.value):
            whose = f"role {reward.role!r}" if reward.role else "the whole rollout"
            raise RewardError(
                f"rollout {rollout.id} has reward {reward.name!r} = {reward.value} for {whose}: "
                "a reward must be a finite number"
            )
        found.append(reward._replace(value=reward.value * weight))
    return found


def total_reward(rollout: Rollout, role: str, credit: Credit) -> float | None:
    """The sum of the rewards that count for `role`, as a float32; None if there are none."""
    values = [reward.value for reward in rewards_for(rollout, role, credit)]
    return float(np.float32(sum(values))) if values else None


def score(rollout: Rollout, settings: Settings) -> float:
    """One number for people: the reward of the whole rollout, else the mean over its roles. NaN without rewards."""
    whole = _own_reward(rollout, "", settings.credit)
    if whole is not None:
        return whole
    roles = {reward.role for reward in rollout.rewards}
    values = [value for role in roles if (value := _own_reward(rollout, role, settings.credit_of(role))) is not None]
    return float(np.mean(values)) if values else math.nan


def reward_extremes(rollouts: Sequence[Rollout], settings: Settings) -> dict[str, float]:
    """The lowest and the highest score of the rollouts that ended ok, as metrics of a step; empty without any."""
    scores = [score(each, settings) for each in rollouts if each.status == Status.OK]
    known = [each for each in scores if math.isfinite(each)]
    return {"reward_min": min(known), "reward_max": max(known)} if known else {}


def _own_reward(rollout: Rollout, role: str, credit: Credit) -> float | None:
    """The total reward given to exactly this role, whatever `credit.signal` is."""
    return total_reward(rollout, role, replace(credit, signal="own"))
