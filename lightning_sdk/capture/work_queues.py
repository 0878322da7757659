"""Work queues: which rollout the work belongs to that a worker takes out of a queue.

A user's worker is a thread or a task that takes items out of a `queue.Queue` or an `asyncio.Queue`. The first rollout
starts it and all rollouts share it, so the scope that it inherited is meaningless: its work belongs to the rollout that
put the item there. If the item could also be a resource that all share, such as a client, its calls belong to no
rollout, which is reported. The thread or task that runs a rollout's own agent stays in its rollout, whatever it takes
from a queue, and so does work that was submitted to a pool.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from lightning_sdk.capture.patches import Patches
from lightning_sdk.stream.sink import harmless
from lightning_sdk.trace.scope import Scope, current_scope, current_task, effective_scope, inherit, inherited_scope

_QUEUES = ("Queue", "PriorityQueue", "LifoQueue")
_IMMUTABLE = 1 << 8
"""Py_TPFLAGS_IMMUTABLETYPE."""
_works_for: ContextVar[Any] = ContextVar("lightning_queue", default=None)
"""The queue whose item gave this worker its scope."""


class _Putters:
    """Who put the items that wait in one queue. The queue's lock, or its loop, guards it."""

    def __init__(self) -> None:
        self._waiting: dict[int, deque[tuple[Any, Scope]]] = {}

    def put(self, item: Any, scope: Scope) -> None:
        self._waiting.setdefault(id(item), deque()).append((item, scope))

    def take(self, item: Any) -> Scope | None:
        """None if it was put outside of rollouts."""
        if not (found := self._waiting.get(id(item))):
            return None
        scope = found.popleft()[1]
        if not found:
            del self._waiting[id(item)]
        return scope

    def clear(self) -> None:
        self._waiting.clear()


_putters: weakref.WeakKeyDictionary[Any, _Putters] = weakref.WeakKeyDictionary()


def follow_queues(patches: Patches) -> None:
    """Let workers that take items out of queues work for the rollouts that put them there."""
    for module in ("queue", "asyncio.queues"):
        instrument = functools.partial(_instrument, patches, module)
        patches.when_imported(
            module, functools.partial(harmless, f"following what passes through {module}", instrument)
        )


def _instrument(patches: Patches, module: str) -> None:
    for name in _QUEUES:
        owner = getattr(sys.modules[module], name)
        if owner.__flags__ & _IMMUTABLE:  # gevent puts its own in their place, whose methods cannot be replaced
            continue
        patches.wrap(owner, "_put", _putting)
        patches.wrap(owner, "_get", _getting)


def _putting(original: Callable[..., Any]) -> Callable[..., Any]:
    """Runs in the thread or task that puts, with the queue locked."""

    def _put(queue: Any, item: Any) -> Any:
        done = original(queue, item)
        harmless("following an item into a queue", lambda: _note(queue, item))
        return done

    return _put


def _note(queue: Any, item: Any) -> None:
    scope = effective_scope()
    if scope.rollout is None:
        return
    putters = _putters.setdefault(queue, _Putters())
    if (queue._qsize() if hasattr(queue, "_qsize") else queue.qsize()) == 1:
        putters.clear()  # what it knows of others left the queue by another way
    putters.put(item, scope)


def _getting(original: Callable[..., Any]) -> Callable[..., Any]:
    """Runs in the thread or task that gets, with the queue locked."""

    def _get(queue: Any) -> Any:
        item = original(queue)
        if (putters := _putters.get(queue)) is not None:
            harmless("following an item out of a queue", lambda: _take_over(queue, item, putters.take(item)))
        return item

    return _get


def _take_over(queue: Any, item: Any, given: Scope | None) -> None:
    """Go on in the scope that the item was put in, if this is a worker."""
    here = current_scope()
    if given is None:
        if _works_for.get() is queue:  # not a rollout's item, after that of one
            inherit(Scope())
        return
    if given.rollout is here.rollout or not _is_worker(here):
        return
    if _is_work(item):
        _works_for.set(queue)
        inherit(given)
    elif here.rollout is not None:
        inherit(replace(here, shared=True))


def _is_worker(here: Scope) -> bool:
    """Whether what runs here was only started in the rollout `here`, or outside of rollouts."""
    if current_task() is not None:
        return here.rollout is not None and not here.rollout.is_home()
    if (base := inherited_scope()) is not None:
        return here.rollout is base.rollout
    return here == Scope() and threading.current_thread() is not threading.main_thread()


def _is_work(item: Any) -> bool:
    """Whether an item is data to work on, and not a thing that is lent: a client, a number of a device, a key."""
    if isinstance(item, str):
        return len(item.split()) > 1
    return isinstance(item, tuple | list | dict) or dataclasses.is_dataclass(item) or hasattr(item, "model_dump")
