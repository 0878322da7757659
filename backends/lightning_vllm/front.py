"""The front: the one address of several vLLM servers. It holds requests while weights change and loses none.

A rollout stays with one server, for its prefix cache. A request whose server dies before the client has received any of
the reply is sent again; so is one that `drain` cancels. A stream that the client has partly read cannot be sent again:
its connection is aborted, which the SDK counts as an infrastructure failure, and the hub retries the rollout.

Versions: a reply is stamped with the version of the weights at the moment its request was sent to a server. After
`hold` and `drain` no reply spans an update and the stamp is exact. Where requests are kept through an update instead
(vLLM's pause with mode=keep), the stamp is the lowest version of their tokens, never a higher one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import aiohttp
import orjson
from aiohttp import web

from lightning_process.openai import application
from lightning_process.refusal import BadRequest, Unavailable, json_reply, unknown_model
from lightning_sdk.capture.seam import ROLLOUT_HEADER
from lightning_sdk.results.quantity import quantity
from lightning_vllm.in_flight import InFlight, Recalled, ServerLost, relay
from lightning_vllm.pool import Pool, PooledServer, ServerAddress, UpstreamCounts
from lightning_vllm.request_info import RequestInfo, refuse_constraints

__all__ = ["Counts", "Front", "ServerAddress", "UpstreamCounts"]

#: How long a request waits for a server that is down, and the time between checks.
_PATIENCE_SECONDS, _POLL_SECONDS = 600.0, 0.05
#: A request that was in progress at this many failures is not sent again: it may be their cause.
_MOST_LOSSES = 3
#: For the health check of a server that lost a request.
_HEALTH_TIMEOUT = aiohttp.ClientTimeout(total=5.0)
#: Below the 5 s after which servers by default close an idle connection, so that few pooled connections are closed.
_KEEP_ALIVE_SECONDS = 4.0
#: Time between checks for requests whose client has disconnected.
_REAP_SECONDS = 0.25


class Counts(NamedTuple):
    """The load of a front."""

    waiting: int
    """Requests that are not at a server yet."""
    in_flight: int
    upstreams: tuple[UpstreamCounts, ...]


class Front:
    """OpenAI's API over a pool of servers. Everything but `app` may be called by any thread."""

    def __init__(
        self,
        key: str,
        model: str,
        *,
        patience: float = _PATIENCE_SECONDS,
        keep_alive: float = _KEEP_ALIVE_SECONDS,
    ) -> None:
        """`key`: required from callers; `model`: the name that they ask for; `patience`: seconds that a request waits
        for a server to come back before it is answered with 503; `keep_alive`: seconds for which an idle connection to
        a server stays open, less than the server's own limit."""
        self.constrain: Callable[[bytes], bytes] = refuse_constraints
        """Rewrites a request that constrains its answer into one that a server can serve, or raises BadRequest."""
        self._key, self._model, self._patience, self._keep_alive = key, model, patience, keep_alive
        self._created = int(time.time())
        self._pool = Pool()
        self._version = 0
        self._served = self._held = False
        self._failure = ""
        self._open, self._idle = asyncio.Event(), asyncio.Event()
        self._idle.set()
        self._in_flight: set[InFlight] = set()
        self._waiting = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._session: aiohttp.ClientSession | None = None

    def app(self) -> web.Application:
        """As `lightning_process.openai.application`."""
        app = application(
            self._key,
            health=self._health,
            models=self._models,
            model=self._card_of,
            chat=self._complete,
            completions=self._complete,
        )
        app.cleanup_ctx.append(self._running)
        return app

    # --- called from any thread

    def serve(self, upstreams: Sequence[ServerAddress], version: int) -> None:
        """Send requests to these servers, with weights of this version. Before the first call all requests wait."""

        def serve() -> None:
            self._pool.replace(upstreams)
            self._version, self._served = version, True
            self._update_gate()

        self._in_loop(serve)

    def hold(self) -> None:
        """Let new requests wait from now on. Those at a server continue."""
        self._in_loop(lambda: self._set_held(True))

    def drain(self, seconds: float) -> int:
        """After `hold`, wait until no server has a request. Those left after `seconds` are cancelled, and sent again
        after `resume`. Returns their number. Not to be called from the event loop's thread."""
        if self._loop is None:
            return 0
        return asyncio.run_coroutine_threadsafe(self._drain(seconds), self._loop).result()

    def resume(self, version: int) -> None:
        """Continue; requests from now on are answered by this version."""

        def resume() -> None:
            self._version = version
            self._set_held(False)

        self._in_loop(resume)

    def fail(self, why: str) -> None:
        """No server will answer any more: answer every request with 503, including those that wait."""

        def fail() -> None:
            self._failure = why
            self._open.set()

        self._in_loop(fail)

    @property
    def version(self) -> int:
        """Version of the weights that answer new requests."""
        return self._version

    def counts(self) -> Counts:
        return Counts(self._waiting, len(self._in_flight), self._pool.counts())

    # --- called from the event loop's thread

    def _set_held(self, held: bool) -> None:
        self._held = held
        self._update_gate()

    def _update_gate(self) -> None:
        if self._served and not self._held:
            self._open.set()
        else:
            self._open.clear()

    def _in_loop(self, change: Callable[[], None]) -> None:
        """Make a change in the event loop, and wait until it is made."""
        loop = self._loop
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if loop is None or loop is here:
            change()
            return

        async def in_loop() -> None:
            change()

        asyncio.run_coroutine_threadsafe(in_loop(), loop).result()

    async def _running(self, app: web.Application) -> AsyncIterator[None]:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=self._keep_alive)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10.0)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
        self._loop = asyncio.get_running_loop()
        reaper = asyncio.create_task(self._reap())
        yield
        reaper.cancel()
        self._loop = None
        await self._session.close()

    async def _drain(self, seconds: float) -> int:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        left = list(self._in_flight)
        for call in left:
            call.cut = True
            call.task.cancel()
        await self._idle.wait()
        return len(left)

    async def _reap(self) -> None:
        """Cancel requests whose client has disconnected: aiohttp does not tell handlers that are not writing."""
        while True:
            await asyncio.sleep(_REAP_SECONDS)
            for call in list(self._in_flight):
                if _has_hung_up(call.request):
                    call.task.cancel()

    async def _health(self, request: web.Request) -> web.Response:
        counts = self.counts()
        status = "failed" if self._failure else "held" if self._held else "ok" if self._served else "starting"
        state = {
            "status": status,
            "failure": self._failure,
            "model": self._model,
            "version": self._version,
            "waiting": counts.waiting,
            "in_flight": counts.in_flight,
            "upstreams": [each._asdict() for each in counts.upstreams],
        }
        return json_reply(orjson.dumps(state), 200 if self._served and not self._failure else 503)

    async def _models(self, request: web.Request) -> web.Response:
        return json_reply(orjson.dumps({"object": "list", "data": [self._card()]}))

    async def _card_of(self, request: web.Request) -> web.Response:
        if (model := request.match_info["model"]) != self._model:
            raise unknown_model(model, self._model)
        return json_reply(orjson.dumps(self._card()))

    def _card(self) -> dict[str, Any]:
        return {"id": self._model, "object": "model", "created": self._created, "owned_by": "lightning"}

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        asked = RequestInfo(await request.read())
        if asked.model != self._model:
            if not isinstance(asked.model, str):
                raise BadRequest("model: expected a string", "model", "invalid_value")
            raise unknown_model(asked.model, self._model)
        if asked.is_constrained:
            asked.data = self.constrain(asked.data)
        until, losses, last = 0.0, 0, None
        while True:
            try:
                server = await self._wait_for_server(request, asked, until)
                if server is None:
                    return web.Response(status=499)  # the client is gone
                return await self._ask(request, asked.data, server)
            except Recalled:
                until = 0.0
            except ServerLost as lost:
                losses += lost.sent
                last = lost if last is None or lost.sent else last
                until = until or time.monotonic() + self._patience
                if losses >= _MOST_LOSSES or time.monotonic() > until:
                    return _give_up(last, losses)

    async def _wait_for_server(self, request: web.Request, asked: RequestInfo, until: float) -> PooledServer | None:
        """Wait until the front is open and a server is available. None if the client disconnects meanwhile."""
        self._waiting += 1
        try:
            while True:
                await self._open.wait()
                if self._failure:
                    raise Unavailable(self._failure)
                if _has_hung_up(request):
                    return None
                server = self._pool.choose(self._pin(request, asked))
                if server is not None and (not server.doubtful or await self._probe(server)):
                    return server
                until = until or time.monotonic() + self._patience
                if time.monotonic() > until:
                    raise ServerLost(f"no server of the model was available for {self._patience:g} s", sent=False)
                await asyncio.sleep(_POLL_SECONDS)
        finally:
            self._waiting -= 1

    async def _probe(self, server: PooledServer) -> bool:
        """Check whether a server that lost a request is healthy. If its engine is dead, it would lose every request."""
        assert self._session is not None
        url = f"{server.upstream.url.removesuffix('/v1')}/health"
        try:
            async with self._session.get(url, timeout=_HEALTH_TIMEOUT) as reply:
                server.doubtful = reply.status >= 500
        except (aiohttp.ClientError, ConnectionError, TimeoutError):
            server.doubtful = True
        if server.doubtful:
            server.rest()
        return not server.doubtful

    def _pin(self, request: web.Request, asked: RequestInfo) -> str:
        if not self._pool.has_several:
            return ""
        return request.headers.get(ROLLOUT_HEADER) or asked.conversation()

    async def _ask(self, request: web.Request, body: bytes, server: PooledServer) -> web.StreamResponse:
        """Let `server` answer. ServerLost if it does not, Recalled if `drain` cancelled the request."""
        task = asyncio.current_task()
        assert task is not None and self._session is not None
        call = InFlight(request, server, self._version, task)
        self._in_flight.add(call)
        self._idle.clear()
        server.in_flight += 1
        server.asked += 1
        url = server.upstream.url + request.path.removeprefix("/v1")
        try:
            async with self._session.post(url, data=body, headers=server.headers) as reply:
                return await relay(call, reply)
        except asyncio.CancelledError:
            if not call.cut:
                raise
            task.uncancel()
            if call.response is not None:
                return call.break_off(call.response)
            raise Recalled from None
        except ServerLost:
            server.lose()
            raise
        except aiohttp.ClientConnectorError as error:
            server.lose()
            server.rest()
            raise ServerLost(f"{server.upstream.url} cannot be reached: {error}", sent=False) from None
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            server.lose()
            raise ServerLost(f"{server.upstream.url} broke off: {type(error).__name__}: {error}", sent=True) from None
        finally:
            server.in_flight -= 1
            self._in_flight.discard(call)
            if not self._in_flight:
                self._idle.set()


def _has_hung_up(request: web.Request) -> bool:
    """Whether the client has disconnected."""
    return request.transport is None or request.transport.is_closing()


def _give_up(lost: ServerLost, losses: int) -> web.Response:
    """503, or the server's own error, marked so that the client's SDK does not retry."""
    if lost.reply is None:
        raise Unavailable(f"{lost} (sent {quantity(losses, 'time')})" if losses else str(lost))
    lost.reply.headers["x-should-retry"] = "false"
    return lost.reply
