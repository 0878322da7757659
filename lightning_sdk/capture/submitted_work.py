"""Work that is submitted in one place and done in another: a function with the scope that it was submitted in.

The other place may be a worker process. Only plain data is sent there, and a scope made from it records into that
process's stream, if it has one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from typing import Any

from lightning_sdk.prompts.candidate import Candidate
from lightning_sdk.stream import sink
from lightning_sdk.trace.scope import Endpoint, RolloutScope, Scope, effective_scope, framework_roles, use_scope


def carry(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, to be called in the scope of the code that calls `carry`; itself outside of every scope."""
    scope = effective_scope()
    return function if scope == Scope() or isinstance(function, Work) else Work(function, scope)


def carry_steps(iterable: Iterable[Any]) -> Iterable[Any]:
    """`iterable`, whose items are drawn in the scope of the code that calls `carry_steps`."""
    scope = effective_scope()
    return iterable if scope == Scope() else _draw(iterable, scope)


def _draw(iterable: Iterable[Any], scope: Scope) -> Iterator[Any]:
    with use_scope(scope):
        items = iter(iterable)
    nothing = object()
    while True:
        with use_scope(scope):
            item = next(items, nothing)
        if item is nothing:
            return
        yield item


#: Fields of a scope that are plain data.
_PLAIN = ("role", "trainable", "span", "trace", "named", "agent", "judging", "shared")


class Work:
    """A function and its scope. It can be pickled when the function can."""

    __slots__ = ("_function", "_scope")

    def __init__(self, function: Callable[..., Any], scope: Scope) -> None:
        self._function, self._scope = function, scope

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with use_scope(self._scope):
            return self._function(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return _RemoteWork, (self._function, _to_plain(self._scope))


class _RemoteWork:
    """Work that has arrived in another process."""

    __slots__ = ("_fields", "_function")

    def __init__(self, function: Callable[..., Any], fields: dict[str, Any]) -> None:
        self._function, self._fields = function, fields

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not sink.is_listening():  # nothing would be recorded, and a trained call that is not recorded is lost
            return self._function(*args, **kwargs)
        with use_scope(_from_plain(self._fields)):
            return self._function(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return _RemoteWork, (self._function, self._fields)


def _to_plain(scope: Scope) -> dict[str, Any]:
    fields = {name: getattr(scope, name) for name in _PLAIN}
    rollout = scope.rollout
    if rollout is None:
        return fields
    return fields | {
        "rollout": {
            "rollout_id": rollout.id,
            "key": rollout.key,
            "sampling": rollout.sampling_elsewhere(),
            "roles": rollout.roles,
            "candidate": rollout.candidate.as_message() if rollout.candidate is not None else None,
            "endpoint": asdict(rollout.endpoint) if rollout.endpoint is not None else None,
            "metered": rollout.metered,
            "marks": None if rollout.marks is None else set(),
        }
    }


def _from_plain(fields: dict[str, Any]) -> Scope:
    fields = dict(fields)
    rollout = fields.pop("rollout", None)
    scope = Scope(**fields, framework_roles=framework_roles())
    if rollout is None:
        return scope
    endpoint = Endpoint(**rollout["endpoint"]) if rollout["endpoint"] is not None else None
    candidate = Candidate.from_message(rollout["candidate"]) if rollout["candidate"] is not None else None
    return replace(scope, rollout=RolloutScope(**{**rollout, "endpoint": endpoint, "candidate": candidate}))
