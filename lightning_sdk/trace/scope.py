"""The scope of running code: the rollout and the role that it belongs to.

A scope is one immutable value in one context variable, so asyncio tasks inherit it. The variable is never
held across a `yield`: a generator enters its scope again for each of its steps, otherwise the scope would leak into
its consumer.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar, Token
from dataclasses import dataclass, replace
from itertools import zip_longest
from types import TracebackType
from typing import Any, Protocol

from lightning_sdk.prompts.candidate import Candidate


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the calls of trainable roles go."""

    url: str
    """Base URL with the version, such as http://127.0.0.1:8123/v1. A wildcard host, as in http://0.0.0.0:8123/v1, means
    the machine of the hub: runners replace it with the name by which they reach the hub."""
    model: str
    key: str
    divisible: bool = False
    """Whether the server also accepts keys that the hub derives from this one, each for one rollout."""


class RolloutScope:
    """The current rollout, as far as its spans need it."""

    __slots__ = (
        "_drawn", "_home", "at_end", "broken", "calls", "candidate", "ended", "endpoint", "id", "key", "marks",
        "metered", "rewarded", "roles", "sampling",
    )  # fmt: skip

    def __init__(
        self,
        rollout_id: str,
        key: bytes,
        endpoint: Endpoint | None = None,
        sampling: dict[str, Any] | None = None,
        roles: frozenset[str] = frozenset(),
        candidate: Candidate | None = None,
        metered: bool = False,
        marks: set[str] | None = None,
    ) -> None:
        self.id = rollout_id
        self.key = key
        self.endpoint = endpoint
        """None: calls are recorded and go where they always went."""
        self.sampling = sampling or {}
        """Request fields that replace the agent's own in trainable calls."""
        self.roles = roles
        """Roles to train; empty: every role declared trainable."""
        self.candidate = candidate
        """Other texts for some of the agent's prompts, the same ones until it ends; None: all are as they are."""
        self.metered = metered
        """Whether the hub is asked before each request, because the run has a budget of calls, tokens or money."""
        self.marks = marks
        """Names of the texts that `lightning.prompt` has marked in it and that were reported; None: nobody asks."""
        self.calls = 0
        self.broken = ""
        """What failed of ours during a call, '' if nothing did."""
        self.rewarded = False
        """Somebody gave it a reward: a function, or code inside."""
        self.at_end: list[Callable[[], object]] = []
        """Run once when the rollout ends, ahead of the event that says so."""
        self.ended = False
        """It is over, as far as this process knows."""
        self._drawn: dict[str, Iterator[int]] = {}
        self._home: tuple[int, int, int] | None = None

    def settle_here(self) -> None:
        """The code that runs now is the rollout's own, and not only started by it."""
        self._home = _place()

    def is_home(self) -> bool:
        """Whether the thread or task that runs now is the one that runs the rollout."""
        return self._home is None or self._home == _place()

    def seed(self, role: str) -> int | None:
        """The seed of the role's next call, 31 bits; None where sampling is not seeded.

        By role, so that roles that speak at the same time do not exchange theirs.
        """
        if (of_rollout := self.sampling.get("rollout_seed")) is None:
            return None
        return _derive_seed(of_rollout, role, next(self._drawn.setdefault(role, itertools.count())))

    def sampling_elsewhere(self) -> dict[str, Any]:
        """`sampling` for a piece of work in another process, which counts its calls from 0 too: seeded by its place."""
        if (of_rollout := self.sampling.get("rollout_seed")) is None:
            return self.sampling
        number = next(self._drawn.setdefault(_ELSEWHERE, itertools.count()))
        return {**self.sampling, "rollout_seed": _derive_seed(of_rollout, _ELSEWHERE, number)}


#: Names the pieces of work in other processes where roles are named otherwise; no role has a line break in it.
_ELSEWHERE = "\n"


def _derive_seed(of_rollout: int, name: str, number: int) -> int:
    digest = hashlib.blake2b(f"{of_rollout}/{name}/{number}".encode(), digest_size=4).digest()
    return int.from_bytes(digest) >> 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    rollout: RolloutScope | None = None
    role: str = ""
    trainable: bool = False
    span: str = ""
    """Id of the enclosing span, '' at the top."""
    trace: str = ""
    """Trace of that span, 32 hex digits; '' at the top, and in a rollout, whose id is its trace."""
    named: bool = False
    """Whether a decorator named the role, so that no framework inside may change it."""
    agent: str = ""
    """Name that a framework gives the agent whose turn this is, '' outside such a turn."""
    judging: bool = False
    """Whether a reward function runs, whose calls to models are never trained on."""
    shared: bool = False
    """Whether several rollouts share this code, so that its calls belong to no rollout."""
    framework_roles: tuple[str, ...] = ()
    """What the frameworks' own contexts said when this scope was made: only what changed since then is nearer."""

    def endpoint(self) -> Endpoint | None:
        """Where a call made here is sent instead, None if it goes where the agent sends it."""
        rollout = self.rollout
        if rollout is None or rollout.endpoint is None or self.judging:
            return None
        chosen = self.role in rollout.roles if rollout.roles else self.trainable
        return rollout.endpoint if chosen else None

    def owner(self) -> RolloutScope | None:
        """The rollout that what is done here belongs to. Not one that is over, of which only a thread or a task is
        left: that may work for all."""
        rollout = self.rollout
        return None if rollout is None or self.shared or (rollout.ended and not rollout.is_home()) else rollout


