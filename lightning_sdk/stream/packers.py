"""Packers: turn events into the bodies of batches, in memory that is used again.

A batch is packed into its packer's own buffer and sent from there. Fresh memory for each batch, which the system has to
find page by page, would cost more than packing and sending it.
"""

from __future__ import annotations

import contextlib
from typing import Any

import msgpack

from lightning_sdk.stream.sink import say_once
from lightning_sdk.stream.wire import MAX_EVENT_BYTES, MAX_MESSAGE_BYTES

_MOST_FREE = 4
_LARGE_BYTES = 4 * 2**20
"""Bytes of a body whose packer is not kept."""
_DEEPEST, _PREVIEW_CHARACTERS = 100, 200
"""Levels, and characters, of what is recorded as text."""


def keep_freed_memory() -> None:
    """Let the allocator keep some megabytes of what is freed instead of giving each back to the system.

    Replies are kept until they are packed, so their memory comes back late and all at once; glibc would return it, and
    each next reply would fetch its pages again, which costs more than the rest of a recording. Freeing one
    large block raises glibc's bound for good, as in any program that has done so before.
    """
    bytes(4 * 2**20)


class Packers:
    """Packs bodies. One thread at a time."""

    def __init__(self) -> None:
        self._free: list[msgpack.Packer] = []

    def pack(self, events: list[tuple[Any, ...]]) -> tuple[int, memoryview]:
        """How many of the events could be packed, and their msgpack one after another; `give_back` it once done."""
        packer = self._free.pop() if self._free else msgpack.Packer(autoreset=False)
        packed: list[tuple[Any, ...]] = []
        for event in events:
            try:
                packer.pack(event)
                packed.append(event)
            except Exception as error:  # also of an object of the user's own
                say_once(
                    "unpackable",
                    "lightning: an event contains a value that msgpack cannot encode (%s); it is recorded as text",
                    error,
                )
                packer.reset()
                packed.append(_readable(event))
                for each in packed:  # what failed took what was packed before it along
                    packer.pack(each)
        body = packer.getbuffer()
        if len(body) > MAX_EVENT_BYTES and len(packed) > len(fit := _fitting(packed)):
            body.release()
            return self.pack(fit)
        return len(packed), body

    def give_back(self, body: bytes | memoryview) -> None:
        """Pack another batch where this one was."""
        if isinstance(body, bytes):
            return
        packer, large = body.obj, len(body) > _LARGE_BYTES
        body.release()
        if not large and len(self._free) < _MOST_FREE and isinstance(packer, msgpack.Packer):
            with contextlib.suppress(BufferError):  # ZeroMQ has not let go of it yet: it is not used again
                packer.reset()
                self._free.append(packer)


def _readable(value: Any, depth: int = 0) -> Any:
    """`value` as msgpack carries it, with text in place of what it does not."""
    kind = type(value)
    if value is None or kind in (bool, float, bytes) or (kind is int and -(2**63) <= value < 2**64):
        return value
    if isinstance(value, int) and -(2**63) <= int(value) < 2**64:
        return int(value)
    if depth < _DEEPEST and kind is dict:
        return {str(_readable(str(name))): _readable(each, depth + 1) for name, each in list(value.items())}
    if depth < _DEEPEST and isinstance(value, tuple | list):
        return [_readable(each, depth + 1) for each in tuple(value)]
    try:
        text = str.__str__(value if isinstance(value, str) else repr(value)[:_PREVIEW_CHARACTERS])
    except BaseException:
        text = f"a {kind.__name__} that cannot be shown"
    return text.encode("utf-8", "replace").decode()


def _fitting(events: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Those that one message can carry, which a hub would not read otherwise."""
    found, left = list[tuple[Any, ...]](), MAX_MESSAGE_BYTES // 2
    for event in events:
        size = len(msgpack.packb(event))
        if size > min(left, MAX_EVENT_BYTES + 1000):
            say_once(
                "large", "lightning: an event of %d bytes was dropped: a hub reads %d at most", size, MAX_EVENT_BYTES
            )
        else:
            found.append(event)
            left -= size
    return found
