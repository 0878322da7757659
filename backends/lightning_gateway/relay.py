"""The relay: passes a request on to the engine or the provider, and the reply back as it arrives.

Bytes are recorded before they are passed on, so a reply that the caller has read is always recorded. Calls that are not
trained pass unchanged in both directions. The reply of a trained call keeps the engine's token ids and
log-probabilities, which clients ignore: removing them would mean buffering and rewriting every event of a stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from aiohttp import web

from lightning_gateway.caller import Caller
from lightning_gateway.paths import refuse_beyond_models, refuse_climbing
from lightning_gateway.recording import Recording
from lightning_gateway.refusal import Refused
from lightning_gateway.upstream import Headers, Upstream, engine_headers, proxy_for, reply_headers, request_headers
from lightning_sdk.capture.seam import SEEN, OpenCall, open_call
from lightning_sdk.errors import BudgetSpent, Untranslatable
from lightning_sdk.trace.scope import use_scope
from lightning_sdk.translation import Translation, messages, responses
from lightning_sdk.translation.sse import MEDIA_TYPE

#: End of the path of a call to a model -> the function that translates it to chat completions; None if it needs no
#: translation, because engines have this endpoint.
CALLS = {
    "/chat/completions": None,
    "/completions": None,
    "/v1/responses": responses.translate,
    "/v1/messages": messages.translate,
}
_SEEN = {SEEN: True}
"""Marks these requests as captured, for the SDK's patches in this process."""
_CONNECT_SECONDS = 20.0
_KEEP_ALIVE_SECONDS = 4.0
"""How long an idle connection is kept: less than servers keep theirs (uvicorn: 5 s), so that none closes just as a
request is sent."""


class CutOff(Exception):
    """The upstream's reply broke off after part of it had been passed back."""


