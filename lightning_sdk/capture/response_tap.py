"""The tap: takes what passes through an HTTP response of httpx or httpx2, keeps it for the call and translates it.

The response stays the one that the SDK got, because the SDK and its user read it in many ways; only its class changes.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any

from lightning_sdk.capture.reply_reader import ReplyReader
from lightning_sdk.capture.seam import OpenCall
from lightning_sdk.stream.sink import harmless
from lightning_sdk.translation import Translation
from lightning_sdk.translation.sse import is_event_stream


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
    call.streamed = is_event_stream(reply)
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
        content_type = response.headers.get("content-type", "")
        self._reader = ReplyReader(call, response.status_code, content_type, translation)
        self._plain, self._pulling = translation is None, False
        if translation is not None:
            response.headers.pop("content-length", None)  # of bytes that the caller does not see
        # A subclass and not closures on the instance: those would be a cycle, and an abandoned response, with its
        # connection, would live until the next garbage collection.
        response.lightning_tee = self
        response.__class__ = _response_type(type(response))  # type: ignore[arg-type]
        weakref.finalize(response, self._reader.finish).atexit = False
        # Somebody may keep a response that is not read any more: LiteLLM's logging does.
        still_here = weakref.WeakMethod(self._reader.finish)
        call.when_cut_short(lambda: (finish := still_here()) and finish())

    def iterate(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        if self._reader.finished:  # what was read is read again, out of the response's memory
            yield from chunks
            return
        with self._reader:
            while (chunk := self._pull(chunks)) is not None:
                if seen := self._reader.feed(chunk):
                    yield seen
            if rest := self._reader.end():
                yield rest

    async def aiterate(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        if self._reader.finished:
            async for chunk in chunks:
                yield chunk
            return
        with self._reader:
            while (piece := await self._apull(chunks)) is not None:
                if seen := self._reader.feed(piece):
                    yield seen
            if rest := self._reader.end():
                yield rest

    def _pull(self, chunks: Iterator[bytes]) -> bytes | None:
        """The next chunk, None after the last one."""
        self._pulling = True
        try:
            return next(chunks, None)
        finally:
            self._pulling = False

    async def _apull(self, chunks: AsyncIterator[bytes]) -> bytes | None:
        self._pulling = True
        try:
            return await anext(chunks)
        except StopAsyncIteration:
            return None
        finally:
            self._pulling = False

    def wire(self, response: Any) -> bool:
        """Whether who reads `response` raw now is to get the bytes of the wire: the response itself, while it is
        pulled, or a reader of compressed bytes that need no translation, who is not recorded."""
        return self._pulling or self._reader.finished or (self._plain and "content-encoding" in response.headers)

    def on_close(self) -> None:
        if not self._pulling:  # a response closes itself while its last chunk is pulled; that is no early close
            self._reader.finish()


@functools.cache
def _response_type(kind: Any) -> Any:
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
            self.lightning_tee.on_close()

        async def aclose(self) -> None:
            await super().aclose()
            self.lightning_tee.on_close()

    Response.__name__, Response.__qualname__, Response.__module__ = kind.__name__, kind.__qualname__, kind.__module__
    return Response
