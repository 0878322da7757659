"""A request at a server of the pool, and its reply on the way to the client."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
from aiohttp import web

from lightning_process.refusal import json_reply
from lightning_sdk.translation.sse import MEDIA_TYPE
from lightning_vllm.pool import PooledServer
from lightning_vllm.version_stamp import StampedStream, stamp_versions


class ServerLost(Exception):
    """A server did not answer a request, or answered with a server error."""

    def __init__(self, why: str, *, sent: bool, reply: web.Response | None = None) -> None:
        super().__init__(why)
        self.sent, self.reply = sent, reply


class Recalled(Exception):
    """`drain` cancelled a request, which is to be sent again."""


class InFlight:
    """A request at a server."""

    __slots__ = ("cut", "request", "response", "server", "task", "version")

    def __init__(self, request: web.Request, server: PooledServer, version: int, task: asyncio.Task[Any]) -> None:
        self.request, self.server, self.version, self.task = request, server, version, task
        self.cut = False
        self.response: web.StreamResponse | None = None
        """The response, once the client has received part of a stream."""

    def break_off(self, response: web.StreamResponse) -> web.StreamResponse:
        """Abort a stream, so that nobody takes the part that arrived for the whole."""
        if self.request.transport is not None:
            self.request.transport.abort()
        return response


async def relay(call: InFlight, reply: aiohttp.ClientResponse) -> web.StreamResponse:
    """Pass a server's reply on to the client, with version stamps. ServerLost for a server error."""
    if reply.status == 200 and reply.content_type == MEDIA_TYPE:
        return await _relay_stream(call, reply)
    body = await reply.read()
    if reply.status == 200:
        return json_reply(stamp_versions(body, call.version))
    answer = web.Response(body=body, status=reply.status, content_type=reply.content_type)
    if reply.status >= 500:
        call.server.rest()
        why = f"{call.server.upstream.url} answered {reply.status}: {body[:300]!r}"
        raise ServerLost(why, sent=True, reply=answer)
    return answer


async def _relay_stream(call: InFlight, reply: aiohttp.ClientResponse) -> web.StreamResponse:
    """Relay events as they arrive. Nothing is sent before the first complete one, so that the request can be sent
    again until then."""
    stream = StampedStream(call.version)
    try:
        async for piece in reply.content.iter_any():
            if events := stream.feed(piece):
                await _write(call, events)
        if rest := stream.end():
            await _write(call, rest)
    except (aiohttp.ClientError, ConnectionError):
        if call.response is None:
            raise
        call.server.lose()
        return call.break_off(call.response)
    if call.response is None:
        raise aiohttp.ServerDisconnectedError("the stream had no events")
    await call.response.write_eof()
    return call.response


async def _write(call: InFlight, events: bytes) -> None:
    if (response := call.response) is None:
        response = web.StreamResponse(headers={"Content-Type": MEDIA_TYPE, "Cache-Control": "no-cache"})
        await response.prepare(call.request)
        call.response = response
    await response.write(events)
