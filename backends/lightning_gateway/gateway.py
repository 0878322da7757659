"""The gateway: an HTTP server in its own thread, from its start to its end."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import secrets
import threading
import urllib.request
from collections.abc import Awaitable, Callable

from aiohttp import web

from lightning_gateway.caller import caller
from lightning_gateway.grant import Grant, Grants
from lightning_gateway.refusal import Refused, response
from lightning_gateway.relay import CutOff, Relay
from lightning_gateway.rollouts import RolloutRoutes
from lightning_gateway.upstream import Upstream
from lightning_sdk.errors import LightningError, PortInUse
from lightning_sdk.system.addresses import BACKLOG
from lightning_sdk.system.web_pages import refusal
from lightning_sdk.trace.scope import Scope

log = logging.getLogger("lightning_gateway")

MAX_BODY_BYTES = 128 * 2**20
"""Longer requests to a model are refused with 413. Other requests of any length are streamed."""
_MAX_HEADER_BYTES = 64 * 1024
_GRACE_SECONDS = 1.0
"""Time for running calls to end by themselves when the gateway is closed."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Gateway:
    """Serves from its creation until `close`."""

    def __init__(
        self,
        upstream: str | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        role: str = "",
        token: str = "",
        timeout: float = 600.0,
    ) -> None:
        """Start serving.

        Args:
            upstream: Where calls go that are not trained; by default where OPENAI_BASE_URL and ANTHROPIC_BASE_URL
                say, else OpenAI and Anthropic.
            host: Address to listen on.
            port: 0 for a free one.
            role: Role of calls without one.
            token: Required to begin a rollout over HTTP; generated if empty.
            timeout: Seconds without any data after which a call to an upstream fails.

        Raises:
            PortInUse: the port is taken.
            SettingError: `upstream` is not a URL.
        """
        self.upstream = Upstream(upstream)
        self.token = token or secrets.token_urlsafe(24)
        self._role, self._timeout = role, timeout
        self._grants = Grants()
        self._rollouts = RolloutRoutes(self._grants, self.token, self._environment)
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._ready: threading.Event = threading.Event()
        self._failure: OSError | None = None
        self._port = port
        self._thread = threading.Thread(target=self._run, args=(host,), name="lightning-gateway", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            self._thread.join()
            raise _cannot_listen(host, port, self._failure) from self._failure
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self._port}"

    def environment(self, scope: Scope) -> dict[str, str]:
        """Environment variables that make a program's calls part of `scope`."""
        if scope.rollout is None:  # never ends: use one grant for each role, not for each turn of an agent
            scope = Scope(
                role=scope.role, trainable=scope.trainable, named=scope.named, framework_roles=scope.framework_roles
            )
        return self._environment(self._grants.of(scope))

    def close(self) -> None:
        """Stop serving. Running calls get a second to end before they are cancelled; rollouts begun by request end.
        Idempotent."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()

    def _environment(self, grant: Grant) -> dict[str, str]:
        base = f"{self.url}/rollout/{grant.key}"
        variables = {
            "OPENAI_BASE_URL": f"{base}/v1",
            "OPENAI_API_BASE": f"{base}/v1",
            "OPENAI_API_KEY": grant.key,
            "ANTHROPIC_BASE_URL": base,
            "ANTHROPIC_API_KEY": grant.key,
            "LIGHTNING_ROLLOUT_URL": f"{self.url}/rollouts/{grant.key}",
        }
        if urllib.request.getproxies():  # otherwise a client would ask the proxy for this machine
            before = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
            away = ",".join(filter(None, [before, self.url.split("//")[1].rpartition(":")[0]]))
            variables |= {"NO_PROXY": away, "no_proxy": away}
        return variables

    # --- the thread

    def _run(self, host: str) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve(host))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()
            self._ready.set()

    async def _serve(self, host: str) -> None:
        relay = Relay(self.upstream, self._timeout)
        runner = web.AppRunner(
            self._app(relay),
            access_log=None,
            handle_signals=False,
            handler_cancellation=True,
            auto_decompress=False,
            shutdown_timeout=_GRACE_SECONDS,
            max_line_size=_MAX_HEADER_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
        )
        try:
            await runner.setup()
            await web.TCPSite(runner, host, self._port, backlog=BACKLOG).start()
            self._port = runner.addresses[0][1]
            self._ready.set()
            await self._stopping.wait()
        except OSError as error:
            self._failure = error
        finally:
            await runner.cleanup()
            self._rollouts.abandon()
            await relay.close()

    def _app(self, relay: Relay) -> web.Application:
        async def model(request: web.Request) -> web.StreamResponse:
            who = caller(self._grants, request.rel_url.raw_path, request.headers, self._role)
            if request.headers.get("upgrade", "").lower() == "websocket":
                raise Refused(501, "the gateway does not support websockets: use the HTTP API", "websocket")
            return await relay(request, who, anthropic=_anthropic(request))

        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_guard])
        self._rollouts.add_to(app)
        app.router.add_route("*", "/{path:.*}", model)
        return app


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Return every error in the format of the caller's protocol."""
    try:
        if why := refusal(request.headers, _local(request)):
            raise Refused(403, why, "not_for_pages")
        return await handler(request)
    except Refused as refused:
        return response(refused, anthropic=_anthropic(request))
    except web.HTTPRequestEntityTooLarge:
        message = f"the request is longer than {MAX_BODY_BYTES // 2**20} MiB"
        return response(Refused(413, message), anthropic=_anthropic(request))
    except CutOff as error:
        log.warning("lightning: %s: %s", request.path, error)
        if request.transport is not None:
            request.transport.abort()  # the caller sees what we saw: a truncated reply
        return web.Response()
    except ConnectionError:
        return web.Response()  # the caller has disconnected: nobody reads this
    except web.HTTPException:
        raise
    except Exception as error:
        log.exception("lightning: the gateway failed at %s", request.path)
        return response(Refused(500, f"the gateway failed: {error!r}"), anthropic=_anthropic(request))


def _local(request: web.Request) -> str:
    """The address of this machine at which a request arrived."""
    name = request.transport.get_extra_info("sockname") if request.transport is not None else None
    return str(name[0]) if name else ""


def _anthropic(request: web.Request) -> bool:
    return "anthropic-version" in request.headers or request.path.endswith(("/v1/messages", "/messages/count_tokens"))


def _cannot_listen(host: str, port: int, error: OSError) -> LightningError:
    if error.errno == errno.EADDRINUSE:
        return PortInUse(f"{host}:{port} is in use by another process: choose another port, or --port 0 for a free one")
    return LightningError(f"the gateway cannot listen on {host}:{port}: {error}")
