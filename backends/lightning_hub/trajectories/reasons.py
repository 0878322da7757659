"""Reasons: what the rewards of rollouts said in words, the most frequent first. No reward depends on them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lightning_hub.rollout import EarnedReward, Rollout
from lightning_sdk.results.score import RewardReason

#: Reasons that are listed, and characters of each.
MANY, _WIDTH = 5, 160


def count_reasons(rollouts: Sequence[Rollout]) -> list[RewardReason]:
    """The most frequent reasons and, among equally frequent ones, those of the lowest rewards."""
    values: dict[tuple[str, str, str], list[float]] = {}
    for rollout in rollouts:
        for reward in rollout.rewards:
            if reward.why:
                values.setdefault((reward.name, reward.role, shorten(reward.why)), []).append(reward.value)
    found = [
        RewardReason(name=name, role=role, why=why, count=len(of_it), mean=math.fsum(of_it) / len(of_it))
        for (name, role, why), of_it in values.items()
    ]
    return sorted(found, key=lambda each: (-each.count, each.mean))[:MANY]


def describe_reason(reward: EarnedReward | RewardReason) -> str:
    """One line: the reward's name, its role if it has one, and why."""
    return f"{reward.name}{f' of {reward.role}' if reward.role else ''}: {shorten(reward.why)}"


def shorten(why: str) -> str:
    """A reason in one line."""
    text = " ".join(why.split())
    return text if len(text) <= _WIDTH else text[: _WIDTH - 3] + "..."
