"""The tee: what passes through an HTTP response of httpx or httpx2, kept for the call and translated for the caller.

The response stays the one that the SDK got, because the SDK and its user read it in many ways; only its class changes.
"""

from __future__ import annotations

import functools
import re
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any

from lightning_sdk.seam import OpenCall
from lightning_sdk.sink import harmless
from lightning_sdk.translation import Translation

#: How the last bytes of an event stream look, and no text inside JSON does; an SDK may stop reading there.
_ENDS = (b"\ndata: [DONE]", b'"message_stop"')
#: A last event that may be long, and so is known by its beginning.
_LAST_EVENT = re.compile(rb"\nevent: ?response\.(completed|incomplete|failed)\b")


def tap(call: OpenCall, response: Any, translation: Translation | None = None) -> None:
    """Finish `call` with what comes through `response`, now if it is read already; the caller sees it translated."""
    if not response.is_closed:
        Tee(call, response, translation)
        return
    reply, status = response.content, response.status_code
    harmless("capturing a reply", lambda: _finish_whole(call, reply, status))
    if translation is not None:  # not harmless: the caller cannot read the engine's words
        replace_content(response, translation.reply(reply, status))


def _finish_whole(call: OpenCall, reply: bytes, status: int) -> None:
    call.streamed = reply.startswith((b"data:", b"event:"))
    call.finish(reply, status)


def replace_content(response: Any, content: bytes) -> None:
    """Give a response that was read whole another body."""
    response._content = content
    response.headers["content-length"] = str(len(content))
    for name in ("content-encoding", "transfer-encoding"):  # it is plain now, and whole
        response.headers.pop(name, None)


class Tee:
    """What has passed through a response that is read piece by piece, until its end, its close, or its loss."""

    def __init__(self, call: OpenCall, response: Any, translation: Translation | None) -> None:
        call.streamed = "text/event-stream" in response.headers.get("content-type", "")
        self._call, self._status, self._translation = call, response.status_code, translation
        self._parts: list[bytes] = []
        self._complete = self._pulling = self._finished = False
        if translation is not None:
            response.headers.pop("content-length", None)  # of bytes that the caller does not see
        # A subclass and not closures on the instance: those would be a cycle, and an abandoned response, with its
        # connection, would live until the next garbage collection.
        response.lightning_tee = self
        response.__class__ = _teed(type(response))  # type: ignore[arg-type]
        weakref.finalize(response, self.finish).atexit = False
        # Somebody may keep a response that is not read any more: LiteLLM's logging does.
        still_here = weakref.WeakMethod(self.finish)
        call.at_end_of_rollout(lambda: (finish := still_here()) and finish())

    def iterate(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        if self._finished:  # what was read is read again, out of the response's memory
            yield from chunks
            return
        try:
            while True:
                self._pulling = True
                try:
                    chunk = next(chunks)
                except StopIteration:
                    break
                finally:
                    self._pulling = False
                if passed := self._passed(chunk):
                    yield passed
            if last := self._last():
                yield last
        except Exception as error:
            self.finish(error)
            raise
        finally:
            self.finish()

    async def aiterate(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        if self._finished:
            async for chunk in chunks:
                yield chunk
            return
        try:
            while True:
                self._pulling = True
                try:
                    chunk = await anext(chunks)
                except StopAsyncIteration:
                    break
                finally:
                    self._pulling = False
                if passed := self._passed(chunk):
                    yield passed
            if last := self._last():
                yield last
        except Exception as error:
            self.finish(error)
            raise
        finally:
            self.finish()

    def wire(self, response: Any) -> bool:
        """Whether who reads `response` raw now is to get the bytes of the wire: the response itself, while it is
        pulled, or a reader of compressed bytes that need no translation, who is not recorded."""
        return self._pulling or self._finished or (self._translation is None and "content-encoding" in response.headers)

    def _passed(self, chunk: bytes) -> bytes:
        """What the caller sees of a chunk."""
        self._parts.append(chunk)
        if self._call.streamed:
            passed = chunk if self._translation is None else self._translation.feed(chunk)
            if _ended(b"".join(self._parts[-2:])):  # who reads on to here may never close it
                self.finish()
            return passed
        return chunk if self._translation is None else b""

    def _last(self) -> bytes:
        """What the caller still has to see when no chunk comes any more."""
        self._complete = True
        if self._translation is None:
            return b""
        if self._call.streamed:
            return self._translation.end()
        return self._translation.reply(b"".join(self._parts), self._status)

    def closed(self) -> None:
        if not self._pulling:  # a response closes itself while its last chunk is pulled; that is no early close
            self.finish()

    def finish(self, error: Exception | None = None) -> None:
        if self._finished:  # the end, the close and the loss of one response all come here
            return
        self._finished = True
        reply, self._parts = b"".join(self._parts), []
        call, status = self._call, self._status
        if error is not None:
            harmless("closing a broken stream", lambda: call.fail(error, status, reply, unreachable=True))
        elif self._complete or _ended(reply):
            harmless("closing a stream", lambda: call.finish(reply, status))
        else:
            early = {"status": "cancelled", "error": "closed before its end"}
            harmless("closing a stream", lambda: call.finish(reply, status, **early))


def _ended(reply: bytes) -> bool:
    """Whether an event stream was read up to its last event."""
    if any(end in reply[-64:] for end in _ENDS):
        return True
    # Its data may come in several pieces: it is over with its blank line.
    return reply.endswith((b"\n\n", b"\r\n\r\n")) and bool(_LAST_EVENT.match(reply, reply.rfind(b"\nevent:")))


@functools.cache
def _teed(kind: Any) -> Any:
    """The response class `kind`, telling its tee what passes."""

    class Response(kind):  # type: ignore[misc]
        lightning_tee: Tee

        def iter_bytes(self, *args: Any, **kwargs: Any) -> Iterator[bytes]:
            return self.lightning_tee.iterate(super().iter_bytes(*args, **kwargs))

        def aiter_bytes(self, *args: Any, **kwargs: Any) -> AsyncIterator[bytes]:
            return self.lightning_tee.aiterate(super().aiter_bytes(*args, **kwargs))

        def iter_raw(self, *args: Any, **kwargs: Any) -> Iterator[bytes]:
            wire = self.lightning_tee.wire(self)
            return super().iter_raw(*args, **kwargs) if wire else self.iter_bytes(*args, **kwargs)

        def aiter_raw(self, *args: Any, **kwargs: Any) -> AsyncIterator[bytes]:
            wire = self.lightning_tee.wire(self)
            return super().aiter_raw(*args, **kwargs) if wire else self.aiter_bytes(*args, **kwargs)

        def close(self) -> None:
            super().close()
            self.lightning_tee.closed()

        async def aclose(self) -> None:
            await super().aclose()
            self.lightning_tee.closed()

    Response.__name__, Response.__qualname__, Response.__module__ = kind.__name__, kind.__qualname__, kind.__module__
    return Response
