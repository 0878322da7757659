"""The feed: what happens in a run, numbered, for those who watch it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

_MAX_EVENTS = 10_000
_ENDING_TYPES = frozenset({"finished", "failed"})


class Feed:
    """Events {"number", "time", "type", ...} from 1. Any thread publishes."""

    def __init__(self) -> None:
        self._events: deque[dict[str, Any]] = deque(maxlen=_MAX_EVENTS)
        self._lock = threading.Lock()
        self._n = 0
        self.ending: dict[str, Any] | None = None
        """The newest event that ends a run, 'finished' or 'failed'."""
        self.on_publish: Callable[[], None] = lambda: None
        """Called after each event, on the publisher's thread."""

    def publish(self, kind: str, **fields: Any) -> None:
        """Append an event; fields are plain data."""
        with self._lock:
            self._n += 1
            event = {"number": self._n, "time": time.time(), "type": kind, **fields}
            self._events.append(event)
            if kind in _ENDING_TYPES:
                self.ending = event
        self.on_publish()

    @property
    def count(self) -> int:
        """The number of the newest event."""
        return self._n

    def after(self, n: int) -> list[dict[str, Any]]:
        """Events with a number above `n`, oldest first; the last 10,000 are kept."""
        with self._lock:
            return [event for event in self._events if event["number"] > n]
