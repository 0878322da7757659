"""The sender: the thread of a stream, which packs its events into batches and makes sure that the hub gets them.

A batch gets its number when it enters the window: what the hub has not confirmed yet, within a bound on its bytes.
What the window cannot hold waits on disk, and what the disk cannot hold stays in the queue. Whatever fails is tried
again; nothing that a hub sends, and no disk, ends the thread.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace

from lightning_sdk.stream import wire
from lightning_sdk.stream.event_queue import EventQueue
from lightning_sdk.stream.handshakes import describe_refusal
from lightning_sdk.stream.hub_socket import HubSocket
from lightning_sdk.stream.packers import Packers, keep_freed_memory
from lightning_sdk.stream.sink import say_once
from lightning_sdk.stream.spool import Spool
from lightning_sdk.stream.status import StreamStatus
from lightning_sdk.stream.undelivered import Delivery, Leftovers
from lightning_sdk.stream.wire import EventBatch, HubMessage
from lightning_sdk.system import native_threads

_BATCHES_AT_ONCE = 16
"""Batches packed before the hub's answers are looked at."""
_MESSAGES_AT_ONCE = 64
"""Messages of the hub read before batches are packed again."""
_LINGER_SECONDS = 0.25
"""How long an event waits for others of its batch. The end of a rollout does not wait, nor a full batch: waking the
sender for each call would cost the process more than everything else about the call."""
_LISTEN_SECONDS = 0.05
"""How long only the hub is listened to, when nothing can be done without it."""
_SILENCE_SECONDS = 2.0
"""Without progress for so long, the socket is given up and a new one replays."""
_RETRY_SECONDS = 1.0
"""After a failure of this process's own: of its disk, or of its descriptors."""
_STALL_SECONDS = 30.0
"""Without progress for so long, what an ended process left is left to the next one."""
_HEIR_BYTES = 8 * 2**20
"""The window of what ended processes left: it is on disk already."""
_IN_FLIGHT_BYTES = 16 * 2**20
"""Sent and not confirmed: ZeroMQ has a second copy of it."""


