"""The index: which events of the log belong to which rollout, and what they say of its rewards and its end.

It is derived from the log alone. `save` writes what is new since the last time together with the log position that it
covers; `recover` reads the log again from there.
"""

from __future__ import annotations

import itertools
import threading
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgpack
import numpy as np

from lightning_hub.decoding.events import FIRST_CONTROL, Begin, DecodedEvent, Unusable, decode_event, refuse
from lightning_hub.storage.log import Log
from lightning_hub.storage.rows import AnswerRow, BeginRow, EndRow, ExtentRow, RewardRow
from lightning_hub.storage.store import Store
from lightning_sdk.stream.events import EndEvent, RewardEvent
from lightning_sdk.stream.wire import MAX_MESSAGE_BYTES, NO_ROLLOUT, Event, EventBatch
from lightning_sdk.trace.call import Call, Status

_OUTPUT_CHARACTERS = 2000
#: What the reward function's numbers were called before they had names of their own.
_BEFORE_NAMES = "final"
#: Calls and spans of no rollout that can be read back, the last ones.
_MAX_STRAYS = 2000
_REPLY, _CALL = int(Event.REPLY), int(Event.CALL)
_RECORDED = (int(Event.CALL), int(Event.SPAN))
#: An attempt that is not known here and silent for so long is dropped from memory (not from the store).
_IDLE_SECONDS = 300.0


class Extent(NamedTuple):
    """Where an event is in the log."""

    position: int
    length: int
    """Bytes."""


class Located(NamedTuple):
    """One event inside a batch's body."""

    kind: int
    key: bytes
    start: int
    end: int
    control: DecodedEvent | None = None
    """What a REWARD, BEGIN or END event says."""

    def extent(self, position: int) -> Extent:
        """Where it is, in a body at `position`."""
        return Extent(position + self.start, self.end - self.start)


class End(NamedTuple):
    """What an END event says, after its rewards were looked at."""

    key: bytes
    status: Status
    error: str
    seconds: float
    """Unix time."""
    rewarded: bool
    output: str
    answer: str = ""
    """As JSON; '' if it was not kept."""
    unkept: str = ""
    """Why it was not."""


@dataclass(slots=True, kw_only=True)
class _Entry:
    """What is not yet in the store of one attempt."""

    extents: array[int] = field(default_factory=lambda: array("Q"))
    rewarded: bool = False
    refused: str = ""
    ended: bool = False
    went_well: bool = False
    """An agent that was given up continues for a while, which is not worth a warning."""
    touched: float = 0.0


@dataclass(slots=True, kw_only=True)
class _Unsaved:
    rewards: list[RewardRow] = field(default_factory=list)
    begins: list[BeginRow] = field(default_factory=list)
    ends: list[EndRow] = field(default_factory=list)
    answers: list[AnswerRow] = field(default_factory=list)
    clients: dict[bytes, int] = field(default_factory=dict)
    keys: set[bytes] = field(default_factory=set)
    segments: set[int] = field(default_factory=set)


def _stray_places(position: int, located: Sequence[Located]) -> list[Extent]:
    """Where the calls and spans of no rollout are in the log."""
    return [event.extent(position) for event in located if event.key == NO_ROLLOUT and event.kind in _RECORDED]


def each_extent(flat: array[int]) -> Iterator[Extent]:
    """Positions and lengths, flat, as the store has them, one by one."""
    pairs = iter(flat)
    return itertools.starmap(Extent, zip(pairs, pairs, strict=True))


def locate(body: bytes | memoryview, count: int) -> list[Located]:
    """Where the events of a body are. ValueError if it does not hold exactly `count` events."""
    unpacker = msgpack.Unpacker(max_buffer_size=MAX_MESSAGE_BYTES)
    unpacker.feed(body)
    located, start, skip, tell = list[Located](), 0, unpacker.skip, unpacker.tell
    try:
        for _ in range(count):
            skip()
            end = tell()
            # [kind, key, ...]: a small array, a small integer and 16 bytes, each in its shortest form.
            if body[start] & 0xF0 != 0x90 or body[start + 2 : start + 4] != b"\xc4\x10":
                raise ValueError(f"byte {start} begins no event")
            kind = body[start + 1]
            control = decode_event(body[start:end]) if kind >= FIRST_CONTROL else None
            located.append(Located(kind, bytes(body[start + 4 : start + 20]), start, end, control))
            start = end
    except (msgpack.OutOfData, msgpack.UnpackException, IndexError) as error:
        raise ValueError(f"the body does not hold {count} events: {error!r}") from None
    if start != len(body):
        raise ValueError(f"{len(body) - start} bytes after the last of {count} events")
    return located


