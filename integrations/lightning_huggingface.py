"""The seam for `InferenceClient` and `AsyncInferenceClient` of huggingface_hub, which smolagents, LangChain, LlamaIndex
and others call models with.

Every call passes `_inner_post`, which sends it through an HTTP client that all calls of the process share. So the call
is opened around `_inner_post`, and during it the client is replaced by one that only sends this call.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from lightning_sdk.integration import (
    SEEN,
    OpenCall,
    Patches,
    UnaskedFields,
    Untranslatable,
    effective_scope,
    harmless,
    open_call,
    require_version,
    route_to_engine,
    tap,
)

_CHAT = "/chat/completions"
_DISTRIBUTION = "huggingface-hub"


def instrument(patches: Patches) -> None:
    """Run by `lightning_sdk.init()` once `InferenceClient` is imported. Tested with 1.0, 1.33 and 2.4."""
    require_version(_DISTRIBUTION, "1.0", "3")
    from huggingface_hub.inference import _client  # noqa: PLC0415 - only where the user has it

    patches.wrap(_client.InferenceClient, "_inner_post", _wrap_post)
    patches.wrap(_client, "get_session", _wrap_get_session)


def instrument_async(patches: Patches) -> None:
    """Run once `AsyncInferenceClient` is imported."""
    require_version(_DISTRIBUTION, "1.0", "3")
    from huggingface_hub.inference._generated import _async_client  # noqa: PLC0415 - only where the user has it

    patches.wrap(_async_client.AsyncInferenceClient, "_inner_post", _wrap_post_async)
    patches.wrap(_async_client.AsyncInferenceClient, "_get_async_client", _wrap_get_client)


class _ChatRequest:
    """A chat completion on its way."""

    def __init__(self, call: OpenCall, parameters: Any) -> None:
        """`parameters`: of `_inner_post`, as the caller gave them."""
        self._call = call
        self._translation: UnaskedFields | None = None
        if call.candidate is not None and (prompted := call.with_prompts(parameters.json)) is not parameters.json:
            parameters = replace(parameters, json=prompted)
        self.parameters = parameters
        """As they are to be sent."""
        if call.endpoint is not None:
            self._translation = UnaskedFields(parameters.json)
            body = call.rewrite(self._translation.chat)
            self.parameters = replace(parameters, url=call.endpoint.url + _CHAT, json=body)

    def build(self, client: Any, method: str, url: str, options: dict[str, Any]) -> Any:
        """The request, in the HTTP client's terms."""
        request = client.build_request(method, url, **options)
        request.extensions[SEEN] = True
        self._call.note_request(request.content)
        if self._call.endpoint is not None:
            route_to_engine(client, request, self._call.headers())
        return request

    def capture(self, response: Any) -> None:
        """Keep what passes through the response; an error's is raised as one."""
        if response.status_code >= 400:
            return
        if self._translation is None:
            harmless("capturing a reply", lambda: tap(self._call, response))
        else:
            tap(self._call, response, self._translation)

    def fail(self, error: BaseException) -> None:
        harmless("closing a failed call of huggingface_hub", lambda: self._fail(error))

    def _fail(self, error: BaseException) -> None:
        response = getattr(error, "response", None)
        status = 0 if response is None else response.status_code
        # Of a stream's error huggingface_hub has read the body by now, to word its own.
        reply = getattr(response, "_content", b"")
        unreachable = status >= 500 or (not status and isinstance(error, Exception))
        self._call.fail(error, status, reply, unreachable=unreachable)


_under_way: ContextVar[_ChatRequest | None] = ContextVar("lightning_huggingface", default=None)


def _begin(parameters: Any) -> _ChatRequest | None:
    """None for what is not a chat completion, or is not to be recorded."""
    path = urlsplit(parameters.url).path
    if parameters.task == "text-generation" and effective_scope().endpoint() is not None:
        raise Untranslatable(
            "text_generation() of huggingface_hub has no equivalent in chat completions, which trained roles use: call "
            "chat_completion() in the role that is trained"
        )
    if parameters.task != "conversational" or not path.endswith(_CHAT) or parameters.json is None:
        return None
    call: OpenCall | None = harmless("opening a call of huggingface_hub", lambda: open_call("huggingface_hub", path))
    # Not harmless on purpose: a trainable call that went elsewhere would train on another model's tokens.
    return None if call is None else _ChatRequest(call, parameters)


def _wrap_post(original: Callable[..., Any]) -> Callable[..., Any]:
    def _inner_post(self: Any, request_parameters: Any, **options: Any) -> Any:
        sending = _begin(request_parameters)
        if sending is None:
            return original(self, request_parameters, **options)
        token = _under_way.set(sending)
        try:
            return original(self, sending.parameters, **options)
        except BaseException as error:
            sending.fail(error)
            raise
        finally:
            _under_way.reset(token)

    return _inner_post


def _wrap_post_async(original: Callable[..., Any]) -> Callable[..., Any]:
    async def _inner_post(self: Any, request_parameters: Any, **options: Any) -> Any:
        sending = _begin(request_parameters)
        if sending is None:
            return await original(self, request_parameters, **options)
        token = _under_way.set(sending)
        try:
            return await original(self, sending.parameters, **options)
        except BaseException as error:
            sending.fail(error)
            raise
        finally:
            _under_way.reset(token)

    return _inner_post


def _wrap_get_session(original: Callable[..., Any]) -> Callable[..., Any]:
    def get_session() -> Any:
        client, sending = original(), _under_way.get()
        return client if sending is None else _Session(client, sending)

    return get_session


def _wrap_get_client(original: Callable[..., Any]) -> Callable[..., Any]:
    async def _get_async_client(self: Any) -> Any:
        client, sending = await original(self), _under_way.get()
        return client if sending is None else _AsyncSession(client, sending)

    return _get_async_client


class _Session:
    """What `_inner_post` uses of an HTTP client, for one call."""

    def __init__(self, client: Any, sending: _ChatRequest) -> None:
        self._client, self._sending = client, sending

    @contextmanager
    def stream(self, method: str, url: str, **options: Any) -> Iterator[Any]:
        response = self._client.send(self._sending.build(self._client, method, url, options), stream=True)
        try:
            self._sending.capture(response)
            yield response
        finally:
            response.close()


class _AsyncSession:
    """The same for `AsyncInferenceClient`."""

    def __init__(self, client: Any, sending: _ChatRequest) -> None:
        self._client, self._sending = client, sending

    @asynccontextmanager
    async def stream(self, method: str, url: str, **options: Any) -> AsyncIterator[Any]:
        response = await self._client.send(self._sending.build(self._client, method, url, options), stream=True)
        try:
            self._sending.capture(response)
            yield response
        finally:
            await response.aclose()

    async def post(self, url: str, **options: Any) -> Any:
        response = await self._client.send(self._sending.build(self._client, "POST", url, options))
        self._sending.capture(response)
        return response
