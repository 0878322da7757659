"""Leases: which runner has which attempt at which rollout, until when, and what happens when it does not come back.

An attempt ends once: by its END event, by the end or the silence of its runner, by its timeout, or by the end of its
round. Anything that comes later under its key does not count. The queue then decides what happens to the rollout.

Silence counts only for runners whose end cannot be seen from here. The training watches its own runners, and reports
when one of their processes has ended. While the hub or the training is paused, no time passes for any of them.
"""

from __future__ import annotations

import itertools
import json
import logging
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from lightning_hub.rollout import Assignment
from lightning_hub.rollouts.call_gate import CallGate
from lightning_hub.rollouts.round_queue import GRACE_SECONDS, Outcome, RoundQueue, Rules, Slot
from lightning_hub.storage.index import End
from lightning_hub.storage.rows import BeginRow, EndRow
from lightning_hub.storage.store import Store
from lightning_sdk.markers.reward import UNREWARDED
from lightning_sdk.results.quantity import quantity
from lightning_sdk.stream.wire import MAX_TASK_BYTES
from lightning_sdk.system.clock import Clock
from lightning_sdk.trace.call import Status

LEASE_SECONDS = 15.0
"""A runner that is silent for so long has lost its leases."""
_BACK_SECONDS = 3.0
"""Time for a runner to reconnect: its network may have been away, and it renews every second."""
#: Of tasks in one answer: what is longer would not be read.
_LEASE_CHARACTERS = 2 * MAX_TASK_BYTES
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Attempt:
    slot: Slot
    queue: RoundQueue
    runner: str
    started: float
    expires: float
    """Time at which its timeout has passed."""