class _Running:
    """The task that serves one request, and may then serve another one of the same connection."""

    def __init__(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self.over = False

    def stop(self) -> None:
        """Cancel the task unless its request is over. The caller sees the reply break off. Thread-safe."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nothing runs any more
            self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None and not self.over:
            self._task.cancel()


class Relay:
    """Passes requests on. Belongs to one event loop."""

    def __init__(self, upstream: Upstream, timeout: float) -> None:
        """`timeout`: seconds without any data after which a call fails."""
        self._upstream, self._timeout = upstream, timeout
        limits = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=_CONNECT_SECONDS, sock_read=timeout)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_SECONDS),
            timeout=limits,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )

    async def close(self) -> None:
        await self._session.close()

    async def __call__(self, request: web.Request, caller: Caller, *, anthropic: bool) -> web.StreamResponse:
        """Answer `request` with the reply of the engine or the provider. Refused if there is none."""
        refuse_climbing(caller.path)
        if caller.grant is not None and not caller.has_key:
            refuse_beyond_models(request.method, caller.path)
        url = self._upstream.url(caller.path, request.rel_url.raw_query_string, anthropic=anthropic)
        credential = self._upstream.credential(anthropic=anthropic) if caller.grant is not None else None
        kind = call_kind(request.method, caller.path)
        headers = request_headers(request.raw_headers, credential, own=caller.has_key, recorded=kind is not None)
        if kind is None:
            return await self._forward(request, caller, url, headers)
        body = await request.read()
        with use_scope(caller.scope):
            call = open_call("gateway", caller.path)
        if call is None:
            return await self._exchange(request, url, proxy_for(url), headers, body, None, None)
        return await self._record(request, caller, kind, call, url, headers, body)

    async def _forward(self, request: web.Request, caller: Caller, url: str, headers: Headers) -> web.StreamResponse:
        endpoint, proxy = caller.scope.endpoint(), proxy_for(url)
        if endpoint is not None and request.method == "GET" and caller.path.startswith("/v1/models"):
            shown = {"authorization": f"Bearer {endpoint.key}"}
            url, proxy, headers = endpoint.url + caller.path[3:], None, engine_headers(request.headers, shown)
        body = request.content if request.can_read_body else None
        return await self._exchange(request, url, proxy, headers, body, None, None)

    async def _record(
        self, request: web.Request, caller: Caller, kind: str, call: OpenCall, url: str, headers: Headers, body: bytes
    ) -> web.StreamResponse:
        running = _Running()
        recording, grant = Recording(call, running.stop), caller.grant
        if grant is not None and not grant.begin_call(recording):
            raise Refused(404, "this rollout has ended", "rollout_not_found")
        try:
            translation, proxy = None, proxy_for(url)
            if (prompted := call.with_prompts_bytes(body)) is not body:
                body, headers = prompted, [each for each in headers if each[0].lower() != "content-length"]
            call.request = body
            if call.endpoint is not None:
                body, translation = _rewrite(call, kind, body)
                place = "/completions" if kind == "/completions" else "/chat/completions"
                # Without a proxy, which would see the engine's key and may not reach the engine.
                url, proxy, headers = call.endpoint.url + place, None, engine_headers(request.headers, call.headers())
            _note_request(call, body)
            return await self._exchange(request, url, proxy, headers, body, recording, translation)
        except Refused as refused:
            recording.fail(refused, unreachable=refused.status in {502, 504})
            raise
        except ConnectionError:
            raise  # the caller has disconnected: recorded as cancelled
        except Exception as error:
            recording.fail(error, unreachable=False)
            raise
        finally:
            running.over = True
            recording.close()
            if grant is not None:
                grant.finish_call(recording)

    async def _exchange(
        self,
        request: web.Request,
        url: str,
        proxy: str | None,
        headers: Headers,
        body: Any,
        recording: Recording | None,
        translation: Translation | None,
    ) -> web.StreamResponse:
        """Send a request and pass the reply back. Refused if it fails before anything has been passed back."""
        try:
            reply = await self._session.request(
                request.method,
                url,
                headers=headers,
                data=body,
                allow_redirects=False,
                proxy=proxy,
                trace_request_ctx=_SEEN,
            )
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError) as error:
            raise _unreachable(url, error) from error
        except TimeoutError as error:
            raise Refused(
                504,
                f"{_place(url)} sent nothing for {self._timeout:g} s; raise the limit with --timeout",
                "upstream_timeout",
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise _unreachable(url, error) from error
        try:
            if recording is not None:
                recording.status, recording.length = reply.status, reply.content_length
                recording.encoding = reply.headers.get("content-encoding", "").lower()
                recording.call.streamed = MEDIA_TYPE in reply.headers.get("content-type", "")
            if translation is None:
                return await self._pass_back(request, reply, recording)
            assert recording is not None
            return await self._translate_back(request, reply, recording, translation)
        finally:
            reply.close()

    async def _pass_back(
        self, request: web.Request, reply: aiohttp.ClientResponse, recording: Recording | None
    ) -> web.StreamResponse:
        headers = reply_headers(reply.raw_headers)
        response = web.StreamResponse(status=reply.status, reason=reply.reason, headers=headers)
        await response.prepare(request)
        async for chunk in _chunks(reply, recording):
            await response.write(chunk)
        await response.write_eof()
        return response

    async def _translate_back(
        self, request: web.Request, reply: aiohttp.ClientResponse, recording: Recording, translation: Translation
    ) -> web.StreamResponse:
        """Pass the engine's reply back in the caller's protocol. The engine's original bytes are recorded."""
        if not recording.call.streamed:
            try:
                whole = b"".join([chunk async for chunk in _chunks(reply, recording)])
            except CutOff as error:
                raise _unreachable(str(reply.url), error) from error
            body = translation.reply(whole, reply.status)
            return web.Response(body=body, status=reply.status, content_type="application/json")
        response = web.StreamResponse(headers={"content-type": MEDIA_TYPE, "cache-control": "no-cache"})
        await response.prepare(request)
        async for chunk in _chunks(reply, recording):
            if passed := translation.feed(chunk):
                await response.write(passed)
        if passed := translation.end():
            await response.write(passed)
        await response.write_eof()
        return response


def call_kind(method: str, path: str) -> str | None:
    """The kind of call to a model, a key of `CALLS`; None if the request is not one."""
    return next((kind for kind in CALLS if method == "POST" and path.endswith(kind)), None)


def _note_request(call: OpenCall, body: bytes) -> None:
    """The request leaves now. Refused if the run's budget does not allow it, with a status that nobody tries again."""
    try:
        call.note_request(body)
    except BudgetSpent as spent:
        raise Refused(402, str(spent), "budget_spent") from None


def _rewrite(call: OpenCall, kind: str, body: bytes) -> tuple[bytes, Translation | None]:
    """The request for the engine, and the translation for its reply."""
    try:
        parsed = json.loads(body)
    except ValueError as error:
        raise Refused(400, f"the request's body is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise Refused(400, f"the request's body is a JSON {type(parsed).__name__}: expected an object")
    translate = CALLS[kind]
    try:
        translation = translate(parsed, call.rollout_id) if translate is not None else None
    except Untranslatable as error:
        raise Refused(400, str(error), "untranslatable") from error
    chat = translation.chat if translation is not None else parsed
    return json.dumps(call.rewrite(chat, chat=kind != "/completions")).encode(), translation


async def _chunks(reply: aiohttp.ClientResponse, recording: Recording | None) -> AsyncIterator[bytes]:
    """The reply as it arrives. Each piece is recorded before it is yielded, and so is the end."""
    try:
        async for chunk in reply.content.iter_any():
            if recording is not None:
                recording.feed(chunk)
            yield chunk
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        if recording is not None:
            recording.fail(error, unreachable=True)
        raise CutOff(f"its reply broke off: {error or type(error).__name__}") from error
    if recording is not None:
        recording.close(complete=True)


def _unreachable(url: str, error: Exception) -> Refused:
    why = str(error) or type(error).__name__
    return Refused(
        502,
        f"{_place(url)} cannot be reached: {why}; start that server, or name another with --upstream",
        "upstream_unreachable",
    )


def _place(url: str) -> str:
    return url.split("?", maxsplit=1)[0]
