"""Selection: which of a group's stored rollouts are learned from, by what they earned, as `stored.*` says."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_sdk.settings.groups import Stored


def select(earned: Sequence[float | None], stored: Stored) -> list[int]:
    """Which rollouts of a group 'sft' and 'rejection' learn from.

    'rejection' keeps the `stored.best` best ones (RAFT, arXiv:2304.06767, section 3.1). If all are equal, only
    `stored.min_reward` shows whether all are good or all are bad: rollouts that reach it are good.

    Args:
        earned: What a role earned in each, in the order in which they began: the earliest of equals comes first. None
            where nobody rewarded it, which only 'sft' without `stored.min_reward` takes.
    """
    least = stored.min_reward
    good = [place for place, value in enumerate(earned) if _reaches(value, least)]
    if stored.method == "sft":
        return good
    values = [value for value in earned if value is not None]
    if least is None and (not values or min(values) == max(values)):
        return []
    ranked = sorted((-value, place) for place in good if (value := earned[place]) is not None)
    return sorted(place for _, place in ranked[: stored.best])


def pair(earned: Sequence[float | None]) -> tuple[int, int] | None:
    """The best and the worst of a group, the earliest of several; None where no two differ."""
    ranked = [(value, place) for place, value in enumerate(earned) if value is not None]
    if not ranked:
        return None
    best = min(ranked, key=lambda each: (-each[0], each[1]))
    worst = min(ranked)
    return (best[1], worst[1]) if best[0] > worst[0] else None


def has_signal(earned: Sequence[float | None], stored: Stored) -> bool:
    """Whether anything is learned from a group."""
    return pair(earned) is not None if stored.method == "dpo" else bool(select(earned, stored))


def _reaches(value: float | None, least: float | None) -> bool:
    return least is None or (value is not None and value >= least)
