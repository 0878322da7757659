"""Threads and pools: work in them belongs to the rollout and role of the code that asked for it.

asyncio copies the context into each task; threads and pools do not, and calls made there would belong to no rollout and
no role. A thread gets the scope of the code that starts it. A pool's worker gets none, whoever started it: each piece
of work brings the scope of the code that submitted it. Only our own variable is carried, so nothing else of a thread
changes.

Other tools replace `Thread.start`, `Thread.run` and `submit`, check whether they are still the originals, and are
undone in any order. So these are not replaced here: the scope is passed on further down, where other tools change
nothing.
"""

from __future__ import annotations

import concurrent.futures.thread
import contextvars
import functools
import inspect
import sys
import threading
from collections.abc import Callable
from typing import Any

from lightning_sdk.capture.patches import Patches
from lightning_sdk.capture.submitted_work import carry, carry_steps
from lightning_sdk.stream.sink import harmless
from lightning_sdk.trace.scope import Scope, effective_scope, inherit, use_scope

_NOWHERE = Scope()


def carry_context(patches: Patches) -> None:
    """Let threads started and work submitted from now on run in the scope that they come from."""
    for what, instrument in (
        ("threads", _instrument_threads),
        ("concurrent.futures.thread", _instrument_thread_executors),
        ("concurrent.futures.process", _instrument_process_executors),
        ("multiprocessing.pool", _instrument_pools),
        ("gevent.greenlet", _instrument_greenlets),
        ("gevent.threadpool", _instrument_gevent_pools),
        ("eventlet.greenthread", _instrument_green_threads),
    ):
        act = functools.partial(instrument, patches)
        # A Python whose insides are not as we know them must not keep a program from starting.
        act = functools.partial(harmless, f"carrying rollouts into {what}", act)
        if what == "threads":
            act()
        else:
            patches.when_imported(what, act)


# --- threads


def _instrument_threads(patches: Patches) -> None:
    patches.wrap(threading.Thread, "_bootstrap", _Bootstrap)


class _Bootstrap:
    """What a new thread runs. `Thread.start` looks it up in the thread that starts the new one."""

    def __init__(self, original: Any) -> None:
        self._original = original

    def __get__(self, thread: Any, owner: Any = None) -> Any:
        bound = self._original.__get__(thread, owner)
        if thread is None:
            return bound
        scope = effective_scope()  # and not the current one: a framework's own context does not follow into the thread
        if scope == _NOWHERE:
            return bound

        @functools.wraps(bound)
        def bootstrap() -> None:
            with use_scope(scope):
                inherit(scope)
                bound()

        # eventlet knows by it whose method it is, and that `join` has to be told when it has returned.
        vars(bootstrap)["__self__"] = thread
        return bootstrap


# --- concurrent.futures


def _instrument_thread_executors(patches: Patches) -> None:
    module = concurrent.futures.thread
    patches.wrap(module.ThreadPoolExecutor, "_adjust_thread_count", _outside)
    patches.wrap(module._WorkItem, "__init__", _taking)
    patches.wrap(module._WorkItem, "run", _working)


def _taking(original: Callable[..., Any]) -> Callable[..., Any]:
    def init(item: Any, *args: Any, **kwargs: Any) -> None:
        original(item, *args, **kwargs)
        item.lightning_scope = effective_scope()

    return init


def _working(original: Callable[..., Any]) -> Callable[..., Any]:
    """Callbacks of the future run here too."""

    def run(item: Any, *args: Any) -> Any:
        with use_scope(getattr(item, "lightning_scope", _NOWHERE)):
            return original(item, *args)

    return run


def _instrument_process_executors(patches: Patches) -> None:
    from concurrent.futures import process  # noqa: PLC0415 - it loads multiprocessing

    patches.wrap(process.ProcessPoolExecutor, "_start_executor_manager_thread", _outside)
    patches.wrap(process.ProcessPoolExecutor, "_adjust_process_count", _outside)
    patches.wrap(process._WorkItem, "__init__", _taking_along)


