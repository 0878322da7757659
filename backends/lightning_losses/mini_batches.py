"""Mini-batches: the rollouts of a batch, split among its optimizer steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from lightning_hub.backend import Pair, Row


class MiniBatch(NamedTuple):
    """The rows of one optimizer step."""

    rows: list[Row]
    scale: float
    """Factor for the rows' weights: all rollouts of the batch divided by those in this mini-batch. The expected
    gradient is then the whole batch's, whichever rollouts it holds."""


def split_mini_batches(rows: Sequence[Row], count: int, pairs: Sequence[Pair] = ()) -> list[MiniBatch]:
    """At most `count` mini-batches of nearly equal size. A rollout is never split, and pairs stay together.

    Rollouts are assigned in the order of their ids, which are random, so neither rows nor groups influence the split.
    """
    unit_of = _join_pairs({row.rollout for row in rows}, pairs)
    units = sorted(set(unit_of.values()))
    count = min(count, len(units))
    place = {unit: index % count for index, unit in enumerate(units)}
    sizes = Counter(place.values())
    parts: list[list[Row]] = [[] for _ in range(count)]
    for row in rows:
        parts[place[unit_of[row.rollout]]].append(row)
    return [MiniBatch(own, len(units) / sizes[index]) for index, own in enumerate(parts)]


def _join_pairs(rollouts: set[str], pairs: Sequence[Pair]) -> dict[str, str]:
    """Each rollout -> the smallest id among the rollouts that it must stay with."""
    joined = {rollout: rollout for rollout in rollouts}

    def least(rollout: str) -> str:
        while joined[rollout] != rollout:
            joined[rollout] = joined[joined[rollout]]  # halves the way
            rollout = joined[rollout]
        return rollout

    for pair in pairs:
        first, second = sorted((least(pair.chosen), least(pair.rejected)))
        joined[second] = first
    return {rollout: least(rollout) for rollout in rollouts}
