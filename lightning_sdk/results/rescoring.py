"""A re-scoring: what its two processes hand each other, one with the store and one with the reward functions, and what
came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from lightning_sdk.results.score import Interval
from lightning_sdk.trace.structs import read_struct


@dataclass(frozen=True, slots=True)
class RescoringRequest:
    """What is to be scored again."""

    run: str
    """The run's folder."""
    names: Sequence[str]
    """The reward functions."""
    weights: Mapping[str, float]
    """Those that they are marked with."""
    write: bool
    """Whether the store gets the new numbers."""


@dataclass(frozen=True, slots=True)
class AnswerToScore:
    """One answer to score."""

    number: int
    """Its place among the stored rollouts."""
    task: dict[str, Any]
    answer: str
    """As JSON."""


@dataclass(frozen=True, slots=True)
class GivenReward:
    """A number that a reward function gave."""

    name: str
    role: str
    value: float
    why: str = ""


@dataclass(frozen=True, slots=True)
class ScoredAnswer:
    """What the functions made of one answer."""

    number: int
    """The answer's."""
    given: Sequence[GivenReward]
    error: str = ""
    """Why they gave nothing."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ScoredAnswer:
        found = read_struct(cls, values, "a scored answer")
        return replace(found, given=[read_struct(GivenReward, each, "a reward") for each in values["given"]])


@dataclass(frozen=True, slots=True)
class ChangedRollout:
    """One of the rollouts whose score changed most."""

    id: str
    task: str
    """As JSON, its beginning."""
    answer: str
    """As JSON, its beginning."""
    old: float
    new: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardComparison:
    """Old and new rewards of the rollouts of one mode, as their score or as what one role earned."""

    mode: str
    """'train', 'evaluate' or 'observe'."""
    role: str
    """'': the score of the whole rollout."""
    rollouts: int
    without_old_reward: int
    without_new_reward: int
    old: Interval
    """Mean over tasks."""
    new: Interval
    change: Interval
    tau_within_groups: float | None
    """Kendall's tau; None where it is undefined."""
    tau_overall: float | None
    pairs: int
    """Pairs of rollouts of one group."""
    pairs_ordered: int
    """Those that the old rewards order."""
    pairs_flipped: int
    """Those that the new ones order the other way round."""
    flipped: float | None
    """Their share; None where the old rewards order none."""
    groups: int
    groups_compared: int
    best_changed: int
    """Groups in which another rollout is best."""
    signal_gained: int
    signal_lost: int
    changed_most: Sequence[ChangedRollout]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RewardComparison:
        """The reverse of `asdict`."""
        return replace(
            read_struct(cls, values, "a comparison"),
            old=Interval.from_dict(values["old"]),
            new=Interval.from_dict(values["new"]),
            change=Interval.from_dict(values["change"]),
            changed_most=[read_struct(ChangedRollout, each, "a changed rollout") for each in values["changed_most"]],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RescoringResult:
    """What other rewards make of a run's rollouts."""

    run: str
    """The run's name."""
    rewards: Sequence[str]
    """The functions that scored."""
    weights: Mapping[str, float]
    """Their weights."""
    replaces: Sequence[str]
    """The functions whose rewards no longer count."""
    keeps: Sequence[str]
    """Rewards that were given inside the rollouts and still count."""
    rollouts: int
    """All that are stored."""
    scored: int
    """Those that were scored again."""
    left_out: Mapping[str, int]
    """Why the others were not -> how many."""
    comparisons: Sequence[RewardComparison]
    written: bool
    rescoring: int | None
    """The number of this re-scoring in the store, if it was written."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as in the output of `rescore --json`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RescoringResult:
        """The reverse of `as_dict`. ValueError for what is missing."""
        return replace(
            read_struct(cls, values, "the result"),
            comparisons=list(map(RewardComparison.from_dict, values["comparisons"])),
        )
