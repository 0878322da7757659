"""The clock: seconds in which this process ran. While the process is paused, no time passes.

A process is paused by Ctrl-Z, together with its machine, or while something else uses the processor. What it waits for
may have happened in the meantime, so that time does not show whether the other side is alive.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_LONGEST_SECONDS = 2.0
"""The most that counts between two readings, by default."""


class Clock:
    """Any thread may read it."""

    def __init__(self, longest_seconds: float = 0.0, now: Callable[[], float] = time.monotonic) -> None:
        """`longest_seconds`: within which it is always read again; what is longer was a standstill.

        `now`: the time of the machine, in seconds.
        """
        self._lock, self._longest_seconds = threading.Lock(), longest_seconds or _LONGEST_SECONDS
        self._now = now
        self._read_at, self._seconds = now(), 0.0

    def read(self, *, paused: bool = False) -> float:
        """Seconds so far; with `paused` those since the last reading do not count."""
        with self._lock:
            now = self._now()
            if not paused:
                self._seconds += min(now - self._read_at, self._longest_seconds)
            self._read_at = now
            return self._seconds
