"""Shortcuts: ways to earn a reward other than the intended one; here, the length of what is said."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lightning_hub.rollout import Rollout
from lightning_hub.statistics.trend import rank_correlation
from lightning_hub.trajectories.breaks import sampled_messages
from lightning_hub.trajectories.rewards import total_reward
from lightning_sdk.failures.finding import Finding, Severity
from lightning_sdk.settings import Settings

#: Mean rank correlation within groups (Spearman's; a reward of two values, such as right and wrong, has 0.87 at most),
#: also in each half of the groups by itself, and the fewest groups.
CORRELATED, GROUPS = 0.92, 3
#: A group counts if its rewards and its lengths each have at least this many different values.
_VALUES = 3


@dataclass(frozen=True, slots=True)
class LengthShortcut:
    """How the rewards of a role follow the length of what it says."""

    role: str
    what: str
    """What was counted."""
    groups: int
    """How many have something to compare."""
    correlation: float
    """Mean over the groups."""


def find_length_shortcuts(rollouts: Sequence[Rollout], settings: Settings) -> list[LengthShortcut]:
    """Roles whose reward is ordered by length, in the order of the rollouts."""
    roles = dict.fromkeys(call.meta.role for each in rollouts for call in each.calls if call.meta.trainable)
    found = (_find_length_shortcut(role, rollouts, settings) for role in roles)
    return [each for each in found if each is not None]


def _find_length_shortcut(role: str, rollouts: Sequence[Rollout], settings: Settings) -> LengthShortcut | None:
    credit = settings.credit_of(role)
    groups: dict[str, list[tuple[float, dict[str, float]]]] = {}
    for rollout in rollouts:
        reward, sizes = total_reward(rollout, role, credit), _sizes(rollout, role)
        if reward is not None and sizes:
            groups.setdefault(rollout.group, []).append((reward, sizes))
    measured = [_correlations(members) for members in groups.values()]
    for what in ("tokens sampled", "characters of the last answer"):
        values = [each[what] for each in measured if what in each]
        if len(values) < GROUPS:
            continue
        halves = [float(np.mean(half)) for half in (values[: len(values) // 2], values[len(values) // 2 :])]
        if min(halves) > CORRELATED or max(halves) < -CORRELATED:
            return LengthShortcut(role, what, len(values), float(np.mean(values)))
    return None


def _sizes(rollout: Rollout, role: str) -> dict[str, float]:
    """How much the role said, by what is counted."""
    calls = [call for call in rollout.calls if call.meta.trainable and call.meta.role == role]
    if not calls:
        return {}
    last = sampled_messages(calls[-1])
    sizes = {"tokens sampled": float(sum(call.output_tokens for call in calls))}
    if last and isinstance(text := last[0].get("content"), str):
        sizes["characters of the last answer"] = float(len(text))
    return sizes


def _correlations(members: Sequence[tuple[float, Mapping[str, float]]]) -> dict[str, float]:
    """What was counted -> its rank correlation with the reward within one group."""
    found = {}
    for what in ("tokens sampled", "characters of the last answer"):
        pairs = [(reward, sizes[what]) for reward, sizes in members if what in sizes]
        rewards, lengths = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        if min(len(set(rewards)), len(set(lengths))) >= _VALUES:
            value = rank_correlation(rewards, lengths)
            if not math.isnan(value):
                found[what] = value
    return found


def finding(length: LengthShortcut) -> Finding:
    """The finding about a reward that follows the length."""
    longer = length.correlation > 0
    who = f"the role {length.role}" if length.role else "calls without a role"
    return Finding(
        kind="reward follows length",
        severity=Severity.WARNING,
        what=f"in {length.groups} groups the reward of {who} is ordered by the number of {length.what}: the "
        f"{'longer' if longer else 'shorter'}, the higher (rank correlation {length.correlation:.2f} on average).",
        cause=f"If that is not what the reward is for, the model only learns to be {'long' if longer else 'brief'}.",
        remedy="Print the reward of a good short and of a bad long answer. "
        + (
            "Cap what length can earn, or make it cost: length.limit, length.buffer and length.penalty. "
            if longer
            else "Reward what is said as well; an empty answer must not earn the most. "
        )
        + "If length is what you want, ignore this.",
    )