class Leases:
    """The rounds that are open, handed out to runners. Any thread may call."""

    def __init__(
        self,
        store: Store,
        lease_seconds: float = LEASE_SECONDS,
        grace_seconds: float = GRACE_SECONDS,
        clock: Clock | None = None,
    ) -> None:
        self._store, self._lease_seconds, self._grace_seconds = store, lease_seconds, grace_seconds
        self._changed = threading.Condition()
        self._queues: list[RoundQueue] = []
        self._active: dict[bytes, _Attempt] = {}
        self._taken: Counter[str] = Counter()
        """How many of them each runner has."""
        self._clock = clock or Clock()
        self._seen: dict[str, float] = {}
        self._watched: set[str] = set()
        """Runners that the training has started, and whose end it tells."""
        self._vanished: dict[str, float] = {}
        """Runner -> when its connection ended; it has not been heard of since."""
        self._over: set[bytes] = set()
        self._unsaved: list[EndRow] = []
        """Ends that are not in the store yet."""
        self._concurrency = 0
        self.gate = CallGate()
        """Decides on the requests of what is handed out."""
        self.on_work: Callable[[], None] = lambda: None
        """Called when something can be leased, on whichever thread made it so."""
        self.position: Callable[[], int | None] = lambda: None
        """Where the log ends now."""

    # --- the trainer's side

    def open_round(
        self, assignments: Sequence[Assignment], rules: Rules, concurrency: int, *, first: bool = False
    ) -> RoundQueue:
        """Have a round of rollouts run, after those opened before; with `first`, before them.

        `concurrency` bounds what is under way in all rounds together; the last one given counts.
        """
        queue = RoundQueue(rules=rules)
        with self._changed:
            queue.add(assignments)
            self._queues.insert(0 if first else len(self._queues), queue)
            self._concurrency = concurrency
        self.on_work()
        return queue

    def add(self, queue: RoundQueue, assignments: Sequence[Assignment]) -> bool:
        """Further rollouts of a round. False if it has no time left for any."""
        with self._changed:
            if queue.closed or self._clock.read() > queue.late:
                return False
            queue.add(assignments)
        self.on_work()
        return True

    def wait(self, queue: RoundQueue, seconds: float, stopped: Callable[[], bool]) -> bool:
        """Whether every rollout of the round is over, after `seconds` at most or once `stopped()`; see `wake`."""
        with self._changed:
            if queue.began is None:
                queue.began = self._clock.read()
            self._changed.wait_for(lambda: stopped() or queue.over, seconds)
            return queue.over

    def outcomes(self, queue: RoundQueue) -> list[Outcome]:
        """How the rollouts of a round ended, so far; one that replaces another one comes behind it."""
        with self._changed:
            return queue.outcomes()

    def close(self, queue: RoundQueue, why: str) -> list[Outcome]:
        """The round's outcomes. What is still under way times out because of `why`."""
        with self._changed:
            self._end_all(queue, Status.INFRASTRUCTURE_ERROR, why)
            if queue in self._queues:
                self._queues.remove(queue)
            return queue.outcomes()

    def wake(self) -> None:
        """Let `wait` look again whether it should stop."""
        with self._changed:
            self._changed.notify_all()

    def progress(self) -> tuple[int, int, int]:
        """Rollouts done, under way and queued, in all open rounds."""
        with self._changed:
            counts = [queue.counts() for queue in self._queues]
        return sum(each[0] for each in counts), sum(each[1] for each in counts), sum(each[2] for each in counts)

    def runners(self) -> list[str]:
        """Runners that asked for work or renewed within the lease time."""
        with self._changed:
            oldest = self._clock.read() - self._lease_seconds
            return sorted(name for name, seen in self._seen.items() if seen >= oldest)

    # --- the runners' side

    def lease(self, runner: str, places: int, *, watched: bool = False) -> list[Assignment]:
        """Attempts for `runner`, which has as many at once as it has places; those of the oldest round first.

        `watched`: the process that started it sees it end, and says so with `release`.
        """
        now, wall = self._clock.read(), time.time()
        given: list[Assignment] = []
        with self._changed:
            self._see(runner, now)
            if watched:
                self._watched.add(runner)
            free = min(places - self._taken[runner], self._concurrency - len(self._active))
            for queue in self._queues if free > 0 else ():
                for slot in queue.take(now, free - len(given)):
                    each = slot.assignment
                    expires = now + each.timeout + self._grace_seconds
                    self._active[each.key] = _Attempt(slot, queue, runner, now, expires)
                    self._taken[runner] += 1
                    given.append(each)
        if not given:
            return given
        tasks = [json.dumps(each.task) for each in given]
        if len(given) > (fit := _fitting(tasks)):  # the next lease has them
            self.undo(given[fit:][::-1])
            given = given[:fit]
            self.on_work()
        try:
            self._store.begin(
                BeginRow(
                    key=each.key,
                    id=each.id,
                    attempt=each.attempt,
                    mode=each.mode,
                    task_id=each.task_id,
                    task=task,
                    group=each.group,
                    runner=runner,
                    started=wall,
                )
                for each, task in zip(given, tasks, strict=False)
            )
        except sqlite3.Error:  # a full disk: they wait until they can be handed out
            self.undo(given[::-1])
            raise
        return given

    def undo(self, given: Sequence[Assignment]) -> None:
        """The runner went before it got these: queue them again under a new key, as if they had not been handed out."""
        with self._changed:
            for each in given:
                if each.key in self._active:
                    attempt = self._forget(each.key)
                    attempt.queue.put_back(attempt.slot)
            status, why = str(Status.INFRASTRUCTURE_ERROR), "the runner left before it got the lease"
            self._save(EndRow(status, why, "", time.time(), each.key) for each in given)

    def renew(self, runner: str) -> list[bytes]:
        """Keep the leases of `runner`; their keys. An attempt that is not among them is lost."""
        with self._changed:
            self._see(runner, self._clock.read())
            return [key for key, attempt in self._active.items() if attempt.runner == runner]

    def release(self, runner: str, exit_code: int | None = None) -> int:
        """A runner gives its leases back at once; how many. `exit_code`: its process ended by itself with this."""
        with self._changed:
            keys = [key for key, attempt in self._active.items() if attempt.runner == runner]
            status, why = _departure(runner, exit_code, len(keys))
            for key in keys:
                self._close(key, status, why, saved=False, until=self.position())
            self._seen.pop(runner, None)
            self._watched.discard(runner)
            self._vanished.pop(runner, None)
        self.on_work()
        return len(keys)

    def vanish(self, runner: str) -> None:
        """The connection of `runner` ended, as it does with its process. It may come back."""
        with self._changed:
            if runner in self._seen and runner not in self._watched:
                self._vanished[runner] = self._clock.read()

    def end(self, end: End) -> bool:
        """An END event arrived. False if its attempt is over already; True for attempts that were never leased."""
        with self._changed:
            attempt = self._active.get(end.key)
            if attempt is None:
                return end.key not in self._over
            status, error = end.status, end.error
            if status == Status.OK and not end.rewarded:
                status, error = Status.REWARD_ERROR, f"{UNREWARDED}, by a function or from inside"
            self._close(end.key, status, error, saved=status == end.status, until=None)
        self.on_work()
        return True

    def expire(self, *, paused: bool = False) -> None:
        """End the attempts whose runner is silent or whose time is up, and the rounds whose time is up.

        To be called every second or more often, since it keeps the time. `paused`: none has passed since the last call.
        """
        now = self._clock.read(paused=paused)
        with self._changed:
            self._save()
            for runner in [each for each, since in self._vanished.items() if now - since > _BACK_SECONDS]:
                self._end_vanished(runner)
            for key, attempt in list(self._active.items()):
                silent = now - self._seen.get(attempt.runner, attempt.started)
                assignment = attempt.slot.assignment
                if silent > self._lease_seconds and attempt.runner not in self._watched:
                    status, why = Status.INFRASTRUCTURE_ERROR, f"runner {attempt.runner} was silent for {silent:.1f} s"
                elif now > attempt.expires:
                    status, why = Status.TIMEOUT, f"not finished within {assignment.timeout:g} s (rollouts.timeout)"
                else:
                    continue
                self._close(key, status, why, saved=False, until=self.position())
                _log.warning("rollout %s, attempt %d: %s", assignment.id, assignment.attempt, why)
            for queue in self._queues:
                if now > queue.late and not queue.over:
                    self._end_late(queue)
            work = any(queue.ready(now) for queue in self._queues)
        if work:
            self.on_work()

    # --- inside the lock

    def _see(self, runner: str, now: float) -> None:
        self._seen[runner] = now
        self._vanished.pop(runner, None)

    def _end_vanished(self, runner: str) -> None:
        """A runner is gone that nobody watches: its attempts end, and it counts no longer."""
        del self._vanished[runner], self._seen[runner]
        keys = [key for key, attempt in self._active.items() if attempt.runner == runner]
        why = _describe_end(runner, len(keys))
        for key in keys:
            self._close(key, Status.INFRASTRUCTURE_ERROR, why, saved=False, until=self.position())
        if keys:
            _log.warning("%s", why)

    def _close(self, key: bytes, status: Status, error: str, *, saved: bool, until: int | None) -> None:
        """End an attempt. `saved`: the index writes its end to the store; `until`: see `Outcome`."""
        attempt = self._forget(key)
        if not saved:
            self._save([EndRow(str(status), error, "", time.time(), key)])
        now = self._clock.read()
        outcome = Outcome(attempt.slot.assignment, status, error, now - attempt.started, until)
        attempt.queue.end(attempt.slot, outcome, now)
        if attempt.queue.over:
            self._changed.notify_all()

    def _save(self, ends: Iterable[EndRow] = ()) -> None:
        """Write ends to the store, these and those that could not be written before."""
        self._unsaved += ends
        try:
            self._store.end(self._unsaved)
        except sqlite3.Error as error:  # a full disk: the next call tries again, and so does a hub that starts here
            _log.warning("the ends of %d attempts cannot be written yet: %s", len(self._unsaved), error)
        else:
            self._unsaved.clear()

    def _forget(self, key: bytes) -> _Attempt:
        """An attempt that is under way no longer: its runner has a place more, and what comes under its key is late."""
        attempt = self._active.pop(key)
        self._over.add(key)
        self._taken[attempt.runner] -= 1
        if not self._taken[attempt.runner]:
            del self._taken[attempt.runner]
        return attempt

    def _end_late(self, queue: RoundQueue) -> None:
        """The round goes on without what is not over."""
        why = f"the round was not over within {queue.rules.seconds:g} s ({queue.rules.bound})"
        _, under_way, waiting = queue.counts()
        queue.overdue += under_way + waiting
        _log.warning("%s: %d rollouts under way and %d waiting count as timeouts", why, under_way, waiting)
        self._end_all(queue, Status.TIMEOUT, why)
        self._changed.notify_all()

    def _end_all(self, queue: RoundQueue, never: Status, why: str) -> None:
        """End what is under way, as a timeout, and what waits, as `never` says."""
        queue.closed = True
        for key in [key for key, attempt in self._active.items() if attempt.queue is queue]:
            took = self._clock.read() - self._active[key].started
            self._close(key, Status.TIMEOUT, f"{why}; it had run for {took:.0f} s", saved=False, until=self.position())
        queue.cut(never, f"{why}, before a runner took it", self._clock.read())


