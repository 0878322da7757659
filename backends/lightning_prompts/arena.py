"""The arena, which runs candidates on tasks, many at a time, and returns the result of each rollout."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Protocol

from lightning_prompts.candidate import PromptCandidate
from lightning_sdk.rollouts.tasks import Task, task_id

TrialKey = tuple[str, int, int]
"""Candidate's id, task's id, seed."""


class Trial(NamedTuple):
    """One rollout that a search asks for."""

    candidate: PromptCandidate
    task: Task
    seed: int = 0
    """Tells repetitions of a task apart."""

    @property
    def key(self) -> TrialKey:
        return self.candidate.id, task_id(self.task), self.seed


class RoleTurn(NamedTuple):
    """What one role was asked in a rollout and what it said, as text for the reflecting model."""

    role: str
    asked: str
    """The conversation up to here, without the instruction: users, tool results, earlier replies."""
    said: str
    """The reply, with the calls of tools in it."""
    error: str = ""
    """Why the call failed, '' if it did not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """What came of one rollout."""

    score: float | None
    """None if the rollout failed: it has no score, which is not a score of 0."""
    by_role: Mapping[str, float] = field(default_factory=dict)
    """What roles earned by themselves, for those with rewards of their own."""
    reasons: tuple[str, ...] = ()
    """What rewards said in words."""
    turns: tuple[RoleTurn, ...] = ()
    status: str = "ok"
    error: str = ""
    """Why it failed, '' if it did not."""
    answer: str = ""
    """What the agent gave back, cut."""
    calls: int = 0
    """Calls to models, of every role."""
    tokens: int = 0
    """Tokens that the models read and wrote, where their replies say so."""
    money: float = 0.0
    """Dollars that these calls cost, where the models have prices."""

    def as_line(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_line(cls, line: Mapping[str, Any]) -> TrialResult:
        """The reverse of `as_line`."""
        turns = tuple(RoleTurn(*each) for each in line["turns"])
        return cls(**{**line, "reasons": tuple(line["reasons"]), "turns": turns})


class Arena(Protocol):
    """Runs rollouts."""

    def run(self, trials: Sequence[Trial], on_result: Callable[[Trial, TrialResult], None]) -> None:
        """Run all trials side by side, as many at once as there is room for, and return when all are over.

        `on_result` is called once for each as it ends, on this thread, in any order. A rollout that fails is a result
        without a score. What is raised ends the search, which can be resumed.
        """
        ...
