"""The seam for the OpenAI SDK, 2.x and 3.x: every call of every framework that uses it passes here.

A request is rewritten in `_build_request` and its reply captured in `_process_response`, because every tool that also
patches the SDK leaves those two alone. `request` only opens and closes the call around retries and errors. The
calling thread keeps the raw bytes and nothing else.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

from lightning_sdk.errors import UnsupportedVersion
from lightning_sdk.patches import Patches
from lightning_sdk.seam import OpenCall, open_call
from lightning_sdk.sink import harmless, say_once
from lightning_sdk.speaking import require

#: Paths of calls to a model, by how they end.
_PATHS = ("/chat/completions", "/completions", "/responses")
#: Only these can be sent to an engine that returns token ids.
_TRAINABLE_PATHS = ("/chat/completions", "/completions")
#: What a user's client puts on a request for its own provider, and no engine of ours should see.
_PRIVATE_HEADERS = frozenset({b"api-key", b"openai-organization", b"openai-project", b"cookie"})
_KEY = "lightning_call"

_open: ContextVar[tuple[OpenCall, Any] | None] = ContextVar("lightning_openai_call", default=None)


def instrument(patches: Patches) -> None:
    """Patch the OpenAI SDK; run by `lightning_sdk.init()` once `openai` is imported."""
    from openai import __version__, _base_client  # noqa: PLC0415 - loaded only where the user has openai

    needed = [(_base_client.SyncAPIClient, "request"), (_base_client.AsyncAPIClient, "request"),
              (_base_client.BaseClient, "_build_request"), (_base_client.SyncAPIClient, "_process_response"),
              (_base_client.AsyncAPIClient, "_process_response")]  # fmt: skip
    require("openai", "2.20", "4")
    if missing := [name for owner, name in needed if not hasattr(owner, name)]:
        raise UnsupportedVersion(f"openai {__version__} has no {', '.join(missing)}; pip install 'openai>=2.20,<4'")
    patches.wrap(_base_client.BaseClient, "_build_request", _building)
    for base, bracket, process in (
        (_base_client.SyncAPIClient, _requesting, _processing),
        (_base_client.AsyncAPIClient, _arequesting, _aprocessing),
    ):
        patches.wrap(base, "_process_response", process)
        # Other tools may have put their own `request` on a subclass; ours must still be the outermost.
        for owner in (base, *(each for each in _subclasses(base) if "request" in vars(each))):
            patches.wrap(owner, "request", bracket)


def _subclasses(owner: type[Any]) -> Iterator[type[Any]]:
    for each in owner.__subclasses__():
        yield each
        yield from _subclasses(each)


def _opened(options: Any) -> OpenCall | None:
    path = options.url.split("?")[0]
    if options.method.lower() != "post" or not path.endswith(_PATHS):
        return None
    call = open_call("openai", path if path.startswith("/") else urlsplit(path).path)
    if call is not None and call.endpoint is not None and not path.endswith(_TRAINABLE_PATHS):
        say_once(
            f"responses {call.role}",
            "lightning: role %r speaks the Responses API, which gives no token ids: its calls are recorded but cannot "
            "be trained on; use chat.completions in this agent",
            call.role,
        )
        call.endpoint = None
    return call


# --- request: open, and close on errors


def _requesting(original: Callable[..., Any]) -> Callable[..., Any]:
    def request(self: Any, cast_to: Any, options: Any, **kwargs: Any) -> Any:
        call = None if _reentered(options) else harmless("opening an OpenAI call", lambda: _opened(options))
        if call is None:
            return original(self, cast_to, options, **kwargs)
        token = _open.set((call, options))
        try:
            return original(self, cast_to, options, **kwargs)
        except BaseException as error:
            _failed(call, error)
            raise
        finally:
            _open.reset(token)

    return request


def _arequesting(original: Callable[..., Any]) -> Callable[..., Any]:
    async def request(self: Any, cast_to: Any, options: Any, **kwargs: Any) -> Any:
        call = None if _reentered(options) else harmless("opening an OpenAI call", lambda: _opened(options))
        if call is None:
            return await original(self, cast_to, options, **kwargs)
        token = _open.set((call, options))
        try:
            return await original(self, cast_to, options, **kwargs)
        except BaseException as error:
            _failed(call, error)
            raise
        finally:
            _open.reset(token)

    return request


def _reentered(options: Any) -> bool:
    """Both a subclass's `request` and its base's are ours: only the outer one opens the call."""
    opened = _open.get()
    return opened is not None and opened[1] is options


def _failed(call: OpenCall, error: BaseException) -> None:
    response = getattr(error, "response", None)
    reply = getattr(response, "content", b"") if response is not None else b""
    status = getattr(error, "status_code", 0) or 0
    unreachable = status >= 500 or type(error).__name__ in {"APIConnectionError", "APITimeoutError"}
    harmless("closing a failed OpenAI call", lambda: call.fail(error, status, reply, unreachable=unreachable))


# --- _build_request: rewrite


def _building(original: Callable[..., Any]) -> Callable[..., Any]:
    def _build_request(self: Any, options: Any, **kwargs: Any) -> Any:
        opened = _open.get()
        # Without `request` (another tool hid it from us) the call opens here.
        call = opened[0] if opened else harmless("opening an OpenAI call", lambda: _opened(options))
        if call is None or not options.url.split("?")[0].endswith(_PATHS):
            return original(self, options, **kwargs)
        if call.endpoint is not None:
            # Not harmless on purpose: a trainable call that went elsewhere would train on another model's tokens.
            options = _redirected(options, call)
        request = original(self, options, **kwargs)
        if call.endpoint is not None:
            _scrub(request, call.endpoint.key)
        request.extensions[_KEY] = call
        call.request = request.content
        return request

    return _build_request


def _redirected(options: Any, call: OpenCall) -> Any:
    """A copy of the request's options that goes to the engine and asks for what training needs."""
    assert call.endpoint is not None
    body = dict(options.json_data) if isinstance(options.json_data, Mapping) else {}
    body.update(options.extra_json or {})
    chat = options.url.split("?")[0].endswith("/chat/completions")
    copy = options.model_copy()
    copy.json_data, copy.extra_json = call.rewritten(body, chat=chat), None
    copy.url = call.endpoint.url + ("/chat/completions" if chat else "/completions")
    return copy


