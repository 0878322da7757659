"""Exits: ways out of a process that skip `atexit`, and what must be sent before the process's result is known.

The children of `multiprocessing`, and so of pools and executors, end with `os._exit`, and a pool may kill them as soon
as it has their results. So a child's recordings reach the hub before its result reaches the parent.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from lightning_sdk.capture.patches import Patches
from lightning_sdk.stream.sink import harmless
from lightning_sdk.system import forks


def watch_exit(patches: Patches, leave: Callable[[], object]) -> None:
    """Run `leave` before `os._exit`."""

    def leaving(original: Callable[..., Any]) -> Callable[..., Any]:
        def _exit(*args: Any, **kwargs: Any) -> Any:
            try:
                harmless("sending what is left", leave)
            finally:
                original(*args, **kwargs)

        return _exit

    patches.wrap(os, "_exit", leaving)


def watch_results(patches: Patches, hand_over: Callable[[], object]) -> None:
    """Run `hand_over` before a child says anything to another process through `multiprocessing`."""
    patches.when_imported("multiprocessing.connection", lambda: _watch_connections(patches, hand_over))


def _watch_connections(patches: Patches, hand_over: Callable[[], object]) -> None:
    from multiprocessing import connection, parent_process  # noqa: PLC0415 - not before somebody uses them

    def sending(original: Callable[..., Any]) -> Callable[..., Any]:
        def _send_bytes(*args: Any, **kwargs: Any) -> Any:
            if forks.generation or parent_process() is not None:
                harmless("sending what a child recorded", hand_over)
            return original(*args, **kwargs)

        return _send_bytes

    if hasattr(connection.Connection, "_send_bytes"):
        patches.wrap(connection.Connection, "_send_bytes", sending)
