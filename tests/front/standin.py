"""A stand-in for a vLLM server, on a real socket: answers as vLLM does, and fails as it is told to.

The tests of the front use it where a real vLLM (tests/vllm) could not be made to fail at the very moment that matters.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from lightning_vllm.front import Front, ServerAddress

KEY = "server-key"


class StandIn:
    """Answers each request with `words` tokens, after `gate` lets it."""

    def __init__(self, name: str) -> None:
        self.name, self.words = name, 3
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.behave: Callable[[web.Request], str] = lambda _: ""
        """What to do instead of answering: '', 'reset', 'half' or '500'."""
        self.well = True
        """What its /health says."""
        self.upstream = ServerAddress("", KEY)

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._answer)
        app.router.add_post("/v1/completions", self._answer)
        app.router.add_get("/health", self._health)
        return app

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(status=200 if self.well else 503)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        while not self.gate.is_set():
            await asyncio.sleep(0.005)
        failure = self.behave(request)
        if failure == "reset":
            assert request.transport is not None
            request.transport.abort()
        if failure == "500":
            return web.json_response(
                {"error": {"message": "the engine died", "type": "InternalServerError"}}, status=500
            )
        if body.get("stream"):
            return await self._stream(request, failure)
        ids = list(range(self.words))
        message = {"role": "assistant", "content": f'{self.name} says "token_ids":[7] and so on'}
        choices = [
            {"index": n, "message": message, "finish_reason": "stop", "token_ids": ids} for n in range(body.get("n", 1))
        ]
        text = json.dumps({"id": "x", "model": body["model"], "choices": choices, "prompt_token_ids": [1, 2]})
        if failure == "half":
            half = web.StreamResponse(headers={"Content-Length": str(len(text)), "Content-Type": "application/json"})
            await half.prepare(request)
            await half.write(text[: len(text) // 2].encode())
            assert request.transport is not None
            request.transport.abort()
            return half
        return web.Response(text=text, content_type="application/json")

    async def _stream(self, request: web.Request, failure: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number in range(self.words):
            choice = {"index": 0, "delta": {"content": self.name}, "token_ids": [number], "finish_reason": None}
            event = b"data: " + json.dumps({"id": "x", "choices": [choice]}).encode() + b"\n\n"
            await response.write(event[:20])
            await asyncio.sleep(0.002)  # pieces end where they will
            await response.write(event[20:])
            if failure == "half":
                await asyncio.sleep(0.05)
                assert request.transport is not None
                request.transport.abort()
        await response.write(b"data: [DONE]\n\n")
        return response


@contextmanager
def listening(app: web.Application) -> Iterator[str]:
    """The address of an application that is served by a separate thread."""
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]] = Future()

    async def run() -> None:
        runner, stop = web.AppRunner(app, shutdown_timeout=0.1), asyncio.Event()
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        started.set_result((asyncio.get_running_loop(), stop, runner.addresses[0][1]))
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    loop, stop, port = started.result()
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


@contextmanager
def stand_in(name: str) -> Iterator[StandIn]:
    made = StandIn(name)
    with listening(made.app()) as url:
        made.upstream = ServerAddress(url, KEY)
        yield made
        made.gate.set()


@contextmanager
def fronting(front: Front) -> Iterator[str]:
    with listening(front.app()) as url:
        yield url
