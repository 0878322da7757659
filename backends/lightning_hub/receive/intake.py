"""Intake: batches between their arrival and the log, in order, with raw replies decoded on the way.

Decoding a raw reply costs several times as much as everything else that is done with it. If there are enough cores,
worker processes do it, so that a single Python interpreter is not the limit. Otherwise the receiver's thread does it.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from typing import NamedTuple

import msgspec

from lightning_hub.decoding.events import decode_event
from lightning_hub.decoding.replies import decode, unreadable
from lightning_hub.storage.index import Located, locate
from lightning_sdk.stream.events import CallEvent, ReplyEvent
from lightning_sdk.stream.wire import Event, EventBatch

#: Bytes taken in for each worker before the receiver stops reading: what it works on, and what comes next.
_AHEAD_BYTES = 4 * 2**20
# Plain integers: an enum's members are slow to look up, and this is done for every event.
_REPLY, _CALL = int(Event.REPLY), int(Event.CALL)
_log = logging.getLogger(__name__)
_pack = msgspec.msgpack.Encoder().encode


class PreparedBatch(NamedTuple):
    """A batch as it is logged."""

    batch: EventBatch
    header: bytes
    located: list[Located]
    counters: Counter[str]
    """What could not be decoded."""


class _Arrival(NamedTuple):
    batch: EventBatch
    known: int
    work: Future[PreparedBatch] | PreparedBatch

    @property
    def is_done(self) -> bool:
        return isinstance(self.work, PreparedBatch) or self.work.done()


class Intake:
    """A queue of batches. One thread, but for what `on_done` does."""

    def __init__(self, workers: int | None, on_done: Callable[[], None]) -> None:
        """`workers`: processes that decode; None: as many as leave half of the cores alone, 4 at most. `on_done` is
        called, by another thread, when one of them has finished a batch."""
        self._workers = spare_workers() if workers is None else workers
        # A pool for each worker: one pool's workers take turns at one pipe, which is what then would be full.
        self._pools: deque[ProcessPoolExecutor] = deque()
        self._on_done = on_done
        self._arrivals: deque[_Arrival] = deque()
        self._clients: Counter[bytes] = Counter()
        self.bytes = 0
        """Of batches that wait here."""

    @property
    def room(self) -> int:
        """Bytes that may wait here beyond one commit."""
        return self._workers * _AHEAD_BYTES

    @property
    def ready(self) -> bool:
        """Whether the oldest batch can be taken."""
        return bool(self._arrivals) and self._arrivals[0].is_done

    def waits(self, client: bytes) -> bool:
        """Whether a batch of this client is here."""
        return client in self._clients

    def put(self, batch: EventBatch, known: int) -> None:
        """Take a batch in, without its first `known` events. ValueError if it does not hold what it says."""
        located = locate(batch.body, batch.count)
        raw = any(event.kind == _REPLY for event in located)
        work = (self._submit(batch, known) if self._workers and raw else None) or prepare(batch, known, located)
        self._arrivals.append(_Arrival(batch, known, work))
        self._clients[batch.client] += 1
        self.bytes += len(batch.body)

    def take(self, limit: int, *, wait: bool) -> list[PreparedBatch]:
        """The oldest batches that are ready, in order, up to about `limit` bytes. `wait`: all of them."""
        taken: list[PreparedBatch] = []
        size = 0
        while self._arrivals and (wait or (self.ready and size < limit)):
            arrival = self._arrivals.popleft()
            taken.append(self._result(arrival))
            self.bytes -= len(arrival.batch.body)
            size += len(taken[-1].batch.body)
            self._clients[arrival.batch.client] -= 1
            if not self._clients[arrival.batch.client]:
                del self._clients[arrival.batch.client]
        return taken

    def clear(self) -> None:
        """Forget everything; clients send it again."""
        self._arrivals.clear()
        self._clients.clear()
        self.bytes = 0

    def close(self) -> None:
        for pool in self._pools:
            pool.shutdown(cancel_futures=True)

    def _submit(self, batch: EventBatch, known: int) -> Future[PreparedBatch] | None:
        try:
            if len(self._pools) < self._workers:
                context = multiprocessing.get_context("spawn")  # this process has threads and sockets
                self._pools.append(ProcessPoolExecutor(1, context, _end_with_parent))
            self._pools.rotate()
            work = self._pools[0].submit(prepare, batch, known)
        except (OSError, RuntimeError) as error:
            self._do_without(error)
            return None
        work.add_done_callback(lambda _: self._on_done())
        return work

    def _result(self, arrival: _Arrival) -> PreparedBatch:
        if isinstance(arrival.work, PreparedBatch):
            return arrival.work
        try:
            return arrival.work.result()
        except Exception as error:  # a worker was killed, for one
            self._do_without(error)
            return prepare(arrival.batch, arrival.known)

    def _do_without(self, error: Exception) -> None:
        if self._workers:
            _log.warning("replies are decoded without worker processes from now on: %r", error)
        self._workers = 0


def spare_workers() -> int:
    """Processes that leave half of the cores to the agent and the rest of the hub; 4 are enough for any disk."""
    return max(0, min(4, len(os.sched_getaffinity(0)) // 2 - 1))


def prepare(batch: EventBatch, known: int, located: list[Located] | None = None) -> PreparedBatch:
    """What is logged of a batch: its events after the first `known`, REPLY events decoded into CALL."""
    located = (located or locate(batch.body, batch.count))[known:]
    counters = Counter[str]()
    if known or any(event.kind == _REPLY for event in located):
        batch, located = _rewrite(batch, located, counters)
    return PreparedBatch(batch, batch.header(), located, counters)


def _rewrite(batch: EventBatch, located: list[Located], counters: Counter[str]) -> tuple[EventBatch, list[Located]]:
    """The batch with only these events, which are its last, and with REPLY events decoded."""
    parts: list[memoryview] = []
    moved: list[Located] = []
    end = 0
    body = memoryview(batch.body)
    for event in located:
        part = body[event.start : event.end]
        if event.kind == _REPLY:
            part = _decode_reply(part, counters)
        start, end = end, end + len(part)
        parts.append(part)
        moved.append(Located(part[1], event.key, start, end, event.control))
    first = batch.first + batch.count - len(parts)
    return EventBatch(batch.client, first, len(parts), b"".join(parts)), moved


def _decode_reply(event: memoryview, counters: Counter[str]) -> memoryview:
    """The CALL event of a REPLY event. Never raises: what is not a reply stays as it is, and the index reports it."""
    found = decode_event(event)
    if not isinstance(found, ReplyEvent):
        return event
    _, key, meta, request, reply = found
    try:
        call = decode(meta, request, reply)
    except Exception:  # whatever it holds, it is one event
        return event
    try:
        packed = _pack(CallEvent(Event.CALL, key, call.pack()))
    except Exception as error:
        call = unreadable(meta, request, reply, error)
        packed = _pack(CallEvent(Event.CALL, key, call.pack()))
    if call.reply:
        counters["undecodable"] += 1
    return memoryview(packed)


def _end_with_parent() -> None:
    """In a worker: end when the hub does, however it does; the pipe between them would not say."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