def _taking_along(original: Callable[..., Any]) -> Callable[..., Any]:
    def init(item: Any, *args: Any, **kwargs: Any) -> None:
        original(item, *args, **kwargs)
        item.fn = carry(item.fn)

    return init


def _outside(original: Callable[..., Any]) -> Callable[..., Any]:
    """Workers are started here: they belong to nobody, and their initializer neither."""

    def started_outside(*args: Any, **kwargs: Any) -> Any:
        with use_scope(_NOWHERE):
            return original(*args, **kwargs)

    return started_outside


# --- multiprocessing


def _instrument_pools(patches: Patches) -> None:
    """Pools of processes, and of threads, which are the same class."""
    from multiprocessing.pool import Pool  # noqa: PLC0415 - as above

    patches.wrap(Pool, "__init__", _outside)
    patches.wrap(Pool, "apply_async", _carrying)
    patches.wrap(Pool, "_map_async", _carrying)
    for method in ("imap", "imap_unordered"):
        patches.wrap(Pool, method, _carrying_steps)


def _carrying(original: Callable[..., Any]) -> Callable[..., Any]:
    """The work, and the callbacks, which a thread of the pool calls."""

    def submit(pool: Any, func: Any, *args: Any, **kwargs: Any) -> Any:
        bound = inspect.signature(original).bind(pool, func, *args, **kwargs)
        for name in ("func", "callback", "error_callback"):
            if callable(given := bound.arguments.get(name)):
                bound.arguments[name] = carry(given)
        return original(*bound.args, **bound.kwargs)

    return submit


def _carrying_steps(original: Callable[..., Any]) -> Callable[..., Any]:
    """A thread of the pool draws the items."""

    def submit(pool: Any, func: Any, iterable: Any, *args: Any, **kwargs: Any) -> Any:
        return original(pool, carry(func), carry_steps(iterable), *args, **kwargs)

    return submit


# --- gevent


def _instrument_greenlets(patches: Patches) -> None:
    """A greenlet begins in an empty context. gevent calls this where one is started, whatever starts it."""
    kind: Any = vars(sys.modules["gevent.greenlet"])["Greenlet"]
    kind.add_spawn_callback(_let_inherit)
    patches.on_undo(lambda: kind.remove_spawn_callback(_let_inherit))


def _let_inherit(greenlet: Any) -> None:
    scope = effective_scope()
    if scope != _NOWHERE:
        context = greenlet.gr_context or contextvars.Context()
        context.run(inherit, scope)
        greenlet.gr_context = context


def _instrument_gevent_pools(patches: Patches) -> None:
    """gevent's own threads, which do not pass `threading`."""
    patches.wrap(vars(sys.modules["gevent.threadpool"])["ThreadPool"], "spawn", _carrying_function)


def _carrying_function(original: Callable[..., Any]) -> Callable[..., Any]:
    def spawn(pool: Any, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return original(pool, carry(func), *args, **kwargs)

    return spawn


# --- eventlet


def _instrument_green_threads(patches: Patches) -> None:
    module = sys.modules["eventlet.greenthread"]
    patches.wrap(vars(module)["GreenThread"], "__init__", _inheriting)
    patches.wrap(module, "_spawn_n", _inheriting_second)


def _inheriting(original: Callable[..., None]) -> Callable[..., None]:
    def init(greenlet: Any, *args: Any, **kwargs: Any) -> None:
        original(greenlet, *args, **kwargs)
        _let_inherit(greenlet)

    return init


def _inheriting_second(original: Callable[..., Any]) -> Callable[..., Any]:
    """It returns a timer and the greenlet that the timer starts."""

    def spawn(*args: Any, **kwargs: Any) -> Any:
        timer, greenlet = original(*args, **kwargs)
        _let_inherit(greenlet)
        return timer, greenlet

    return spawn
