"""Comparison: what another reward makes of stored rollouts: means, ranking, signal, and what changed most."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lightning_hub.interval import Interval, difference, interval
from lightning_hub.ranking import grouped, pairs, pairs_within, signal
from lightning_hub.rewards import earned, score
from lightning_hub.rollout import Reward, Rollout
from lightning_hub.stored import Record
from lightning_sdk.settings import Settings

_MODES = ("train", "evaluate", "observe")
#: Rollouts that are shown of those that changed most.
_MOST = 5
_CUT = 200


@dataclass(frozen=True, slots=True)
class Scored:
    """A stored rollout and what the new functions gave it."""

    record: Record
    given: tuple[Reward, ...]

    @property
    def rescored(self) -> Rollout:
        """With the new numbers, and what was emitted inside."""
        return self.record.scored.with_rewards((*self.record.emitted, *self.given))


def compare(scored: Sequence[Scored], before: Settings, after: Settings) -> list[dict[str, Any]]:
    """One comparison for each mode, of the rollout's score and of what each role earned where rewards name roles.

    `before` and `after`: settings with the weights of the old and of the new rewards.
    """
    return [
        _compared(mode, role, of_mode, before, after)
        for mode in _MODES
        if (of_mode := [each for each in scored if each.record.entry.mode == mode])
        for role in ["", *_roles(of_mode)]
    ]


def _roles(scored: Sequence[Scored]) -> list[str]:
    return sorted({reward.role for each in scored for reward in (*each.record.rewards, *each.given)} - {""})


def _compared(mode: str, role: str, scored: Sequence[Scored], before: Settings, after: Settings) -> dict[str, Any]:
    old = np.array([_value(each.record.scored, role, before) for each in scored])
    new = np.array([_value(each.rescored, role, after) for each in scored])
    both = [place for place in range(len(scored)) if math.isfinite(old[place]) and math.isfinite(new[place])]
    x, y = old[both], new[both]
    groups = grouped([(scored[at].record.entry.group, scored[at].record.task) for at in both], x, y)
    within, overall, told = pairs_within(groups), pairs(x.tolist(), y.tolist()), signal(groups)
    most = sorted(range(len(both)), key=lambda at: -abs(y[at] - x[at]))[:_MOST]
    return {
        "mode": mode, "role": role, "rollouts": len(scored), "without_old_reward": int(np.isnan(old).sum()),
        "without_new_reward": int(np.isnan(new).sum()),
        "old": _interval(old), "new": _interval(new), "change": difference(x.tolist(), y.tolist()).as_dict(),
        "tau_within_groups": _number(within.tau), "tau_overall": _number(overall.tau),
        "pairs": within.total, "pairs_ordered": within.ordered_before, "pairs_flipped": within.discordant,
        "flipped": _number(within.flipped), "groups": told.groups, "groups_compared": told.compared,
        "best_changed": told.best_changed, "signal_gained": told.gained, "signal_lost": told.lost,
        "changed_most": [_shown(scored[both[at]].record, x[at], y[at]) for at in most if x[at] != y[at]],
    }  # fmt: skip


def _value(rollout: Rollout, role: str, settings: Settings) -> float:
    """One number for the whole rollout, or what a role earned; NaN if nothing was given."""
    if not role:
        return score(rollout, settings)
    value = earned(rollout, role, settings.credit_of(role))
    return math.nan if value is None else value


def _interval(values: Sequence[float] | np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, Any]:
    finite: Iterator[float] = (float(value) for value in values if math.isfinite(value))
    found: Interval = interval(list(finite))
    return found.as_dict()


def _shown(record: Record, old: float, new: float) -> dict[str, Any]:
    return {"id": record.entry.id, "task": record.task[:_CUT], "answer": record.answer[:_CUT],
            "old": float(old), "new": float(new)}  # fmt: skip


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
