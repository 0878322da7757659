"""Patches: attributes of other people's code that we replaced, each of which can be restored exactly."""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Callable
from typing import Any

_MISSING = object()


#: Module -> who waits for its import, and what they do then.
_awaited: dict[str, list[tuple[Patches, Callable[[], object]]]] = {}


def _instrument_all(module: str) -> None:
    for patches, instrument in _awaited.pop(module, []):
        if not patches._undone:
            instrument()


class Patches:
    """Replaced attributes, undone together and in reverse."""

    def __init__(self) -> None:
        self._done: list[tuple[Any, str, Any, Any]] = []
        self._actions: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._undone = False
        self.names_agents = False
        """An integration names agents at run time: roles may come up that no decorator declares."""

    def wrap(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        """Replace `owner.name` by `make(original)`, keeping name, docstring, signature, and whether it is static."""
        original = getattr(owner, name)
        replacement: Any = functools.wraps(original)(make(original))
        if isinstance(inspect.getattr_static(owner, name, None), staticmethod):
            replacement = staticmethod(replacement)
        with self._lock:
            self._done.append((owner, name, vars(owner).get(name, _MISSING), replacement))
            setattr(owner, name, replacement)

    def when_imported(self, module: str, instrument: Callable[[], object]) -> None:
        """Run `instrument` once `module` is imported, now if it is already; never after `undo`."""
        from wrapt import register_post_import_hook  # noqa: PLC0415 - importing the SDK must not load wrapt

        if self._undone:
            return
        if sys.modules.get(module) is not None:
            instrument()
            return
        is_first = module not in _awaited
        _awaited.setdefault(module, []).append((self, instrument))
        if is_first:  # a hook cannot be taken back
            register_post_import_hook(lambda _: _instrument_all(module), module)

    def on_undo(self, undo: Callable[[], None]) -> None:
        """Also run `undo` when everything is restored: for changes that are not attributes."""
        with self._lock:
            self._actions.append(undo)

    def undo(self) -> list[str]:
        """Restore everything. Returns the names of attributes that other code has replaced since, which stay."""
        kept: list[str] = []
        with self._lock:
            self._undone = True
            for awaiting in list(_awaited.values()):
                awaiting[:] = [each for each in awaiting if each[0] is not self]
            while self._actions:
                self._actions.pop()()
            while self._done:
                owner, name, before, replacement = self._done.pop()
                if vars(owner).get(name, _MISSING) is not replacement:
                    # Another tool wrapped ours: taking it away would take theirs. Ours is inert without a session.
                    kept.append(f"{_path(owner)}.{name}")
                elif before is _MISSING:
                    delattr(owner, name)
                else:
                    setattr(owner, name, before)
        return kept


def _path(owner: Any) -> str:
    """A class, or a module."""
    return f"{owner.__module__}.{owner.__qualname__}" if hasattr(owner, "__qualname__") else str(owner.__name__)
