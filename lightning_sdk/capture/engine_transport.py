"""The way to the engine: a transport in the caller's own HTTP client (httpx or httpx2) that only trained calls take.

It lies below everything that the caller has put around its own provider: proxies, transports, hooks, `auth`, cookies,
.netrc. Here the caller's credentials are removed, after the last of these has added its own, and only here the engine's
key is added, so that it is never sent to another address.
"""

from __future__ import annotations

import functools
import ssl
import sys
import threading
from collections.abc import Mapping
from typing import Any

from lightning_sdk.capture.seam import ROLLOUT_HEADER

#: The extension of a request that holds the headers for the engine.
_HEADERS = "lightning_engine"
#: Headers that any engine may see. An allow-list, since gateways put keys into headers with names that only they know.
_PLAIN = (b"accept", b"connection", b"content-", b"host", b"idempotency-key", b"trace", b"user-agent", b"x-request-id",
          b"x-stainless-")  # fmt: skip
_lock = threading.Lock()


def route_to_engine(client: Any, request: Any, headers: Mapping[str, str]) -> None:
    """Let `client` send `request`, whose address is the engine's, straight there and with these headers."""
    library = _library(client)
    request.extensions[_HEADERS] = dict(headers)
    request.url = _url_type(library)(request.url.copy_with(query=None))
    with _lock:
        if not any(isinstance(pattern, _TrainedCalls) for pattern in client._mounts):
            is_async = isinstance(client, library.AsyncClient)
            transport = _transport_type(library, is_async)(
                verify=_tls_context(), limits=library.Limits(max_connections=None, max_keepalive_connections=None)
            )
            # A new dict, because other threads may be looking for the transport of their own calls in the old one.
            # The client closes its mounts with itself.
            client._mounts = {_TrainedCalls(): transport, **client._mounts}


class _EngineURL:
    """Marks the address of a trained call."""


class _TrainedCalls:
    """A pattern of `mounts` that matches the addresses of trained calls."""

    def matches(self, url: Any) -> bool:
        return isinstance(url, _EngineURL)


def _library(client: Any) -> Any:
    """httpx or httpx2, whichever `client` is from."""
    names = (kind.__module__.partition(".")[0] for kind in type(client).__mro__)
    return sys.modules[next(name for name in names if name in ("httpx", "httpx2"))]


@functools.cache
def _url_type(library: Any) -> Any:
    return type("URL", (_EngineURL, library.URL), {})


@functools.cache
def _transport_type(library: Any, is_async: bool) -> Any:
    if is_async:
        return _async_transport_type(library)

    class EngineTransport(library.HTTPTransport):  # type: ignore[misc]
        def handle_request(self, request: Any) -> Any:
            _set_headers(request)
            return super().handle_request(request)

    return EngineTransport


def _async_transport_type(library: Any) -> Any:
    import asyncio  # noqa: PLC0415 - slow to import, and not every program is asynchronous

    class AsyncEngineTransport(library.AsyncBaseTransport):  # type: ignore[misc]
        """Keeps separate connections for each event loop. A connection works only in the loop that opened it, and a
        program may use the same client in several loops."""

        def __init__(self, **options: Any) -> None:
            self._options = options
            self._of_loops: dict[Any, Any] = {}

        async def handle_async_request(self, request: Any) -> Any:
            _set_headers(request)
            return await self._transport().handle_async_request(request)

        async def aclose(self) -> None:
            """Those of this loop; another one's cannot be closed from here."""
            await self._transport().aclose()

        def _transport(self) -> Any:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:  # trio has no loops
                loop = None
            with _lock:
                if loop not in self._of_loops:
                    # Connections of a loop that has been closed can only be left to the garbage collector.
                    open_ = {each: way for each, way in self._of_loops.items() if each is None or not each.is_closed()}
                    self._of_loops = {**open_, loop: library.AsyncHTTPTransport(**self._options)}
                return self._of_loops[loop]

    return AsyncEngineTransport


@functools.cache
def _tls_context() -> ssl.SSLContext:
    return ssl.create_default_context()


def _set_headers(request: Any) -> None:
    for name, _ in request.headers.raw:  # a list of its own
        if not _is_plain(name):
            del request.headers[name.decode("latin-1")]
    request.headers.update(request.extensions[_HEADERS])


@functools.lru_cache(1024)  # a client sends the same few names each time
def _is_plain(header: bytes) -> bool:
    return header.lower().startswith((*_PLAIN, ROLLOUT_HEADER.encode()))
