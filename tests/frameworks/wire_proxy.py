"""The wire: a recording HTTP proxy before the real engine, and the user's own provider for calls that are not trained.

Requests to `/engine/...` pass to the engine as they are, key included. Requests to `/v1/...` are the provider's: any
key and any model will do, what the engine does not offer is left out, and the same request gets the same answer.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from lightning_sdk.trace.scope import Endpoint
from tests.frameworks.exchange import Exchange
from tests.frameworks.scripted import Said


def _private(name: str) -> Any:
    """A second copy of a module of the standard library, which no integration patches."""
    spec = importlib.util.find_spec(name)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


#: The wire forwards requests in the process of the agent, whose own use of http.client is watched.
HTTPConnection = _private("http.client").HTTPConnection
#: What the engine takes of a provider's request.
_TAKEN = (
    "messages",
    "tools",
    "temperature",
    "top_p",
    "n",
    "stream",
    "stream_options",
    "stop",
    "seed",
    "logprobs",
    "top_logprobs",
    "prompt",
)
#: A provider's answers are short: the model babbles where it cannot calculate.
_LONGEST = 48
#: With it the model calls a tool named `calculator` when it is asked to calculate, and then says the result.
SEED = 3
#: Other protocols of a provider, by how their path ends, and the module that puts them in terms of chat completions.
_TRANSLATED = {"/responses": "responses", "/messages": "messages"}


class Wire:
    """Both faces on one port. `exchanges` has every request in the order in which they came."""

    def __init__(self, engine: Endpoint) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self.reset()
        wire = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                wire._serve(self)

            def do_GET(self) -> None:
                wire._serve(self)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign] # clients that hang up are part of it
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def reset(self) -> None:
        """Forget what was seen and what was dictated."""
        self.exchanges: list[Exchange] = []
        self._failing: deque[int] = deque()
        self._script: deque[Said] = deque()
        self.answer: Callable[[Exchange], Said | None] = lambda _: None
        """Looks at a request and dictates its reply; None leaves it to the engine."""

    # --- for tests

    @property
    def root(self) -> str:
        """http://127.0.0.1:PORT, for clients that add /v1 themselves, such as Anthropic's."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def url(self) -> str:
        """The provider's base URL, for the user's own client: `OpenAI(base_url=wire.url, api_key="any")`."""
        return f"{self.root}/v1"

    @property
    def endpoint(self) -> Endpoint:
        """The engine behind the wire, as training names it to a rollout."""
        return Endpoint(f"{self.root}/engine/v1", self._engine.model, self._engine.key)

    @property
    def engine(self) -> list[Exchange]:
        """What went to the engine as trained calls."""
        return [each for each in self.exchanges if each.face == "engine"]

    @property
    def provider(self) -> list[Exchange]:
        """What went where the user's client always sent it."""
        return [each for each in self.exchanges if each.face == "provider"]

    def fail(self, *statuses: int) -> None:
        """Answer the next POST requests with these statuses, such as `fail(500, 400)`."""
        self._failing.extend(statuses)

    def script(self, *replies: Said) -> None:
        """Answer the next POST requests, of either face, with these."""
        self._script.extend(replies)

    def clear(self) -> list[Exchange]:
        """What was seen so far; from now on it is forgotten."""
        with self._lock:
            seen, self.exchanges = self.exchanges, []
        return seen

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    # --- serving

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        length = handler.headers["content-length"]
        body = handler.rfile.read(int(length)) if length else _unchunk(handler)
        face = "engine" if handler.path.startswith("/engine/") else "provider"
        exchange = Exchange(face, handler.command, handler.path, list(handler.headers.items()), body)
        with self._lock:
            self.exchanges.append(exchange)
            failing = self._failing.popleft() if self._failing and handler.command == "POST" else 0
        try:
            if failing:
                _whole(handler, exchange, failing, _error(f"the wire was told to answer {failing}"))
            else:
                self._answer(handler, exchange)
        except (BrokenPipeError, ConnectionResetError):
            exchange.cut = handler.close_connection = True

    def _answer(self, handler: BaseHTTPRequestHandler, exchange: Exchange) -> None:
        path = exchange.path.split("?")[0]
        if exchange.face == "engine":
            headers = {name: value for name, value in exchange.headers if name.lower() not in _HOP}
            self._pass(handler, exchange, path.removeprefix("/engine"), exchange.body, headers, None)
            return
        if exchange.method == "POST" and path.endswith("enerateContent"):
            self._generate_content(handler, exchange)
            return
        target = next((end for end in ("/chat/completions", "/completions") if path.endswith(end)), "")
        kind = next((end for end in _TRANSLATED if path.endswith(end)), "")
        if exchange.method != "POST" or not (target or kind):
            _whole(handler, exchange, 404, _error(f"this provider has no {exchange.method} {path}"))
            return
        translation = None
        asked = exchange.json
        if kind:
            module = importlib.import_module(f"lightning_sdk.translation.{_TRANSLATED[kind]}")
            translation = module.translate(asked)
            asked = translation.chat
        headers = {"Authorization": f"Bearer {self._engine.key}", "Content-Type": "application/json"}
        passed = json.dumps(self._offer(asked)).encode()
        self._pass(handler, exchange, f"/v1{target or '/chat/completions'}", passed, headers, translation)

    def _generate_content(self, handler: BaseHTTPRequestHandler, exchange: Exchange) -> None:
        """Google's API, which says only what is dictated."""
        said = self._next_scripted(exchange) or Said("42")
        exchange.scripted = True
        if "stream" in exchange.path:
            _stream(handler, exchange, said.google_events())
        else:
            _whole(handler, exchange, 200, json.dumps(said.google_body()).encode())

    def _offer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """What the engine offers of a provider's request, with a seed: the same request gets the same answer."""
        body = {name: asked[name] for name in _TAKEN if asked.get(name) is not None}
        if asked.get("tool_choice") == "none":
            body["tool_choice"] = "none"
        limit = asked.get("max_completion_tokens") or asked.get("max_tokens") or _LONGEST
        return {"seed": SEED, **body, "max_tokens": min(limit, _LONGEST), "model": self._engine.model}

    def _next_scripted(self, exchange: Exchange) -> Said | None:
        with self._lock:
            if self._script:
                return self._script.popleft()
        return self.answer(exchange)

    def _pass(
        self,
        handler: BaseHTTPRequestHandler,
        exchange: Exchange,
        path: str,
        body: bytes,
        headers: dict[str, str],
        translation: Any,
    ) -> None:
        """The engine's reply, or the dictated one, on to the client; in the client's protocol if there is another."""
        if exchange.method == "POST" and (said := self._next_scripted(exchange)) is not None:
            exchange.scripted, asked = True, json.loads(body)
            if asked.get("stream"):
                _stream(handler, exchange, _translate(said.events(asked), translation))
            else:
                reply = said.body(asked)
                _whole(handler, exchange, 200, translation.reply(reply, 200) if translation else reply)
            return
        connection = HTTPConnection("127.0.0.1", int(self._engine.url.split(":")[2].split("/")[0]), timeout=60)
        with contextlib.closing(connection):
            connection.request(exchange.method, path, body, headers)
            response = connection.getresponse()
            if "text/event-stream" in (response.getheader("content-type") or ""):
                _stream(handler, exchange, _translate(iter(lambda: response.read1(65536), b""), translation))
            else:
                reply = response.read()
                reply = translation.reply(reply, response.status) if translation else reply
                _whole(handler, exchange, response.status, reply)


