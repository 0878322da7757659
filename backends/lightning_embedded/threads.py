"""Threads: how many of them decode and how many learn, on the cores that this process may use."""

from __future__ import annotations

from lightning_sdk.system.cores import cores

#: Models below this size decode faster on one thread than on two that wait for each other.
_SMALL = 30_000_000


def small(size: int) -> bool:
    """Whether a model with `size` parameters decodes best on one thread."""
    return size < _SMALL


def threads(size: int, asynchronous: bool) -> tuple[int, int]:
    """For the engine and for the learner of a model with `size` parameters: all cores for each, if they take turns."""
    if asynchronous:
        decoding = 1 if small(size) else max(1, cores() // 2)
        return decoding, max(1, cores() - decoding)
    return 1 if small(size) else cores(), cores()
