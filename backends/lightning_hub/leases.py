"""Leases: which runner has which attempt at which rollout, until when, and what happens when it does not come back.

An attempt ends once: by its END event, by the silence of its runner, or by its timeout. Whatever comes later under its
key does not count. What failed for reasons that are not the agent's is tried again under a new key.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lightning_hub.index import End
from lightning_hub.rollout import Assignment
from lightning_hub.store import Store
from lightning_sdk.call import Status

LEASE_SECONDS = 15.0
"""A runner that is silent for so long has lost its leases."""
GRACE_SECONDS = 5.0
"""A runner ends its own rollouts on time; the hub waits so much longer before it does."""
_RETRIED = {Status.INFRASTRUCTURE_ERROR, Status.TIMEOUT}
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a rollout ended: its last attempt."""

    assignment: Assignment
    status: Status
    error: str
    seconds: float
    """Of the last attempt, 0 if it was never handed out."""


@dataclass(slots=True)
class _Attempt:
    assignment: Assignment
    runner: str
    started: float
    expires: float
    """Monotonic time at which its timeout has passed."""


class Leases:
    """The queue of one round of rollouts at a time. Any thread may call."""

    def __init__(
        self, store: Store, lease_seconds: float = LEASE_SECONDS, grace_seconds: float = GRACE_SECONDS
    ) -> None:
        self._store, self._lease_seconds, self._grace_seconds = store, lease_seconds, grace_seconds
        self._changed = threading.Condition()
        self._queue: deque[Assignment] = deque()
        self._active: dict[bytes, _Attempt] = {}
        self._seen: dict[str, float] = {}
        self._over: set[bytes] = set()
        self._outcomes: dict[str, Outcome] = {}
        self._expected = self._concurrency = self._retries = 0
        self.on_work: Callable[[], None] = lambda: None
        """Called when something can be leased, on whichever thread made it so."""

    # --- the trainer's side

    def offer(self, assignments: Sequence[Assignment], concurrency: int, retries: int) -> None:
        """Start a round. What is left of an earlier one is dropped."""
        with self._changed:
            self._drop("a new round began")
            self._queue.extend(assignments)
            self._outcomes = {}
            self._expected, self._concurrency, self._retries = len(assignments), concurrency, retries
        self.on_work()

    def wait(self, seconds: float, stopped: Callable[[], bool]) -> bool:
        """Whether every rollout of the round is over, after `seconds` at most or once `stopped()`; see `wake`."""
        with self._changed:
            self._changed.wait_for(lambda: stopped() or len(self._outcomes) >= self._expected, seconds)
            return len(self._outcomes) >= self._expected

    def close(self, why: str) -> list[Outcome]:
        """The round's outcomes. What is still under way times out because of `why`."""
        with self._changed:
            self._drop(why)
            return list(self._outcomes.values())

    def wake(self) -> None:
        """Let `wait` look again whether it should stop."""
        with self._changed:
            self._changed.notify_all()

    def progress(self) -> tuple[int, int, int]:
        """Rollouts done, under way and queued."""
        with self._changed:
            return len(self._outcomes), len(self._active), len(self._queue)

    def runners(self) -> list[str]:
        """Runners that asked for work or renewed within the lease time."""
        with self._changed:
            oldest = time.monotonic() - self._lease_seconds
            return sorted(name for name, seen in self._seen.items() if seen >= oldest)

    # --- the runners' side

    def lease(self, runner: str, slots: int) -> list[Assignment]:
        """Up to `slots` attempts for `runner`."""
        now, wall = time.monotonic(), time.time()
        with self._changed:
            self._seen[runner] = now
            free = min(slots, self._concurrency - len(self._active), len(self._queue))
            given = [self._queue.popleft() for _ in range(free)]
            for each in given:
                expires = now + each.timeout + self._grace_seconds
                self._active[each.key] = _Attempt(each, runner, now, expires)
        if given:
            with self._store.transaction():
                self._store.begin(
                    (a.key, a.id, a.attempt, a.mode, a.task_id, a.task, a.group, runner, wall) for a in given
                )
                self._store.lease((wall + self._lease_seconds, a.key) for a in given)
        return given

    def undo(self, given: Sequence[Assignment]) -> None:
        """The runner went before it got these: queue them again under a new key, as if they had not been handed out."""
        with self._changed:
            for each in given:
                if self._active.pop(each.key, None) is not None:
                    self._over.add(each.key)
                    self._queue.appendleft(replace(each, key=os.urandom(16)))
        error = "the runner went before it got the lease"
        self._store.end((str(Status.INFRASTRUCTURE_ERROR), error, "", time.time(), each.key) for each in given)

    def renew(self, runner: str) -> list[bytes]:
        """Keep the leases of `runner`; their keys. An attempt that is not among them is lost."""
        with self._changed:
            self._seen[runner] = time.monotonic()
            keys = [key for key, attempt in self._active.items() if attempt.runner == runner]
        self._store.lease((time.time() + self._lease_seconds, key) for key in keys)
        return keys

    def release(self, runner: str) -> None:
        """A runner that goes in good order gives its leases back at once."""
        with self._changed:
            for key in [key for key, attempt in self._active.items() if attempt.runner == runner]:
                self._close(key, Status.INFRASTRUCTURE_ERROR, f"runner {runner} stopped", saved=False)
            self._seen.pop(runner, None)
        self.on_work()

    def end(self, end: End) -> bool:
        """An END event arrived. False if its attempt is over already; True for attempts that were never leased."""
        with self._changed:
            attempt = self._active.get(end.key)
            if attempt is None:
                return end.key not in self._over
            status, error = end.status, end.error
            if status == Status.OK and not end.rewarded:
                status, error = Status.REWARD_ERROR, "the rollout ended without a reward"
            self._close(end.key, status, error, saved=status == end.status)
        self.on_work()
        return True

    def expire(self) -> None:
        """End the attempts whose runner is silent or whose time is up."""
        now = time.monotonic()
        with self._changed:
            if not self._active:
                return
            for key, attempt in list(self._active.items()):
                silent = now - self._seen.get(attempt.runner, 0.0)
                if silent > self._lease_seconds:
                    why = f"runner {attempt.runner} was silent for {silent:.1f} s"
                    self._close(key, Status.INFRASTRUCTURE_ERROR, why, saved=False)
                elif now > attempt.expires:
                    why = f"no end within {attempt.assignment.timeout:g} s (rollouts.timeout)"
                    self._close(key, Status.TIMEOUT, why, saved=False)
                else:
                    continue
                _log.warning("rollout %s, attempt %d: %s", attempt.assignment.id, attempt.assignment.attempt, why)
        self.on_work()

    # --- inside the lock

    def _close(self, key: bytes, status: Status, error: str, *, saved: bool) -> None:
        """End an attempt and try again or settle. `saved`: the index writes its end to the store."""
        attempt = self._active.pop(key)
        self._over.add(key)
        if not saved:
            self._store.end([(str(status), error, "", time.time(), key)])
        assignment = attempt.assignment
        if status in _RETRIED and assignment.attempt <= self._retries:
            self._queue.appendleft(replace(assignment, key=os.urandom(16), attempt=assignment.attempt + 1))
            return
        self._settle(Outcome(assignment, status, error, time.monotonic() - attempt.started))

    def _settle(self, outcome: Outcome) -> None:
        self._outcomes[outcome.assignment.id] = outcome
        if len(self._outcomes) >= self._expected:
            self._changed.notify_all()

    def _drop(self, why: str) -> None:
        """End everything that is queued or under way."""
        self._retries = 0
        for key, attempt in list(self._active.items()):
            self._close(key, Status.TIMEOUT, f"{why} after {time.monotonic() - attempt.started:.0f} s", saved=False)
        for assignment in self._queue:
            never = f"{why} before a runner took it"
            self._settle(Outcome(assignment, Status.INFRASTRUCTURE_ERROR, never, 0.0))
        self._queue.clear()
