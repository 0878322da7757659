"""The arbiter: which kind of phase a run spends its next steps on, by what the last phase of each kind gained, and
which phase is undone.

A gain is measured on tasks that nothing else uses, so it is as honest as a held-out score; the run's own held-out tasks
are not looked at. Choices depend on the phases so far alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from lightning_hub.statistics.interval import difference
from lightning_hub.statistics.reward_range import RewardRange
from lightning_sdk.results.score import Interval

MOST_IN_A_ROW = 3
"""Phases of one kind after which the other kind is tried again, since its last gain is of an earlier model."""
_UNIT = {"rollouts": 1000.0, "seconds": 3600.0}
"""Cost that gains are stated for."""
_WORDS = {"rollouts": "1,000 rollouts", "seconds": "hour"}

LEVEL = 0.95
"""Confidence of the interval that decides whether a phase is undone."""

TaskScores = Mapping[str, float]
"""Task -> its score, for tasks that have one."""


class Kind(StrEnum):
    """What a phase changes."""

    PROMPTS = "prompts"
    WEIGHTS = "weights"

    @property
    def other(self) -> Kind:
        return Kind.WEIGHTS if self is Kind.PROMPTS else Kind.PROMPTS


class PhaseChoice(NamedTuple):
    """What comes next."""

    kind: Kind
    why: str
    """In words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A phase that is over."""

    number: int
    """From 1."""
    kind: Kind
    why: str
    """Why it was chosen."""
    first_step: int
    last_step: int
    before: float | None
    """Mean score on the tasks that phases are compared on; None if no task has one."""
    after: float | None
    gain: float
    """Mean of the differences, over the tasks that have a score before and after."""
    rollouts: int
    """That it took, without those that measured it."""
    seconds: float
    undone_to: int | None = None
    """The phase whose weights and prompts are in force again, because this one lost against them; 0: those that the run
    began with. None: it was not undone."""

    def rate(self, cost: str) -> float:
        """The gain for each unit of cost ('rollouts' or 'seconds')."""
        return self.gain / max(self.rollouts if cost == "rollouts" else self.seconds, 1.0) * _UNIT[cost]

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "kind": str(self.kind)}


def mean_gain(before: TaskScores, after: TaskScores) -> float:
    """0 if no task has a score in both."""
    both = [after[task] - before[task] for task in before if task in after]
    return math.fsum(both) / len(both) if both else 0.0


def loss_since(best: TaskScores, now: TaskScores, within: RewardRange | None) -> Interval | None:
    """The interval of the difference, task by task, if all of it lies below 0, so that chance alone does not explain a
    loss; else None. `within`: the range of the reward."""
    both = [task for task in best if task in now]
    change = difference([best[task] for task in both], [now[task] for task in both], LEVEL, within)
    return change if change.is_below(0) else None


def mean_score(scores: TaskScores) -> float | None:
    return math.fsum(scores.values()) / len(scores) if scores else None


def choose(phases: Sequence[Phase], cost: str) -> PhaseChoice:
    """The kind of the next phase. `phases`: all so far, in order; `cost` as in `phases.cost`."""
    latest = {each.kind: each for each in phases}
    for kind in (Kind.PROMPTS, Kind.WEIGHTS):
        if kind not in latest:
            return PhaseChoice(kind, "both kinds are tried first")
    last = phases[-1].kind
    if all(each.kind is last for each in phases[-MOST_IN_A_ROW:]) and len(phases) >= MOST_IN_A_ROW:
        return PhaseChoice(last.other, f"after {MOST_IN_A_ROW} phases of {last} the other kind is tried again")
    rates = {kind: latest[kind].rate(cost) for kind in Kind}
    told = ", ".join(f"{kind} {rates[kind]:+.3f}" for kind in Kind)
    said = f"gain of the last phase of each kind for each {_WORDS[cost]}: {told}"
    if max(rates.values()) <= 0 or len(set(rates.values())) == 1:
        return PhaseChoice(last.other, f"none is ahead, so they take turns; {said}")
    return PhaseChoice(max(Kind, key=lambda kind: rates[kind]), said)
