"""The feed: what happens in a run, numbered, for those who watch it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lightning_sdk.hub.events import Event, LastEvent, to_message

_MAX_EVENTS = 10_000


@dataclass(frozen=True, slots=True)
class PublishedEvent:
    """An event and its place in the feed."""

    number: int
    """From 1."""
    time: float
    """Unix time in seconds."""
    event: Event

    def as_message(self) -> dict[str, Any]:
        """Plain data, for those who watch."""
        return {"number": self.number, "time": self.time, **to_message(self.event)}


class Feed:
    """The events of a hub. Any thread publishes."""

    def __init__(self) -> None:
        self._events: deque[PublishedEvent] = deque(maxlen=_MAX_EVENTS)
        self._lock = threading.Lock()
        self._n = 0
        self._ending: tuple[int, LastEvent] | None = None
        self.on_publish: Callable[[], None] = lambda: None
        """Called after each event, on the publisher's thread."""

    def publish(self, event: Event) -> None:
        with self._lock:
            self._n += 1
            self._events.append(PublishedEvent(self._n, time.time(), event))
            if isinstance(event, LastEvent):
                self._ending = self._n, event
        self.on_publish()

    @property
    def count(self) -> int:
        """The number of the newest event."""
        return self._n

    def ending_after(self, n: int) -> LastEvent | None:
        """The newest event that ends a run, if its number is above `n`."""
        found = self._ending
        return found[1] if found is not None and found[0] > n else None

    def after(self, n: int) -> list[PublishedEvent]:
        """Events with a number above `n`, oldest first; the last 10,000 are kept."""
        with self._lock:
            return [each for each in self._events if each.number > n]
