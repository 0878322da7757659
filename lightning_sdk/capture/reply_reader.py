"""A reply reader: takes the bytes of a reply on their way to the caller, keeps them for the call and translates
them."""

from __future__ import annotations

from types import TracebackType

from lightning_sdk.capture.seam import OpenCall
from lightning_sdk.stream.sink import harmless
from lightning_sdk.translation import Translation
from lightning_sdk.translation.sse import MEDIA_TYPE, find_error, has_ended


class ErrorEvent(Exception):
    """The server sent an error in the middle of a stream."""


class ReplyReader:
    """What has passed of one reply, until its end, its close, or its loss.

    As a context it is finished when that is left, with the error that broke the reply off if one did.
    """

    def __init__(self, call: OpenCall, status: int, content_type: str, translation: Translation | None) -> None:
        call.streamed = MEDIA_TYPE in content_type
        self._call, self._status, self._translation = call, status, translation
        self._parts: list[bytes] = []
        self._complete = False
        self.finished = False

    def feed(self, chunk: bytes) -> bytes:
        """What the caller sees of a chunk."""
        self._parts.append(chunk)
        if self._call.streamed:
            seen = chunk if self._translation is None else self._translation.feed(chunk)
            if has_ended(b"".join(self._parts[-2:])):  # who reads on to here may never close it
                self.finish()
            return seen
        return chunk if self._translation is None else b""

    def end(self) -> bytes:
        """What the caller still has to see when no chunk comes any more."""
        self._complete = True
        if self._translation is None:
            return b""
        if self._call.streamed:
            return self._translation.end()
        return self._translation.reply(b"".join(self._parts), self._status)

    def __enter__(self) -> ReplyReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish(error if isinstance(error, Exception) else None)

    def finish(self, error: Exception | None = None, *, unreachable: bool = True) -> None:
        """Finish the call with what has passed; `error`: what broke it off, and `unreachable` as in `OpenCall.fail`."""
        if self.finished:  # the end, the close and the loss of one reply all come here
            return
        self.finished = True
        reply, self._parts = b"".join(self._parts), []
        call, status = self._call, self._status
        told = find_error(reply) if call.streamed and error is None else ""
        if told:
            failed = ErrorEvent(told)
            harmless("closing a failed reply", lambda: call.fail(failed, status, reply, unreachable=True))
        elif error is not None:
            harmless("closing a broken reply", lambda: call.fail(error, status, reply, unreachable=unreachable))
        elif self._complete or has_ended(reply):
            harmless("closing a reply", lambda: call.finish(reply, status))
        else:
            early = {"status": "cancelled", "error": "closed before its end"}
            harmless("closing a reply", lambda: call.finish(reply, status, **early))
