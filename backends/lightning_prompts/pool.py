"""The pool: every candidate of a search with where it came from, what became of it and how it scored."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from lightning_prompts.candidate import PromptCandidate
from lightning_prompts.scorer import TrialScorer
from lightning_sdk.rollouts.tasks import Task


class State(StrEnum):
    """What became of a candidate."""

    SEED = "seed"
    """The texts that the agent has by itself."""
    PROPOSED = "proposed"
    """Neither accepted nor rejected yet."""
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    """It was tried, and is not shown to be better than what it was made from."""
    REFUSED = "refused"
    """It was not tried: a placeholder lost, a task copied, too long, or known already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One candidate."""

    candidate: PromptCandidate
    state: State
    reason: str = ""
    round: int = 0
    """The round that it was proposed in, 0 for the seed."""
    scores: dict[str, float] = field(default_factory=dict)
    """'selection' and 'reflection': its mean on the tasks of each that it has a score on."""
    tasks: dict[str, int] = field(default_factory=dict)
    """How many tasks that were."""
    rollouts: int = 0
    """That it was run in."""
    failed: int = 0
    """Rollouts without a score."""

    def as_line(self) -> dict[str, Any]:
        """As in candidates.jsonl."""
        return {
            "id": self.candidate.id,
            "parents": list(self.candidate.parents),
            "origin": self.candidate.origin,
            "state": str(self.state),
            "reason": self.reason,
            "round": self.round,
            "scores": {name: round(value, 6) for name, value in self.scores.items()},
            "tasks": self.tasks,
            "rollouts": self.rollouts,
            "failed": self.failed,
            "length": self.candidate.length,
            "texts": dict(self.candidate.texts),
        }


class CandidatePool:
    """The candidates of one search, in the order in which they were proposed."""

    def __init__(self, seed: PromptCandidate, scorer: TrialScorer, parts: dict[str, Sequence[Task]]) -> None:
        """`parts`: the tasks of 'selection' and 'reflection'."""
        self._scorer, self._parts = scorer, parts
        self._entries: dict[str, Entry] = {seed.id: Entry(candidate=seed, state=State.SEED)}
        self._refused: list[Entry] = []
        self.seed = seed
        self.round = 0

    @property
    def by_id(self) -> dict[str, PromptCandidate]:
        """Id -> candidate, for all that were not refused."""
        return {name: entry.candidate for name, entry in self._entries.items()}

    @property
    def usable(self) -> list[PromptCandidate]:
        """The seed and what was accepted."""
        return [each.candidate for each in self._entries.values() if each.state in {State.SEED, State.ACCEPTED}]

    @property
    def counts(self) -> Counter[str]:
        """State -> how many candidates."""
        return Counter(str(each.state) for each in self.entries())

    def add(self, candidate: PromptCandidate) -> None:
        """It is going to be tried."""
        self._entries.setdefault(candidate.id, Entry(candidate=candidate, state=State.PROPOSED, round=self.round))

    def refuse(self, candidate: PromptCandidate, reason: str) -> None:
        self._refused.append(Entry(candidate=candidate, state=State.REFUSED, reason=reason, round=self.round))

    def set_parents(self, candidate: str, parents: Sequence[str]) -> None:
        """What a merge was made from, which becomes known after it was tried."""
        entry = self._entries[candidate]
        if entry.candidate.origin == "merge":
            made = PromptCandidate(entry.candidate.texts, tuple(parents), "merge")
            self._entries[candidate] = replace(entry, candidate=made)

    def judge(self, candidate: PromptCandidate, accepted: bool, reason: str) -> None:
        """What became of one that was tried. The seed stays what it is."""
        entry = self._entries[candidate.id]
        if entry.state != State.SEED:
            state = State.ACCEPTED if accepted else State.REJECTED
            self._entries[candidate.id] = replace(entry, state=state, reason=reason)

    def entries(self) -> list[Entry]:
        """All of them with their scores so far, those that were refused last."""
        return [*(self._with_scores(each) for each in self._entries.values()), *self._refused]

    def mean(self, candidate: PromptCandidate, part: str) -> tuple[float | None, int]:
        """The mean over the tasks of a part that have a score, and how many these are."""
        found = [each for each in self._scorer.scores(candidate, self._parts[part]) if each is not None]
        return (sum(found) / len(found) if found else None), len(found)

    def write(self, path: Path) -> None:
        """candidates.jsonl: the whole file or nothing."""
        fresh = path.with_name(path.name + ".new")
        fresh.write_text("".join(json.dumps(each.as_line()) + "\n" for each in self.entries()), encoding="utf-8")
        os.replace(fresh, path)  # noqa: PTH105 - the atomic one, by name

    def _with_scores(self, entry: Entry) -> Entry:
        means = {part: self.mean(entry.candidate, part) for part in self._parts}
        return replace(
            entry,
            scores={part: mean for part, (mean, _) in means.items() if mean is not None},
            tasks={part: count for part, (_, count) in means.items()},
            rollouts=sum(self._scorer.count(entry.candidate, tasks) for tasks in self._parts.values()),
            failed=sum(self._scorer.failures(entry.candidate, tasks) for tasks in self._parts.values()),
        )