class Sender:
    """One client of one hub. `run` and `deliver` are a native thread's; the rest is too, unless it says otherwise."""

    def __init__(
        self,
        address: str,
        key: str,
        queue: EventQueue,
        *,
        window: int,
        spill: int = 0,
        leftovers: Leftovers | None = None,
    ) -> None:
        self.client = os.urandom(16)
        self.status = StreamStatus()
        self.bell = native_threads.Bell()
        self.closing = self.ended = False
        self.unsendable = 0
        """Events that could not be packed, or were lost on disk."""
        self.is_full = False
        """Somebody waited for room in vain, and the hub has not moved since. Any thread."""
        self._address, self._key, self._queue = address, key, queue
        self._window = window
        self._delivery = Delivery(leftovers) if leftovers is not None else None
        self._inherited = 0  # events that were never in the queue
        self._unsent: deque[EventBatch] = deque()
        self._unacked: deque[EventBatch] = deque()
        self._in_flight = 0  # bytes
        self._held: EventBatch | None = None  # the disk did not take it, and it is before all that is in the queue
        self._spill = Spool(limit=spill)
        self._disk_again = 0.0
        self._packers = Packers()
        self._next = 1
        self._socket: HubSocket | None = None
        self._welcome: int | None = None
        self._progressed = self._connect_again = 0.0

    @property
    def waiting(self) -> int:
        """Events that are neither durable nor dropped. Exact, or one too many for an instant. Any thread."""
        return self._queue.total + self._inherited - self.unsendable - self.status.acknowledged

    @property
    def is_welcome(self) -> bool:
        """Whether the hub has answered this connection. Any thread."""
        return self._welcome is not None

    @property
    def is_over(self) -> bool:
        """Whether its threads are. Any thread."""
        return self.ended and not (self._delivery is not None and self._delivery.is_under_way)

    @property
    def is_away(self) -> bool:
        """Whether it has not answered the last one in time either. Any thread."""
        return self._welcome is None and self.status.connections > 1

    @property
    def spilled_bytes(self) -> int:
        return self._spill.size

    def run(self) -> None:
        """Send until told to close."""
        keep_freed_memory()
        try:
            while not self.closing:
                self._turn()
        finally:
            self._disconnect()
            self.ended = True

    def drain(self, is_over: Callable[[], bool]) -> None:
        """Send in the thread that calls, where no other can be started, until the hub has everything or `is_over`."""
        while self.waiting > 0 and not is_over() and not self.status.refused:
            self._turn()
        self._disconnect()

    def deliver(self, spool: Spool, is_over: Callable[[], bool]) -> bool:
        """Deliver what an ended client left, under its name so that nothing counts twice; whether all is durable."""
        try:
            first = spool.peek()
        except ValueError:
            return True  # torn from the beginning
        self.client, self._next, self._inherited, self._spill = first.client, first.first, spool.events, spool
        acknowledged, moved = -1, time.monotonic()
        try:
            while self.waiting > 0 and not is_over() and not self.status.refused:
                self._turn()
                if self.status.acknowledged != acknowledged:
                    acknowledged, moved = self.status.acknowledged, time.monotonic()
                elif time.monotonic() - moved > _STALL_SECONDS:
                    break
        finally:
            self._disconnect()
        return self.waiting <= 0 and not self.status.refused

    def remaining(self) -> Iterator[EventBatch]:
        """What the hub did not confirm, in order. Of a sender that has ended."""
        yield from self._unacked
        yield from self._unsent
        try:
            while self._spill.size:
                yield self._assign_numbers(self._spill.take())
        except (OSError, ValueError) as error:
            self._lose_spill(error)
        if self._held is not None:
            yield self._assign_numbers(self._held)
        while self._queue:
            yield self._assign_numbers(self._next_batch())

    def discard(self) -> None:
        """Give the disk back. Of a sender that has ended."""
        self._spill.close()

    # --- one turn

    def _turn(self) -> None:
        try:
            self._connect()
            self._pack()
            self._receive()
            self._watch()
            self._deliver_leftovers()
            self._rest()
        except Exception as error:  # of ZeroMQ or the system: begin again with a new connection
            self._say("stream", "sending to the hub at %s failed and will be tried again: %r", error)
            self._disconnect()
            self._connect_again = time.monotonic() + _RETRY_SECONDS
            self.bell.wait(_LISTEN_SECONDS)

    def _say(self, what: str, message: str, *values: object) -> None:
        """Log once for this hub. The first value of `message` is its address."""
        say_once(f"{what} {self._address}", f"lightning: {message}", self._address, *values)

    def _rest(self) -> None:
        """Until there is something to do: where much waits for a word of the hub that is its word, else events."""
        if self._socket is None:
            self.bell.wait(_LINGER_SECONDS)
        elif self._welcome is None or self._spill.size or self.status.window_bytes > self._window // 4:
            self._socket.wait(_LISTEN_SECONDS)
        else:
            self.bell.wait(_LINGER_SECONDS)

    def _connect(self) -> None:
        if self._socket is not None or time.monotonic() < self._connect_again:
            return
        try:
            self._socket = HubSocket(self._address, self._key)
        except OSError as error:  # ZMQError is one
            self._connect_again = time.monotonic() + _RETRY_SECONDS
            self._say(
                "connect",
                "cannot connect to the hub at %s (%s); it will be tried again, and the agent continues",
                error,
            )
            return
        self.status.connections += 1
        self._greet()

    def _disconnect(self) -> None:
        socket, self._socket, self._welcome = self._socket, None, None
        if socket is not None:
            socket.close()

    def _greet(self) -> None:
        assert self._socket is not None
        self._socket.send(wire.HELLO, wire.hello(self.client, self._key))
        self._welcome = None
        self._progressed = time.monotonic()

    def _watch(self) -> None:
        """Give the connection up when the hub has been silent for too long while we wait for it."""
        waits = self._unacked or self._unsent or self._welcome is None
        if not waits or self.status.refused or self._socket is None:
            return
        if self._welcome is None and self._socket.is_refused():
            self._say("refused", "events for the hub at %s wait in this process: %s", describe_refusal(self._key))
        if time.monotonic() - self._progressed > _SILENCE_SECONDS:
            self._welcome = None
            self._socket.reconnect()
            self.status.connections += 1
            self._greet()

    # --- from the queue into the window, or to disk

    def _pack(self) -> None:
        """Turn queued events into batches: into the window while there is room, else to disk, else leave them."""
        if self.status.refused:
            self._forget()
        for _ in range(_BATCHES_AT_ONCE):
            if self._held is None and not self._queue:
                return
            room = self.status.window_bytes < self._window and not self._spill.size
            if not room and (self._spill.full or time.monotonic() < self._disk_again):
                return
            batch, self._held = self._held or self._next_batch(), None
            if room:
                self._keep(batch)
            else:
                self._store(batch)
        self.bell.ring()  # there is more

    def _next_batch(self) -> EventBatch:
        events = self._queue.take()
        count, body = self._packers.pack(events)
        self.unsendable += len(events) - count
        return EventBatch(self.client, 0, count, body)

    def _store(self, batch: EventBatch) -> None:
        try:
            self._spill.append(batch)
        except OSError as error:
            self._held, self._disk_again = batch, time.monotonic() + _RETRY_SECONDS
            say_once(
                "disk",
                "lightning: events that the hub has not accepted cannot be kept on disk (%s; the folder is "
                "TMPDIR); they wait in memory, and are dropped and counted once that is full",
                error,
            )
            return
        self._packers.give_back(batch.body)

    def _assign_numbers(self, batch: EventBatch) -> EventBatch:
        """The batch with the next numbers of this client. It gets them when it leaves the queue and the disk, so that
        what still waits there can follow a change of hub."""
        batch = replace(batch, client=self.client, first=self._next)
        self._next += batch.count
        return batch

    def _keep(self, batch: EventBatch) -> None:
        """Into the window, and out if the hub has greeted us."""
        if not batch.count:
            return
        if not self._unacked and not self._unsent:
            self._progressed = time.monotonic()
        self._unsent.append(self._assign_numbers(batch))
        self.status.window_bytes += len(batch.body)
        self._send()

    def _send(self) -> None:
        while self._unsent and self._welcome is not None and self._in_flight < _IN_FLIGHT_BYTES:
            assert self._socket is not None
            batch = self._unsent[0]
            self._socket.send(wire.BATCH, batch.header(checked=False), batch.body)
            self._unacked.append(self._unsent.popleft())
            self._in_flight += len(batch.body)
            self.status.sent += batch.count

    # --- what the hub says

    def _receive(self) -> None:
        for _ in range(_MESSAGES_AT_ONCE):
            if self._socket is None:
                return
            try:
                if (message := self._socket.receive()) is None:
                    return
                self._hear(message)
            except ValueError as error:
                self._say("garbage", "a message from the hub at %s is malformed and was ignored: %s", error)

    def _hear(self, message: HubMessage) -> None:
        if message.kind == wire.HELLO:  # the hub was restarted and does not know us
            self._greet()
        elif message.kind == wire.REFUSED:
            self.status.refused = message.reason or "no reason given"
            self._say("refused", "the hub at %s refused this process: %s", self.status.refused)
        elif message.acked >= self._next and not self._inherited:
            raise ValueError(f"it confirms event {message.acked} of {self._next - 1}")
        elif message.kind == wire.ACK:
            self._acknowledge(message.acked)
        else:
            self._replay(message)

    def _acknowledge(self, acked: int) -> None:
        """Forget what is durable, and take as much back from disk as there is room for."""
        for batches in (self._unacked, self._unsent):
            while batches and batches[0].first + batches[0].count - 1 <= acked:
                batch = batches.popleft()
                if batches is self._unacked:
                    self._in_flight -= len(batch.body)
                self.status.window_bytes -= len(batch.body)
                self.status.acknowledged += batch.count
                self._packers.give_back(batch.body)
                self._progressed = time.monotonic()
                self.is_full = False
        self._send()
        try:
            while self._spill.size and self.status.window_bytes < self._window:
                self._keep(self._spill.take())
        except (OSError, ValueError) as error:
            self._lose_spill(error)

    def _replay(self, welcome: HubMessage) -> None:
        """The hub says where it stands: send everything after that again."""
        now = time.monotonic()
        if self._welcome == welcome.acked and now - self._progressed < _SILENCE_SECONDS / 4:
            return  # several batches fell into the same gap: one replay mends them all
        oldest = (self._unacked or self._unsent or (None,))[0]
        if welcome.acked < (self._next if oldest is None else oldest.first) - 1:
            self._start_over(welcome.hub)
            return
        self._welcome, self.status.hub, self._progressed = welcome.acked, welcome.hub, now
        sent, self._unacked, self._in_flight = self._unacked, deque(), 0
        self._unsent = sent + self._unsent
        self.status.resent += sum(batch.count for batch in sent if batch.first > welcome.acked)
        self._acknowledge(welcome.acked)

    def _start_over(self, hub: str) -> None:
        """This hub lacks events that an earlier one confirmed, a gap that nobody can fill: be a new client to it. The
        name follows from the old one, so that what an ended process left has the same name in each delivery.
        """
        self.client, self._next = hashlib.blake2b(self.client + hub.encode(), digest_size=16).digest(), 1
        self._unsent = deque(map(self._assign_numbers, self._unacked + self._unsent))
        self._unacked, self._in_flight = deque(), 0
        self._greet()

    def _forget(self) -> None:
        """Refused: nothing will ever be taken, so hold nothing."""
        self._queue.clear()
        self._unacked.clear()
        self._unsent.clear()
        self._held = None
        self._spill.clear()
        self._in_flight = self.status.window_bytes = 0
        self.unsendable = self._queue.taken + self._inherited - self.status.acknowledged

    def _lose_spill(self, error: Exception) -> None:
        self.unsendable += self._spill.events
        say_once(
            "spill",
            "lightning: %d events that waited on disk cannot be read and are lost: %s",
            self._spill.events,
            error,
        )
        self._spill.clear()

    # --- what ended processes left

    def _deliver_leftovers(self) -> None:
        if self._delivery is not None and self._welcome is not None:
            self._delivery.begin_if_due(lambda spool: self._heir().deliver(spool, lambda: self.closing))

    def _heir(self) -> Sender:
        return Sender(self._address, self._key, EventQueue(), window=min(self._window, _HEIR_BYTES))
