"""The stream: carries events from this process to the hub, at least once, within stated bounds.

The agent's threads only append to a queue. One background thread packs events into batches, sends them over ZeroMQ,
keeps each batch until the hub has it on disk, and sends it again when the hub was away.

Bounds. Memory: `window` bytes of batches not yet acknowledged plus as much of events not yet packed. Disk: `spill`
bytes, used once the window is full. When both are full an agent's thread waits, `patience` seconds at most and only
once until the hub moves again; after that events are dropped, counted and reported. Nothing here ever raises.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import zmq

from lightning_sdk import wire
from lightning_sdk.leftovers import Leftovers
from lightning_sdk.packers import Packers, keep_freed_memory
from lightning_sdk.scope import Scope, entered
from lightning_sdk.sink import say_once
from lightning_sdk.spool import Spool
from lightning_sdk.stream_status import StreamStatus
from lightning_sdk.wire import Batch, Event

log = logging.getLogger("lightning_sdk.stream")

_BATCH_EVENTS = 64
_BATCH_BYTES = 2 * 1024 * 1024
_BATCHES_AT_ONCE = 16
"""Batches sent before the hub's answers are looked at."""
_LINGER = 0.25
"""Seconds that an event waits for others of its batch, at most. The end of a rollout does not wait, nor a full batch:
waking the sender for each call would cost the process more than everything else about the call."""
_DEAF = 0.05
"""Seconds that only the hub is listened to, at most, when nothing can be done without it."""
_SILENCE = 2.0
"""Seconds without progress after which the socket is given up and a new one replays."""


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
        self._window, self._patience = window, patience
        self._leftovers = Leftovers(spool, address) if spool is not None else None
        self._delivering = False
        self._spill_limit = spill
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        """State of a fresh stream; also after a fork, where the parent's thread and socket do not exist."""
        self.client = os.urandom(16)
        self._status = StreamStatus()
        self._queue: deque[tuple[tuple[Any, ...], int]] = deque()
        self._queued = self._packed = 0  # bytes put in and taken out
        self._popped = self._unsendable = self._refused_puts = 0  # events
        self._unacked: deque[Batch] = deque()
        self._packers = Packers()
        self._spill = Spool(limit=self._spill_limit)
        self._next = 1
        self._greetings = 0
        self._wake = threading.Event()
        self._room = threading.Condition()
        self._full = False
        self._closing = False
        self._socket: zmq.Socket[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    # the agent's side

    def put(self, event: tuple[Any, ...], size: int) -> None:
        """Queue an event of about `size` bytes. Waits only when every bound is reached."""
        if self._queued - self._packed > self._window and not self._wait_for_room():
            with self._room:
                self._refused_puts += 1
            say_once(
                f"full {self.address}",
                "lightning: the hub at %s takes no events and both window and disk are full; events are dropped "
                "and counted (lightning.status()). The agent goes on.",
                self.address,
            )
            return
        self._queued += size  # a race loses a few bytes of a bound until the queue is next empty, never an event
        self._queue.append((event, size))
        if event[0] is Event.END or self._thread is None or len(self._queue) >= _BATCH_EVENTS:
            self._rouse()

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until the hub has everything put so far; False if it has not within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while self._waiting() > 0 and not self._status.refused:
            if time.monotonic() > deadline or (self._thread is not None and not self._thread.is_alive()):
                return False
            self._rouse()
            time.sleep(0.002)
        return self._waiting() <= 0

    def close(self, timeout: float = 5.0) -> None:
        """Flush within `timeout` seconds, then stop. What the hub did not take goes to the spool folder."""
        done = self.flush(timeout)
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(2.0)
        if not done:
            self._leave_behind()
        self._spill.close()

    def status(self) -> StreamStatus:
        """The counters now."""
        self._status.put = self._popped + len(self._queue) + self._refused_puts
        self._status.dropped = self._unsendable + self._refused_puts
        self._status.spilled_bytes = self._spill.bytes
        return self._status

    def _waiting(self) -> int:
        """Events queued that are neither durable nor dropped. Exact, or one too many for an instant."""
        return self._popped + len(self._queue) - self._unsendable - self._status.acknowledged

    def _wait_for_room(self) -> bool:
        if self._full:  # waited once already and the hub has not moved since
            return False
        with self._room:
            self._rouse()
            if not self._room.wait_for(lambda: self._queued - self._packed <= self._window, self._patience):
                self._full = True
        return not self._full

    def _rouse(self) -> None:
        if self._thread is None:
            with self._starting:
                if self._thread is None and not self._closing:
                    self._thread = threading.Thread(target=self._run, name="lightning-stream", daemon=True)
                    with entered(Scope()):  # the first event's rollout is none of this thread's business
                        self._thread.start()
        if not self._wake.is_set():
            self._wake.set()

    # --- the background thread

    def _run(self) -> None:
        # A context that is never terminated: terminating can hang on unsent messages and after forks.
        context = zmq.Context()
        keep_freed_memory()
        try:
            self._connect(context)
            while not self._closing:
                self._pack()
                self._receive()
                self._watch(context)
                self._rest()
        except Exception:
            log.exception("lightning: the stream stopped; events are no longer sent")
        finally:
            if self._socket is not None:
                self._socket.close(linger=0)

    def _rest(self) -> None:
        """Until there is something to do: where much waits for a word of the hub that is its word, else events."""
        assert self._socket is not None
        if self._welcome is None or self._spill.bytes or self._status.window_bytes > self._window // 4:
            self._socket.poll(int(_DEAF * 1000))
        else:
            self._wake.wait(_LINGER)
        self._wake.clear()

    def _connect(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        if self._socket is not None:
            self._socket.close(linger=0)
        socket = context.socket(zmq.DEALER)
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.SNDHWM, 0)  # the window is the bound
        socket.set(zmq.MAXMSGSIZE, wire.MAX_MESSAGE_BYTES)
        socket.connect(self.address)
        self._socket = socket
        self._status.connections += 1
        self._greet()

    def _greet(self) -> None:
        assert self._socket is not None
        self._socket.send_multipart([wire.HELLO, wire.hello(self.client, self.key)])
        self._welcome = None
        self._greetings += 1
        self._progressed = time.monotonic()

    def _watch(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        """Give the socket up when the hub has been silent for too long while we wait for it."""
        waiting = (self._unacked or self._welcome is None) and not self._status.refused
        if waiting and time.monotonic() - self._progressed > _SILENCE:
            self._connect(context)

    def _pack(self) -> None:
        """Turn queued events into batches: into the window while there is room, else to disk, else leave them."""
        for _ in range(_BATCHES_AT_ONCE):
            if not self._queue or self._status.refused:
                break
            room = self._status.window_bytes < self._window and not self._spill.bytes
            if not room and self._spill.full:
                return
            batch = self._next_batch()
            if room:
                self._keep(batch)
            else:
                self._spill.append(batch)
                self._packers.give_back(batch.body)
        if self._queue:
            self._wake.set()
        if self._status.refused:
            self._forget()

    def _next_batch(self) -> Batch:
        events: list[tuple[Any, ...]] = []
        taken = 0
        while self._queue and len(events) < _BATCH_EVENTS and taken < _BATCH_BYTES:
            self._popped += 1
            event, estimate = self._queue.popleft()
            taken += estimate
            events.append(event)
        count, body = self._packers.pack(events)
        self._unsendable += len(events) - count
        with self._room:
            self._packed = self._packed + taken if self._queue else self._queued
            self._room.notify_all()
        return Batch(self.client, 0, count, body)

    def _numbered(self, batch: Batch) -> Batch:
        """The batch with the next numbers of this client. It gets them when it leaves the queue and the disk, so that
        what still waits there can follow a change of hub."""
        batch = replace(batch, client=self.client, first=self._next)
        self._next += batch.count
        return batch

    def _keep(self, batch: Batch) -> None:
        """Into the window, and out if the hub has greeted us."""
        if not batch.count:
            return
        batch = self._numbered(batch)
        self._unacked.append(batch)
        self._status.window_bytes += len(batch.body)
        if len(self._unacked) == 1:
            self._progressed = time.monotonic()
        if self._welcome is not None:
            self._send(batch)

    def _send(self, batch: Batch) -> None:
        assert self._socket is not None
        with contextlib.suppress(zmq.Again):
            frames = [wire.BATCH, batch.header(checked=False), batch.body]
            self._socket.send_multipart(frames, zmq.NOBLOCK, copy=False)  # half of what sending costs is the copy
        self._status.sent += batch.count

    def _receive(self) -> None:
        assert self._socket is not None
        while self._socket.poll(0):
            kind, payload = self._socket.recv_multipart()[:2]
            message = wire.unpack(payload)
            if kind == wire.HELLO:  # the hub was restarted and does not know us
                self._greet()
            elif kind == wire.ACK:
                self._acknowledge(message["acked"])
            elif kind == wire.WELCOME:
                self._replay(message)
            elif kind == wire.REFUSED:
                self._status.refused = message["reason"]
                say_once(f"refused {self.address}", "lightning: the hub at %s refused this process: %s",
                         self.address, message["reason"])  # fmt: skip

    def _acknowledge(self, acked: int) -> None:
        """Forget what is durable and take as much back from disk as there is room for."""
        while self._unacked and self._unacked[0].first + self._unacked[0].count - 1 <= acked:
            batch = self._unacked.popleft()
            self._status.window_bytes -= len(batch.body)
            self._status.acknowledged += batch.count
            self._packers.give_back(batch.body)
            self._progressed = time.monotonic()
            self._full = False
        while self._spill.bytes and self._status.window_bytes < self._window:
            self._keep(self._spill.take())

    def _replay(self, welcome: dict[str, Any]) -> None:
        """The hub says where it stands: send everything after that again."""
        now = time.monotonic()
        if self._welcome is not None and self._welcome == welcome["acked"] and now - self._progressed < _SILENCE / 4:
            return  # several batches fell into the same gap: one replay mends them all
        oldest = self._unacked[0].first if self._unacked else self._next
        if welcome["acked"] < oldest - 1:
            self._start_over()
            return
        self._welcome, self._status.hub, self._progressed = welcome["acked"], welcome["hub"], now
        self._acknowledge(welcome["acked"])
        for batch in self._unacked:
            self._send(batch)
            self._status.resent += batch.count if self._greetings > 1 else 0
        if self._leftovers is not None and not self._delivering:
            self._delivering = True
            threading.Thread(target=self._leftovers.deliver, args=(self._inherit,), daemon=True).start()

    def _start_over(self) -> None:
        """This hub lacks events that an earlier one confirmed, a gap that nobody can fill: be a new client to it."""
        self.client, self._next = os.urandom(16), 1
        self._unacked = deque(map(self._numbered, self._unacked))
        self._greet()

    def _forget(self) -> None:
        """Refused: nothing will ever be taken, so hold nothing."""
        while self._queue:
            self._popped += 1
            self._queue.popleft()
        self._unacked.clear()
        self._spill.clear()
        self._packed, self._status.window_bytes = self._queued, 0
        self._unsendable = self._popped - self._status.acknowledged

    # --- what outlives the process

    def _leave_behind(self) -> None:
        """Keep what the hub did not take for the next process that reaches it."""
        waiting = self._waiting()
        if self._status.refused or waiting <= 0:
            return
        if self._leftovers is None or (self._thread is not None and self._thread.is_alive()):
            log.warning("lightning: %d events did not reach the hub at %s and are lost", waiting, self.address)
            return
        self._leftovers.leave(self.client, self._remaining())
        where = self._leftovers.folder
        log.warning(
            "lightning: the hub is away; %d events wait in %s for the next init() that reaches it", waiting, where
        )

    def _remaining(self) -> Iterator[Batch]:
        yield from self._unacked
        while self._spill.bytes:
            yield self._numbered(self._spill.take())
        while self._queue:
            yield self._numbered(self._next_batch())

    def _inherit(self, batches: list[Batch]) -> bool:
        """Deliver a dead stream's batches under its own name, so that none counts twice; True once all are durable."""
        heir = Stream(self.address, self.key, window=self._window)
        heir.client, heir._next = batches[0].client, batches[0].first
        for batch in batches:
            heir._popped += batch.count
            heir._spill.append(batch)
        delivered = heir.flush(30.0)
        heir.close(0.0)
        return delivered