def _describe_end(runner: str, rollouts: int) -> str:
    many = quantity(rollouts, "rollout")
    return (
        f"runner {runner} ended or lost its connection while {many} ran there: os._exit() in one of them, a crash "
        "in native code, no memory left, or a network failure"
    )


def _fitting(tasks: Sequence[str]) -> int:
    """How many of these tasks go into one answer."""
    sizes = itertools.accumulate(map(len, tasks))
    return sum(place == 0 or size <= _LEASE_CHARACTERS for place, size in enumerate(sizes))


def _departure(runner: str, exit_code: int | None, rollouts: int) -> tuple[Status, str]:
    """How the rollouts end that a runner leaves behind: whose fault it was is known if there was one only."""
    if exit_code is None:
        return Status.INFRASTRUCTURE_ERROR, f"runner {runner} stopped"
    if exit_code >= 0 and rollouts == 1:
        return Status.AGENT_ERROR, f"the agent ended its process with exit code {exit_code}, as os._exit() does"
    many = quantity(rollouts, "rollout")
    how = f"ended with exit code {exit_code}" if exit_code >= 0 else f"was killed by signal {-exit_code}"
    return Status.INFRASTRUCTURE_ERROR, (
        f"the runner's process {how} while {many} ran in it: os._exit() in one of them, a crash in native "
        "code, or no memory left"
    )
