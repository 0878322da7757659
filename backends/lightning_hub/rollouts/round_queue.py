"""A round's queue: its rollouts while they run: which wait, how each ended, which are tried again or replaced.

Bookkeeping only. `lightning_hub.rollouts.leases` has the lock, the clock and the runners.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from lightning_hub.rollout import Assignment
from lightning_sdk.settings import Settings
from lightning_sdk.trace.call import Status

GRACE_SECONDS = 5.0
"""A runner ends its own rollouts on time; the hub waits so much longer before it does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What happens in one round to rollouts that do not end ok, and how long it may take."""

    retried: frozenset[Status] = frozenset()
    """Tried again, while attempts are left."""
    kept: frozenset[Status] = frozenset()
    """Trained on as they are, so not replaced."""
    retries: int = 0
    backoff: float = 0.0
    """Seconds before the second attempt, twice as long before each one after it."""
    refills: int = 0
    """How often an excluded rollout is replaced."""
    seconds: float = math.inf
    """Time limit of the whole round, from when its first rollout is handed out or waited for."""
    bound: str = ""
    """What set `seconds`, as messages call it."""

    @classmethod
    def of_step(cls, settings: Settings) -> Rules:
        """Rules for a training step."""
        failure = settings.failure
        by_policy: dict[str, set[Status]] = {"exclude": set(), "retry": set(), "train": set()}
        for status in set(Status) - {Status.OK}:
            by_policy[getattr(failure, status)].add(status)
        return cls(
            retried=frozenset(by_policy["retry"]),
            kept=frozenset(by_policy["train"]),
            retries=failure.retries,
            backoff=failure.backoff,
            refills=failure.refills,
            seconds=settings.rollouts.deadline,
            bound="rollouts.deadline",
        )

    @classmethod
    def of_evaluation(cls, settings: Settings, rollouts: int) -> Rules:
        """Rules for this many rollouts on held-out tasks: a score is measured once, so none is replaced."""
        rules, waits = cls.of_step(settings), settings.failure.backoff * (2**settings.failure.retries - 1)
        attempts = (settings.rollouts.timeout + 2 * GRACE_SECONDS) * (settings.failure.retries + 1)
        seconds = (attempts + waits) * math.ceil(rollouts / settings.rollouts.concurrency)
        return replace(rules, refills=0, seconds=seconds, bound="all attempts at rollouts.timeout each")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a rollout ended: its last attempt."""

    assignment: Assignment
    status: Status
    error: str
    seconds: float
    """Duration of the last attempt, 0 if it was never handed out."""
    until: int | None = None
    """Position in the log from which on nothing counts: it was the hub that ended it. None if its END event did."""


@dataclass(slots=True)
class Slot:
    """One rollout that is not over: an attempt at it waits or is under way."""

    assignment: Assignment
    number: int
    """Number of the slot in its round: a rollout that replaces another one takes its slot."""
    generation: int = 0
    """Rollouts that were excluded in this slot before."""
    ready: float = 0.0
    """Monotonic time before which it is not handed out."""


@dataclass(slots=True, eq=False, kw_only=True)
class RoundQueue:
    """The rollouts of one round. Not thread-safe."""

    rules: Rules
    began: float | None = None
    """Monotonic time at which the first one was handed out or waited for."""
    ended: float = 0.0
    """Monotonic time at which the last one was over, so far."""
    refilled: int = 0
    """Rollouts that replace an excluded one."""
    overdue: int = 0
    """Rollouts that `rules.seconds` ended."""
    closed: bool = False
    """Nothing is tried again or replaced any more."""
    _waiting: deque[Slot] = field(default_factory=deque)
    _under_way: int = 0
    _slots: int = 0
    _outcomes: dict[tuple[int, int], Outcome] = field(default_factory=dict)

    def add(self, assignments: Iterable[Assignment]) -> None:
        """Further rollouts of this round, each in its own slot."""
        for assignment in assignments:
            self._waiting.append(Slot(assignment, self._slots))
            self._slots += 1

    @property
    def over(self) -> bool:
        return not (self._waiting or self._under_way)

    @property
    def late(self) -> float:
        """Monotonic time from which on the round is late."""
        return math.inf if self.began is None else self.began + self.rules.seconds

    def counts(self) -> tuple[int, int, int]:
        """Rollouts done, under way and waiting."""
        return len(self._outcomes), self._under_way, len(self._waiting)

    def ready(self, now: float) -> bool:
        """Whether something can be handed out."""
        return any(slot.ready <= now for slot in self._waiting)

    def take(self, now: float, count: int) -> list[Slot]:
        """Up to `count` that can be handed out, the first ones first; they are under way now."""
        taken = [slot for slot in self._waiting if slot.ready <= now][: max(count, 0)]
        if taken:
            gone = set(map(id, taken))
            self._waiting = deque(slot for slot in self._waiting if id(slot) not in gone)
            self._under_way += len(taken)
            self.began = now if self.began is None else self.began
        return taken

    def put_back(self, slot: Slot) -> None:
        """It was not handed out after all."""
        self._under_way -= 1
        self._waiting.appendleft(replace(slot, assignment=replace(slot.assignment, key=os.urandom(16))))

    def end(self, slot: Slot, outcome: Outcome, now: float) -> None:
        """The attempt is over: another one follows, or another rollout, or this is what came of it."""
        self._under_way -= 1
        rules, made = self.rules, slot.assignment
        if not self.closed and outcome.status in rules.retried and made.attempt <= rules.retries:
            again = replace(made, key=os.urandom(16), attempt=made.attempt + 1)
            wait = rules.backoff * 2.0 ** (made.attempt - 1)
            self._waiting.appendleft(replace(slot, assignment=again, ready=now + wait))
            return
        self._settle(slot, outcome, now)
        excluded = outcome.status != Status.OK and outcome.status not in rules.kept
        if not self.closed and excluded and slot.generation < rules.refills:
            fresh = replace(made, id=os.urandom(16).hex(), key=os.urandom(16), attempt=1)
            self._waiting.appendleft(Slot(fresh, slot.number, slot.generation + 1))
            self.refilled += 1

    def cut(self, status: Status, error: str, now: float) -> None:
        """What waits will not be handed out."""
        while self._waiting:
            slot = self._waiting.popleft()
            self._settle(slot, Outcome(slot.assignment, status, error, 0.0), now)

    def outcomes(self) -> list[Outcome]:
        """So far, in the order of the slots, and in each slot in the order of time."""
        return [self._outcomes[at] for at in sorted(self._outcomes)]

    def _settle(self, slot: Slot, outcome: Outcome, now: float) -> None:
        self._outcomes[slot.number, slot.generation] = outcome
        self.ended = now
