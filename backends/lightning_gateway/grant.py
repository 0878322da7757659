"""A grant: the right to call models and give rewards in one scope, for the holder of its key.

A key has 192 random bits, independent of other keys, and stops working when its rollout ends.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable

from lightning_gateway.recording import Recording
from lightning_sdk.trace.scope import Scope

PREFIX = "lr-"
"""Prefix of every key, so that none is passed on to a provider."""


class Grant:
    """One key and what it stands for."""

    def __init__(self, scope: Scope, *, closable: bool = False) -> None:
        self.key = PREFIX + secrets.token_urlsafe(24)
        self.scope = scope
        self.closable = closable
        """Whether the holder of the key may end the rollout, because it was begun by request and not by code here."""
        self.calls = 0
        self._lock = threading.Lock()
        self._open: set[Recording] = set()
        self._ended = False

    def begin_call(self, recording: Recording) -> bool:
        """Register a running call. False if the rollout has ended."""
        with self._lock:
            if not self._ended:
                self.calls += 1
                self._open.add(recording)
            return not self._ended

    def finish_call(self, recording: Recording) -> None:
        with self._lock:
            self._open.discard(recording)

    def end(self) -> bool:
        """Stop all running calls and send what was recorded of them. False if this was done before."""
        with self._lock:
            if self._ended:
                return False
            self._ended, left = True, list(self._open)
        for recording in left:
            recording.close(why="its rollout ended")
            recording.stop()
        return True


class Grants:
    """All grants of a gateway. Thread-safe."""

    def __init__(self) -> None:
        self._by_key: dict[str, Grant] = {}
        self._by_scope: dict[Scope, Grant] = {}
        self._lock = threading.Lock()

    def of(self, scope: Scope) -> Grant:
        """The grant for a scope of this process, always the same one until its rollout ends."""
        with self._lock:
            grant = self._by_scope.get(scope)
            if grant is None:
                grant = self._by_scope[scope] = Grant(scope)
                self._by_key[grant.key] = grant
                if scope.rollout is not None:
                    scope.rollout.at_end.append(self._ender(grant))
            return grant

    def begin(self, scope: Scope) -> Grant:
        """A new grant whose holder ends the rollout."""
        grant = Grant(scope, closable=True)
        self._by_key[grant.key] = grant
        if scope.rollout is not None:
            scope.rollout.at_end.append(self._ender(grant))
        return grant

    def find(self, key: str) -> Grant | None:
        return self._by_key.get(key)

    def active(self) -> list[Grant]:
        """Grants whose rollouts have not ended."""
        return list(self._by_key.values())

    def _ender(self, grant: Grant) -> Callable[[], None]:
        def end() -> None:
            with self._lock:
                self._by_key.pop(grant.key, None)
                self._by_scope.pop(grant.scope, None)
            grant.end()

        return end
