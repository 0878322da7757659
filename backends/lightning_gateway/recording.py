"""A recording: the reply of one call, sent to the stream exactly once, whichever thread ends it."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable

from lightning_sdk.capture.reply_reader import ErrorEvent
from lightning_sdk.capture.seam import OpenCall
from lightning_sdk.translation.sse import find_error, has_ended


class Recording:
    """One call through the gateway."""

    def __init__(self, call: OpenCall, stop: Callable[[], None]) -> None:
        """`stop` ends the call itself, from any thread; it does nothing if the call has ended."""
        self.call, self.stop = call, stop
        self.status = 0
        """HTTP status of the reply, 0 until there is one."""
        self.encoding = ""
        """Content-Encoding of the reply's bytes."""
        self.length: int | None = None
        """Content-Length of the reply, if it has one."""
        self._received = 0
        self._parts: list[bytes] = []
        self._lock = threading.Lock()
        self._closed = False

    def feed(self, chunk: bytes) -> None:
        """Record more bytes of the reply before they are passed on. The last ones close the recording, since the caller
        may finish its whole rollout before the end of the connection is noticed here."""
        self._parts.append(chunk)
        self._received += len(chunk)
        if self._received == self.length or (self.call.streamed and has_ended(chunk)):
            self.close(complete=True)

    def close(self, *, complete: bool = False, why: str = "closed before its end") -> None:
        """End the call: `complete` if its reply was read to the end; otherwise it was cancelled, for the reason `why`,
        unless its last event had already been passed on. Thread-safe; only the first call has an effect."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        reply = _plain(b"".join(self._parts), self.encoding)
        if self.status >= 500 and complete:
            self.call.fail(UpstreamError(f"HTTP {self.status}"), self.status, reply, unreachable=True)
        elif self.status >= 400 and complete:
            self.call.fail(UpstreamError(f"HTTP {self.status}"), self.status, reply)
        elif self.call.streamed and (found := find_error(reply)):
            self.call.fail(ErrorEvent(found), self.status, reply, unreachable=True)
        elif complete or (self.call.streamed and has_ended(reply)):
            self.call.finish(reply, self.status)
        else:
            self.call.finish(reply, self.status, status="cancelled", error=why)

    def fail(self, error: BaseException, *, unreachable: bool) -> None:
        """The reply is missing or was cut off. `unreachable`: the server was at fault."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self.call.fail(error, self.status, _plain(b"".join(self._parts), self.encoding), unreachable=unreachable)


class UpstreamError(Exception):
    """The server answered with an error."""


def _plain(reply: bytes, encoding: str) -> bytes:
    """The decoded reply; unchanged if it cannot be decoded."""
    for bits in (47, -15) if encoding in {"gzip", "deflate"} else ():  # gzip or zlib, by its header; bare deflate
        try:
            return zlib.decompressobj(bits).decompress(reply)  # a truncated reply is decoded as far as possible
        except zlib.error:
            continue
    return reply
