"""Comparison: how another reward scores stored rollouts: means, ranking, signal, and what changed most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_hub.evaluation.evaluation import mean
from lightning_hub.replay.stored_run import StoredRollout
from lightning_hub.rollout import EarnedReward, Rollout
from lightning_hub.statistics.interval import difference, interval
from lightning_hub.statistics.ranking import group_values, pairs, pairs_within, signal_change
from lightning_hub.statistics.reward_range import TrainingRange, reward_range
from lightning_hub.trajectories.rewards import score, total_reward
from lightning_sdk.results.rescoring import ChangedRollout, RewardComparison
from lightning_sdk.results.score import Interval
from lightning_sdk.settings import Settings

_MODES = ("train", "evaluate", "observe")
#: Rollouts that are shown of those that changed most.
_MOST = 5
_CUT = 200
_Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RescoredRollout:
    """A stored rollout and what the new functions gave it."""

    record: StoredRollout
    given: tuple[EarnedReward, ...]

    @property
    def rollout(self) -> Rollout:
        """With the new numbers, and what was emitted inside."""
        return self.record.rollout_without_calls.with_rewards((*self.record.emitted, *self.given))


def compare(scored: Sequence[RescoredRollout], before: Settings, after: Settings) -> list[RewardComparison]:
    """One comparison for each mode, of the rollout's score and of what each role earned where rewards name roles.

    `before` and `after`: settings with the weights of the old and of the new rewards.
    """
    return [
        _compare_mode(mode, role, of_mode, before, after)
        for mode in _MODES
        if (of_mode := [each for each in scored if each.record.entry.mode == mode])
        for role in ["", *_roles(of_mode)]
    ]


def _roles(scored: Sequence[RescoredRollout]) -> list[str]:
    return sorted({reward.role for each in scored for reward in (*each.record.rewards, *each.given)} - {""})


def _compare_mode(
    mode: str, role: str, scored: Sequence[RescoredRollout], before: Settings, after: Settings
) -> RewardComparison:
    old = np.array([_value(each.record.rollout_without_calls, role, before) for each in scored])
    new = np.array([_value(each.rollout, role, after) for each in scored])
    both = [place for place in range(len(scored)) if math.isfinite(old[place]) and math.isfinite(new[place])]
    x, y = old[both], new[both]
    groups = group_values([(scored[at].record.entry.group, scored[at].record.task) for at in both], x, y)
    within, overall, told = pairs_within(groups), pairs(x.tolist(), y.tolist()), signal_change(groups)
    old_score, new_score, change = _scores([each.record.task for each in scored], old, new)
    most = sorted(range(len(both)), key=lambda at: -abs(y[at] - x[at]))[:_MOST]
    return RewardComparison(
        mode=mode,
        role=role,
        rollouts=len(scored),
        without_old_reward=int(np.isnan(old).sum()),
        without_new_reward=int(np.isnan(new).sum()),
        old=old_score,
        new=new_score,
        change=change,
        tau_within_groups=_number(within.tau),
        tau_overall=_number(overall.tau),
        pairs=within.total,
        pairs_ordered=within.ordered_before,
        pairs_flipped=within.discordant,
        flipped=_number(within.flipped_share),
        groups=told.groups,
        groups_compared=told.compared,
        best_changed=told.best_changed,
        signal_gained=told.gained,
        signal_lost=told.lost,
        changed_most=[_preview(scored[both[at]].record, x[at], y[at]) for at in most if x[at] != y[at]],
    )


def _value(rollout: Rollout, role: str, settings: Settings) -> float:
    """One number for the whole rollout, or what a role earned; NaN if nothing was given."""
    if not role:
        return score(rollout, settings)
    value = total_reward(rollout, role, settings.credit_of(role))
    return math.nan if value is None else value


def _scores(tasks: Sequence[str], old: _Numbers, new: _Numbers) -> tuple[Interval, Interval, Interval]:
    """Old and new means over tasks, and the change of the tasks' means: rollouts of one task are alike."""
    known = np.concatenate([old, new])
    known = known[np.isfinite(known)]
    seen = TrainingRange(float(known.min()), float(known.max()), len(known)) if len(known) else None
    within = reward_range(known.tolist(), None, seen)
    both = np.isfinite(old) & np.isfinite(new)
    return (
        interval(_by_task(tasks, old, np.isfinite(old)), within=within),
        interval(_by_task(tasks, new, np.isfinite(new)), within=within),
        difference(_by_task(tasks, old, both), _by_task(tasks, new, both), within=within),
    )


def _by_task(tasks: Sequence[str], values: _Numbers, known: NDArray[np.bool_]) -> list[float]:
    """The mean of each task's values."""
    found: dict[str, list[float]] = {}
    for at in np.flatnonzero(known).tolist():
        found.setdefault(tasks[at], []).append(float(values[at]))
    return [mean(each) for each in found.values()]


def _preview(record: StoredRollout, old: float, new: float) -> ChangedRollout:
    return ChangedRollout(record.entry.id, record.task[:_CUT], record.answer[:_CUT], float(old), float(new))


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