def current_task() -> object:
    """The asyncio task that runs here, None if there is none."""
    tasks = sys.modules.get("asyncio.tasks")
    try:
        return tasks.current_task() if tasks is not None else None
    except RuntimeError:  # no loop runs
        return None


def _place() -> tuple[int, int, int]:
    """Process, thread and task."""
    return os.getpid(), threading.get_ident(), id(current_task())


_current: ContextVar[Scope] = ContextVar("lightning_scope", default=Scope())  # noqa: B039 - frozen
current_scope = _current.get

_inherited: ContextVar[Scope | None] = ContextVar("lightning_inherited", default=None)
inherited_scope = _inherited.get


def inherit(scope: Scope) -> None:
    """Go on in `scope` in a thread or task that got one and entered none; an agent that runs here keeps its role."""
    here, base = _current.get(), _inherited.get()
    if here.role and here is not base and (base is not None or here.named):
        own = replace(here, rollout=scope.rollout, span=scope.span, trace=scope.trace, shared=scope.shared)
        _current.set(own)
        return
    _current.set(scope)
    _inherited.set(scope)


#: Ask a framework's own context variable who speaks; '' if it does not know. Kept by `capture.agent_names`.
role_sources: list[Callable[[], str]] = []


def framework_roles() -> tuple[str, ...]:
    """The running agent according to each framework's own context, '' where it does not say."""
    return tuple(ask() for ask in role_sources) if role_sources else ()


def effective_scope() -> Scope:
    """The current scope, with the role of a call made here.

    A decorator's explicit name comes first, then whatever is nearest: a decorator, a framework's agent, or what a
    framework's own context says.
    """
    scope = _current.get()
    if scope.named or not role_sources or (roles := framework_roles()) == scope.framework_roles:
        return scope
    changed = [now for now, before in zip_longest(roles, scope.framework_roles, fillvalue="") if now and now != before]
    return replace(scope, role=changed[0], agent="", framework_roles=roles) if changed else scope


# Its own generator: the user may seed the global one, and the operating system's costs a call that gives up the GIL.
_random = random.Random()
os.register_at_fork(after_in_child=_random.seed)


def new_span_id() -> str:
    """A new span id, 16 hex digits, like OpenTelemetry's."""
    return f"{_random.getrandbits(64):016x}"


def new_trace_id() -> str:
    """A new trace id, 32 hex digits, like OpenTelemetry's."""
    return f"{_random.getrandbits(128):032x}"


class Tracer(Protocol):
    """Another tracer of this process, to which our scopes are spans that its own spans begin under, and vice versa."""

    def enter(self, scope: Scope) -> Callable[[bool], None] | None:
        """Let its spans begin under `scope`; what undoes that, None if nothing was changed. Never raises.

        What undoes it is told whether it runs in another context (`contextvars`) than `enter` did.
        """
        ...

    def parent_span(self, scope: Scope) -> tuple[str, str]:
        """As `parent_span`. Never raises."""
        ...


#: OpenTelemetry, where the user has set it up: kept by `lightning_sdk.capture.telemetry`. None: nothing is looked at.
tracer: Tracer | None = None


def parent_span(scope: Scope) -> tuple[str, str]:
    """Trace ('' in a rollout) and id ('' at the top) of the span that a span begun here in `scope` lies in."""
    return (scope.trace, scope.span) if tracer is None else tracer.parent_span(scope)


class use_scope:  # noqa: N801 - reads as a verb: `with use_scope(scope):`
    """Enter a scope for the length of a `with` block that does not yield."""

    __slots__ = ("_scope", "_token", "_undo")

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def __enter__(self) -> Scope:
        self._undo = None if tracer is None else tracer.enter(self._scope)
        self._token: Token[Scope] = _current.set(self._scope)
        return self._scope

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        elsewhere = False
        try:
            _current.reset(self._token)
        except ValueError:
            elsewhere = True
            # Finished in another context than it began in. That one has another scope, which stays, or it
            # inherited this one.
            if _current.get() is self._scope:
                before = self._token.old_value
                _current.set(before if isinstance(before, Scope) else Scope())
        if self._undo is not None:
            self._undo(elsewhere)
