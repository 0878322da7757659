"""Rounds: open the rollouts of a step, up to `rollouts.staleness` steps ahead, and wait for them.

With a staleness of 0 nothing is opened ahead, which makes the loop synchronous. Rollouts of step s begin once
s - 1 - k updates are done, so with a version at most k updates older than the one that trains on them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lightning_hub.backend import Backend, CallMeter, Endpoint
from lightning_hub.diagnosis.diagnosis import DiagnosisInput, diagnose
from lightning_hub.diagnosis.flatness import Flatness, flatness
from lightning_hub.rollout import Assignment, Rollout
from lightning_hub.rollouts.collector import collect, strays
from lightning_hub.rollouts.leases import Leases
from lightning_hub.rollouts.plan import Plan
from lightning_hub.rollouts.provider import mark_trainable
from lightning_hub.rollouts.round_queue import RoundQueue, Rules
from lightning_hub.storage.index import Index
from lightning_hub.storage.writes import Writes
from lightning_sdk.prompts.candidate import Candidate
from lightning_sdk.results.diagnosis import Diagnosis
from lightning_sdk.rollouts.tasks import task_id
from lightning_sdk.trace.call import Status

#: How often it is looked whether a runner has joined.
_RUNNER_SECONDS = 0.2
#: How often a search hears of rollouts that ended.
_SEARCH_SECONDS = 0.2
#: How often the backend is checked while rollouts run.
_WATCH_SECONDS = 2.0


class Stopped(Exception):
    """Somebody asked for the end."""


@dataclass(slots=True, eq=False, kw_only=True)
class Round:
    """A round, and what came of it so far."""

    name: str
    """As messages call it, such as 'step 1'."""
    step: int
    """0 for an evaluation."""
    queue: RoundQueue
    began_ns: int
    """Unix time in nanoseconds."""
    late_calls: int
    """Late calls that the index had counted before."""
    rollouts: list[Rollout] = field(default_factory=list)
    """In the order of the tasks; one that replaces another one comes behind it."""
    replaced: list[str] = field(default_factory=list)
    """Groups without signal that further tasks stand in for."""

    @property
    def seconds(self) -> float:
        """From when its first rollout began until its last one was over."""
        return self.queue.ended - (self.queue.began or self.queue.ended)

    def counts(self) -> dict[str, float]:
        """What was done to have them whole."""
        return {
            "retries": sum(each.attempt - 1 for each in self.rollouts),
            "refilled": self.queue.refilled,
            "deadline_timeouts": self.queue.overdue,
            "resampled_groups": len(self.replaced),
        }


class Rounds:
    """The rounds of one plan, run on one backend. For one thread."""

    def __init__(
        self,
        plan: Plan,
        backend: Backend,
        leases: Leases,
        index: Index,
        writes: Writes,
        stopping: threading.Event,
        watch: Callable[[Sequence[float], int], None] = lambda ended, of: None,
    ) -> None:
        """Whoever sets `stopping` also wakes the leases. `watch` is called while a round runs, with the seconds of the
        rollouts that have ended, and how many there are."""
        self._watch = watch
        self._plan, self._backend, self._leases, self._index = plan, backend, leases, index
        self._writes, self._stopping = writes, stopping
        self._tasks = {task_id(task): task for task in (*plan.tasks, *plan.held_out)}
        self._ahead = 0 if plan.check_only else plan.settings.rollouts.staleness
        self._open_rounds: dict[int, Round] = {}
        """Step -> its round, those ahead too."""
        self.candidate: Candidate | None = None
        """The texts that are in force while weights are trained and held-out tasks scored; None: the agent's own."""

    @property
    def endpoint(self) -> Endpoint | None:
        """Where trainable calls go; None: where the agent sends them."""
        return self._backend.endpoint

    def await_runner(self) -> None:
        """Wait for the first runner that joins. Stopped as in `step`."""
        while not self._leases.runners():
            if self._stopping.wait(_RUNNER_SECONDS):
                raise Stopped

    def step(self, step: int) -> Round:
        """The round of a training step, once every rollout is over or `rollouts.deadline` has passed.

        Raises:
            Stopped: the run is to end.
            BackendDied: a process of the backend does not run.
            DiskError: what rollouts send cannot be written.
        """
        settings = self._plan.settings
        for ahead in range(step, min(step + self._ahead, settings.steps) + 1):
            if ahead not in self._open_rounds:
                assignments = self._plan.of_step(ahead, self._backend.endpoint, self.candidate)
                self._open_rounds[ahead] = self._open(assignments, Rules.of_step(settings), f"step {ahead}", ahead)
        return self._finish(self._open_rounds[step])

    def replace(self, round_: Round, groups: Sequence[str]) -> bool:
        """Run further tasks in the place of these groups of a step. False if there was no time left for that."""
        first = len(round_.replaced)
        further = self._plan.of_further(round_.step, first, len(groups), self._backend.endpoint, self.candidate)
        if not self._leases.add(round_.queue, further):
            return False
        round_.replaced += groups
        self._finish(round_)
        return True

    def end(self, round_: Round) -> None:
        """Nothing more is wanted of this round."""
        self._leases.close(round_.queue, f"{round_.name} is over")
        self._open_rounds.pop(round_.step, None)

    def evaluation(self, assignments: Sequence[Assignment], name: str) -> Round:
        """A round on held-out tasks, before whatever is under way ahead. Errors as in `step`."""
        rules = Rules.of_evaluation(self._plan.settings, len(assignments))
        round_ = self._open(assignments, rules, name, 0, first=True)
        self._finish(round_)
        self.end(round_)
        return round_

    def search(self, assignments: Sequence[Assignment], name: str, on_end: Callable[[Rollout], None]) -> Round:
        """A round that a search asks for; `on_end` gets each rollout soon after it ends. Errors as in `step`."""
        rules = Rules.of_evaluation(self._plan.settings, len(assignments))
        round_ = self._open(assignments, rules, name, 0)
        known: set[tuple[str, int]] = set()
        done = False
        while not done:
            done = self._is_over(round_, _SEARCH_SECONDS)
            for each in self._leases.outcomes(round_.queue):
                if (key := (each.assignment.id, each.assignment.attempt)) not in known:
                    known.add(key)
                    round_.rollouts.append(collect(self._index, each))
                    on_end(round_.rollouts[-1])
            self._tell_watch(round_)
        self.end(round_)
        return round_

    def meter_calls(self, meter: CallMeter | None) -> None:
        """Let it decide on every request of metered rollouts; None: all may leave."""
        self._leases.gate.use(meter)

    def diagnosis(self, round_: Round) -> Diagnosis:
        """What a round shows."""
        settings, plain = self._plan.settings, self._backend.endpoint is None
        declared = self._plan.declared_roles
        return diagnose(
            DiagnosisInput(
                rollouts=mark_trainable(round_.rollouts, settings.roles, declared) if plain else round_.rollouts,
                name=round_.name,
                roles=settings.roles,
                declared=declared,
                strays=strays(self._index, round_.began_ns),
                late=self._index.late_calls - round_.late_calls,
                integrations=self._plan.integrations,
                max_failed=settings.failure.max_failed,
                settings=settings,
                tasks=self._tasks,
                at_provider=plain,
            )
        )

    def flatness(self, round_: Round) -> Flatness | None:
        """Why nothing can be learned from a round; None if something can."""
        return flatness(round_.rollouts, self._plan.settings, self._tasks)

    def close(self) -> None:
        """Drop what is under way or opened ahead. Idempotent."""
        why = "the hub was stopped" if self._stopping.is_set() else "the run ended"
        for round_ in self._open_rounds.values():
            self._leases.close(round_.queue, why)
        self._open_rounds.clear()

    def _open(
        self, assignments: Sequence[Assignment], rules: Rules, name: str, step: int, *, first: bool = False
    ) -> Round:
        began, late = time.time_ns(), self._index.late_calls
        queue = self._leases.open_round(assignments, rules, self._plan.settings.rollouts.concurrency, first=first)
        return Round(name=name, step=step, queue=queue, began_ns=began, late_calls=late)

    def _finish(self, round_: Round) -> Round:
        """Wait until the round is over."""
        while not self._is_over(round_, _WATCH_SECONDS):
            self._tell_watch(round_)
        known = {(each.id, each.attempt): each for each in round_.rollouts}
        round_.rollouts = [
            known.get((each.assignment.id, each.assignment.attempt)) or collect(self._index, each)
            for each in self._leases.outcomes(round_.queue)
        ]
        return round_

    def _tell_watch(self, round_: Round) -> None:
        ended = [each.seconds for each in self._leases.outcomes(round_.queue) if each.status == Status.OK]
        self._watch(ended, sum(round_.queue.counts()))

    def _is_over(self, round_: Round, seconds: float) -> bool:
        """Whether a round is over, after at most `seconds`."""
        done = self._leases.wait(round_.queue, seconds, self._stopping.is_set)
        if self._stopping.is_set():
            raise Stopped
        if not done:
            self._backend.check()
            self._writes.check()
        return done
