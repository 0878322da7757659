"""Server-sent events: the data of each event from bytes in pieces of any size, and an event's bytes from its data.

Works on bytes throughout, so that a character split between two pieces is whole again before anybody decodes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

#: The data of the event that ends a stream of OpenAI's.
DONE = b"[DONE]"


class EventReader:
    """Reads one stream. Feed it the bytes as they come, and `end` it when no more come."""

    __slots__ = ("_after_cr", "_data", "_rest")

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        """Pieces of a line whose end has not come."""
        self._data: list[bytes] = []
        """Data lines of an event whose end has not come."""
        self._after_cr = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of every event that `chunk` completes, in order. Comments and fields other than data are skipped."""
        if self._after_cr and chunk:
            # The line ended with the carriage return already; this is the rest of the same line end.
            chunk, self._after_cr = chunk.removeprefix(b"\n"), False
        complete: list[bytes] = []
        for line in chunk.splitlines(keepends=True):
            self._rest.append(line)
            if line.endswith((b"\n", b"\r")):
                self._line(b"".join(self._rest).rstrip(b"\r\n"), complete)
                self._rest.clear()
        self._after_cr = self._after_cr or chunk.endswith(b"\r")
        return complete

    def end(self) -> list[bytes]:
        """The data of a last event whose blank line never came, if there is one; it may have been cut short."""
        complete: list[bytes] = []
        if self._rest:
            self._line(b"".join(self._rest), complete)
            self._rest.clear()
        self._line(b"", complete)
        return complete

    def _line(self, line: bytes, complete: list[bytes]) -> None:
        if not line:
            if self._data:
                complete.append(b"\n".join(self._data))
                self._data.clear()
        elif line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))


def event(data: Mapping[str, Any] | bytes, name: str = "") -> bytes:
    """One event as bytes. A mapping goes as JSON; `name` is the event's type, '' for none.

    Args:
        data: Bytes must hold no line end, which would end the event's data early.
    """
    body = data if isinstance(data, bytes) else json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + body + b"\n\n"
