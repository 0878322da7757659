"""Ranking: how two scores of the same rollouts order them, over all and within groups of one task."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pairs:
    """How the n (n - 1) / 2 pairs of n values are ordered or tied, before and after."""

    concordant: int = 0
    """Ordered the same way both times."""
    discordant: int = 0
    """Ordered the opposite way after."""
    ordered_before: int = 0
    ordered_after: int = 0
    total: int = 0

    def __add__(self, other: Pairs) -> Pairs:
        return Pairs(*(mine + its for mine, its in zip(self.counts(), other.counts(), strict=True)))

    def counts(self) -> tuple[int, int, int, int, int]:
        return self.concordant, self.discordant, self.ordered_before, self.ordered_after, self.total

    @property
    def tau(self) -> float:
        """Kendall's tau-b (Kendall 1945): 1 the same order, -1 the reverse; NaN if one side has no order at all."""
        scale = math.sqrt(self.ordered_before * self.ordered_after)
        return (self.concordant - self.discordant) / scale if scale else math.nan

    @property
    def flipped_share(self) -> float:
        """Share of the pairs ordered before that are ordered the opposite way after; NaN if there are none."""
        return self.discordant / self.ordered_before if self.ordered_before else math.nan


def pairs(before: Sequence[float], after: Sequence[float]) -> Pairs:
    """The pairs of n values, in n log n (Knight 1966) times what an insertion takes."""
    n = len(before)
    total = n * (n - 1) // 2
    x, y = np.asarray(before, np.float64), np.asarray(after, np.float64)
    tied_x, tied_y, tied_both = _count_ties(x), _count_ties(y), _count_ties(np.stack([x, y], axis=1)) if n else 0
    discordant = _inversions(y[np.lexsort((y, x))].tolist())
    ordered = total - tied_x - tied_y + tied_both
    return Pairs(ordered - discordant, discordant, total - tied_x, total - tied_y, total)


def pairs_within(groups: Iterable[tuple[Sequence[float], Sequence[float]]]) -> Pairs:
    """The pairs of rollouts of the same group, of all groups together."""
    return sum((pairs(before, after) for before, after in groups), Pairs())


@dataclass(frozen=True, slots=True)
class SignalChange:
    """How the signal of groups with at least two rollouts changed."""

    groups: int
    gained: int
    """All rewards were equal before and differ after: something can be learned from them now."""
    lost: int
    compared: int
    """Groups with different rewards both times."""
    best_changed: int
    """Compared groups whose best rollout (the earliest of several) is not among the best after."""


def signal_change(groups: Iterable[tuple[Sequence[float], Sequence[float]]]) -> SignalChange:
    """How the signal changed. `groups`: the scores before and after of each group's rollouts, in order of their "
    "start."""
    told = [(_different(b), _different(a), b, a) for b, a in groups if len(b) > 1]
    both = [(b, a) for had, has, b, a in told if had and has]
    return SignalChange(
        groups=len(told),
        gained=sum(has and not had for had, has, _, _ in told),
        lost=sum(had and not has for had, has, _, _ in told),
        compared=len(both),
        best_changed=sum(a[int(np.argmax(b))] < max(a) for b, a in both),
    )


def group_values(keys: Sequence[Hashable], before: Floats, after: Floats) -> list[tuple[list[float], list[float]]]:
    """The values of each group, in the order in which they come."""
    places: dict[Hashable, list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    return [(before[own].tolist(), after[own].tolist()) for own in places.values()]


def _different(values: Sequence[float]) -> bool:
    return min(values) < max(values)


def _count_ties(values: Floats) -> int:
    """Pairs of equal values, or of equal rows."""
    _, counts = np.unique(values, axis=0, return_counts=True)
    return int((counts.astype(np.int64) * (counts - 1) // 2).sum())


def _inversions(values: Sequence[float]) -> int:
    """Pairs of which the earlier one is greater."""
    seen: list[float] = []
    found = 0
    for value in values:
        place = bisect_right(seen, value)
        found += len(seen) - place
        seen.insert(bisect_left(seen, value), value)
    return found
