"""The clock: seconds in which this process ran. While the process is paused, no time passes.

A process is paused by Ctrl-Z, together with its machine, or while something else uses the processor. What it waits for
may have happened in the meantime, so that time does not show whether the other side is alive.
"""

from __future__ import annotations

import threading
import time

_LONGEST_SECONDS = 2.0
"""The most that counts between two readings, by default."""


class Clock:
    """Any thread may read it."""

    def __init__(self, longest_seconds: float = 0.0) -> None:
        """`longest_seconds`: within which it is always read again; what is longer was a standstill."""
        self._lock, self._longest_seconds = threading.Lock(), longest_seconds or _LONGEST_SECONDS
        self._read_at, self._seconds = time.monotonic(), 0.0

    def read(self, *, paused: bool = False) -> float:
        """Seconds so far; with `paused` those since the last reading do not count."""
        with self._lock:
            now = time.monotonic()
            if not paused:
                self._seconds += min(now - self._read_at, self._longest_seconds)
            self._read_at = now
            return self._seconds
