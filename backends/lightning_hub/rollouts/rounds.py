"""Rounds: where rollouts come from. A step's are offered up to `rollouts.staleness` steps ahead and waited for.

With a staleness of 0 nothing is offered ahead: the same loop is the synchronous one. Rollouts of step s begin once
s - 1 - k updates are done, so with a version at most k updates older than the one that trains on them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from lightning_hub.backend import Backend
from lightning_hub.diagnosis.diagnosis import Diagnosis, DiagnosisInput, diagnose
from lightning_hub.diagnosis.flatness import Flatness, flatness
from lightning_hub.rollout import Assignment, Rollout
from lightning_hub.rollouts.collector import collect, strays
from lightning_hub.rollouts.leases import Leases
from lightning_hub.rollouts.plan import Plan
from lightning_hub.rollouts.provider import mark_trainable
from lightning_hub.rollouts.round_queue import Offer, Rules
from lightning_hub.storage.index import Index
from lightning_hub.storage.writes import Writes
from lightning_sdk.rollouts.tasks import task_id

#: How often it is looked whether the backend still lives while rollouts run.
_WATCH_SECONDS = 2.0


class Stopped(Exception):
    """Somebody asked for the end."""


@dataclass(slots=True, eq=False)
class Played:
    """A round, and what came of it so far."""

    name: str
    """As messages call it, such as 'step 1'."""
    step: int
    """0 for an evaluation."""
    offer: Offer
    began_ns: int
    """Unix time in nanoseconds."""
    late_calls: int
    """That the index had counted before."""
    rollouts: list[Rollout] = field(default_factory=list)
    """In the order of the tasks; one that replaces another one comes behind it."""
    replaced: list[str] = field(default_factory=list)
    """Groups without signal that further tasks stand in for."""

    @property
    def seconds(self) -> float:
        """From when its first rollout began until its last one was over."""
        return self.offer.ended - (self.offer.began or self.offer.ended)

    def counts(self) -> dict[str, float]:
        """What was done to have them whole."""
        return {
            "retries": sum(each.attempt - 1 for each in self.rollouts),
            "refilled": self.offer.refilled,
            "deadline_timeouts": self.offer.overdue,
            "resampled_groups": len(self.replaced),
        }


class Rounds:
    """The rounds of one plan, run on one backend. For one thread."""

    def __init__(
        self, plan: Plan, backend: Backend, leases: Leases, index: Index, writes: Writes, stopping: threading.Event
    ) -> None:
        """Whoever sets `stopping` also wakes the leases."""
        self._plan, self._backend, self._leases, self._index = plan, backend, leases, index
        self._writes, self._stopping = writes, stopping
        self._tasks = {task_id(task): task for task in (*plan.tasks, *plan.held_out)}
        self._ahead = 0 if plan.check_only else plan.settings.rollouts.staleness
        self._offered: dict[int, Played] = {}
        """Step -> its round, those ahead too."""

    def step(self, step: int) -> Played:
        """The round of a training step, once every rollout is over or `rollouts.deadline` has passed.

        Raises:
            Stopped: the run is to end.
            BackendDied: a process of the backend does not run.
            DiskError: what rollouts send cannot be written.
        """
        settings = self._plan.settings
        for ahead in range(step, min(step + self._ahead, settings.steps) + 1):
            if ahead not in self._offered:
                assignments = self._plan.of_step(ahead, self._backend.endpoint)
                self._offered[ahead] = self._offer(assignments, Rules.of_step(settings), f"step {ahead}", ahead)
        return self._finish(self._offered[step])

    def replace(self, played: Played, groups: Sequence[str]) -> bool:
        """Run further tasks in the place of these groups of a step. False if there was no time left for that."""
        first = len(played.replaced)
        further = self._plan.of_further(played.step, first, len(groups), self._backend.endpoint)
        if not self._leases.add(played.offer, further):
            return False
        played.replaced += groups
        self._finish(played)
        return True

    def end(self, played: Played) -> None:
        """Nothing more is wanted of this round."""
        self._leases.close(played.offer, f"{played.name} is over")
        self._offered.pop(played.step, None)

    def evaluation(self, assignments: Sequence[Assignment], name: str) -> Played:
        """A round on held-out tasks, before whatever is under way ahead. Errors as in `step`."""
        rules = Rules.of_evaluation(self._plan.settings, len(assignments))
        played = self._offer(assignments, rules, name, 0, first=True)
        self._finish(played)
        self.end(played)
        return played

    def diagnosis(self, played: Played) -> Diagnosis:
        """What a round shows."""
        settings, plain = self._plan.settings, self._backend.endpoint is None
        declared = self._plan.declared_roles
        return diagnose(
            DiagnosisInput(
                mark_trainable(played.rollouts, settings.roles, declared) if plain else played.rollouts,
                played.name,
                settings.roles,
                declared,
                strays(self._index, played.began_ns),
                self._index.late_calls - played.late_calls,
                self._plan.integrations,
                settings.failure.max_failed,
                settings,
                self._tasks,
                at_provider=plain,
            )
        )

    def flatness(self, played: Played) -> Flatness | None:
        """Why nothing can be learned from a round; None if something can."""
        return flatness(played.rollouts, self._plan.settings, self._tasks)

    def close(self) -> None:
        """Drop what is under way or offered ahead. Idempotent."""
        why = "the hub was stopped" if self._stopping.is_set() else "the run ended"
        for played in self._offered.values():
            self._leases.close(played.offer, why)
        self._offered.clear()

    def _offer(
        self, assignments: Sequence[Assignment], rules: Rules, name: str, step: int, *, first: bool = False
    ) -> Played:
        began, late = time.time_ns(), self._index.late_calls
        offer = self._leases.offer(assignments, rules, self._plan.settings.rollouts.concurrency, first=first)
        return Played(name, step, offer, began, late)

    def _finish(self, played: Played) -> Played:
        """Wait until the round is over."""
        done = False
        while not done:
            done = self._leases.wait(played.offer, _WATCH_SECONDS, self._stopping.is_set)
            if self._stopping.is_set():
                raise Stopped
            if not done:
                self._backend.check()
                self._writes.check()
        known = {(each.id, each.attempt): each for each in played.rollouts}
        played.rollouts = [
            known.get((each.assignment.id, each.assignment.attempt)) or collect(self._index, each)
            for each in self._leases.outcomes(played.offer)
        ]
        return played
