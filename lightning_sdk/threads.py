"""Threads: plain threads and thread pools inherit the scope of the code that starts them.

asyncio copies the context into each task; `threading.Thread` and `ThreadPoolExecutor` do not, and calls made there
would belong to no rollout and no role. Only our own variable is carried, so nothing else of a thread changes.
"""

from __future__ import annotations

import concurrent.futures.thread
import threading
from collections.abc import Callable
from typing import Any

from lightning_sdk.patches import Patches
from lightning_sdk.scope import Scope, entered, speaking

_NOWHERE = Scope()


def carry_context(patches: Patches) -> None:
    """Make threads started from now on inherit the scope they are started in."""
    patches.wrap(threading.Thread, "start", _starting)
    patches.wrap(concurrent.futures.thread.ThreadPoolExecutor, "submit", _submitting)


def _starting(original: Callable[..., Any]) -> Callable[..., Any]:
    def start(self: Any) -> Any:
        scope = speaking()  # and not the current one: a framework's own context does not follow into the thread
        if scope != _NOWHERE:
            run = self.run

            def run_in_scope() -> None:
                try:
                    with entered(scope):
                        run()
                finally:
                    vars(self).pop("run", None)  # back to the class's method, and no cycle

            self.run = run_in_scope
        return original(self)

    return start


def _submitting(original: Callable[..., Any]) -> Callable[..., Any]:
    def submit(self: Any, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        scope = speaking()

        # A pool's thread may have been started in another scope: each task sets its own, also the empty one.
        def run_in_scope(*args: Any, **kwargs: Any) -> Any:
            with entered(scope):
                return function(*args, **kwargs)

        return original(self, run_in_scope, *args, **kwargs)

    return submit
