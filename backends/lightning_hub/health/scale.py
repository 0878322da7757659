"""The scale of a role's rewards: from the lowest to the highest that was earned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lightning_hub.health.run_record import RunRecord

#: Among many different rewards, those further from the mean than this many standard deviations are outliers.
_OUTLIER = 3.0
_FEW_VALUES = 10


@dataclass(frozen=True, slots=True)
class Scale:
    """The range of what rollouts earned in one run."""

    low: float
    high: float
    spread: float
    """Standard deviation over rollouts."""

    def place(self, value: float) -> float:
        """Where a value lies between the lowest (0) and the highest (1); 1 if all are the same."""
        return (value - self.low) / (self.high - self.low) if self.high > self.low else 1.0


def scale_of(values: Sequence[float]) -> Scale | None:
    """The scale of these rewards; None without any."""
    if not len(values):
        return None
    data = np.asarray(values, np.float64)
    low, high, mean, spread = (float(each) for each in (data.min(), data.max(), data.mean(), data.std()))
    if len(np.unique(data)) > _FEW_VALUES:
        low, high = max(low, mean - _OUTLIER * spread), min(high, mean + _OUTLIER * spread)
    return Scale(low, high, spread)


def scale(record: RunRecord, role: str) -> Scale | None:
    """The scale of one role's rewards in training; from its steps' means and deviations if rollouts are not known."""
    known = scale_of([each.rewards[role] for each in record.scored if role in each.rewards])
    if known is not None:
        return known
    means, spreads = record.values(f"reward_mean/{role}"), record.values(f"reward_std/{role}")
    if not means:
        return None
    spread = float(np.mean(spreads)) if spreads else float(np.std(means))
    return Scale(min(means), max(means) + spread, max(spread, float(np.std(means))))
