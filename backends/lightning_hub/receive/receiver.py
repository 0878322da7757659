"""The receiver: one thread with the hub's socket, which takes events in, makes them durable and answers requests.

For each client, events are taken in order: events that are already known are dropped, and missing ones are requested
again. An ACK is sent only after the log has been synced. Messages from unknown senders are counted and thrown away.

While one commit is written by a second thread, the only one that writes the log, the next one is gathered.
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import math
import socket
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import zmq

from lightning_hub.receive.door import Door
from lightning_hub.receive.intake import Intake, PreparedBatch
from lightning_hub.receive.requests import Method, Requests
from lightning_hub.storage.index import Index
from lightning_hub.storage.log import Log
from lightning_hub.storage.writes import Writes
from lightning_sdk.stream import wire
from lightning_sdk.stream.wire import EventBatch

_COMMIT_SECONDS = 0.005
_COMMIT_BYTES = 4 * 1024 * 1024
_SAVE_SECONDS = 0.5
_SAVE_BYTES = 64 * 1024 * 1024
_TICK_MS = 250
_MAX_SESSIONS = 100_000
#: A peer is asked again for what is missing after so many seconds, not for each batch that shows the same gap.
_ASK_SECONDS = 0.5
#: Of a greeting: a peer that has not shown the key yet gets no more memory than that.
_HELLO_BYTES = 4096
#: After a failed write, so long nothing is taken in.
_REST_SECONDS = 1.0
_EVENTS, _DATABASE = "the log", "hub.sqlite"
_log = logging.getLogger(__name__)
_pack = msgspec.msgpack.Encoder().encode


class _Commit(NamedTuple):
    """What is being written."""

    batches: list[PreparedBatch]
    acks: dict[bytes, int]
    """Peer -> its last event number, once this commit is durable."""
    positions: Future[list[int]]


@dataclass(slots=True)
class _Session:
    client: bytes
    methods: Collection[str]
    """What its key lets it ask for."""
    asked: float = 0.0


class Receiver:
    """Owns the socket. `run` is the thread's body; everything else but `wake` and `stop` is called from it."""

    def __init__(
        self,
        bind: str,
        *,
        hub: str,
        secret: str,
        keys: Mapping[str, Collection[str]],
        log: Log,
        index: Index,
        methods: Mapping[str, Method],
        tick: Callable[[], None],
        writes: Writes,
        retain_bytes: int | None = None,
        warn: Callable[[str], None] = lambda _: None,
        workers: int | None = None,
    ) -> None:
        """Bind the socket, as `Door`; `keys`: each client's -> the methods that it opens; `workers`: see `Intake`."""
        self._hub, self._keys, self._log, self._index = hub, keys, log, index
        self._tick, self._warn, self._writes = tick, warn, writes
        self._retain, self._retained = retain_bytes, log.segment
        self._sessions: dict[bytes, _Session] = {}
        self._strangers: dict[bytes, float] = {}
        self._received = dict(index.clients)
        self._intake = Intake(workers, self.wake)
        self._commit_at = self._rest_until = 0.0
        self._to_ack: dict[bytes, bytes] = {}
        self._commit: _Commit | None = None
        self._writer = ThreadPoolExecutor(1, "log")
        self._saved_at = time.monotonic()
        self.counters: Counter[str] = Counter()
        self._requests = Requests(methods, self._send, self._is_there, log.folder.parent)
        self._stopping = threading.Event()
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._door = Door(bind, secret, keys)
        self._socket, self.address = self._door.socket, self._door.address

    @property
    def clients(self) -> int:
        """Clients that have greeted this process."""
        return len({session.client for session in self._sessions.values()})

    def wake(self) -> None:
        """Look at the parked requests now. Any thread."""
        with contextlib.suppress(OSError):  # full: it is awake already; closed: nobody waits
            self._waker.send(b"\0")

    def stop(self) -> None:
        """Let `run` return once everything received is durable. Any thread."""
        self._stopping.set()
        self.wake()

    def run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._woken.fileno(), zmq.POLLIN)
        if self._door.gate is not None:
            poller.register(self._door.gate, zmq.POLLIN)
        try:
            while not self._stopping.is_set():
                # While there is no room nothing is read; the end of some work wakes us.
                poller.register(self._socket, 0 if self._is_full else zmq.POLLIN)
                ready = dict(poller.poll(self._timeout_ms()))
                if self._woken.fileno() in ready:
                    with contextlib.suppress(BlockingIOError):
                        self._woken.recv(4096)
                    self._requests.look()
                if self._door.gate in ready:
                    self._door.answer()
                if self._socket in ready:
                    self._drain()
                self._advance()
                self._keep_time()
        finally:
            while self._commit or self._to_ack:
                self._advance(last=True)
            self._writer.shutdown()
            self._intake.close()
            with contextlib.suppress(sqlite3.Error):  # the log has it all
                self._index.save()
            self._door.close()
            self._waker.close()
            self._woken.close()

    def _timeout_ms(self) -> int:
        """Until something is due: a commit, the end of a request's patience, or the next tick."""
        # While a commit is written, or its replies are decoded, none need begin; the end of that work wakes us.
        due = self._commit_at if self._due and not self._commit else math.inf
        due = min(due, self._requests.next_end)
        return int(min(_TICK_MS, max(0.0, (due - time.monotonic()) * 1000 + 1)))

    def _keep_time(self) -> None:
        now = time.monotonic()
        if now >= self._requests.next_end:
            self._requests.look()
        if now - self._saved_at < _SAVE_SECONDS and self._index.unsaved_bytes < _SAVE_BYTES:
            return
        self._saved_at = now
        self._requests.drop_gone()
        try:
            self._index.save()
            self._tick()
        except sqlite3.Error as error:
            self._cannot_save(error)
        else:
            self._writes.succeed(_DATABASE)
        if self._retain is not None and self._log.segment != self._retained:
            self._retained = self._log.segment
            self._delete_old(self._retain)

    def _delete_old(self, limit: int) -> None:
        deleted = self._index.retain(limit)
        if deleted:
            dropped = self._index.counters["dropped_events"]
            self._warn(
                f"deleted {deleted} old segments to stay within {limit} bytes; "
                f"{dropped} events that belong to no rollout have been deleted so far"
            )

    # --- messages

    def _drain(self) -> None:
        """Take what has arrived, until there is enough for a commit."""
        for _ in range(256):
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                self._message(frames)
            except Exception:  # whatever it holds, it is one message
                self.counters["garbage"] += 1
                _log.exception("a message could not be handled and was thrown away")
            if self._is_full:
                return

    @property
    def _is_full(self) -> bool:
        return self._intake.bytes >= _COMMIT_BYTES + self._intake.room

    def _message(self, frames: list[bytes]) -> None:
        match frames:
            case [peer, wire.BATCH, header, body]:
                self._batch(peer, header, body)
            case [peer, wire.REQUEST, payload]:
                if (session := self._sessions.get(peer)) is None:
                    self._stranger(peer)
                elif not self._requests.take(peer, payload, session.methods):
                    self.counters["garbage"] += 1
            case [peer, wire.HELLO, payload]:
                self._hello(peer, payload)
            case _:
                self.counters["garbage"] += 1

    def _send(self, peer: bytes, kind: bytes, payload: bytes) -> bool:
        try:
            self._socket.send_multipart([peer, kind, payload], zmq.NOBLOCK)
        except zmq.ZMQError:  # gone, or it does not read: it comes back with HELLO
            self._sessions.pop(peer, None)
            return False
        return True

    def _hello(self, peer: bytes, payload: bytes) -> None:
        try:
            hello = wire.unpack(payload[:_HELLO_BYTES])
            client, key, protocol = hello["client"], hello["key"], hello["protocol"]
            if not (isinstance(client, bytes) and len(client) == 16 and isinstance(key, str)):
                raise ValueError("malformed")
        except (ValueError, TypeError, KeyError, RecursionError):
            self.counters["garbage"] += 1
            return
        if protocol != wire.PROTOCOL:
            reason = f"protocol {protocol!r} is not {wire.PROTOCOL}: install the same lightning-agent-sdk on both sides"
        elif (methods := self._methods_of(key)) is None:
            reason = "wrong key"
        else:
            if len(self._sessions) >= _MAX_SESSIONS:
                del self._sessions[next(iter(self._sessions))]
            self._sessions[peer] = _Session(client, methods)
            self._welcome(peer, client)
            return
        self.counters["refused"] += 1
        self._send(peer, wire.REFUSED, _pack({"reason": reason}))

    def _is_there(self, peer: bytes) -> bool:
        """Whether a peer is connected, which only sending it something shows."""
        session = self._sessions.get(peer)
        return session is not None and self._welcome(peer, session.client)

    def _methods_of(self, shown: str) -> Collection[str] | None:
        """The methods that a key opens; None if it is not one of the hub's."""
        found = None
        for key, methods in self._keys.items():  # all of them, so that time tells nothing
            if key and hmac.compare_digest(shown.encode(errors="replace"), key.encode(errors="replace")):
                found = methods
        return found

    def _welcome(self, peer: bytes, client: bytes) -> bool:
        return self._send(peer, wire.WELCOME, _pack({"hub": self._hub, "acked": self._index.clients.get(client, 0)}))

    def _stranger(self, peer: bytes) -> None:
        """A peer that has not greeted this process, as after a restart of the hub: ask it to."""
        self.counters["strangers"] += 1
        now = time.monotonic()
        if now - self._strangers.get(peer, 0.0) > _ASK_SECONDS:
            if len(self._strangers) >= 1000:
                self._strangers.clear()
            self._strangers[peer] = now
            self._send(peer, wire.HELLO, _pack({"hub": self._hub}))

    # --- events

    def _batch(self, peer: bytes, header: bytes, body: bytes) -> None:
        session = self._sessions.get(peer)
        if session is None:
            self._stranger(peer)
            return
        try:
            batch = EventBatch.read(header, body)
            if batch.client != session.client or not batch.count:
                raise ValueError("batch of another client, or of nothing")
            if time.monotonic() >= self._rest_until:
                self._in_order(peer, session, batch)
        except ValueError as error:
            self.counters["garbage"] += 1
            if self.counters["garbage"] <= 10:
                _log.warning("a batch was thrown away: %s", error)

    def _in_order(self, peer: bytes, session: _Session, batch: EventBatch) -> None:
        expected = self._received.get(batch.client, 0) + 1
        if batch.first > expected:
            self.counters["gaps"] += 1
            now = time.monotonic()
            if now - session.asked > _ASK_SECONDS:
                session.asked = now
                self._welcome(peer, batch.client)
            return
        session.asked = 0.0
        if not self._to_ack:
            self._commit_at = time.monotonic() + _COMMIT_SECONDS
        self._to_ack[peer] = batch.client
        known = min(expected - batch.first, batch.count)
        self.counters["duplicates"] += known
        if known < batch.count:
            self._intake.put(batch, known)
            self._received[batch.client] = batch.first + batch.count - 1

    # --- commits

    def _advance(self, last: bool = False) -> None:
        """End the commit that is written by now, and begin the next one if it is due. `last`: wait, and it is."""
        full = self._intake.bytes >= _COMMIT_BYTES and self._intake.ready
        if self._commit is not None and (full or last or self._commit.positions.done()):
            commit, self._commit = self._commit, None
            self._end_commit(commit)
        if self._commit is None and (
            (last and self._to_ack) or (self._due and (full or time.monotonic() >= self._commit_at))
        ):
            self._begin_commit(last)

    @property
    def _due(self) -> bool:
        """Whether there is something that could be written, or acknowledged, now."""
        return self._intake.ready or any(not self._intake.waits(client) for client in self._to_ack.values())

    def _begin_commit(self, last: bool) -> None:
        batches = self._intake.take(_COMMIT_BYTES, wait=last)
        durable = {each.batch.client: each.batch.first + each.batch.count - 1 for each in batches}
        acks = {}
        for peer, client in list(self._to_ack.items()):
            if not self._intake.waits(client):
                del self._to_ack[peer]
            elif client not in durable:
                continue
            acks[peer] = durable.get(client, self._index.clients.get(client, 0))
        records = [(each.header, each.batch.body) for each in batches]
        self._commit = _Commit(batches, acks, self._writer.submit(self._log.append, records))
        self._commit.positions.add_done_callback(lambda _: self.wake())

    def _end_commit(self, commit: _Commit) -> None:
        """Acknowledge what is durable now, then index it."""
        try:
            positions = commit.positions.result()
        except OSError as error:
            self._cannot_write(error)
            return
        self._writes.succeed(_EVENTS)
        for peer, acked in commit.acks.items():
            self._send(peer, wire.ACK, _pack({"acked": acked}))
        for position, each in zip(positions, commit.batches, strict=True):
            self._index.add(position, each.batch, each.located)
            self._index.counters.update(each.counters)

    def _cannot_write(self, error: OSError) -> None:
        """A full disk: take nothing, acknowledge nothing; clients keep their events and send them again."""
        self._received = dict(self._index.clients)
        self._intake.clear()
        self._to_ack = {}
        self._rest_until = time.monotonic() + _REST_SECONDS
        self.counters["write_errors"] += 1
        self._writes.fail(_EVENTS, error, "events wait in the agents' processes")

    def _cannot_save(self, error: sqlite3.Error) -> None:
        """The log is the truth: what is not in the database is read from it again, now or at the next start."""
        self.counters["write_errors"] += 1
        self._writes.fail(_DATABASE, error, "the log has it all")