def _scrub(request: Any, key: str) -> None:
    """Replace the user's credentials by `key` and drop their query (Azure's api-version): this goes to our engine."""
    request.headers["authorization"] = f"Bearer {key}"
    for name, _ in list(request.headers.raw):  # one pass: each look-up of a name is one as well
        if name.lower() in _PRIVATE_HEADERS:
            del request.headers[name.decode()]
    if request.url.query:
        request.url = request.url.copy_with(query=None)


# --- _process_response: capture


def _processing(original: Callable[..., Any]) -> Callable[..., Any]:
    def _process_response(self: Any, *, response: Any, **kwargs: Any) -> Any:
        harmless("capturing an OpenAI reply", lambda: _capture(response))
        return original(self, response=response, **kwargs)

    return _process_response


def _aprocessing(original: Callable[..., Any]) -> Callable[..., Any]:
    async def _process_response(self: Any, *, response: Any, **kwargs: Any) -> Any:
        harmless("capturing an OpenAI reply", lambda: _capture(response))
        return await original(self, response=response, **kwargs)

    return _process_response


def _capture(response: Any) -> None:
    call = response.request.extensions.pop(_KEY, None)
    if call is None:
        return
    if response.is_closed:  # read as a whole already
        reply = response.content
        call.streamed = reply.startswith(b"data:")
        call.finish(reply, response.status_code)
    else:
        _Tee(call, response)


class _Tee:
    """What has passed through a response that is read piece by piece, until its end, its close, or its loss."""

    def __init__(self, call: OpenCall, response: Any) -> None:
        call.streamed = "text/event-stream" in response.headers.get("content-type", "")
        self._call, self._status = call, response.status_code
        self._parts: list[bytes] = []
        self._complete = self._pulling = self._finished = False
        # A subclass and not closures on the instance: those would be a cycle, and an abandoned response, with its
        # connection, would live until the next garbage collection.
        response.lightning_tee = self
        response.__class__ = _teed(type(response))  # type: ignore[arg-type]
        weakref.finalize(response, self.finish).atexit = False

    def iterate(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        try:
            while True:
                self._pulling = True
                try:
                    chunk = next(chunks)
                except StopIteration:
                    self._complete = True
                    return
                finally:
                    self._pulling = False
                self._parts.append(chunk)
                yield chunk
        finally:
            self.finish()

    async def aiterate(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        try:
            while True:
                self._pulling = True
                try:
                    chunk = await anext(chunks)
                except StopAsyncIteration:
                    self._complete = True
                    return
                finally:
                    self._pulling = False
                self._parts.append(chunk)
                yield chunk
        finally:
            self.finish()

    def closed(self) -> None:
        if not self._pulling:  # a response closes itself while its last chunk is pulled; that is no early close
            self.finish()

    def finish(self) -> None:
        if self._finished:  # the end, the close and the loss of one response all come here
            return
        self._finished = True
        reply, self._parts = b"".join(self._parts), []
        if self._complete or b"data: [DONE]" in reply[-64:]:  # the SDK stops reading at [DONE]
            harmless("closing an OpenAI stream", lambda: self._call.finish(reply, self._status))
        else:
            early = {"status": "cancelled", "error": "closed before its end"}
            harmless("closing an OpenAI stream", lambda: self._call.finish(reply, self._status, **early))


@functools.cache
def _teed(kind: Any) -> Any:
    """The response class `kind` (httpx's or httpx2's), telling its tee what passes."""

    class Response(kind):  # type: ignore[misc]
        lightning_tee: _Tee

        def iter_bytes(self, *args: Any, **kwargs: Any) -> Iterator[bytes]:
            return self.lightning_tee.iterate(super().iter_bytes(*args, **kwargs))

        def aiter_bytes(self, *args: Any, **kwargs: Any) -> AsyncIterator[bytes]:
            return self.lightning_tee.aiterate(super().aiter_bytes(*args, **kwargs))

        def close(self) -> None:
            super().close()
            self.lightning_tee.closed()

        async def aclose(self) -> None:
            await super().aclose()
            self.lightning_tee.closed()

    Response.__name__, Response.__qualname__, Response.__module__ = kind.__name__, kind.__qualname__, kind.__module__
    return Response