class Index:
    """Attempts by key. `add` and `save` belong to the receiver's thread; `extents` may be called from any."""

    def __init__(self, log: Log, store: Store, on_end: Callable[[End], bool]) -> None:
        """`on_end` takes the end of an attempt; False if that attempt is over already."""
        self._log, self._store, self._on_end = log, store, on_end
        self._lock = threading.Lock()
        self._entries: dict[bytes, _Entry] = {}
        self._unsaved = _Unsaved()
        self.clients = store.clients()
        """Client -> its last event number in the log."""
        self.on_call: Callable[[Call], None] | None = None
        """Gets each call of a rollout as it comes in."""
        self.on_strays: Callable[[list[Extent]], None] | None = None
        """Gets the places in the log of calls and spans of no rollout."""
        self.on_unusable: Callable[[int, int, str], None] = lambda *_: None
        """Gets position and length of each event that nothing can be made of, and why."""
        self.counters: Counter[str] = Counter()
        for name in ("events", "undecodable", "malformed", "late", "dropped_events", "dropped_bytes"):
            self.counters[name] = int(store.get(name, 0))
        self.late_calls = 0
        """Calls, of this process's time, under the key of an attempt that had ended well."""
        self._strays: deque[Extent] = deque(maxlen=_MAX_STRAYS)
        self._segments = store.segments()
        self._saved = self._covered = int(store.get("position", 0))

    def recover(self) -> int:
        """Read the log from the last saved position on; the number of events read."""
        before = self.counters["events"]
        for position, batch in self._log.recover(self._saved):
            try:
                located = locate(batch.body, batch.count)
            except ValueError as error:
                self.counters["malformed"] += batch.count
                self.on_unusable(position, len(batch.body), str(error))
                located = []
            self.add(position, batch, located)
            if self.unsaved_bytes > 64 * 2**20:
                self.save()
        self.save()
        return self.counters["events"] - before

    @property
    def unsaved_bytes(self) -> int:
        """Log bytes that would be read again after a crash now; meaningful within one segment only."""
        return self._covered - self._saved

    def add(self, position: int, batch: EventBatch, located: Sequence[Located]) -> None:
        """Take in one batch whose body lies at `position`."""
        self.clients[batch.client] = self._unsaved.clients[batch.client] = batch.first + batch.count - 1
        self.counters["events"] += batch.count
        owned = [event for event in located if event[1] != NO_ROLLOUT]
        # First what belongs to nobody: the end of the last rollout below may have it read.
        if len(owned) < len(located):
            last = located[-_MAX_STRAYS:]
            strays = [event for event in last if event[1] == NO_ROLLOUT and event[0] in _RECORDED]
            with self._lock:
                self._strays.extend(event.extent(position) for event in strays)
            if self.on_strays is not None and (loose := _stray_places(position, located)):
                self.on_strays(loose)
        for event in owned:
            self._take(position, event)
            if self.on_call is not None and event.kind == _CALL:
                found = decode_event(batch.body[event.start : event.end])
                if isinstance(found, Call):
                    self.on_call(found)
        if any(event.kind == _REPLY for event in located):
            self._refuse_replies(position, located)
        self._covered = position + len(batch.body)
        number = position >> 32
        events, was_owned = self._segments.get(number, (0, False))
        self._segments[number] = (events + batch.count, was_owned or bool(owned))
        self._unsaved.segments.add(number)

    def _take(self, position: int, event: Located) -> None:
        entry = self._entries.get(event.key)
        if entry is None:
            entry = self._entries[event.key] = _Entry()
        entry.touched = time.monotonic()
        if entry.ended:
            self.counters["late"] += 1
            self.late_calls += event.kind == Event.CALL and entry.went_well
        with self._lock:
            entry.extents.extend(event.extent(position))
            self._unsaved.keys.add(event.key)
        if event.control is not None:
            self._take_control(entry, position, event)

    def _refuse_replies(self, position: int, located: Sequence[Located]) -> None:
        """What intake could decode is a CALL event here."""
        for event in located:
            if event.kind == _REPLY:
                self.counters["malformed"] += 1
                self.on_unusable(position + event.start, event.end - event.start, "the fields of a call are malformed")

    def _take_control(self, entry: _Entry, position: int, event: Located) -> None:
        match event.control:
            case RewardEvent() as given:
                refused = refuse(given.value, given.role, given.name)
                entry.rewarded, entry.refused = True, entry.refused or refused
                number = None if refused else float(np.float32(given.value))
                by_function = given.name == _BEFORE_NAMES if given.by_function is None else given.by_function
                self._unsaved.rewards.append(
                    RewardRow(
                        key=event.key,
                        role=given.role,
                        name=given.name,
                        value=number,
                        refused=refused,
                        span=given.span,
                        time_ns=given.time_ns,
                        by_function=by_function,
                        why=given.why,
                    )
                )
            case Begin() as begun:
                self._unsaved.begins.append(
                    BeginRow(
                        key=event.key,
                        id=begun.rollout,
                        attempt=1,
                        mode="observe",
                        task_id=-1,
                        task=begun.task,
                        group=begun.rollout,
                        runner="",
                        started=begun.time_ns / 1e9,
                    )
                )
            case EndEvent() as ended if not entry.ended:
                entry.ended, entry.went_well = True, ended.status == Status.OK
                seconds, output = ended.time_ns / 1e9, ended.output[:_OUTPUT_CHARACTERS]
                answer, unkept = ended.answer, ended.unkept
                end = End(event.key, ended.status, ended.error, seconds, entry.rewarded, output, answer, unkept)
                self._end(entry, end)
            case Unusable(why=why):
                self.counters["malformed"] += 1
                self.on_unusable(position + event.start, event.end - event.start, why)

    def _end(self, entry: _Entry, end: End) -> None:
        stored, refused = self._store.reward_status(end.key)
        end = end._replace(rewarded=stored or entry.rewarded)
        refused = entry.refused or refused
        if refused and end.status == Status.OK:
            end = end._replace(status=Status.REWARD_ERROR, error=refused)
        if self._on_end(end):
            self._unsaved.ends.append(EndRow(str(end.status), end.error, end.output, end.seconds, end.key))
            self._unsaved.answers.append(AnswerRow(end.answer, end.unkept, end.key))
        else:
            self.counters["late"] += 1

    def extents(self, key: bytes) -> array[int]:
        """Positions and lengths, flat, of every event of an attempt so far."""
        with self._lock:
            pairs = self._store.extents(key)
            entry = self._entries.get(key)
            return pairs + entry.extents if entry is not None else pairs

    def strays(self) -> Iterator[DecodedEvent]:
        """Calls and spans of no rollout, in the order of the log: the last ones of this process's time."""
        with self._lock:
            places = list(self._strays)
        for position, length in places:
            try:
                yield decode_event(self._log.read(position, length))
            except OSError:
                continue  # its segment was deleted since

    def save(self) -> None:
        """Write what is new, with the position it covers, in one transaction."""
        if self._covered == self._saved:
            return
        # One lock around both: a reader sees an extent in the store or in memory, never in both.
        with self._lock:
            with self._store.transaction():
                self._write(self._unsaved)
            self._forget(self._unsaved.keys)
        self._unsaved, self._saved = _Unsaved(), self._covered

    def _write(self, unsaved: _Unsaved) -> None:
        self._store.begin(unsaved.begins)
        self._store.put_rewards(unsaved.rewards)
        self._store.end(unsaved.ends)
        self._store.put_answers(unsaved.answers)
        self._store.put_extents(ExtentRow(key, self._entries[key].extents.tobytes()) for key in unsaved.keys)
        self._store.put_clients(unsaved.clients)
        self._store.put_segments({n: self._segments[n] for n in unsaved.segments if n in self._segments})
        self._store.put({"position": self._covered, **self.counters})

    def _forget(self, saved: set[bytes]) -> None:
        """Drop from memory what the store holds now."""
        for key in saved:
            self._entries[key].extents = array("Q")
        oldest = time.monotonic() - _IDLE_SECONDS
        for key in [key for key, entry in self._entries.items() if entry.touched < oldest]:
            del self._entries[key]

    def at(self, places: Iterable[Extent]) -> Iterator[DecodedEvent]:
        """The events at these places of the log."""
        for position, length in places:
            yield decode_event(self._log.read(position, length))

    def retain(self, limit: int) -> int:
        """Delete the oldest closed segments without events of a rollout until the log has `limit` bytes; how many."""
        deleted, size = 0, self._log.bytes()
        for number in self._log.segments():
            events, owned = self._segments.get(number, (0, True))
            if size <= limit or number == self._log.segment:
                break
            if not owned:
                freed = self._log.delete(number)
                size, deleted = size - freed, deleted + 1
                self.counters["dropped_events"] += events
                self.counters["dropped_bytes"] += freed
                del self._segments[number]
                self._store.delete_segment(number)
        return deleted

    def events(self, key: bytes, until: int | None = None) -> Iterator[DecodedEvent]:
        """Every event of an attempt, in the order of the log, up to the position `until`."""
        for position, length in each_extent(self.extents(key)):
            if until is None or position < until:
                yield decode_event(self._log.read(position, length))
