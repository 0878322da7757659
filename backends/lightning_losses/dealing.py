"""Mini-batches: the rollouts of a batch dealt out among its optimizer steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from lightning_hub.backend import Pair, Row


class Hand(NamedTuple):
    """The rows of one optimizer step."""

    rows: list[Row]
    scale: float
    """Of their weights: all rollouts of the batch over those dealt here, so that the expected gradient is the batch's
    whichever rollouts they are."""


def deal(rows: Sequence[Row], hands: int, pairs: Sequence[Pair] = ()) -> list[Hand]:
    """At most `hands` hands, as even as can be: whole rollouts, and both rollouts of a pair in the same one.

    Rollouts go in the order of their ids, which are random, so that neither rows nor groups decide who sits together.
    """
    joined = _joined({row.rollout for row in rows}, pairs)
    units = sorted(set(joined.values()))
    hands = min(hands, len(units))
    place = {unit: index % hands for index, unit in enumerate(units)}
    sizes = Counter(place.values())
    dealt: list[list[Row]] = [[] for _ in range(hands)]
    for row in rows:
        dealt[place[joined[row.rollout]]].append(row)
    return [Hand(own, len(units) / sizes[hand]) for hand, own in enumerate(dealt)]


def _joined(rollouts: set[str], pairs: Sequence[Pair]) -> dict[str, str]:
    """Rollout -> the least rollout that it must stay with."""
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
