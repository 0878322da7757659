"""The stream: carries events from this process to the hub, at least once, within stated bounds.

The agent's threads only append to a queue. One background thread (`lightning_sdk.stream.sender`) packs events into
batches, sends them over ZeroMQ, keeps each batch until the hub has it on disk, and sends it again after the hub was
away.

Bounds. Memory: `window` bytes of batches not yet acknowledged plus as much of events not yet packed. Disk: `spill`
bytes, used once the window is full. When both are full an agent's thread waits, `patience` seconds at most and only
once until the hub moves again; after that events are dropped, counted and reported. Nothing here ever raises.

Nothing here waits for a lock either: with gevent the agent's threads are greenlets of one thread, which `time.sleep`
hands to the next of them.
"""

from __future__ import annotations

import itertools
import logging
import time
from pathlib import Path
from typing import Any

from lightning_sdk.stream.event_queue import EventQueue
from lightning_sdk.stream.sender import Sender
from lightning_sdk.stream.sink import say_once
from lightning_sdk.stream.status import StreamStatus
from lightning_sdk.stream.undelivered import Leftovers
from lightning_sdk.stream.wire import Event
from lightning_sdk.system import forks, native_threads

log = logging.getLogger("lightning_sdk.stream")

_POLL_SECONDS = 0.002
_END_SECONDS = 2.0
"""For the background thread to end."""
_HAND_OVER_SECONDS = 1.0
_LEAVE_SECONDS, _LEAVE_UNANSWERED_SECONDS, _LEAVE_AWAY_SECONDS = 2.0, 1.0, 0.25
"""For the last events of a process that ends; where the hub is away they go to the spool folder sooner, and where it
has not answered yet, in between."""


class Stream:
    """One process's stream to one hub."""

    def __init__(
        self,
        address: str,
        key: str = "",
        *,
        window: int = 64 * 2**20,
        spill: int = 2**30,
        patience: float = 1.0,
        spool: Path | None = None,
    ) -> None:
        """Start streaming to the hub at `address`; returns at once whether or not it answers.

        Args:
            address: ZeroMQ address, such as tcp://127.0.0.1:4717.
            key: The hub's key.
            window: Bytes of unacknowledged batches kept in memory.
            spill: Bytes of batches kept on disk beyond that.
            patience: Seconds that a caller waits, at most, when both are full.
            spool: Folder in which `close` leaves what the hub did not take, and from which the next stream to the
                same hub delivers it. None: what is left is dropped and counted.
        """
        self.address, self.key = address, key
        self._window, self._spill, self._patience = window, spill, patience
        self._leftovers = Leftovers(spool, address) if spool is not None else None
        self._begin()
        forks.in_child(self, Stream._begin)

    def _begin(self) -> None:
        """State of a fresh stream; also after a fork, where the parent's thread and socket do not exist."""
        self._was_away = hasattr(self, "_sender") and self.is_away()  # seen by the parent
        self._queue = EventQueue()
        self._sender = Sender(
            self.address, self.key, self._queue, window=self._window, spill=self._spill, leftovers=self._leftovers
        )
        self._refusals, self._refused = itertools.count(1), 0  # events
        self._starting, self._started = native_threads.Once(), False

    # the agent's side

    def put(self, event: tuple[Any, ...], size: int) -> None:
        """Queue an event of about `size` bytes. Waits only when every bound is reached."""
        queue = self._queue
        if queue.appended - queue.packed > self._window and not self._wait_for_room():
            self._refused = next(self._refusals)
            say_once(
                f"full {self.address}",
                "lightning: the hub at %s accepts no events, and both window and disk are full; events are dropped "
                "and counted (lightning.status()). The agent goes on.",
                self.address,
            )
            return
        if queue.append(event, size) or not self._started or event[0] is Event.END:
            self._rouse()

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until the hub has everything put so far; False if it has not within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while self._sender.waiting > 0 and not self._sender.status.refused:
            self._rouse()
            if not self._started:
                return self._drain(deadline)
            if time.monotonic() > deadline or self._sender.ended:
                return False
            time.sleep(_POLL_SECONDS)
        return self._sender.waiting <= 0

    def _drain(self, deadline: float) -> bool:
        """Send here, since no thread can be started: none can while Python 3.12 or a newer one ends."""
        if self._sender.closing or not self._starting.take():
            return False
        try:
            self._sender.drain(lambda: time.monotonic() > deadline)
        finally:
            self._starting = native_threads.Once()
        return self._sender.waiting <= 0

    def close(self, timeout: float = 5.0) -> None:
        """Flush within `timeout` seconds, then stop. What the hub did not take goes to the spool folder, also where
        Ctrl-C or a signal's handler interrupts the wait."""
        done = False
        try:
            done = self.flush(timeout)
        finally:
            self._stop(done)

    def _stop(self, done: bool) -> None:
        self._sender.closing = True
        self._sender.bell.ring()
        deadline = time.monotonic() + _END_SECONDS
        while self._started and not self._sender.is_over and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        if not done:
            self._leave_behind()
        if self._sender.ended:
            self._sender.discard()

    def hand_over(self) -> None:
        """Flush before another process learns what this one did. Does not wait for a hub that is away."""
        if self._sender.waiting > 0 and not self.is_away():
            self.flush(_HAND_OVER_SECONDS)

    def leave(self) -> None:
        """Close in a process that ends at once."""
        self.close(self.leave_seconds())

    def leave_seconds(self) -> float:
        """How long a process that ends waits for the hub."""
        if self.is_away():
            return _LEAVE_AWAY_SECONDS
        return _LEAVE_SECONDS if self._sender.is_welcome else _LEAVE_UNANSWERED_SECONDS

    def status(self) -> StreamStatus:
        """The counters now."""
        status = self._sender.status
        status.put = self._queue.total + self._refused
        status.dropped = self._sender.unsendable + self._refused
        status.spilled_bytes = self._sender.spilled_bytes
        return status

    def is_away(self) -> bool:
        """Whether the hub did not answer when it was last looked for."""
        return self._sender.is_away or (self._was_away and not self._sender.is_welcome)

    def _wait_for_room(self) -> bool:
        if self._sender.is_full:  # waited once already and the hub has not moved since
            return False
        self._rouse()
        deadline = time.monotonic() + self._patience
        while self._queue.appended - self._queue.packed > self._window:
            if time.monotonic() > deadline:
                self._sender.is_full = True
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def _rouse(self) -> None:
        if not self._started and not self._sender.closing and self._starting.take():
            try:
                native_threads.start(self._sender.run)
                self._started = True
            except RuntimeError as error:
                self._starting = native_threads.Once()
                if "interpreter shutdown" not in str(error):  # then they are sent without one
                    say_once("thread", "lightning: no thread can be started to send events (%s); they wait", error)
        self._sender.bell.ring()

    # --- what outlives the process

    def _leave_behind(self) -> None:
        """Keep what the hub did not take for the next process that reaches it."""
        waiting, error = self._sender.waiting, None
        if self._sender.status.refused or waiting <= 0:
            return
        kept = 0
        if self._leftovers is not None and (self._sender.ended or not self._started):
            kept, error = self._leftovers.leave(self._sender.client, self._sender.remaining())
            log.warning(
                "lightning: the hub is not running; %d events wait in %s for the next init() that reaches it",
                kept,
                self._leftovers.folder,
            )
        if lost := self._sender.waiting - kept:
            log.warning(
                "lightning: %d events did not reach the hub at %s and are lost%s",
                lost,
                self.address,
                f": {error}" if error else "",
            )
