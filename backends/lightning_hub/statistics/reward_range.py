"""The range of a reward: the lowest and the highest value that it can have, as set, usual, or seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

#: Fewest tasks, and fewest training rollouts, for relying on a range that was only seen.
FEWEST, FEWEST_TRAINED = 20, 256
#: Ranges that a reward is assumed to have if all values seen lie in one, the narrowest first.
_USUAL = ((0.0, 1.0), (-1.0, 1.0))


class RangeSource(StrEnum):
    """How a range is known."""

    SET = "set"
    """`evaluation.reward_low` and `evaluation.reward_high`."""
    USUAL = "usual"
    """0 to 1 or -1 to 1: no value outside was seen."""
    SEEN = "seen"
    """The values seen in training and evaluations, and a quarter of their width more on either side."""
    GUESSED = "guessed"
    """The values seen in evaluations, and their width more on either side: not enough to judge a change."""


@dataclass(frozen=True, slots=True)
class RewardRange:
    """The lowest and the highest value that a reward can have."""

    low: float
    high: float
    source: RangeSource

    @property
    def width(self) -> float:
        return self.high - self.low

    def holds(self, value: float) -> bool:
        """Whether a reward can have this value; rewards are rounded to 32 bits."""
        slack = 1e-6 * max(self.width, abs(self.low), abs(self.high))
        return self.low - slack <= value <= self.high + slack

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True, slots=True)
class TrainingRange:
    """The rewards that a run has seen in training."""

    low: float
    high: float
    count: int
    """Rollouts."""


def reward_range(
    seen: Sequence[float], given: tuple[float, float] | None = None, trained: TrainingRange | None = None
) -> RewardRange | None:
    """The range of a reward whose values were `seen` in evaluations; None if all are equal and say nothing.

    Held-out tasks are few, so what is rare may not be among them. Training shows it: a reward that none of
    `FEWEST_TRAINED` rollouts had is rarer than one in 100.
    """
    if given is not None:
        return RewardRange(*given, RangeSource.SET)
    ends = [*seen, *((trained.low, trained.high) if trained else ())] or [0.0]
    lowest, highest = min(ends), max(ends)
    for low, high in _USUAL:
        if low <= lowest and highest <= high:
            return RewardRange(low, high, RangeSource.USUAL)
    if lowest == highest:
        return None
    known = trained is not None and trained.count >= FEWEST_TRAINED
    more = (highest - lowest) * (0.25 if known else 1.0)
    return RewardRange(lowest - more, highest + more, RangeSource.SEEN if known else RangeSource.GUESSED)
