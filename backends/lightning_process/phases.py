"""Phases of a backend's start: where the time went since its process was requested."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping


class Phases:
    """Consecutive phases, which add up to the total time."""

    def __init__(self, begun: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """`begun`: when the first began, by `time.monotonic`, which all processes of a machine share."""
        self._clock = clock
        self._begun = self._last = clock() if begun is None else begun
        self.seconds: dict[str, float] = {}
        """Duration of each finished phase."""

    def end(self, name: str, then: Mapping[str, float] | None = None, *, at: float | None = None) -> None:
        """End the current phase now, or at time `at`. `then`: seconds of later phases up to now that another process
        measured."""
        now = self._clock() if at is None else at
        self.seconds |= {name: now - self._last - sum((then or {}).values()), **(then or {})}
        self._last = now

    def facts(self) -> dict[str, float]:
        """For reports: start.PHASE and start.total, in seconds."""
        named = {f"start.{name}": round(seconds, 1) for name, seconds in self.seconds.items()}
        return named | {"start.total": round(self._last - self._begun, 1)}

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.seconds.items())
        return f"started in {self._last - self._begun:.1f} s: {parts}"
