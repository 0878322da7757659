"""How many threads decode and how many learn, on the cores that this process may use."""

from __future__ import annotations

from lightning_sdk.system.cores import cores

#: Models below this size decode faster on one thread than on two, which would wait for each other.
_SMALL = 30_000_000


def small(size: int) -> bool:
    """Whether a model with `size` parameters decodes best on one thread."""
    return size < _SMALL


def threads(size: int, asynchronous: bool) -> tuple[int, int]:
    """Threads for engine and learner of a model with `size` parameters: all cores for each if they alternate."""
    if asynchronous:
        decoding = 1 if small(size) else max(1, cores() // 2)
        return decoding, max(1, cores() - decoding)
    return 1 if small(size) else cores(), cores()
