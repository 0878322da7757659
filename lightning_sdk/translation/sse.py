"""Server-sent events: read from bytes in pieces of any size, passed on with changes, and written.

As the WHATWG's standard reads them: lines end in CR, LF or both, a first byte order mark does not count, the blank
after a colon may be missing, and an event's data may have several lines. Works on bytes throughout, so that a character
split between two pieces is whole again before anybody decodes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

#: What an HTTP message with events has in its Content-Type.
MEDIA_TYPE = "text/event-stream"
#: The data of the event that ends a stream of OpenAI's.
DONE = b"[DONE]"
_MARK = b"\xef\xbb\xbf"
#: How the last bytes of a stream look, and no text inside JSON does; an SDK may stop reading there.
_ENDS = re.compile(rb'(?:^|[\r\n])data: ?\[DONE\]|"message_stop"')
#: A last event that may be long, and so is known by its beginning.
_LAST_EVENT = re.compile(rb"[\r\n]?event: ?(response\.(completed|incomplete|failed)|error)\b")
_BLANK_LINES = (b"\n\n", b"\r\r", b"\r\n\r\n")
#: An event of an error is among the last bytes, if there is one.
_ERROR_BYTES = 8192


class EventReader:
    """Reads one stream. Feed it the bytes as they come, and `end` it when no more come."""

    __slots__ = ("_after_cr", "_begun", "_data", "_rest")

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        """Pieces of a line whose end has not come."""
        self._data: list[bytes] = []
        """Data lines of an event whose end has not come."""
        self._after_cr = self._begun = False

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
        if not self._begun:
            self._begun, line = True, line.removeprefix(_MARK)
        if not line:
            if self._data:
                complete.append(b"\n".join(self._data))
                self._data.clear()
        elif line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
        elif line == b"data":
            self._data.append(b"")


class DataRewriter:
    """Passes one stream on line by line, with its data changed and every other byte as it came."""

    __slots__ = ("_change", "_rest")

    def __init__(self, change: Callable[[bytes], bytes]) -> None:
        """`change` gets the data of one line and gives what stands there instead: the same object to leave the line."""
        self._change = change
        self._rest = b""
        """A line whose end has not come."""

    def feed(self, chunk: bytes) -> bytes:
        """The lines that `chunk` completes."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return b"".join(self._line(line) + b"\n" for line in lines)

    def end(self) -> bytes:
        """A last line whose end never came."""
        rest, self._rest = self._rest, b""
        return self._line(rest)

    def _line(self, line: bytes) -> bytes:
        if not line.startswith(b"data:"):
            return line
        data = line[5:].strip()
        changed = self._change(data)
        return line if changed is data else b"data: " + changed


class WholeEvents:
    """Holds the bytes of one stream back until the event that they belong to is complete."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        """The events that are complete now, b'' if none is."""
        data = self._held + chunk
        cut = data.rfind(b"\n\n") + 2
        if cut < 2:
            self._held = data
            return b""
        self._held = data[cut:]
        return data[:cut]

    def end(self) -> bytes:
        """What is left of an event whose end never came."""
        held, self._held = self._held, b""
        return held


def event(data: Mapping[str, Any] | bytes, name: str = "") -> bytes:
    """One event as bytes. A mapping goes as JSON; `name` is the event's type, '' for none.

    Args:
        data: Bytes must hold no line end, which would end the event's data early.
    """
    body = data if isinstance(data, bytes) else json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + body + b"\n\n"


def read_events(stream: bytes) -> list[bytes]:
    """The data of the events of a whole stream. A last event that was cut off in the middle is left out."""
    reader = EventReader()
    return [*reader.feed(stream), *(data for data in reader.end() if data.strip() == DONE or _parse(data) is not None)]


def is_event_stream(reply: bytes) -> bool:
    """Whether a whole reply, of which nothing else is known, is events."""
    return reply.startswith((b"data:", b"event:"))


def has_ended(stream: bytes) -> bool:
    """Whether a stream, or the last bytes of one, reach to the event after which its API sends no more."""
    if _ENDS.search(stream[-64:]):
        return True
    if not stream.endswith(_BLANK_LINES):  # its data may come in several pieces: it is over with its blank line
        return False
    start = max(stream.rfind(b"\nevent:"), stream.rfind(b"\revent:"), 0)
    return bool(_LAST_EVENT.match(stream, start))


def find_error(stream: bytes) -> str:
    """What the error that ended a stream says, '' if none did."""
    if b"error" not in stream[-_ERROR_BYTES:]:
        return ""
    return next(filter(None, map(_read_error, read_events(stream)[-2:])), "")


def _read_error(data: bytes) -> str:
    """What the event with this data says went wrong, '' for any other event."""
    event = _parse(data) or {}
    error = event.get("error") or (
        event.get("type") == "response.failed" and (event.get("response") or {}).get("error")
    )
    if not error and event.get("type") == "error":
        error = event.get("message") or "error"
    if isinstance(error, dict):
        error = error.get("message") or error
    return str(error)[:2000] if error else ""


def _parse(data: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
