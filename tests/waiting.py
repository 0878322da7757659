"""Waiting for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def wait_for(condition: Callable[[], Found], what: object = "", seconds: float = 60.0) -> Found:
    """The first true value of `condition`; fails the test, with what it waited for, if none comes.

    `what` may be a function, which then tells how things stand when the time is over.
    """
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what() if callable(what) else what or condition}"
        time.sleep(0.002)
    return found
