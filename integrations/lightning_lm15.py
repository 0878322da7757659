"""The seam for lm15, the HTTP client that DSPy includes. Most calls of DSPy's models use it instead of the OpenAI
SDK."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from lightning_sdk.integration import (
    OpenCall,
    Patches,
    ReplyReader,
    Translation,
    harmless,
    open_call,
    require_version,
    translate_responses,
)

#: How the path of a call to a model ends -> how its request is put in terms of chat completions, None if it is.
_PATHS: dict[str, Callable[[Mapping[str, Any], str], Translation] | None] = {
    "/chat/completions": None,
    "/responses": translate_responses,
}
#: Headers that every server may see; others are for the user's own provider.
_PUBLIC = ("accept", "content-type", "user-agent")
#: A call to the engine is being sent.
_to_engine: ContextVar[bool] = ContextVar("lightning_lm15_to_engine", default=False)


def instrument(patches: Patches) -> None:
    """Run by `lightning_sdk.init()` once `dspy` imports its client. Tested with DSPy 3.4.1."""
    require_version("dspy", "3.4", "4", module="dspy")
    from dspy._vendor.lm15 import transports  # noqa: PLC0415 - only where the user has it

    patches.wrap(transports.StdlibTransport, "stream", _wrap_stream)
    patches.wrap(transports.StdlibAsyncTransport, "_do_stream", _wrap_stream_async)
    for module in (transports._sync, transports._async):
        patches.wrap(module, "proxy_route_for", _wrap_proxy_route)


def _wrap_proxy_route(original: Callable[..., Any]) -> Callable[..., Any]:
    """The engine is asked directly; a proxy would see its key, and may not reach it."""

    def proxy_route_for(*args: Any, **kwargs: Any) -> Any:
        return None if _to_engine.get() else original(*args, **kwargs)

    return proxy_route_for


def _wrap_stream(original: Callable[..., Any]) -> Callable[..., Any]:
    def stream(self: Any, request: Any) -> Any:
        call = harmless("opening an lm15 call", lambda: _open(request))
        if call is None:
            return original(self, request)
        request, translation = _to_engine_request(request, call)
        token = _to_engine.set(call.endpoint is not None)
        try:
            response = original(self, request)
        except BaseException as error:
            _fail(call, error)
            raise
        finally:
            _to_engine.reset(token)
        tee = _Tee(call, response, translation)
        release, response._chunks = response._release, tee.iterate(response._chunks)

        def finish_and_release(consumed: bool) -> None:
            tee.finish()
            release(consumed)

        response._release = finish_and_release
        return response

    return stream


def _wrap_stream_async(original: Callable[..., Any]) -> Callable[..., Any]:
    async def _do_stream(self: Any, request: Any) -> Any:
        call = harmless("opening an lm15 call", lambda: _open(request))
        if call is None:
            return await original(self, request)
        request, translation = _to_engine_request(request, call)
        token = _to_engine.set(call.endpoint is not None)
        try:
            response = await original(self, request)
        except BaseException as error:
            _fail(call, error)
            raise
        finally:
            _to_engine.reset(token)
        tee = _Tee(call, response, translation)
        release, response._chunks = response._release, tee.aiterate(response._chunks)

        async def finish_and_release(consumed: bool) -> None:
            tee.finish()
            await release(consumed)

        response._release = finish_and_release
        return response

    return _do_stream


def _open(request: Any) -> OpenCall | None:
    path = urlsplit(request.url).path
    return open_call("lm15", path) if request.method.upper() == "POST" and path.endswith(tuple(_PATHS)) else None


def _fail(call: OpenCall, error: BaseException) -> None:
    harmless("closing a failed lm15 call", lambda: call.fail(error, unreachable=isinstance(error, Exception)))


def _to_engine_request(request: Any, call: OpenCall) -> tuple[Any, Translation | None]:
    """The request as it goes out, and what makes of the reply what the caller expects."""
    # Not harmless either: a rollout that spoke with other prompts than its candidate's would be scored as if it did.
    if call.candidate is not None and (prompted := call.with_prompts_bytes(request.body)) is not request.body:
        headers = [each for each in request.headers if each[0].lower() != "content-length"]
        request = replace(request, headers=headers, body=prompted)
    if call.endpoint is None:
        call.note_request(request.body)
        return request, None
    # Not harmless on purpose: a trainable call that went elsewhere would train on another model's tokens.
    body = json.loads(request.body)
    translate = next(made for end, made in _PATHS.items() if urlsplit(request.url).path.endswith(end))
    translation = translate(body, call.rollout_id) if translate else None
    call.note_request(json.dumps(call.rewrite(translation.chat if translation else body)).encode())
    url = f"{call.endpoint.url}/chat/completions"
    return replace(request, url=url, headers=_headers(request, call), body=call.request), translation


def _headers(request: Any, call: OpenCall) -> list[tuple[str, str]]:
    kept = [(name, value) for name, value in request.headers if name.lower() in _PUBLIC]
    return [*kept, *call.headers().items()]


class _Tee:
    """Reads a response to its end, and finishes the call at its release."""

    def __init__(self, call: OpenCall, response: Any, translation: Translation | None) -> None:
        self._status = response.status
        self._reader = ReplyReader(call, response.status, response.header("content-type") or "", translation)

    def iterate(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            yield self._reader.feed(chunk)  # lm15 leaves out what is empty
        yield self._reader.end()

    async def aiterate(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            yield self._reader.feed(chunk)
        yield self._reader.end()

    def finish(self) -> None:
        error = ConnectionError(f"HTTP {self._status}") if self._status >= 400 else None
        self._reader.finish(error, unreachable=self._status >= 500)
