"""Forks: a forked process has copies of what its parent holds, and none of its threads and connections.

`generation` tells a copy from the original: it is counted up in the child.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any

generation = 0
_owners: weakref.WeakKeyDictionary[Any, Callable[[Any], None]] = weakref.WeakKeyDictionary()


def in_child(owner: Any, renew: Callable[[Any], None]) -> None:
    """Call `renew(owner)` in each process that is forked from this one while `owner` lives."""
    _owners[owner] = renew


def _begin() -> None:
    global generation  # noqa: PLW0603 - one process, one number
    generation += 1
    for owner, renew in list(_owners.items()):
        renew(owner)


os.register_at_fork(after_in_child=_begin)
