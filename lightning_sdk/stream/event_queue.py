"""The queue of a stream: events that are in no batch yet, and how many bytes they are about."""

from __future__ import annotations

from collections import deque
from typing import Any

_BATCH_EVENTS = 64
_BATCH_BYTES = 2 * 1024 * 1024


class EventQueue:
    """Any thread appends, one takes. No locks: a finalizer may append while the thread that it interrupts does."""

    __slots__ = ("_events", "appended", "packed", "taken")

    def __init__(self) -> None:
        self._events: deque[tuple[tuple[Any, ...], int]] = deque()
        self.appended = self.packed = 0
        """Bytes that were appended, and those of them that have left."""
        self.taken = 0
        """Events that have left the queue."""

    def __len__(self) -> int:
        return len(self._events)

    @property
    def total(self) -> int:
        """Events that were ever appended. Exact, or one too many for an instant."""
        return self.taken + len(self._events)

    def append(self, event: tuple[Any, ...], size: int) -> bool:
        """Whether there is enough for a batch."""
        self.appended += size  # a race loses a few bytes of a bound until the queue is next empty, never an event
        self._events.append((event, size))
        return len(self._events) >= _BATCH_EVENTS

    def take(self) -> list[tuple[Any, ...]]:
        """The events of the next batch."""
        events: list[tuple[Any, ...]] = []
        taken = 0
        while self._events and len(events) < _BATCH_EVENTS and taken < _BATCH_BYTES:
            self.taken += 1
            event, size = self._events.popleft()
            taken += size
            events.append(event)
        self.packed = self.packed + taken if self._events else self.appended
        return events

    def clear(self) -> None:
        while self._events:
            self.take()
