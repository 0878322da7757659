"""The scope of a piece of running code: which rollout it belongs to and which role speaks.

A scope is one immutable value in one context variable, so it follows asyncio tasks by itself. The variable is never
held across a `yield`: a generator enters its scope anew for each of its steps, otherwise the scope would leak into
whoever consumes it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from contextvars import ContextVar, Token
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the calls of trainable roles go."""

    url: str
    model: str
    key: str


class RolloutScope:
    """The rollout under way, as its spans see it."""

    __slots__ = ("broken", "calls", "endpoint", "id", "key", "roles", "sampling")

    def __init__(
        self,
        rollout_id: str,
        key: bytes,
        endpoint: Endpoint | None = None,
        sampling: dict[str, Any] | None = None,
        roles: frozenset[str] = frozenset(),
    ) -> None:
        self.id = rollout_id
        self.key = key
        self.endpoint = endpoint
        """None: calls are recorded and go where they always went."""
        self.sampling = sampling or {}
        """Request fields that replace the agent's own in trainable calls."""
        self.roles = roles
        """Roles to train; empty: every role declared trainable."""
        self.calls = 0
        self.broken = ""
        """What failed of ours during a call, '' if nothing did."""


@dataclass(frozen=True, slots=True)
class Scope:
    rollout: RolloutScope | None = None
    role: str = ""
    trainable: bool = False
    span: str = ""
    """Id of the enclosing span, '' at the top."""
    named: bool = False
    """The role was given to a decorator by name, so that no framework inside may change it."""
    ambient: str = ""
    """What a framework's own context said when this scope was made: only what it says anew is nearer."""

    def endpoint(self) -> Endpoint | None:
        """Where a call made here is sent instead, None if it stays where it goes."""
        rollout = self.rollout
        if rollout is None or rollout.endpoint is None:
            return None
        chosen = self.role in rollout.roles if rollout.roles else self.trainable
        return rollout.endpoint if chosen else None


_current: ContextVar[Scope] = ContextVar("lightning_scope", default=Scope())  # noqa: B039 - frozen
current = _current.get

#: Ask a framework's own context variable who speaks; '' if it does not know. Kept by `lightning_sdk.speaking`.
speakers: list[Callable[[], str]] = []


def ambient() -> str:
    """Who speaks according to the contexts of the frameworks themselves, '' if none says."""
    for speaker in speakers:
        if said := speaker():
            return said
    return ""


def speaking() -> Scope:
    """The current scope, with the role of a call made here.

    A decorator's explicit name comes first, then whatever is nearest: a decorator, a framework's agent, or what the
    framework's own context says.
    """
    scope = _current.get()
    if not scope.named and speakers and (said := ambient()) and said != scope.ambient:
        return replace(scope, role=said)
    return scope


# Its own generator: the user may seed the global one, and the operating system's costs a call that gives up the GIL.
_random = random.Random()
os.register_at_fork(after_in_child=_random.seed)


def new_span_id() -> str:
    """16 hex digits, as OpenTelemetry's."""
    return f"{_random.getrandbits(64):016x}"


class entered:  # noqa: N801 - reads as a verb: `with entered(scope):`
    """Enter a scope for the length of a `with` block that does not yield."""

    __slots__ = ("_scope", "_token")

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def __enter__(self) -> Scope:
        self._token: Token[Scope] = _current.set(self._scope)
        return self._scope

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        leave(self._token)


def enter(scope: Scope) -> Token[Scope]:
    """Set the scope until `leave`, for context managers that cannot use `entered`."""
    return _current.set(scope)


def leave(token: Token[Scope]) -> None:
    """Undo a `set`; harmless when a coroutine is finished in another context than it began in."""
    try:
        _current.reset(token)
    except ValueError:
        _current.set(token.old_value if isinstance(token.old_value, Scope) else Scope())
