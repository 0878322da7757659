"""Phases of a backend's start: where its seconds went, from the moment that its process was asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping


class Phases:
    """One after another, they add up to the whole."""

    def __init__(self, begun: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """`begun`: when the first began, by `time.monotonic`, which all processes of a machine share."""
        self._clock = clock
        self._begun = self._last = clock() if begun is None else begun
        self.seconds: dict[str, float] = {}
        """Of each phase that is over."""

    def end(self, name: str, then: Mapping[str, float] | None = None, *, at: float | None = None) -> None:
        """The phase since the last one is over now, or was `at`; `then`: seconds of those that followed it until now,
        where another process measured them."""
        now = self._clock() if at is None else at
        self.seconds |= {name: now - self._last - sum((then or {}).values()), **(then or {})}
        self._last = now

    def facts(self) -> dict[str, float]:
        """As a report has them: start.PHASE and start.total, in seconds."""
        named = {f"start.{name}": round(seconds, 1) for name, seconds in self.seconds.items()}
        return named | {"start.total": round(self._last - self._begun, 1)}

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.seconds.items())
        return f"started in {self._last - self._begun:.1f} s: {parts}"
