"""The seam for google-genai, the SDK with which Google's own models are called, also by the Agent Development Kit.

Every attempt of a call passes `_request_once`, over whichever HTTP client. Engines do not offer this API, so a call is
recorded and has its rollout's prompts, and is never sent to an engine.
"""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from lightning_sdk.integration import (
    OpenCall,
    Patches,
    ReplyReader,
    UnsupportedVersion,
    cover_requests,
    harmless,
    open_call,
    require_version,
    say_once,
)

_MODEL_PATH = re.compile(r":(stream)?generateContent$", re.IGNORECASE)
_READER = "lightning_reader"


def instrument(patches: Patches) -> None:
    """Run by `lightning_sdk.init()` once google-genai is imported."""
    require_version("google-genai", "2.0", "4")
    from google.genai import _api_client  # noqa: PLC0415 - loaded only where the user has it

    client, response = _api_client.BaseApiClient, _api_client.HttpResponse
    wraps = (
        (client, "_request_once", _wrap_request),
        (client, "_async_request_once", _wrap_request_async),
        (response, "_iter_response_stream", _wrap_stream),
        (response, "_aiter_response_stream", _wrap_stream_async),
    )
    if missing := [name for owner, name, _ in wraps if not hasattr(owner, name)]:
        raise UnsupportedVersion(f"this google-genai has no {', '.join(missing)}; pip install 'google-genai>=2,<4'")
    for owner, name, wrap in wraps:
        patches.wrap(owner, name, wrap)


def _wrap_request(original: Callable[..., Any]) -> Callable[..., Any]:
    def _request_once(self: Any, http_request: Any, *args: Any, **kwargs: Any) -> Any:
        if (call := _try_open(http_request)) is None:
            return original(self, http_request, *args, **kwargs)
        http_request = _prepare(call, http_request)
        try:
            with cover_requests():
                response = original(self, http_request, *args, **kwargs)
        except BaseException as error:
            _fail(call, error)
            raise
        harmless("capturing a reply of google-genai", lambda: _capture(call, response))
        return response

    return _request_once


def _wrap_request_async(original: Callable[..., Any]) -> Callable[..., Any]:
    async def _async_request_once(self: Any, http_request: Any, *args: Any, **kwargs: Any) -> Any:
        if (call := _try_open(http_request)) is None:
            return await original(self, http_request, *args, **kwargs)
        http_request = _prepare(call, http_request)
        try:
            with cover_requests():
                response = await original(self, http_request, *args, **kwargs)
        except BaseException as error:
            _fail(call, error)
            raise
        harmless("capturing a reply of google-genai", lambda: _capture(call, response))
        return response

    return _async_request_once


def _try_open(request: Any) -> OpenCall | None:
    call: OpenCall | None = harmless("opening a call of google-genai", lambda: _open(request))
    return call


def _open(request: Any) -> OpenCall | None:
    path = urlsplit(request.url).path
    call = open_call("google_genai", path) if _MODEL_PATH.search(path) and isinstance(request.data, dict) else None
    if call is not None and call.endpoint is not None:
        say_once(
            f"google-genai {call.role}",
            "lightning: role %r calls a model with google-genai, whose API no engine offers: the call is recorded but "
            "not trained on; call the model with the OpenAI SDK or LiteLLM in this role",
            call.role,
        )
        call.endpoint = None
    return call


def _prepare(call: OpenCall, request: Any) -> Any:
    """The request as it goes out. Not harmless: a rollout with other prompts than its candidate's would be scored as
    if it had them."""
    if (body := call.with_prompts(request.data)) is not request.data:
        request = replace(request, data=body)
    call.note_request(json.dumps(body).encode())
    return request


def _capture(call: OpenCall, response: Any) -> None:
    """A reply that was read whole, or one that is read later, event by event."""
    if isinstance(whole := response.response_stream, list):
        call.finish("".join(whole).encode())
        return
    reader = ReplyReader(call, 200, "text/event-stream", None)
    setattr(response, _READER, reader)
    still_here = weakref.WeakMethod(reader.finish)
    call.when_cut_short(lambda: (finish := still_here()) and finish())


def _wrap_stream(original: Callable[..., Any]) -> Callable[..., Any]:
    def _iter_response_stream(self: Any) -> Iterator[str]:
        reader: ReplyReader | None = getattr(self, _READER, None)
        if reader is None:
            yield from original(self)
            return
        with reader:
            for data in original(self):
                reader.feed(_event(data))
                yield data
            reader.end()

    return _iter_response_stream


def _wrap_stream_async(original: Callable[..., Any]) -> Callable[..., Any]:
    async def _aiter_response_stream(self: Any) -> AsyncIterator[str]:
        reader: ReplyReader | None = getattr(self, _READER, None)
        if reader is None:
            async for data in original(self):
                yield data
            return
        with reader:
            async for data in original(self):
                reader.feed(_event(data))
                yield data
            reader.end()

    return _aiter_response_stream


def _event(data: str) -> bytes:
    """What the SDK has read of an event, as an event again."""
    return "".join(f"data: {line}\n" for line in data.split("\n")).encode() + b"\n"


def _fail(call: OpenCall, error: BaseException) -> None:
    def close() -> None:
        code, details = getattr(error, "code", 0), getattr(error, "details", None)
        reply = json.dumps(details).encode() if isinstance(details, dict | list) else b""
        call.fail(error, code if isinstance(code, int) else 0, reply)

    harmless("closing a failed call of google-genai", close)
