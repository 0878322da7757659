"""Native threads: those of the operating system, even if gevent or eventlet have replaced them with greenlets.

A greenlet that waits inside ZeroMQ would stop the whole process, and one that waits for its turn would send nothing
while the agent computes. A second copy of the interpreter's own module has what they replaced in the first, whatever
was replaced and whenever.
"""

from __future__ import annotations

import _thread
import contextlib
import importlib.machinery
import importlib.util
import types
from collections.abc import Callable
from typing import Any


def _load_unpatched() -> Any:
    spec = importlib.machinery.BuiltinImporter.find_spec("_thread")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_native = _load_unpatched()


def are_replaced() -> bool:
    """Whether gevent or eventlet put greenlets in the place of threads, so that a wait in C code stops all of them."""
    return not isinstance(_thread.start_new_thread, types.BuiltinFunctionType)


def start(run: Callable[[], object]) -> None:
    """Run `run` in a thread that nobody waits for; RuntimeError where the system allows no further one."""
    _native.start_new_thread(run, ())


class Bell:
    """Wakes one native thread. Ringing never waits, so that any code may do it: a finalizer, a signal handler."""

    __slots__ = ("_silent",)

    def __init__(self) -> None:
        self._silent = _native.allocate_lock()
        self._silent.acquire()

    def ring(self) -> None:
        if self._silent.locked():
            with contextlib.suppress(RuntimeError):  # somebody else rang just now
                self._silent.release()

    def wait(self, seconds: float) -> None:
        """Until it rings, or rang since the last wait, `seconds` at most. In a native thread only."""
        self._silent.acquire(True, seconds)


class Once:
    """A flag that only the first caller of `take` gets; nobody waits for it."""

    __slots__ = ("_taken",)

    def __init__(self) -> None:
        self._taken = _native.allocate_lock()

    def take(self) -> bool:
        return bool(self._taken.acquire(False))