#: Headers that are about one connection.
_HOP = frozenset({"host", "content-length", "connection", "transfer-encoding", "accept-encoding", "keep-alive"})


def _whole(handler: BaseHTTPRequestHandler, exchange: Exchange, status: int, reply: bytes) -> None:
    exchange.status, exchange.reply = status, reply  # before it is sent: a test may look as soon as it has it
    handler.send_response(status)
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", str(len(reply)))
    handler.send_header("retry-after-ms", "1")
    handler.end_headers()
    handler.wfile.write(reply)


def _stream(handler: BaseHTTPRequestHandler, exchange: Exchange, chunks: Iterable[bytes]) -> None:
    exchange.status = 200
    handler.send_response(200)
    handler.send_header("content-type", "text/event-stream")
    handler.send_header("transfer-encoding", "chunked")
    handler.end_headers()
    for chunk in chunks:
        exchange.reply += chunk
        handler.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
        handler.wfile.flush()
    handler.wfile.write(b"0\r\n\r\n")


def _translate(chunks: Iterator[bytes], translation: Any) -> Iterator[bytes]:
    for chunk in chunks:
        if out := translation.feed(chunk) if translation else chunk:
            yield out
    if translation and (rest := translation.end()):
        yield rest


def _unchunk(handler: BaseHTTPRequestHandler) -> bytes:
    """A body in transfer encoding, as some clients stream it; b'' without one."""
    if "chunked" not in (handler.headers["transfer-encoding"] or ""):
        return b""
    parts = []
    while size := int(handler.rfile.readline(), 16):
        parts.append(handler.rfile.read(size))
        handler.rfile.readline()
    handler.rfile.readline()
    return b"".join(parts)


def _error(message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": "told", "param": None, "code": None}}).encode()
